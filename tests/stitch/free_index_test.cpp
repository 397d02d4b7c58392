// The free index against a search through all runs.
#include "stitch/free_index.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "gmlake/bytes.hpp"

namespace gmlake::stitch {
namespace {

using namespace literals;

class FreeIndexTest : public ::testing::Test {
 protected:
  Block* add(std::uint64_t bytes) {
    Block& run = runs_.emplace_back();
    run.address = next_;
    run.bytes = bytes;
    run.state = State::free;
    next_ += bytes + 512;
    index_->insert(&run);
    return &run;
  }

  // The smallest of those that are long enough; from 64 MiB on the lowest. Null: none.
  const Block* reference(std::uint64_t bytes, const std::set<Block*>& runs) const {
    const Block* best = nullptr;
    for (const Block* run : runs) {
      if (run->bytes < bytes) continue;
      const bool better =
          best == nullptr ||
          (bytes < 64_MiB && run->bytes != best->bytes ? run->bytes < best->bytes : run->address < best->address);
      if (better) best = run;
    }
    return best;
  }

  std::unique_ptr<FreeIndex> index_ = std::make_unique<FreeIndex>();
  std::deque<Block> runs_;
  Address next_ = 1_GiB;
};

// Sizes of every scale, edges of bins among them.
std::uint64_t random_bytes(std::mt19937_64& random) {
  const std::uint64_t scale = std::uint64_t{1} << (9 + random() % 20);
  std::uint64_t bytes = 0;
  switch (random() % 4) {
    case 0:
      bytes = scale;
      break;
    case 1:
      bytes = scale + 512 * (random() % 5) - 512 * std::min<std::uint64_t>(scale / 512 - 1, random() % 5);
      break;
    default:
      bytes = scale + random() % scale;
  }
  return std::max<std::uint64_t>(512, round_down(bytes, 512));
}

TEST_F(FreeIndexTest, FindsNothingInAnEmptyIndex) {
  for (const std::uint64_t bytes : {512_B, 1_MiB, 1_MiB + 512, 64_MiB - 512, 64_MiB, 1_TiB}) {
    EXPECT_EQ(index_->find(bytes), nullptr) << bytes;
  }
}

TEST_F(FreeIndexTest, FindsTheBestFitBelow64MiBAndTheLowestAbove) {
  for (const std::uint64_t seed : {1, 2, 3, 4}) {
    std::mt19937_64 random(seed);
    index_ = std::make_unique<FreeIndex>();
    runs_.clear();
    std::set<Block*> in;
    for (int step = 0; step < 4000; ++step) {
      if (in.size() < 30 && (in.empty() || random() % 2 == 0)) {  // at most kScan in all: the bound is never met
        in.insert(add(random_bytes(random)));
      } else if (random() % 3 != 0) {
        auto victim = in.begin();
        std::advance(victim, static_cast<std::ptrdiff_t>(random() % in.size()));
        index_->erase(*victim);
        in.erase(victim);
      }
      ASSERT_EQ(index_->count(), in.size());
      const std::uint64_t bytes = random_bytes(random);
      const Block* expected = reference(bytes, in);
      const Block* found = index_->find(bytes);
      ASSERT_EQ(found == nullptr, expected == nullptr) << "seed " << seed << ", step " << step << ", " << bytes;
      if (found == nullptr) continue;
      ASSERT_TRUE(in.contains(const_cast<Block*>(found)));
      if (bytes < 64_MiB) {
        ASSERT_EQ(found->bytes, expected->bytes) << "seed " << seed << ", step " << step << ", " << bytes;
        if (found->bytes > 1_MiB) {
          ASSERT_EQ(found, expected);
        }
      } else {
        ASSERT_EQ(found, expected) << "seed " << seed << ", step " << step << ", " << bytes;
      }
    }
  }
}

TEST_F(FreeIndexTest, FindsEachSizeExactlyAndNothingAByteLonger) {
  std::vector<std::uint64_t> sizes;
  for (std::uint64_t bytes = 512; bytes <= 1_MiB + 64_KiB; bytes += 512) sizes.push_back(bytes);
  for (std::uint64_t scale = 1_MiB; scale <= 256_MiB; scale *= 2) {
    for (const std::uint64_t bytes : {scale - 512, scale, scale + 512, scale + scale / 64, scale + scale / 64 - 512}) {
      sizes.push_back(round_down(bytes, 512));
    }
  }
  for (const std::uint64_t bytes : sizes) {
    Block* run = add(bytes);
    ASSERT_EQ(index_->find(bytes), run) << bytes;
    ASSERT_EQ(index_->find(512), run) << bytes;
    ASSERT_EQ(index_->find(bytes + 512), nullptr) << bytes;
    index_->erase(run);
    ASSERT_EQ(index_->find(512), nullptr) << bytes;
  }
}

TEST_F(FreeIndexTest, FindsTheLowestOfEqualRunsInABinOfSeveralSizes) {
  Block* first = add(3_MiB);
  (void)add(3_MiB);
  (void)add(3_MiB + 512);
  EXPECT_EQ(index_->find(3_MiB), first);
}

TEST_F(FreeIndexTest, LooksAtABoundedNumberOfRunsOfABinAndTakesNearlyTheBest) {
  // 40 runs of one bin (16 KiB wide at 1 MiB), the best of them inserted first and so the last in its bin.
  Block* best = add(1_MiB + 512);
  for (int i = 0; i < 40; ++i) (void)add(1_MiB + 16_KiB - 512);
  const Block* found = index_->find(1_MiB + 512);
  ASSERT_NE(found, nullptr);
  EXPECT_NE(found, best);
  EXPECT_LE(found->bytes, 1_MiB + 16_KiB - 512);  // within a 64th of the best
}

TEST_F(FreeIndexTest, FindsTheOnlyRunThatIsLongEnoughBehindManyThatAreNot) {
  Block* fits = add(1_MiB + 8_KiB);
  for (int i = 0; i < 100; ++i) (void)add(1_MiB + 512);
  EXPECT_EQ(index_->find(1_MiB + 8_KiB), fits);
  EXPECT_EQ(index_->find(1_MiB + 8_KiB + 512), nullptr);
  Block* longer = add(2_MiB);
  const Block* found = index_->find(1_MiB + 8_KiB);  // either will do: the bound on looking says which
  EXPECT_TRUE(found == fits || found == longer);
}

TEST_F(FreeIndexTest, FindsALongRunBehindManyShorterOnesOf64MiBAndMore) {
  Block* fits = add(128_MiB);
  for (int i = 0; i < 100; ++i) (void)add(64_MiB);
  EXPECT_EQ(index_->find(128_MiB), fits);
  EXPECT_EQ(index_->find(64_MiB), fits);  // the lowest
}

TEST_F(FreeIndexTest, VisitsEveryRunThatIsLongEnoughOnce) {
  std::mt19937_64 random(9);
  for (int i = 0; i < 500; ++i) (void)add(random_bytes(random));
  for (int i = 0; i < 200; ++i) {
    const std::uint64_t bytes = i == 0 ? 512 : random_bytes(random);
    std::multiset<const Block*> visited;
    index_->for_each(bytes, [&](const Block* run) { visited.insert(run); });
    std::multiset<const Block*> expected;
    for (const Block& run : runs_) {
      if (run.bytes >= bytes) expected.insert(&run);
    }
    ASSERT_EQ(visited, expected) << bytes;
  }
}

}  // namespace
}  // namespace gmlake::stitch
