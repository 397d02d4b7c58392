// Thousands of streams: what the books keep of those that are gone, what a hit costs among those that are there, and
// which streams the handles 0, 1 and 2 are. Costs are counted, in driver calls and allocations of host memory.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "support/failing_new.hpp"
#include "support/machine.hpp"
#include "support/race_detector.hpp"
#include "support/sheltered_driver.hpp"

namespace gmlake::test {
namespace {

using gmlake::testing::FailingNew;
using gmlake::testing::held_allocations;
using gmlake::testing::NoFailingNew;

// Checks that recount everything take some of them.
#if defined(__SANITIZE_ADDRESS__) || (GMLAKE_CHECK_LEVEL >= 2)
constexpr std::uint64_t kStreams = 200;
#else
constexpr std::uint64_t kStreams = 2000;
#endif

constexpr std::uint64_t kLarge = 3 * kGranule;
constexpr std::uint64_t kSmall = 1000;

// The driver's own host memory, which grows with every stream that the simulation has seen, is not counted.
class ManyStreams : public ::testing::Test {
 protected:
  explicit ManyStreams(std::uint64_t granules = 16384) : model_(small_model(granules)), sheltered_(model_) {
    allocator_ = std::move(Allocator::create(sheltered_, {.background_worker = false})).value();
  }
  void TearDown() override {
    allocator_->check();
    model_.streams().advance_all();
    allocator_.reset();
    EXPECT_EQ(model_.usage(), driver::Usage{});
    EXPECT_EQ(model_.streams().live_events(), 0u);
    EXPECT_TRUE(model_.streams().violations().empty());
    EXPECT_EQ(model_.streams().synchronizations(), 0u);
  }

  void* allocate(std::uint64_t bytes, std::uint64_t stream) {
    const Result<void*> pointer = allocator_->try_allocate(bytes, 0, stream_handle(stream));
    EXPECT_TRUE(pointer.ok()) << describe(pointer.error());
    return pointer.ok() ? *pointer : nullptr;
  }
  void deallocate(void* pointer, std::uint64_t stream) {
    EXPECT_TRUE(allocator_->try_deallocate(pointer, stream_handle(stream)).ok());
  }
  void use(const void* pointer, std::uint64_t bytes, std::uint64_t stream) {
    const NoFailingNew driver;
    EXPECT_TRUE(model_.launch({0, stream}, {{address_of(pointer), bytes, true}}).ok());
  }

  driver::ModelDriver model_;
  testing::ShelteredDriver sheltered_;
  std::unique_ptr<Allocator> allocator_;
};

class ScarceManyStreams : public ManyStreams {
 protected:
  ScarceManyStreams() : ManyStreams(40) {}
};

// Each is new, takes memory, has its memory used by the one after it, and is destroyed.
TEST_F(ManyStreams, LeaveNoMoreBooksBehindWhenThreeTimesAsManyCame) {
  std::int64_t held_before = 0;
  Overhead before;
  std::uint64_t addresses_before = 0;
  for (std::uint64_t stream = 10; stream < 10 + 3 * kStreams; ++stream) {
    void* large = allocate(kLarge, stream);
    void* small = allocate(kSmall, stream);
    ASSERT_TRUE(allocator_->try_record_stream(large, stream_handle(stream + 1)).ok());
    use(large, kLarge, stream + 1);
    deallocate(large, stream);
    deallocate(small, stream);
    ASSERT_TRUE(allocator_->forget_stream(stream_handle(stream)).ok());
    {
      const NoFailingNew driver;
      ASSERT_TRUE(model_.streams().destroy_stream({0, stream}).ok());
    }
    const std::uint64_t gone = stream - 9;
    if (gone != kStreams && gone != 3 * kStreams) continue;
    allocator_->check();
    const Overhead overhead = allocator_->overhead();
    if (gone == kStreams) {
      held_before = held_allocations();
      before = overhead;
      addresses_before = allocator_->stats().address_bytes;
    } else {
      EXPECT_LE(held_allocations(), held_before + 8);  // queues of marks begin a chunk now and then
      EXPECT_LE(overhead.block_metadata_bytes, before.block_metadata_bytes);
      EXPECT_LE(overhead.phy_metadata_bytes, before.phy_metadata_bytes);
      EXPECT_LE(allocator_->stats().address_bytes, addresses_before);
      EXPECT_LE(allocator_->stats().all.reserved_bytes.current, 16 * kGranule);
    }
  }
}

// A hit on another stream each time: as many driver calls as a hit on one stream, which is none, and no host memory.
TEST_F(ManyStreams, HitTheirCachesInTurnWithNoDriverCallAndNoHostMemory) {
  std::vector<void*> large(kStreams);
  std::vector<void*> small(kStreams);
  for (std::uint64_t stream = 0; stream < kStreams; ++stream) {
    large[stream] = allocate(kLarge, stream);
    small[stream] = allocate(kSmall, stream);
  }
  for (std::uint64_t stream = 0; stream < kStreams; ++stream) {
    deallocate(large[stream], stream);
    deallocate(small[stream], stream);
  }
  const std::uint64_t begin = model_.clock_ns();  // every driver call of the allocator's takes time there
  {
    const FailingNew none(1, true);
    for (std::uint64_t i = 0; i < 3 * kStreams; ++i) {
      const std::uint64_t stream = i * 7 % kStreams;
      void* hit = allocator_->try_allocate(i % 2 == 0 ? kLarge : kSmall, 0, stream_handle(stream)).value();
      if (hit != (i % 2 == 0 ? large : small)[stream]) ADD_FAILURE() << "not what stream " << stream << " had cached";
      ASSERT_TRUE(allocator_->try_deallocate(hit, stream_handle(stream)).ok());
    }
    EXPECT_FALSE(none.reached());
  }
  EXPECT_EQ(model_.clock_ns(), begin);
}

// Streams that each want a few bytes now and then do not take the same granule from each other again and again.
TEST_F(ManyStreams, OfWhichAFewTakeTurnsWithSmallRequestsMoveNothing) {
  constexpr std::uint64_t kFew = 8;
  for (std::uint64_t stream = 1; stream <= kFew; ++stream) deallocate(allocate(kSmall, stream), stream);
  const std::uint64_t stitches = allocator_->stats().stitches;
  for (std::uint64_t i = 0; i < 10 * kFew; ++i) {
    const std::uint64_t stream = 1 + i % kFew;
    deallocate(allocate(kSmall, stream), stream);
  }
  EXPECT_EQ(allocator_->stats().stitches, stitches);
  EXPECT_LE(allocator_->stats().all.reserved_bytes.current, kFew * kGranule);
}

// Nor does one whose granule has gone to a longer request.
TEST_F(ManyStreams, WithoutAGranuleTakeOneOfTheirOwnAgain) {
  for (std::uint64_t stream = 1; stream <= 2; ++stream) deallocate(allocate(kSmall, stream), stream);
  ASSERT_TRUE(allocator_->trim().ok());
  for (std::uint64_t stream = 1; stream <= 2; ++stream) deallocate(allocate(kSmall, stream), stream);
  const std::uint64_t stitches = allocator_->stats().stitches;
  for (std::uint64_t i = 0; i < 10; ++i) deallocate(allocate(kSmall, 1 + i % 2), 1 + i % 2);
  EXPECT_EQ(allocator_->stats().stitches, stitches);
}

// What they hold comes together for one request of nearly everything, however many there are.
TEST_F(ManyStreams, GiveAllOfTheirMemoryToOneRequest) {
  std::vector<void*> blocks;
  for (std::uint64_t stream = 1; stream <= kStreams; ++stream) blocks.push_back(allocate(4 * kGranule, stream));
  for (std::uint64_t stream = 1; stream <= kStreams; ++stream) deallocate(blocks[stream - 1], stream);
  const std::uint64_t held = allocator_->stats().all.reserved_bytes.current;
  ASSERT_EQ(held, 4 * kStreams * kGranule);
  void* whole = allocate(2 * held, 1);
  EXPECT_LE(allocator_->stats().all.reserved_bytes.current, 2 * held + 16 * kGranule);
  deallocate(whole, 1);
  for (std::uint64_t stream = 1; stream <= kStreams; ++stream) {  // they are known as before
    void* block = allocate(4 * kGranule, stream);
    deallocate(block, stream);
  }
}

// Null and 0 are one stream, which the host never names otherwise.
TEST_F(ManyStreams, HaveTheNullHandleForTheDefaultStream) {
  void* pointer = allocator_->allocate(kLarge);
  allocator_->deallocate(pointer);
  EXPECT_EQ(allocate(kLarge, 0), pointer);
  deallocate(pointer, 0);
  EXPECT_EQ(allocator_->allocate(kLarge, 0, nullptr), pointer);
  deallocate(pointer, 0);
}

// CU_STREAM_LEGACY is another name of the default stream, and CU_STREAM_PER_THREAD the thread's own: neither shares
// memory with the default stream, or with each other, without a fence.
TEST_F(ScarceManyStreams, PassMemoryBetweenTheHandles0And1And2BehindFences) {
  RaceDetector races(model_);
  testing::ShelteredDriver sheltered(races);
  allocator_ = std::move(Allocator::create(sheltered, {.background_worker = false})).value();
  const auto kernel = [&](const void* pointer, std::uint64_t stream) {
    races.kernel({0, stream}, std::vector<driver::Access>{{address_of(pointer), 30 * kGranule, true}});
    use(pointer, 30 * kGranule, stream);
  };
  for (std::uint64_t stream = 0; stream < 3; ++stream) model_.streams().hold({0, stream});
  std::uint64_t waits = 0;
  for (const std::uint64_t stream : {0, 1, 2, 0, 2, 1, 0}) {
    void* pointer = allocate(30 * kGranule, stream);  // all but 10 granules of the device
    kernel(pointer, stream);
    deallocate(pointer, stream);
    EXPECT_EQ(allocator_->stats().rung_stream_wait, waits++);  // the device waits, not the host
    void* again = allocate(30 * kGranule, stream);             // at once for the same handle
    EXPECT_EQ(again, pointer);
    kernel(again, stream);
    deallocate(again, stream);
  }
  EXPECT_TRUE(races.races().empty()) << describe(races.races().front());
  model_.streams().advance_all();
  races.synchronize();
  allocator_.reset();
  allocator_ = std::move(Allocator::create(sheltered_, {.background_worker = false})).value();
}

}  // namespace
}  // namespace gmlake::test
