// Streams that are destroyed: what they had cached goes to others, what is live on them is freed as ever, their books
// are taken back, and a new stream with an old handle starts anew.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "support/machine.hpp"

namespace gmlake::test {
namespace {

class ForgottenStreams : public testing::Test {
 protected:
  explicit ForgottenStreams(std::uint64_t granules = 256, const Options& options = {})
      : machine_(small_model(granules), options) {}
  void TearDown() override { EXPECT_EQ(machine_.streams().synchronizations(), 0u); }

  // As its owner does it. The simulated driver refuses whatever is asked of the stream afterwards, and lists it.
  void destroy(std::uint64_t stream) {
    const Status forgotten = machine_.allocator().forget_stream(stream_handle(stream));
    EXPECT_TRUE(forgotten.ok()) << describe(forgotten.error());
    machine_.allocator().check();
    EXPECT_TRUE(machine_.streams().destroy_stream({0, stream}).ok());
  }
  void free_block(void* pointer) {
    const Status freed = machine_.allocator().try_deallocate(pointer);
    EXPECT_TRUE(freed.ok()) << describe(freed.error());
    machine_.allocator().check();
  }
  void use(void* pointer, std::uint64_t bytes, std::uint64_t stream) {
    EXPECT_TRUE(machine_.device().launch({0, stream}, {{address_of(pointer), bytes, true}}).ok());
  }

  Machine machine_;
};

class ScarceForgottenStreams : public ForgottenStreams {
 protected:
  ScarceForgottenStreams() : ForgottenStreams(40) {}
};

TEST_F(ForgottenStreams, LeaveWhatTheyCachedToTheNextRequestThatLacksMemory) {
  void* pointer = machine_.allocate(10 * kGranule, 1);
  machine_.deallocate(pointer, 1);
  destroy(1);
  const driver::CallCounts before = machine_.calls();
  EXPECT_EQ(machine_.allocate(10 * kGranule, 2), pointer);  // as it is: nothing is mapped anew
  const driver::CallCounts made = machine_.calls() - before;
  EXPECT_EQ(made.map + made.create + made.reserve, 0u);
  machine_.deallocate(pointer, 2);
}

TEST_F(ForgottenStreams, KeepTheirMemoryUntilTheirWorkIsComplete) {
  machine_.streams().hold({0, 1});
  void* pointer = machine_.allocate(10 * kGranule, 1);
  use(pointer, 10 * kGranule, 1);
  machine_.deallocate(pointer, 1);
  destroy(1);
  void* other = machine_.allocate(10 * kGranule, 2);
  EXPECT_NE(other, pointer);
  machine_.streams().advance_all({0, 1});
  EXPECT_EQ(machine_.allocate(10 * kGranule, 2), pointer);
  machine_.deallocate(pointer, 2);
  machine_.deallocate(other, 2);
}

TEST_F(ScarceForgottenStreams, CanBeWaitedForOnTheDevice) {
  machine_.streams().hold({0, 1});
  void* pointer = machine_.allocate(30 * kGranule, 1);
  use(pointer, 30 * kGranule, 1);
  machine_.deallocate(pointer, 1);
  destroy(1);
  void* other = machine_.allocate(30 * kGranule, 2);
  EXPECT_EQ(machine_.stats().rung_stream_wait, 1u);
  use(other, 30 * kGranule, 2);
  EXPECT_GE(machine_.streams().pending({0, 2}), 2u);
  machine_.streams().advance_all({0, 1});
  machine_.streams().advance_all({0, 2});
  EXPECT_EQ(machine_.streams().pending({0, 2}), 0u);
  machine_.deallocate(other, 2);
}

TEST_F(ForgottenStreams, HaveTheirLiveBlocksFreedBeforeAndAfterTheirEstateIsSettled) {
  void* before = machine_.allocate(6 * kGranule, 1);
  void* after = machine_.allocate(7 * kGranule, 1);
  void* recorded = machine_.allocate(5 * kGranule, 1);
  machine_.streams().hold({0, 3});
  use(recorded, 5 * kGranule, 3);
  ASSERT_TRUE(machine_.allocator().try_record_stream(recorded, stream_handle(3)).ok());
  destroy(1);
  free_block(before);
  EXPECT_EQ(machine_.allocate(6 * kGranule, 2), before);
  free_block(after);
  EXPECT_EQ(machine_.allocate(7 * kGranule, 2), after);
  free_block(recorded);
  EXPECT_NE(machine_.allocate(5 * kGranule, 2), recorded);
  machine_.streams().advance_all({0, 3});
  EXPECT_EQ(machine_.allocate(5 * kGranule, 2), recorded);
}

// A block that is pending when its stream goes comes back to whoever has its segment then.
TEST_F(ForgottenStreams, HaveTheirPendingBlocksComeBackToTheHeir) {
  void* pointer = machine_.allocate(10 * kGranule, 1);
  machine_.streams().hold({0, 3});
  use(pointer, 10 * kGranule, 3);
  ASSERT_TRUE(machine_.allocator().try_record_stream(pointer, stream_handle(3)).ok());
  machine_.deallocate(pointer, 1);
  destroy(1);
  machine_.deallocate(machine_.allocate(3 * kGranule, 2), 2);  // inherits
  machine_.streams().advance_all({0, 3});
  EXPECT_EQ(machine_.allocate(10 * kGranule, 2), pointer);
}

TEST_F(ForgottenStreams, CountAsUsesOfBlocksThatTheyWereRecordedOn) {
  machine_.streams().hold({0, 1});
  void* pointer = machine_.allocate(10 * kGranule, 2);
  use(pointer, 10 * kGranule, 1);
  ASSERT_TRUE(machine_.allocator().try_record_stream(pointer, stream_handle(1)).ok());
  destroy(1);
  machine_.deallocate(pointer, 2);
  EXPECT_NE(machine_.allocate(10 * kGranule, 2), pointer);
  machine_.streams().advance_all({0, 1});
  EXPECT_EQ(machine_.allocate(10 * kGranule, 2), pointer);
}

class RoomyForgottenStreams : public ForgottenStreams {
 protected:
  RoomyForgottenStreams() : ForgottenStreams(256, {.stream_wait = StreamWait::at_limit}) {}
};

TEST_F(RoomyForgottenStreams, HandTheirHandleToANewStreamThatKnowsNothingOfThem) {
  machine_.streams().hold({0, 1});
  void* pointer = machine_.allocate(10 * kGranule, 1);
  use(pointer, 10 * kGranule, 1);
  machine_.deallocate(pointer, 1);
  // In the simulator a destroyed stream keeps its name, so the new one's handle is only forgotten here.
  ASSERT_TRUE(machine_.allocator().forget_stream(stream_handle(1)).ok());
  void* anew = machine_.allocate(10 * kGranule, 1);
  EXPECT_NE(anew, pointer);  // the former stream's work is not complete, and this is another stream
  machine_.streams().advance_all({0, 1});
  EXPECT_EQ(machine_.allocate(10 * kGranule, 1), pointer);
  machine_.deallocate(pointer, 1);
  machine_.deallocate(anew, 1);
}

TEST_F(ForgottenStreams, ThatAreUnknownAreNothingToDo) {
  EXPECT_TRUE(machine_.allocator().forget_stream(stream_handle(77)).ok());
  machine_.deallocate(machine_.allocate(512));
  EXPECT_TRUE(machine_.allocator().forget_stream(stream_handle(77)).ok());
  EXPECT_EQ(machine_.allocator().forget_stream(nullptr, 1).error().code, ErrorCode::invalid_device);
  EXPECT_EQ(machine_.calls().event_record, 0u);
}

TEST_F(ForgottenStreams, AreKnownAsBeforeWhereNothingCanBeRecorded) {
  void* pointer = machine_.allocate(10 * kGranule, 1);
  machine_.deallocate(pointer, 1);
  machine_.fault().arm({.kind = Step::event_record, .code = ErrorCode::unknown});
  EXPECT_EQ(machine_.allocator().forget_stream(stream_handle(1)).error().code, ErrorCode::unknown);
  machine_.allocator().check();
  machine_.fault().heal();
  EXPECT_EQ(machine_.allocate(10 * kGranule, 1), pointer);  // with no slow path: it is the same stream
  machine_.deallocate(pointer, 1);
  destroy(1);
}

// One after another, and many at a time: neither memory nor addresses nor events nor the books of streams pile up.
TEST_F(ForgottenStreams, AThousandOfThemLeaveNothingBehind) {
  std::uint64_t stream = 10;
  for (int round = 0; round < 20; ++round) {
    std::vector<void*> pointers;
    for (int i = 0; i < 50; ++i) {
      Result<void*> large = machine_.allocator().try_allocate(3 * kGranule, 0, stream_handle(stream + i));
      Result<void*> small = machine_.allocator().try_allocate(1000, 0, stream_handle(stream + i));
      ASSERT_TRUE(large.ok() && small.ok());
      ASSERT_TRUE(machine_.allocator().try_record_stream(*large, stream_handle(stream + (i + 1) % 50)).ok());
      pointers.push_back(*large);
      pointers.push_back(*small);
    }
    for (int i = 0; i < 50; ++i) {
      ASSERT_TRUE(machine_.allocator().forget_stream(stream_handle(stream + i)).ok());
      ASSERT_TRUE(machine_.streams().destroy_stream({0, stream + i}).ok());
    }
    for (void* pointer : pointers) ASSERT_TRUE(machine_.allocator().try_deallocate(pointer).ok());
    machine_.allocator().check();
    stream += 50;
  }
  machine_.deallocate(machine_.allocate(512, 1), 1);
  machine_.deallocate(machine_.allocate(200 * kGranule, 1), 1);  // of all that they had
  EXPECT_LE(machine_.stats().all.reserved_bytes.current, 256 * kGranule);
  EXPECT_LE(machine_.stats().address_bytes, 9 * 256 * kGranule);  // by option 8 times the device, and a request
  EXPECT_LE(machine_.stats().events_pending, 2u);
  EXPECT_EQ(machine_.stats().all.active_bytes.current, 0u);
  std::vector<std::uint64_t> owners;
  const Snapshot snapshot = machine_.allocator().snapshot();
  for (const SegmentInfo& segment : snapshot.devices.at(0).segments) owners.push_back(segment.stream);
  EXPECT_EQ(std::count(owners.begin(), owners.end(), 1), static_cast<std::ptrdiff_t>(owners.size()));
}

}  // namespace
}  // namespace gmlake::test
