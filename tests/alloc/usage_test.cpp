// Usage over many shares against counters that are kept in one place: the same numbers, and the same peaks, after every
// single change, whichever shares it was made on and whoever borrowed room from whom.
#include "alloc/usage.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>
#include <vector>

namespace gmlake::alloc {
namespace {

using SizeClass = stitch::SizeClass;

struct Peaked {
  std::uint64_t now = 0;
  std::uint64_t peak = 0;
  void change(std::uint64_t by) {  // less, modulo 2^64
    now += by;
    peak = std::max(peak, now);
  }
};

// What one pool's counters should be.
struct Plain {
  Peaked blocks, bytes, requested, active, active_bytes, cached, runs;

  void live(std::uint64_t count, std::uint64_t size, std::uint64_t asked) {
    blocks.change(count);
    bytes.change(size);
    requested.change(asked);
  }
  void all_peaks_from_now() {
    for (Peaked* each : {&blocks, &bytes, &requested, &active, &active_bytes, &cached, &runs}) each->peak = each->now;
  }
  void expect_as(const PoolStats& stats) const {
    const auto same = [](const Stat& stat, const Peaked& plain, const char* name) {
      ASSERT_EQ(stat.current, plain.now) << name;
      ASSERT_EQ(stat.peak, plain.peak) << name;
      ASSERT_EQ(stat.current, stat.allocated - stat.freed) << name;
    };
    same(stats.allocation, blocks, "allocation");
    same(stats.allocated_bytes, bytes, "allocated_bytes");
    same(stats.requested_bytes, requested, "requested_bytes");
    same(stats.active, active, "active");
    same(stats.active_bytes, active_bytes, "active_bytes");
    same(stats.inactive_split_bytes, cached, "inactive_split_bytes");
    same(stats.inactive_split, runs, "inactive_split");
  }
};

class Program {
 public:
  Program(std::uint64_t seed, std::size_t shares) : random_(seed), shares_(shares) {
    for (Usage::Share& share : shares_) usage_.attach(share);
  }

  void step() {
    const std::uint64_t dice = random_() % 100;
    if (dice < 45) {
      allocate();
    } else if (dice < 85) {
      if (!live_.empty()) free(take(live_), random_() % 8 == 0);
    } else if (dice < 92) {
      if (!pending_.empty()) complete(take(pending_));
    } else if (dice < 97) {
      recount();
    } else if (dice == 99 && random_() % 8 == 0) {
      usage_.reset_peaks();
      for (Plain& each : plain_) each.all_peaks_from_now();
    } else if (dice == 98 && random_() % 8 == 0) {
      while (!live_.empty()) free(take(live_), false);
    }
  }

  void expect_as_counted() {
    usage_.check();
    DeviceStats stats;
    usage_.read(stats);
    plain_[0].expect_as(stats.small_pool);
    plain_[1].expect_as(stats.large_pool);
    plain_[2].expect_as(stats.all);
    ASSERT_EQ(usage_.live_bytes(), plain_[2].bytes.now);
    ASSERT_EQ(usage_.active_bytes(), plain_[2].active_bytes.now);
    ASSERT_EQ(usage_.peak_live_bytes(), plain_[2].bytes.peak);
    ASSERT_EQ(usage_.freed_bytes(), freed_);
  }

  std::uint64_t borrowed() const { return borrowed_; }
  std::uint64_t settled() const { return settled_; }

 private:
  struct Block {
    std::size_t number;  // of its size class
    std::size_t share;
    std::uint64_t bytes;
    std::uint64_t requested;
  };

  static SizeClass size_class(const Block& block) { return static_cast<SizeClass>(block.number); }
  Block take(std::vector<Block>& blocks) {
    std::swap(blocks[random_() % blocks.size()], blocks.back());
    const Block block = blocks.back();
    blocks.pop_back();
    return block;
  }
  // The runs of a pool before and after a change, of which there may be one more or one less.
  std::pair<std::uint64_t, std::uint64_t> runs(std::size_t number) {
    const std::uint64_t before = 1 + plain_[number].runs.now;
    const std::uint64_t after = before + random_() % 3 - (plain_[number].runs.now == 0 ? 0 : 1);
    return {before, after};
  }
  template <class Change>
  void plainly(std::size_t number, Change&& change) {
    change(plain_[number]);
    change(plain_[2]);
  }

  // As a hit does, where no other lock can be had or any: the room of others first, now and then.
  void end_hit(std::size_t share) {
    if (!shares_[share].is_short()) return;
    for (std::size_t i = 0; i < shares_.size() && shares_[share].is_short(); ++i) {
      if (i == share || random_() % 3 == 0) continue;
      if (shares_[share].borrow(shares_[i])) ++borrowed_;
    }
    if (shares_[share].is_short()) {
      usage_.settle();
      ++settled_;
    }
  }

  void allocate() {
    // Most of the time a few shares are busy, and the others stand still.
    const Block block{random_() % 2, random_() % (random_() % 8 == 0 ? shares_.size() : (shares_.size() + 3) / 4),
                      512 + random_() % 100'000, 1 + random_() % 500};
    if (plain_[block.number].cached.now < block.bytes) {  // as the slow path puts memory there
      plainly(block.number, [&](Plain& each) { each.cached.change(block.bytes); });
      recount();
    }
    const auto [before, after] = runs(block.number);
    shares_[block.share].allocate(size_class(block), block.bytes, block.requested, before, after);
    plainly(block.number, [&, change = after - before](Plain& each) {
      each.live(1, block.bytes, block.requested);
      each.active.change(1);
      each.active_bytes.change(block.bytes);
      each.cached.change(std::uint64_t{0} - block.bytes);
      each.runs.change(change);
    });
    live_.push_back(block);
    end_hit(block.share);
  }

  void free(const Block& block, bool used_elsewhere) {
    freed_ += block.bytes;
    plainly(block.number, [&](Plain& each) {
      each.live(std::uint64_t{0} - 1, std::uint64_t{0} - block.bytes, std::uint64_t{0} - block.requested);
    });
    if (used_elsewhere) {
      usage_.defer(size_class(block), block.bytes, block.requested);
      pending_.push_back(block);
      return;
    }
    const auto [before, after] = runs(block.number);
    shares_[block.share].free(size_class(block), block.bytes, block.requested, before, after);
    give_back(block, after - before);
    end_hit(block.share);
  }
  void complete(const Block& block) {
    const auto [before, after] = runs(block.number);
    usage_.complete(size_class(block), block.bytes, before, after);
    give_back(block, after - before);
  }
  void give_back(const Block& block, std::uint64_t change) {
    plainly(block.number, [&](Plain& each) {
      each.active.change(std::uint64_t{0} - 1);
      each.active_bytes.change(std::uint64_t{0} - block.bytes);
      each.cached.change(block.bytes);
      each.runs.change(change);
    });
  }
  // The slow path made runs of one class more or less, and says what there is.
  void recount() {
    const std::size_t number = random_() % 2;
    const std::uint64_t change = random_() % 3 - std::min<std::uint64_t>(1, plain_[number].runs.now);
    plainly(number, [&](Plain& each) { each.runs.change(change); });
    usage_.recount_cached({CachedTotals{plain_[0].cached.now, plain_[0].runs.now},
                           CachedTotals{plain_[1].cached.now, plain_[1].runs.now}});
  }

  std::mt19937_64 random_;
  std::deque<Usage::Share> shares_;
  Usage usage_;
  std::array<Plain, 3> plain_;  // by size class, and both
  std::vector<Block> live_;
  std::vector<Block> pending_;
  std::uint64_t freed_ = 0;
  std::uint64_t borrowed_ = 0;
  std::uint64_t settled_ = 0;
};

TEST(Usage, HasThePeaksOfPlainCountersAfterEveryChange) {
  for (const std::size_t shares : {1, 2, 3, 8}) {
    for (std::uint64_t seed = 1; seed <= 4; ++seed) {
      SCOPED_TRACE("shares " + std::to_string(shares) + ", seed " + std::to_string(seed));
      Program program(seed, shares);
      for (int step = 0; step < 5'000; ++step) {
        program.step();
        program.expect_as_counted();
        if (::testing::Test::HasFatalFailure()) return;
      }
      EXPECT_GT(program.settled(), 10u);
      if (shares > 1) {
        EXPECT_GT(program.borrowed(), 100u);
      }
    }
  }
}

// Far below the peak the room goes to where it is needed: who grows asks a few times, not with every block.
TEST(Usage, LendsRoomByTheHalf) {
  std::deque<Usage::Share> shares(8);
  Usage usage;
  for (Usage::Share& share : shares) usage.attach(share);
  for (int i = 0; i < 1000; ++i) shares[0].allocate(SizeClass::large, 1 << 20, 1 << 20, 0, 0);
  usage.settle();
  for (int i = 0; i < 1000; ++i) shares[0].free(SizeClass::large, 1 << 20, 1 << 20, 0, 0);
  usage.settle();
  int asked = 0;
  for (int i = 0; i < 900; ++i) {
    Usage::Share& share = shares[1 + static_cast<std::size_t>(i) % 2];
    share.allocate(SizeClass::large, 1 << 20, 1 << 20, 0, 0);
    for (std::size_t lender = 0; share.is_short(); ++lender) {
      ++asked;
      ASSERT_LT(lender, shares.size());
      if (&shares[lender] != &share) (void)share.borrow(shares[lender]);
    }
  }
  EXPECT_LT(asked, 40);
  usage.check();
  DeviceStats stats;
  usage.read(stats);
  EXPECT_EQ(stats.all.allocated_bytes.peak, 1000u << 20);
}

}  // namespace
}  // namespace gmlake::alloc
