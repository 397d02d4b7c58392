// What one stream borrows of another: a part of its free run, used where it lies, between the owner's fence and the
// borrower's. Every rule of src/alloc/device_borrow.cpp.
#include <gtest/gtest.h>

#include <vector>

#include "support/machine.hpp"

namespace gmlake::test {
namespace {

// Stream 1 is the owner, stream 2 the borrower, and stream 3 somebody else.
class Borrowed : public testing::Test {
 protected:
  explicit Borrowed(std::uint64_t granules = 512) : machine_(small_model(granules)) {}
  void TearDown() override {
    machine_.streams().advance_all();
    EXPECT_EQ(machine_.streams().synchronizations(), 0u);
  }

  void hold(std::uint64_t stream) { machine_.streams().hold({0, stream}); }
  void advance(std::uint64_t stream) { machine_.streams().advance_all({0, stream}); }
  void use(void* pointer, std::uint64_t bytes, std::uint64_t stream) {
    EXPECT_TRUE(machine_.device().launch({0, stream}, {{address_of(pointer), bytes, true}}).ok());
  }
  void record(void* pointer, std::uint64_t stream) {
    EXPECT_TRUE(machine_.allocator().try_record_stream(pointer, stream_handle(stream)).ok());
    machine_.allocator().check();
  }
  void free_block(void* pointer) {
    EXPECT_TRUE(machine_.allocator().try_deallocate(pointer).ok());
    machine_.allocator().check();
  }
  // A run of the owner's, which it has used and has come to the end of.
  void* leave_run(std::uint64_t bytes) {
    void* run = machine_.allocate(bytes, 1);
    use(run, bytes, 1);
    machine_.deallocate(run, 1);
    return run;
  }
  std::uint64_t pending_bytes() const {
    const DeviceStats stats = machine_.stats();
    return stats.all.active_bytes.current - stats.all.allocated_bytes.current;
  }
  std::uint64_t reserved() const { return machine_.stats().all.reserved_bytes.current; }
  std::uint64_t borrowed() const { return machine_.stats().borrowed_blocks; }

  Machine machine_;
};

class ScarceBorrowed : public Borrowed {
 protected:
  ScarceBorrowed() : Borrowed(4) {}
};

TEST_F(Borrowed, BlocksLieInARunOfTheirOwnerWithNothingMapped) {
  void* run = leave_run(30 * kGranule);
  const driver::CallCounts before = machine_.calls();
  void* pointer = machine_.allocate(10 * kGranule, 2);
  EXPECT_EQ(pointer, run);
  const driver::CallCounts made = machine_.calls() - before;
  EXPECT_EQ(made.map + made.create + made.reserve + made.stream_wait, 0u);
  EXPECT_EQ(borrowed(), 1u);
  EXPECT_EQ(machine_.stats().rung_passed_streams, 1u);
  EXPECT_EQ(reserved(), 30 * kGranule);
  machine_.deallocate(pointer, 2);
  machine_.deallocate(machine_.allocate(30 * kGranule, 1), 1);  // looks at fences, and finds it whole
  EXPECT_EQ(reserved(), 30 * kGranule);
}

TEST_F(Borrowed, BlocksAreOutOfTheShortestRunThatHoldsThem) {
  void* first = machine_.allocate(30 * kGranule, 1);
  void* between = machine_.allocate(kGranule, 1);
  void* second = machine_.allocate(12 * kGranule, 1);
  void* behind = machine_.allocate(kGranule, 1);
  machine_.deallocate(first, 1);
  machine_.deallocate(second, 1);
  EXPECT_EQ(machine_.allocate(11 * kGranule, 2), second);
  machine_.deallocate(between, 1);
  machine_.deallocate(behind, 1);
}

TEST_F(Borrowed, BlocksAreNotHandedOutBeforeTheirOwnersFence) {
  hold(1);
  void* run = leave_run(30 * kGranule);
  void* pointer = machine_.allocate(10 * kGranule, 2);
  EXPECT_NE(pointer, run);
  EXPECT_EQ(borrowed(), 0u);
  EXPECT_EQ(machine_.calls().stream_wait, 0u);
  advance(1);
  EXPECT_EQ(machine_.allocate(10 * kGranule, 2), run);
}

TEST_F(Borrowed, BlocksAreTheirOwnersAgainBehindTheBorrowersFence) {
  hold(2);
  void* run = leave_run(10 * kGranule);
  void* pointer = machine_.allocate(10 * kGranule, 2);
  ASSERT_EQ(pointer, run);
  use(pointer, 10 * kGranule, 2);
  machine_.deallocate(pointer, 2);
  EXPECT_EQ(pending_bytes(), 10 * kGranule);
  EXPECT_NE(machine_.allocate(10 * kGranule, 1), run);
  EXPECT_NE(machine_.allocate(10 * kGranule, 3), run);
  advance(2);
  EXPECT_EQ(machine_.allocate(10 * kGranule, 1), run);
  EXPECT_EQ(pending_bytes(), 0u);
}

// Whoever names no stream at the free means the one that the block was allocated for.
TEST_F(Borrowed, BlocksThatAreFreedWithoutAStreamWaitForTheBorrower) {
  hold(2);
  void* pointer = leave_run(10 * kGranule);
  ASSERT_EQ(machine_.allocate(10 * kGranule, 2), pointer);
  use(pointer, 10 * kGranule, 2);
  free_block(pointer);
  EXPECT_EQ(pending_bytes(), 10 * kGranule);
  EXPECT_NE(machine_.allocate(10 * kGranule, 1), pointer);
  advance(2);
  EXPECT_EQ(machine_.allocate(10 * kGranule, 1), pointer);
}

TEST_F(Borrowed, BlocksThatAreFreedOnTheirOwnersStreamWaitForBoth) {
  for (const bool owner_last : {true, false}) {
    void* pointer = leave_run(10 * kGranule);
    ASSERT_EQ(machine_.allocate(10 * kGranule, 2), pointer);
    hold(1);
    hold(2);
    use(pointer, 10 * kGranule, 2);
    use(pointer, 10 * kGranule, 1);  // ordered by the caller
    machine_.deallocate(pointer, 1);
    advance(owner_last ? 2 : 1);
    EXPECT_NE(machine_.allocate(10 * kGranule, 3), pointer);
    EXPECT_EQ(pending_bytes(), 10 * kGranule);
    advance(owner_last ? 1 : 2);
    EXPECT_EQ(machine_.allocate(10 * kGranule, 3), pointer);
    machine_.restart();
    for (const std::uint64_t stream : {1, 2}) machine_.streams().resume({0, stream});
  }
}

TEST_F(Borrowed, BlocksThatAreRecordedOnTheirOwnersStreamWaitForItToo) {
  void* pointer = leave_run(10 * kGranule);
  ASSERT_EQ(machine_.allocate(10 * kGranule, 2), pointer);
  hold(1);
  use(pointer, 10 * kGranule, 1);
  record(pointer, 1);
  record(pointer, 2);  // the stream it was allocated for
  machine_.deallocate(pointer, 2);
  EXPECT_NE(machine_.allocate(10 * kGranule, 3), pointer);
  EXPECT_EQ(pending_bytes(), 10 * kGranule);
  advance(1);
  EXPECT_EQ(machine_.allocate(10 * kGranule, 3), pointer);
}

TEST_F(Borrowed, BlocksDoNotWaitForWhatTheirOwnerDoesElsewhere) {
  void* pointer = machine_.allocate(10 * kGranule, 1);
  void* between = machine_.allocate(kGranule, 1);
  machine_.deallocate(pointer, 1);
  ASSERT_EQ(machine_.allocate(10 * kGranule, 2), pointer);
  hold(1);
  (void)leave_run(3 * kGranule);
  machine_.deallocate(pointer, 2);
  EXPECT_EQ(machine_.allocate(10 * kGranule, 3), pointer);
  machine_.deallocate(pointer, 3);
  machine_.deallocate(between, 1);
}

// A program runs ahead of the device: what its stream frees there comes back to it without a fence.
TEST_F(Borrowed, BlocksAreTheBorrowersAgainAtOnce) {
  hold(2);
  void* run = leave_run(30 * kGranule);
  for (int i = 0; i < 200; ++i) {
    void* pointer = machine_.allocate(10 * kGranule, 2);
    ASSERT_EQ(pointer, run);
    use(pointer, 10 * kGranule, 2);
    i % 2 == 0 ? machine_.deallocate(pointer, 2) : free_block(pointer);
  }
  EXPECT_EQ(reserved(), 30 * kGranule);
  EXPECT_EQ(borrowed(), 1u);
  advance(2);
  machine_.deallocate(machine_.allocate(31 * kGranule, 1), 1);
  EXPECT_EQ(pending_bytes(), 0u);
}

// It was never cached in between, and no peak says that it was.
TEST_F(Borrowed, BlocksThatAreTheBorrowersAgainWereNotCachedMeanwhile) {
  hold(2);
  void* run = leave_run(30 * kGranule);
  void* pointer = machine_.allocate(10 * kGranule, 2);
  ASSERT_EQ(pointer, run);
  machine_.allocator().reset_peaks();
  machine_.deallocate(pointer, 2);
  ASSERT_EQ(machine_.allocate(10 * kGranule, 2), pointer);
  const PoolStats stats = machine_.stats().all;
  EXPECT_EQ(stats.inactive_split_bytes.peak, 20 * kGranule);
  EXPECT_EQ(stats.allocated_bytes.peak, 10 * kGranule);
  EXPECT_EQ(stats.active_bytes.peak, 10 * kGranule);
  EXPECT_EQ(stats.allocation.peak, 1u);
  EXPECT_EQ(stats.active.peak, 1u);
  machine_.deallocate(pointer, 2);
}

TEST_F(Borrowed, BlocksAreNotTheBorrowersAgainWhereOthersUseThem) {
  hold(2);
  hold(3);
  void* pointer = leave_run(10 * kGranule);
  ASSERT_EQ(machine_.allocate(10 * kGranule, 2), pointer);
  use(pointer, 10 * kGranule, 3);
  record(pointer, 3);
  machine_.deallocate(pointer, 2);
  EXPECT_NE(machine_.allocate(10 * kGranule, 2), pointer);
  advance(3);
  void* again = machine_.allocate(10 * kGranule, 2);
  EXPECT_EQ(again, pointer);  // its own order does for what is left
  machine_.deallocate(again, 2);
  EXPECT_NE(machine_.allocate(10 * kGranule, 3), pointer);  // which is nobody else's
}

// Small requests come by the thousand: a granule of their own is worth its memory, as long as there is some.
TEST_F(ScarceBorrowed, SmallBlocksAreThoseThatNoMemoryIsLeftFor) {
  void* large = machine_.allocate(2 * kGranule, 1);
  void* between = machine_.allocate(1 << 20, 1);
  void* run = leave_run(1 << 20);
  void* own = machine_.allocate(1 << 20, 2);
  EXPECT_EQ(borrowed(), 0u);
  void* rest = machine_.allocate(1 << 20, 2);
  void* pointer = machine_.allocate(1000, 2);
  EXPECT_EQ(pointer, run);
  EXPECT_EQ(borrowed(), 1u);
  for (void* block : {own, rest, pointer}) machine_.deallocate(block, 2);
  for (void* block : {large, between}) machine_.deallocate(block, 1);
}

TEST_F(Borrowed, BlocksHaveNoPartInPrivatePools) {
  const PoolId id{1, 0};
  Allocator& allocator = machine_.allocator();
  const auto filter = [](StreamHandle stream) { return stream == stream_handle(2); };
  void* run = leave_run(30 * kGranule);
  ASSERT_TRUE(allocator.begin_pool(id, 0, filter).ok());
  void* pinned = machine_.allocate(10 * kGranule, 2);  // stays when the run's owner gets its memory back
  ASSERT_TRUE(allocator.end_pool(id, 0).ok());
  EXPECT_EQ(borrowed(), 0u);
  machine_.deallocate(pinned, 2);
  void* rest = machine_.allocate(30 * kGranule, 1);
  void* other = machine_.allocate(10 * kGranule, 3);
  EXPECT_NE(other, pinned);  // the pool's, free or not
  EXPECT_EQ(borrowed(), 0u);
  machine_.deallocate(rest, 1);
  machine_.deallocate(other, 3);
  (void)run;
  ASSERT_TRUE(allocator.release_pool(id, 0).ok());
}

TEST_F(Borrowed, BlocksOfAForgottenStreamComeBackToItsHeir) {
  hold(2);
  void* run = leave_run(30 * kGranule);
  void* pointer = machine_.allocate(10 * kGranule, 2);
  ASSERT_EQ(pointer, run);
  use(pointer, 10 * kGranule, 2);
  ASSERT_TRUE(machine_.allocator().forget_stream(stream_handle(1)).ok());
  machine_.deallocate(machine_.allocate(25 * kGranule, 3), 3);  // inherits
  free_block(pointer);
  EXPECT_EQ(pending_bytes(), 10 * kGranule);
  machine_.deallocate(machine_.allocate(100 * kGranule, 3), 3);
  EXPECT_EQ(pending_bytes(), 10 * kGranule);
  advance(2);
  machine_.deallocate(machine_.allocate(150 * kGranule, 3), 3);
  EXPECT_EQ(pending_bytes(), 0u);
}

TEST_F(Borrowed, BlocksWhoseBorrowerInheritsThemAreFreedAsEver) {
  void* run = leave_run(30 * kGranule);
  void* pointer = machine_.allocate(10 * kGranule, 2);
  ASSERT_EQ(pointer, run);
  ASSERT_TRUE(machine_.allocator().forget_stream(stream_handle(1)).ok());
  machine_.deallocate(machine_.allocate(25 * kGranule, 2), 2);  // inherits
  record(pointer, 2);
  machine_.deallocate(pointer, 2);
  machine_.deallocate(machine_.allocate(60 * kGranule, 2), 2);
  EXPECT_EQ(pending_bytes(), 0u);
}

TEST_F(Borrowed, BlocksOfAForgottenBorrowerWaitForItsLastWork) {
  hold(2);
  void* run = leave_run(10 * kGranule);
  void* pointer = machine_.allocate(10 * kGranule, 2);
  ASSERT_EQ(pointer, run);
  use(pointer, 10 * kGranule, 2);
  ASSERT_TRUE(machine_.allocator().forget_stream(stream_handle(2)).ok());
  free_block(pointer);
  EXPECT_NE(machine_.allocate(10 * kGranule, 1), pointer);
  advance(2);
  EXPECT_EQ(machine_.allocate(10 * kGranule, 1), pointer);
}

// Six blocks side by side on four granules. The second and the fourth are free, and neither holds a PhyBlock.
TEST_F(ScarceBorrowed, BlocksAreHandedOutBehindAWaitThatIsPlacedFirst) {
  constexpr std::uint64_t kBytes = 5 << 18;
  std::vector<void*> blocks;
  for (int i = 0; i < 6; ++i) blocks.push_back(machine_.allocate(kBytes, 1));
  hold(1);
  for (const std::size_t i : {1, 3}) {
    use(blocks[i], kBytes, 1);
    machine_.deallocate(blocks[i], 1);
  }
  void* pointer = machine_.allocate(kBytes, 2);
  EXPECT_TRUE(pointer == blocks[1] || pointer == blocks[3]);
  EXPECT_EQ(borrowed(), 1u);
  EXPECT_EQ(machine_.stats().rung_stream_wait, 1u);
  EXPECT_GE(machine_.calls().stream_wait, 1u);
  use(pointer, kBytes, 2);
  EXPECT_GT(machine_.streams().pending({0, 2}), 0u);  // it waits, on the device
  advance(1);
  EXPECT_EQ(machine_.streams().pending({0, 2}), 0u);
  machine_.deallocate(pointer, 2);
  for (const std::size_t i : {0, 2, 4, 5}) machine_.deallocate(blocks[i], 1);
}

TEST_F(ScarceBorrowed, BlocksAreRecalledByAWaitOfTheirOwner) {
  void* run = leave_run(4 * kGranule);
  hold(2);
  void* pointer = machine_.allocate(2 * kGranule, 2);
  ASSERT_EQ(pointer, run);
  use(pointer, 2 * kGranule, 2);
  machine_.deallocate(pointer, 2);
  void* all = machine_.allocate(4 * kGranule, 1);  // and the host waits for nobody
  EXPECT_EQ(all, run);
  EXPECT_EQ(machine_.stats().rung_stream_wait, 1u);
  use(all, 4 * kGranule, 1);
  EXPECT_GT(machine_.streams().pending({0, 1}), 0u);
  advance(2);
  EXPECT_EQ(machine_.streams().pending({0, 1}), 0u);
  machine_.deallocate(all, 1);
}

// What is recalled is behind a later point of its owner than any event recorded so far.
TEST_F(ScarceBorrowed, BlocksThatWereRecalledReachOthersBehindTheBorrower) {
  void* run = leave_run(4 * kGranule);
  hold(2);
  void* pointer = machine_.allocate(2 * kGranule, 2);
  use(pointer, 2 * kGranule, 2);
  machine_.deallocate(pointer, 2);
  void* other = machine_.allocate(4 * kGranule, 3);
  EXPECT_NE(other, nullptr);
  use(other, 4 * kGranule, 3);
  EXPECT_GT(machine_.streams().pending({0, 3}), 0u);
  advance(2);
  EXPECT_EQ(machine_.streams().pending({0, 3}), 0u);
  machine_.deallocate(other, 3);
  (void)run;
}

TEST_F(Borrowed, BlocksAreShownWithTheStreamTheyWereAllocatedFor) {
  ASSERT_TRUE(machine_.allocator().keep_history(64).ok());
  void* run = leave_run(10 * kGranule);
  hold(5);
  const std::uint64_t before = machine_.allocator().history(0, 0, 64).end;
  void* pointer = machine_.allocate(10 * kGranule, 5);
  ASSERT_EQ(pointer, run);
  const Snapshot snapshot = machine_.allocator().snapshot();
  const SegmentInfo& segment = snapshot.devices.at(0).segments.at(0);
  EXPECT_EQ(segment.stream, 1u);
  ASSERT_EQ(segment.blocks.at(0).state, BlockInfo::State::live);
  EXPECT_EQ(segment.blocks.at(0).stream, 5u);
  free_block(pointer);
  EXPECT_EQ(machine_.allocate(10 * kGranule, 5), pointer);
  free_block(pointer);
  advance(5);
  machine_.deallocate(machine_.allocate(10 * kGranule, 1), 1);
  using Action = HistoryEvent::Action;
  std::vector<Action> actions;
  for (const HistoryEvent& event : machine_.allocator().history(0, before, 64).events) {
    if (actions.size() == 6) {
      EXPECT_EQ(event.stream, 1u);
      break;
    }
    EXPECT_EQ(event.stream, 5u);
    actions.push_back(event.action);
  }
  EXPECT_EQ(actions, (std::vector{Action::alloc, Action::free_requested, Action::free_completed, Action::alloc,
                                  Action::free_requested, Action::free_completed}));
}

}  // namespace
}  // namespace gmlake::test
