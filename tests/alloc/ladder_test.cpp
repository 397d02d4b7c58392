// The rungs that a request climbs when no cached run fits it: each is reached by a scenario made for it, and counted.
#include <gtest/gtest.h>

#include <vector>

#include "support/machine.hpp"

namespace gmlake::test {
namespace {

constexpr std::uint64_t kLimit = 40;  // granules

class Ladder : public testing::Test {
 protected:
  explicit Ladder(Options options = {}, std::uint64_t granules = kLimit) : machine_(small_model(granules), options) {}

  struct Rungs {
    std::uint64_t own = 0, passed = 0, stream_wait = 0, release = 0, wait = 0, ooms = 0;
    friend bool operator==(const Rungs&, const Rungs&) = default;
    friend void PrintTo(const Rungs& rungs, std::ostream* out) {
      *out << "own " << rungs.own << ", passed " << rungs.passed << ", stream_wait " << rungs.stream_wait
           << ", release " << rungs.release << ", wait " << rungs.wait << ", ooms " << rungs.ooms;
    }
  };
  Rungs rungs() const {
    const DeviceStats stats = machine_.stats();
    return {stats.rung_own_stream,     stats.rung_passed_streams, stats.rung_stream_wait,
            stats.rung_release_cached, stats.rung_wait,           stats.num_ooms};
  }

  // A kernel of the block's owner, pending for as long as the stream is on hold.
  void use(void* pointer, std::uint64_t bytes, std::uint64_t stream) {
    EXPECT_TRUE(machine_.device().launch({0, stream}, {{address_of(pointer), bytes, true}}).ok());
  }

  // With the memory that is left, a stream that is behind gets what it lacks, and the copy may go on; then the device
  // waits for the copy. The host never does.
  void wait_for_a_copy_once_nothing_is_left() {
    for (const std::uint64_t stream : {1, 2}) machine_.streams().hold({0, stream});
    machine_.deallocate(machine_.allocate(kGranule, 3), 3);  // there are several streams
    void* first = machine_.allocate(25 * kGranule, 2);
    for (const std::uint64_t stream : {1, 2}) use(first, 25 * kGranule, stream);
    ASSERT_TRUE(machine_.allocator().try_record_stream(first, stream_handle(1)).ok());
    machine_.deallocate(first, 2);
    void* beside = machine_.allocate(15 * kGranule, 2);
    EXPECT_EQ(machine_.stats().all.reserved_bytes.current, kLimit * kGranule);
    EXPECT_EQ(machine_.calls().stream_wait, 0u);
    void* back = machine_.allocate(25 * kGranule, 2);
    EXPECT_EQ(machine_.calls().stream_wait, 1u);
    EXPECT_EQ(machine_.streams().synchronizations(), 0u);
    EXPECT_EQ(machine_.stats().num_alloc_retries, 0u);
    machine_.streams().advance_all();
    for (void* block : {beside, back}) machine_.deallocate(block, 2);
  }

  Machine machine_;
};

class LadderWithoutStreamWaits : public Ladder {
 protected:
  static Options options() {
    Options options;
    options.stream_wait = StreamWait::never;
    return options;
  }
  LadderWithoutStreamWaits() : Ladder(options()) {}
};

// Memory to spare: what other streams still use is wanted for the sake of what is held alone.
class RoomyLadder : public Ladder {
 protected:
  explicit RoomyLadder(Options options = {}) : Ladder(options, 512) {
    for (const std::uint64_t stream : {1, 2}) machine_.streams().hold({0, stream});
  }
  void TearDown() override { machine_.streams().advance_all(); }

  // 30 granules that stream 1 has freed and still uses; and then 10 that stream 2 has, with work on them or without.
  void leave_memory_in_use(bool work) {
    void* freed = machine_.allocate(30 * kGranule, 1);
    use(freed, 30 * kGranule, 1);
    machine_.deallocate(freed, 1);
    void* own = machine_.allocate(10 * kGranule, 2);
    if (work) use(own, 10 * kGranule, 2);
    EXPECT_EQ(held(), 40u);  // the second stream was idle until now
    EXPECT_EQ(machine_.calls().stream_wait, 0u);
  }
  std::uint64_t held() const { return machine_.stats().all.reserved_bytes.current / kGranule; }
};

class RoomyLadderWithSlack : public RoomyLadder {
 protected:
  static Options options() {
    Options options;
    options.slack = 1;
    return options;
  }
  RoomyLadderWithSlack() : RoomyLadder(options()) {}
};

class RoomyLadderWithWaitsAtTheLimit : public RoomyLadder {
 protected:
  static Options options() {
    Options options;
    options.stream_wait = StreamWait::at_limit;
    return options;
  }
  RoomyLadderWithWaitsAtTheLimit() : RoomyLadder(options()) {}
};

TEST_F(RoomyLadder, LetsAStreamWithWorkBeforeItWaitRatherThanGrow) {
  leave_memory_in_use(true);
  void* block = machine_.allocate(20 * kGranule, 2);
  EXPECT_EQ(held(), 40u);
  EXPECT_EQ(rungs().stream_wait, 1u);
  EXPECT_EQ(machine_.calls().stream_wait, 1u);
  use(block, 20 * kGranule, 2);
  machine_.streams().advance_all({0, 2});
  EXPECT_GT(machine_.streams().pending({0, 2}), 0u);  // behind stream 1
  EXPECT_EQ(machine_.streams().synchronizations(), 0u);
}

TEST_F(RoomyLadder, GrowsForAnIdleStream) {
  machine_.streams().resume({0, 2});
  leave_memory_in_use(false);
  machine_.allocate(20 * kGranule, 2);
  EXPECT_EQ(held(), 60u);
  EXPECT_EQ(machine_.calls().stream_wait, 0u);
}

TEST_F(RoomyLadder, GrowsForWhatTheWaitDoesNotBring) {
  leave_memory_in_use(true);
  machine_.allocate(35 * kGranule, 2);
  EXPECT_EQ(held(), 45u);
  EXPECT_EQ(rungs().stream_wait, 1u);
}

TEST_F(RoomyLadder, GrowsWhereAStreamIsCaptured) {
  leave_memory_in_use(true);
  machine_.streams().set_capture({0, 2}, driver::CaptureState::active);
  machine_.allocate(20 * kGranule, 2);
  EXPECT_EQ(held(), 60u);
  EXPECT_EQ(machine_.streams().capture_state({0, 2}).value(), driver::CaptureState::active);
  machine_.streams().set_capture({0, 2}, driver::CaptureState::none);
  machine_.streams().set_capture({0, 3}, driver::CaptureState::active);
  machine_.allocate(30 * kGranule, 2);  // another's capture is no hindrance, and comes to no harm
  EXPECT_EQ(held(), 60u);
  EXPECT_EQ(machine_.streams().capture_state({0, 3}).value(), driver::CaptureState::active);
  machine_.streams().set_capture({0, 3}, driver::CaptureState::none);
}

TEST_F(RoomyLadder, GrowsWhereTheDriverCannotSayWhetherAStreamIsIdle) {
  leave_memory_in_use(true);
  machine_.fault().arm({.kind = Step::stream_query, .sticky = true, .code = ErrorCode::unknown});
  machine_.allocate(20 * kGranule, 2);
  EXPECT_EQ(held(), 60u);
  EXPECT_EQ(rungs().ooms, 0u);
}

// By growing, and not by way of what comes after: no cached memory goes back, and the host waits for nobody.
TEST_F(RoomyLadder, MeetsARequestWhoseWaitIsRefused) {
  leave_memory_in_use(true);
  machine_.fault().arm({.kind = Step::stream_wait, .sticky = true, .code = ErrorCode::unknown});
  machine_.allocate(20 * kGranule, 2);
  EXPECT_EQ(held(), 60u);
  EXPECT_EQ(rungs().release + rungs().wait + rungs().ooms, 0u);
  EXPECT_EQ(machine_.stats().num_alloc_retries, 0u);
}

TEST_F(RoomyLadder, MeetsARequestWhereTheOtherStreamIsCaptured) {
  void* own = machine_.allocate(10 * kGranule, 2);
  use(own, 10 * kGranule, 2);
  machine_.deallocate(machine_.allocate(30 * kGranule, 1), 1);
  machine_.streams().set_capture({0, 1}, driver::CaptureState::active);  // no event can be recorded on it
  machine_.allocate(20 * kGranule, 2);
  EXPECT_EQ(held(), 60u);
  EXPECT_EQ(rungs().release + rungs().wait + rungs().ooms, 0u);
  EXPECT_EQ(machine_.stats().num_alloc_retries, 0u);
  EXPECT_EQ(machine_.streams().capture_state({0, 1}).value(), driver::CaptureState::active);
  machine_.streams().set_capture({0, 1}, driver::CaptureState::none);
}

// A granule moves behind one wait, and serves them all; what is free elsewhere but no whole granule stays there.
TEST_F(RoomyLadder, MovesAGranuleForSmallRequestsAndLendsThemNothing) {
  void* own = machine_.allocate(10 * kGranule, 2);
  use(own, 10 * kGranule, 2);
  machine_.deallocate(machine_.allocate(512, 3), 3);  // done with, and in a granule that is small requests' own
  void* pins = machine_.allocate(512, 3);
  void* freed = machine_.allocate(30 * kGranule, 1);
  use(freed, 30 * kGranule, 1);
  machine_.deallocate(freed, 1);
  machine_.deallocate(machine_.allocate(512, 2), 2);  // its first granule is its own, whatever the slack
  const std::uint64_t before = held();
  std::vector<void*> blocks;
  for (int i = 0; i < 5; ++i) blocks.push_back(machine_.allocate(1 << 20, 2));
  EXPECT_EQ(held(), before);
  EXPECT_EQ(machine_.calls().stream_wait, 2u);  // two granules
  EXPECT_EQ(machine_.stats().borrowed_blocks, 0u);
  machine_.deallocate(pins, 3);
}

TEST_F(RoomyLadderWithSlack, GrowsWithinTheSlack) {
  leave_memory_in_use(true);
  machine_.allocate(20 * kGranule, 2);
  EXPECT_EQ(held(), 60u);
  EXPECT_EQ(machine_.calls().stream_wait, 0u);
}

TEST_F(RoomyLadderWithWaitsAtTheLimit, GrowsUpToTheLimit) {
  leave_memory_in_use(true);
  machine_.allocate(20 * kGranule, 2);
  EXPECT_EQ(held(), 60u);
  EXPECT_EQ(machine_.calls().stream_query + machine_.calls().stream_wait, 0u);
}

// For the stream that borrowed it, or its owner. For others only where the owner has work before it anyway.
TEST_F(RoomyLadder, TakesBackWhatWasBorrowedOnceItIsFree) {
  constexpr std::uint64_t kOwner = 3, kBorrower = 2, kThird = 1;
  struct Case {
    std::uint64_t asks;
    bool owner_works;
  };
  for (const Case& each : {Case{kBorrower, false}, Case{kOwner, true}, Case{kThird, true}, Case{kThird, false}}) {
    void* own = machine_.allocate(kGranule, each.asks);
    machine_.deallocate(machine_.allocate(30 * kGranule, kOwner), kOwner);
    void* borrowed = machine_.allocate(30 * kGranule, kBorrower);
    EXPECT_EQ(machine_.stats().borrowed_blocks, 1u);
    use(borrowed, 30 * kGranule, kBorrower);
    machine_.deallocate(borrowed, kBorrower);
    machine_.streams().hold({0, kOwner});
    if (each.owner_works) use(own, kGranule, kOwner);
    use(own, kGranule, each.asks);
    const std::uint64_t before = machine_.calls().stream_wait;
    machine_.allocate(20 * kGranule, each.asks);
    const bool recalled = each.asks != kThird || each.owner_works;
    EXPECT_EQ(machine_.calls().stream_wait - before > 0, recalled);
    EXPECT_EQ(held(), recalled ? 31u : 51u);
    machine_.streams().advance_all({0, kOwner});
    EXPECT_EQ(machine_.streams().pending({0, kOwner}) > 0, recalled);  // behind the borrower
    machine_.streams().advance_all();
    machine_.streams().resume({0, kOwner});
    machine_.restart();
  }
}

TEST_F(Ladder, IsNotClimbedByAHit) {
  machine_.deallocate(machine_.allocate(10 * kGranule));
  const Rungs before = rungs();
  machine_.deallocate(machine_.allocate(9 * kGranule));
  EXPECT_EQ(rungs(), before);
}

TEST_F(Ladder, BeginsWithTheStreamsOwnMemory) {
  std::vector<void*> blocks;
  for (int i = 0; i < 4; ++i) blocks.push_back(machine_.allocate(10 * kGranule));
  EXPECT_EQ(rungs(), (Rungs{.own = 4}));
  machine_.deallocate(blocks[0]);
  machine_.deallocate(blocks[2]);
  void* stitched = machine_.allocate(20 * kGranule);
  EXPECT_EQ(rungs(), (Rungs{.own = 5}));
  EXPECT_GE(machine_.stats().moved_bytes, 10 * kGranule);
  EXPECT_EQ(machine_.stats().all.reserved_bytes.current, 40 * kGranule);
  for (void* block : {blocks[1], blocks[3], stitched}) machine_.deallocate(block);
}

// What a stitch leaves behind is stale until the device has come past it: only then may its place be mapped again.
TEST_F(Ladder, FillsTheHolesOfAnEarlierStitchOnceTheDeviceHasPassedIt) {
  for (const bool passed : {true, false}) {
    if (!passed) machine_.streams().hold({0, 0});
    std::vector<void*> blocks;
    for (int i = 0; i < 4; ++i) blocks.push_back(machine_.allocate(10 * kGranule));
    for (void* block : {blocks[0], blocks[2]}) machine_.deallocate(block);
    use(blocks[1], 10 * kGranule, 0);
    void* stitched = machine_.allocate(20 * kGranule);  // out of the two: 20 granules move, and leave two holes
    EXPECT_EQ(machine_.stats().moved_bytes, 20 * kGranule);
    for (void* block : {blocks[1], blocks[3]}) machine_.deallocate(block);
    void* beside = machine_.allocate(20 * kGranule);  // a run and the hole beside it are cheaper than 20 more moves
    EXPECT_EQ(machine_.stats().moved_bytes, (passed ? 30 : 40) * kGranule);
    EXPECT_EQ(machine_.stats().mappings_retired, passed ? 10u : 0u);
    for (void* block : {stitched, beside}) machine_.deallocate(block);
    machine_.streams().advance_all();
    machine_.restart();
  }
}

TEST_F(Ladder, GoesOnToWhatOtherStreamsAreDoneWith) {
  machine_.deallocate(machine_.allocate(30 * kGranule, 1), 1);
  void* block = machine_.allocate(30 * kGranule, 2);
  EXPECT_EQ(rungs(), (Rungs{.own = 1, .passed = 1}));
  EXPECT_EQ(machine_.calls().stream_wait, 0u);
  machine_.deallocate(block, 2);
}

TEST_F(Ladder, ThenPlacesAWaitOnTheDevice) {
  machine_.streams().hold({0, 1});
  void* first = machine_.allocate(30 * kGranule, 1);
  use(first, 30 * kGranule, 1);
  machine_.deallocate(first, 1);
  void* block = machine_.allocate(30 * kGranule, 2);
  EXPECT_EQ(rungs(), (Rungs{.own = 1, .stream_wait = 1}));
  EXPECT_EQ(machine_.streams().synchronizations(), 0u);
  machine_.streams().advance_all();
  machine_.deallocate(block, 2);
}

TEST_F(LadderWithoutStreamWaits, WaitsForTheDeviceLast) {
  machine_.streams().hold({0, 1});
  void* first = machine_.allocate(30 * kGranule, 1);
  use(first, 30 * kGranule, 1);
  machine_.deallocate(first, 1);
  void* block = machine_.allocate(30 * kGranule, 2);
  EXPECT_EQ(rungs(), (Rungs{.own = 1, .wait = 1}));
  EXPECT_EQ(machine_.calls().stream_wait, 0u);
  EXPECT_GE(machine_.streams().synchronizations(), 1u);
  machine_.deallocate(block, 2);
}

// The device waits for one stream that still uses a block after its free, the host where there are more.
TEST_F(Ladder, WaitsForWhatStreamsStillUseAfterAFree) {
  for (const std::uint64_t users : {1, 2}) {
    void* first = machine_.allocate(30 * kGranule);
    for (std::uint64_t stream = 1; stream <= users; ++stream) {
      machine_.streams().hold({0, stream});
      use(first, 30 * kGranule, stream);
      ASSERT_TRUE(machine_.allocator().try_record_stream(first, stream_handle(stream)).ok());
    }
    machine_.deallocate(first);
    void* block = machine_.allocate(30 * kGranule);
    EXPECT_EQ(block, first);
    EXPECT_EQ(rungs(), (users == 1 ? Rungs{.own = 1, .stream_wait = 1} : Rungs{.own = 1, .wait = 1}));
    EXPECT_EQ(machine_.streams().synchronizations() > 0, users == 2);
    EXPECT_EQ(machine_.streams().pending({0, 0}) > 0, users == 1);  // work on the block comes behind the other stream
    machine_.deallocate(block);
    machine_.streams().advance_all();
    machine_.restart();
  }
}

TEST_F(LadderWithoutStreamWaits, WaitsOnTheHostForWhatAStreamStillUses) {
  machine_.streams().hold({0, 1});
  void* first = machine_.allocate(30 * kGranule);
  use(first, 30 * kGranule, 1);
  ASSERT_TRUE(machine_.allocator().try_record_stream(first, stream_handle(1)).ok());
  machine_.deallocate(first);
  EXPECT_EQ(machine_.allocate(30 * kGranule), first);
  EXPECT_EQ(rungs(), (Rungs{.own = 1, .wait = 1}));
  EXPECT_GE(machine_.streams().synchronizations(), 1u);
}

TEST_F(Ladder, WaitsForAUseAfterAFreeOnceTheLimitIsReached) { wait_for_a_copy_once_nothing_is_left(); }

TEST_F(RoomyLadder, WaitsForAUseAfterAFreeOnceAnotherProcessHasTheRest) {
  const std::uint64_t bytes = (512 - kLimit) * kGranule;
  const driver::Handle taken = machine_.take_memory(bytes);
  wait_for_a_copy_once_nothing_is_left();
  machine_.return_memory(taken, bytes);
}

// Below the limit memory is created instead: a copy that is under way may take its time.
TEST_F(RoomyLadder, WaitsForNoUseAfterAFree) {
  void* first = machine_.allocate(30 * kGranule, 2);
  use(first, 30 * kGranule, 2);
  use(first, 30 * kGranule, 1);
  ASSERT_TRUE(machine_.allocator().try_record_stream(first, stream_handle(1)).ok());
  machine_.deallocate(first, 2);
  EXPECT_NE(machine_.allocate(30 * kGranule, 2), first);
  EXPECT_EQ(held(), 60u);
  EXPECT_EQ(machine_.calls().stream_wait, 0u);
}

TEST_F(Ladder, EndsInAnErrorThatLeavesLiveMemoryAlone) {
  void* first = machine_.allocate(25 * kGranule);
  use(first, 25 * kGranule, 0);
  const Error error = machine_.refused(20 * kGranule);
  EXPECT_EQ(error, (Error{ErrorCode::out_of_memory, Step::allocate, 20 * kGranule}));
  EXPECT_EQ(rungs().ooms, 1u);
  use(first, 25 * kGranule, 0);
  EXPECT_EQ(machine_.allocator().size_of(first), 25 * kGranule);
  void* second = machine_.allocate(15 * kGranule);
  machine_.deallocate(first);
  machine_.deallocate(second);
  machine_.deallocate(machine_.allocate(40 * kGranule));
  EXPECT_EQ(rungs().ooms, 1u);
}

// Blocks of 8 granules are cached, and what lacks are 7: they go back to the driver and come again in sizes that do.
TEST(LadderOfLargePhyBlocks, ReleasesCachedOnesThatDoNotFit) {
  driver::ModelOptions device = small_model();
  device.granularity = 4096;
  device.capacity_bytes = 65536 * 4096ull;
  Options options;
  options.slack = 0;
  Machine machine(device, options);
  std::vector<void*> blocks;
  for (int i = 0; i < 16; ++i) blocks.push_back(machine.allocate(4000 * 4096ull + 4096 * static_cast<unsigned>(i)));
  for (std::size_t i = 0; i < blocks.size(); i += 2) machine.deallocate(blocks[i]);
  const std::uint64_t held = machine.stats().all.reserved_bytes.current;
  void* all = machine.allocate(65536 * 4096ull - held + 8 * 4000 * 4096ull - 64 * 4096ull);
  EXPECT_LE(machine.stats().all.reserved_bytes.current, 65536 * 4096ull);
  EXPECT_EQ(machine.streams().synchronizations(), 0u);
  machine.deallocate(all);
}

// Freed blocks that begin and end inside PhyBlocks: what lies whole in them can move or go, and nothing else is needed.
TEST_F(Ladder, TakesSmallBlocksMemoryForLargeOnes) {
  std::vector<void*> blocks;
  for (int i = 0; i < 79; ++i) blocks.push_back(machine_.allocate(1 << 20));
  EXPECT_EQ(machine_.stats().all.reserved_bytes.current, 40 * kGranule);
  for (void* block : blocks) machine_.deallocate(block);
  void* all = machine_.allocate(40 * kGranule);
  EXPECT_EQ(machine_.stats().all.reserved_bytes.current, 40 * kGranule);
  machine_.deallocate(all);
  for (void*& block : blocks) block = machine_.allocate(1 << 20);
  for (void* block : blocks) machine_.deallocate(block);
  EXPECT_EQ(rungs().ooms, 0u);
}

TEST_F(Ladder, NeverWaitsBelowTheLimit) {
  for (std::uint64_t stream = 1; stream < 5; ++stream) machine_.streams().hold({0, stream});
  for (int round = 0; round < 20; ++round) {
    for (std::uint64_t stream = 1; stream < 5; ++stream) {
      void* block = machine_.allocate(4 * kGranule, stream);
      use(block, 4 * kGranule, stream);
      ASSERT_TRUE(machine_.allocator().try_record_stream(block, stream_handle(stream % 4 + 1)).ok());
      machine_.deallocate(block, stream);
      machine_.streams().advance({0, stream}, 20);
    }
    for (std::uint64_t stream = 1; stream < 5; ++stream) machine_.streams().advance({0, stream}, 20);
  }
  EXPECT_EQ(machine_.streams().synchronizations(), 0u);
  EXPECT_EQ(rungs().wait, 0u);
}

}  // namespace
}  // namespace gmlake::test
