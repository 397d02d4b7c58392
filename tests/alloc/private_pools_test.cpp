// Private pools: which allocations they take, that nothing leaves them, and how their memory comes back.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <thread>
#include <vector>

#include "support/machine.hpp"

namespace gmlake::test {
namespace {

constexpr PoolId kFirst{1, 0};
constexpr PoolId kSecond{0, 2};

StreamFilter only(std::uint64_t stream) {
  return [stream](StreamHandle asked) { return asked == stream_handle(stream); };
}
StreamFilter all() {
  return [](StreamHandle) { return true; };
}

class PrivatePools : public testing::Test {
 protected:
  explicit PrivatePools(std::uint64_t granules = 256) : machine_(small_model(granules)) {}
  void TearDown() override { EXPECT_EQ(machine_.streams().synchronizations(), waits_); }

  void begin(PoolId id, StreamFilter filter) { expect_ok(allocator().begin_pool(id, 0, std::move(filter))); }
  void end(PoolId id) { expect_ok(allocator().end_pool(id, 0)); }
  void release(PoolId id) { expect_ok(allocator().release_pool(id, 0)); }
  void expect_ok(const Status& status) {
    EXPECT_TRUE(status.ok()) << describe(status.error());
    allocator().check();
  }
  Allocator& allocator() { return machine_.allocator(); }

  // The pool of the segment that holds the address.
  PoolId pool_of(const void* pointer) {
    for (const SegmentInfo& segment : segments()) {
      if (address_of(pointer) - segment.address < segment.bytes) return segment.pool;
    }
    ADD_FAILURE() << "not in any segment";
    return {};
  }
  std::vector<SegmentInfo> segments() { return allocator().snapshot().devices.at(0).segments; }
  std::uint64_t mapped_bytes(PoolId id) {
    std::uint64_t bytes = 0;
    for (const SegmentInfo& segment : segments()) bytes += segment.pool == id ? segment.mapped_bytes : 0;
    return bytes;
  }

  Machine machine_;
  std::uint64_t waits_ = 0;
};

class ScarcePrivatePools : public PrivatePools {
 protected:
  ScarcePrivatePools() : PrivatePools(40) {}
};

TEST_F(PrivatePools, TakeWhatTheirFilterChoosesWhileItLasts) {
  void* before = machine_.allocate(4 * kGranule, 1);
  begin(kFirst, only(1));
  void* large = machine_.allocate(4 * kGranule, 1);
  void* small = machine_.allocate(512, 1);
  void* other = machine_.allocate(4 * kGranule, 2);
  end(kFirst);
  void* after = machine_.allocate(4 * kGranule, 1);
  EXPECT_EQ(pool_of(large), kFirst);
  EXPECT_EQ(pool_of(small), kFirst);
  for (void* pointer : {before, other, after}) EXPECT_EQ(pool_of(pointer), PoolId{});
  for (void* pointer : {before, large, small, after}) machine_.deallocate(pointer, 1);
  machine_.deallocate(other, 2);
  release(kFirst);
}

TEST_F(PrivatePools, GiveTheirFreeMemoryToTheirOwnRequestsAlone) {
  begin(kFirst, all());
  void* pointer = machine_.allocate(10 * kGranule, 1);
  machine_.deallocate(pointer, 1);
  EXPECT_EQ(machine_.allocate(10 * kGranule, 1), pointer);
  machine_.deallocate(pointer, 1);
  end(kFirst);
  void* outside = machine_.allocate(10 * kGranule, 1);
  EXPECT_NE(outside, pointer);
  EXPECT_EQ(machine_.stats().all.reserved_bytes.current, 20 * kGranule);
  machine_.deallocate(outside, 1);
  begin(kFirst, all());  // the same pool, continued
  EXPECT_EQ(machine_.allocate(10 * kGranule, 1), pointer);
  EXPECT_EQ(allocator().pool_references(kFirst, 0), 2u);
  end(kFirst);
  machine_.deallocate(pointer, 1);
}

// What a graph was captured with is what it finds at each launch, whatever happens elsewhere.
TEST_F(ScarcePrivatePools, KeepTheirAddressesMappedToTheSameMemoryUnderPressure) {
  begin(kFirst, all());
  std::vector<void*> pool;
  for (int i = 0; i < 10; ++i) pool.push_back(machine_.allocate(kGranule, 1));
  void* kept = pool[3];
  const auto describe_pool = [&] {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> homes;
    const Snapshot snapshot = allocator().snapshot();
    for (const PhyBlockInfo& block : snapshot.devices.at(0).phy_blocks) {
      for (void* pointer : pool) {
        if (block.home == address_of(pointer)) homes.emplace_back(block.home, block.bytes);
      }
    }
    std::sort(homes.begin(), homes.end());
    return homes;
  };
  const auto homes = describe_pool();
  ASSERT_EQ(homes.size(), 10u);
  end(kFirst);
  for (void* pointer : pool) {
    if (pointer != kept) machine_.deallocate(pointer, 1);
  }
  // 30 granules are left to others. More than that is not to be had, on any stream, by any rung.
  void* most = machine_.allocate(30 * kGranule, 1);
  EXPECT_EQ(machine_.refused(2 * kGranule, 1).code, ErrorCode::out_of_memory);
  EXPECT_EQ(machine_.refused(2 * kGranule, 2).code, ErrorCode::out_of_memory);
  waits_ = machine_.streams().synchronizations();
  ASSERT_TRUE(allocator().trim().ok());
  EXPECT_EQ(describe_pool(), homes);
  machine_.deallocate(most, 1);
  EXPECT_EQ(describe_pool(), homes);
  release(kFirst);
  machine_.deallocate(kept, 1);
  void* everything = machine_.allocate(40 * kGranule, 1);  // now it is to be had
  machine_.deallocate(everything, 1);
}

TEST_F(ScarcePrivatePools, TakeInMemoryOfTheCacheThatIsPassed) {
  void* pointer = machine_.allocate(36 * kGranule, 1);
  machine_.deallocate(pointer, 1);
  begin(kFirst, all());
  void* pooled = machine_.allocate(30 * kGranule, 1);
  EXPECT_EQ(pool_of(pooled), kFirst);
  EXPECT_LE(machine_.stats().all.reserved_bytes.current, 40 * kGranule);
  EXPECT_GT(machine_.stats().moved_bytes, 0u);
  end(kFirst);
  machine_.deallocate(pooled, 1);
}

// A graph may be launched on any stream, so the order of the stream that allocates is not enough.
TEST_F(ScarcePrivatePools, TakeInNothingThatPendingWorkStillUses) {
  machine_.streams().hold({0, 1});
  void* pointer = machine_.allocate(36 * kGranule, 1);
  ASSERT_TRUE(machine_.device().launch({0, 1}, {{address_of(pointer), 36 * kGranule, true}}).ok());
  machine_.deallocate(pointer, 1);
  begin(kFirst, all());
  void* pooled = machine_.allocate(4 * kGranule, 1);
  EXPECT_EQ(machine_.stats().moved_bytes, 0u);  // there is that much left to create
  void* waited = machine_.allocate(30 * kGranule, 1);
  EXPECT_EQ(machine_.streams().pending({0, 1}), 0u);
  EXPECT_EQ(machine_.calls().stream_wait, 0u);
  waits_ = machine_.streams().synchronizations();
  EXPECT_GT(waits_, 0u);
  end(kFirst);
  machine_.deallocate(pooled, 1);
  machine_.deallocate(waited, 1);
}

// What was freed in one comes back behind a fence, not by the order of its stream: a graph is launched on any.
TEST_F(ScarcePrivatePools, GetNothingBackBehindAWaitOfAStream) {
  begin(kFirst, only(1));
  void* pointer = machine_.allocate(10 * kGranule, 1);
  end(kFirst);
  machine_.streams().hold({0, 3});
  ASSERT_TRUE(machine_.device().launch({0, 3}, {{address_of(pointer), 10 * kGranule, true}}).ok());
  expect_ok(allocator().try_record_stream(pointer, stream_handle(3)));
  machine_.deallocate(pointer, 1);
  EXPECT_EQ(machine_.refused(35 * kGranule, 1).code, ErrorCode::out_of_memory);
  EXPECT_EQ(machine_.calls().stream_wait, 0u);
  waits_ = 1;  // the host's, for all streams
  release(kFirst);
}

TEST_F(PrivatePools, AreKeptApartFromEachOther) {
  begin(kFirst, only(1));
  begin(kSecond, only(2));
  void* first = machine_.allocate(3 * kGranule, 1);
  void* second = machine_.allocate(3 * kGranule, 2);
  EXPECT_EQ(pool_of(first), kFirst);
  EXPECT_EQ(pool_of(second), kSecond);
  end(kFirst);
  void* third = machine_.allocate(3 * kGranule, 2);
  EXPECT_EQ(pool_of(third), kSecond);
  end(kSecond);
  for (void* pointer : {first, second, third}) ASSERT_TRUE(allocator().try_deallocate(pointer).ok());
  release(kFirst);
  void* again = machine_.allocate(3 * kGranule, 1);
  EXPECT_EQ(again, first);  // the first pool's memory, in the cache of its stream; the second keeps its own
  EXPECT_EQ(mapped_bytes(kSecond), 6 * kGranule);
  machine_.deallocate(again, 1);
}

TEST_F(PrivatePools, NestAndTheInnermostHasTheAllocation) {
  begin(kFirst, all());
  begin(kSecond, all());
  void* inner = machine_.allocate(kGranule, 1);
  end(kSecond);
  void* outer = machine_.allocate(kGranule, 1);
  EXPECT_EQ(pool_of(inner), kSecond);
  EXPECT_EQ(pool_of(outer), kFirst);
  end(kFirst);
  machine_.deallocate(inner, 1);
  machine_.deallocate(outer, 1);
}

TEST_F(PrivatePools, OfAThreadTakeNothingOfAnother) {
  const std::thread::id mine = std::this_thread::get_id();
  begin(kFirst, [mine](StreamHandle) { return std::this_thread::get_id() == mine; });
  void* own = machine_.allocate(kGranule, 1);
  void* other = nullptr;
  std::thread([&] { other = machine_.allocate(kGranule, 1); }).join();
  end(kFirst);
  EXPECT_EQ(pool_of(own), kFirst);
  EXPECT_EQ(pool_of(other), PoolId{});
  machine_.deallocate(own, 1);
  machine_.deallocate(other, 1);
}

TEST_F(PrivatePools, CountReferencesAsPyTorchDoes) {
  EXPECT_EQ(allocator().pool_references(kFirst, 0), 0u);
  expect_ok(allocator().retain_pool(kFirst, 0));
  begin(kFirst, all());
  void* pointer = machine_.allocate(kGranule);
  end(kFirst);  // drops none
  EXPECT_EQ(allocator().pool_references(kFirst, 0), 2u);
  release(kFirst);
  EXPECT_EQ(pool_of(pointer), kFirst);
  release(kFirst);
  EXPECT_EQ(allocator().pool_references(kFirst, 0), 0u);
  EXPECT_EQ(allocator().release_pool(kFirst, 0).error().code, ErrorCode::invalid_value);
  machine_.deallocate(pointer);
  machine_.deallocate(machine_.allocate(20 * kGranule));  // the slow path settles it
  EXPECT_EQ(pool_of(pointer), PoolId{});
}

TEST_F(PrivatePools, RefuseWhatMakesNoSense) {
  EXPECT_EQ(allocator().begin_pool({}, 0, all()).error().code, ErrorCode::invalid_value);
  EXPECT_EQ(allocator().retain_pool({}, 0).error().code, ErrorCode::invalid_value);
  EXPECT_EQ(allocator().begin_pool(kFirst, 0, nullptr).error().code, ErrorCode::invalid_value);
  EXPECT_EQ(allocator().begin_pool(kFirst, 1, all()).error().code, ErrorCode::invalid_device);
  EXPECT_EQ(allocator().end_pool(kFirst, 0).error().code, ErrorCode::invalid_value);
  EXPECT_EQ(allocator().release_pool(kFirst, 0).error().code, ErrorCode::invalid_value);
  begin(kFirst, all());
  EXPECT_EQ(allocator().begin_pool(kFirst, 0, all()).error().code, ErrorCode::invalid_value);
  EXPECT_EQ(allocator().pool_references(kFirst, 0), 1u);
  end(kFirst);
  EXPECT_EQ(allocator().end_pool(kFirst, 0).error().code, ErrorCode::invalid_value);
  release(kFirst);
}

TEST_F(PrivatePools, MayBeReleasedWhileTheirFilterLasts) {
  begin(kFirst, all());
  void* pooled = machine_.allocate(kGranule, 1);
  release(kFirst);
  void* after = machine_.allocate(3 * kGranule, 1);
  EXPECT_EQ(pool_of(after), PoolId{});
  end(kFirst);
  machine_.deallocate(pooled, 1);
  machine_.deallocate(after, 1);
}

// A graph may still run on any stream when its pool is released.
TEST_F(ScarcePrivatePools, GiveBackTheirMemoryOnceEveryStreamHasPassed) {
  for (std::uint64_t stream = 1; stream < 4; ++stream) machine_.deallocate(machine_.allocate(512, stream), stream);
  begin(kFirst, all());
  void* pooled = machine_.allocate(20 * kGranule, 1);
  void* live = machine_.allocate(4 * kGranule, 1);
  end(kFirst);
  machine_.deallocate(pooled, 1);
  machine_.streams().hold({0, 3});
  ASSERT_TRUE(machine_.device().launch({0, 3}, {{address_of(pooled), 20 * kGranule, true}}).ok());  // the graph
  release(kFirst);
  void* other = machine_.allocate(12 * kGranule, 1);  // what is left
  EXPECT_EQ(mapped_bytes(kFirst), 24 * kGranule);
  machine_.streams().advance_all();
  machine_.streams().resume({0, 3});
  void* again = machine_.allocate(20 * kGranule, 1);
  EXPECT_EQ(again, pooled);
  EXPECT_EQ(mapped_bytes(kFirst), 0u);
  for (void* pointer : {other, live, again}) machine_.deallocate(pointer, 1);
}

// The number of a stream stays taken for as long as a pool has memory in its name.
TEST_F(PrivatePools, KeepTheirMemoryWhenItsStreamIsForgotten) {
  begin(kFirst, all());
  void* pooled = machine_.allocate(4 * kGranule, 5);
  end(kFirst);
  machine_.deallocate(pooled, 5);
  expect_ok(allocator().forget_stream(stream_handle(5)));
  machine_.deallocate(machine_.allocate(512, 6), 6);
  EXPECT_EQ(mapped_bytes(kFirst), 4 * kGranule);
  release(kFirst);
  expect_ok(allocator().trim());
  waits_ = machine_.streams().synchronizations();  // of the trim, which may wait
  EXPECT_EQ(machine_.stats().all.reserved_bytes.current, 0u);
}

TEST_F(PrivatePools, HaveNoReferencesOnDevicesThatAreNotThere) {
  begin(kFirst, all());
  EXPECT_EQ(allocator().pool_references(kFirst, 0), 1u);
  EXPECT_EQ(allocator().pool_references(kFirst, -1), 0u);
  EXPECT_EQ(allocator().pool_references(kFirst, 1), 0u);
  end(kFirst);
  release(kFirst);
}

TEST_F(PrivatePools, LeaveTheirLiveBlocksToBeFreedAsAnyOthers) {
  begin(kFirst, all());
  std::vector<void*> live;
  for (int i = 0; i < 8; ++i) live.push_back(machine_.allocate(i % 2 == 0 ? 2 * kGranule : 4096, 1 + i % 2));
  end(kFirst);
  ASSERT_TRUE(allocator().try_record_stream(live[0], stream_handle(5)).ok());
  release(kFirst);
  machine_.deallocate(machine_.allocate(60 * kGranule, 3), 3);  // settles the pool
  for (void* pointer : live) {
    EXPECT_EQ(pool_of(pointer), PoolId{});
    ASSERT_TRUE(allocator().try_deallocate(pointer).ok());
    allocator().check();
  }
  ASSERT_TRUE(allocator().trim().ok());
  EXPECT_EQ(machine_.stats().all.reserved_bytes.current, 0u);
  EXPECT_EQ(machine_.stats().all.active_bytes.current, 0u);
  waits_ = machine_.streams().synchronizations();
}

TEST_F(PrivatePools, ManyCyclesOfAGraphLeaveNothingBehind) {
  std::uint64_t address_bytes = 0;
  for (std::uint64_t round = 1; round <= 300; ++round) {
    const PoolId id{round, 0};
    begin(id, all());
    void* pointer = machine_.allocate(8 * kGranule, 1);
    void* small = machine_.allocate(4096, 1);
    end(id);
    machine_.deallocate(pointer, 1);
    machine_.deallocate(small, 1);
    release(id);
    machine_.deallocate(machine_.allocate(kGranule * (1 + round % 40), 1), 1);
    if (round == 100) address_bytes = machine_.stats().address_bytes;
  }
  EXPECT_LE(machine_.stats().all.reserved_bytes.current, 64 * kGranule);
  EXPECT_LE(machine_.stats().address_bytes, 2 * address_bytes);
}

}  // namespace
}  // namespace gmlake::test
