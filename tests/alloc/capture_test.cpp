// Captures: while a stream is captured into a graph, nothing here breaks the capture, and what it puts off is done
// afterwards. The simulated driver refuses each forbidden call, invalidates the capture and lists it; the machine
// expects an empty list at its end.
#include <gtest/gtest.h>

#include <vector>

#include "support/machine.hpp"

namespace gmlake::test {
namespace {

constexpr PoolId kGraph{7, 0};
constexpr std::uint64_t kCaptured = 1;
constexpr std::uint64_t kOther = 2;
constexpr std::uint64_t kSide = 3;

class Captures : public testing::Test {
 protected:
  explicit Captures(std::uint64_t granules = 64) : machine_(small_model(granules)) {}
  void TearDown() override {
    if (capturing_) end_capture();
    EXPECT_EQ(machine_.streams().synchronizations(), 0u);
  }

  // As a framework does: first the pool, then the capture of a stream, and of one forked from it.
  void begin_capture(driver::CaptureMode mode = driver::CaptureMode::global) {
    ASSERT_TRUE(machine_.allocator()
                    .begin_pool(kGraph, 0,
                                [](StreamHandle stream) {
                                  return stream == stream_handle(kCaptured) || stream == stream_handle(kSide);
                                })
                    .ok());
    for (const std::uint64_t stream : {kCaptured, kSide}) {
      machine_.streams().set_capture({0, stream}, driver::CaptureState::active, mode);
    }
    capturing_ = true;
  }
  // Nothing may have broken it.
  void end_capture() {
    for (const std::uint64_t stream : {kCaptured, kSide}) {
      EXPECT_EQ(machine_.streams().capture_state({0, stream}).value(), driver::CaptureState::active);
      machine_.streams().set_capture({0, stream}, driver::CaptureState::none);
    }
    EXPECT_TRUE(machine_.allocator().end_pool(kGraph, 0).ok());
    capturing_ = false;
  }
  void use(void* pointer, std::uint64_t bytes, std::uint64_t stream) {
    EXPECT_TRUE(machine_.device().launch({0, stream}, {{address_of(pointer), bytes, true}}).ok());
  }
  void record(void* pointer, std::uint64_t stream) {
    EXPECT_TRUE(machine_.allocator().try_record_stream(pointer, stream_handle(stream)).ok());
  }
  std::uint64_t pending_bytes() const {
    const DeviceStats stats = machine_.stats();
    return stats.all.active_bytes.current - stats.all.allocated_bytes.current;
  }

  Machine machine_;
  bool capturing_ = false;
};

class ScarceCaptures : public Captures {
 protected:
  ScarceCaptures() : Captures(40) {}
};

TEST_F(Captures, ServeRequestsOfTheCapturedStreamWithNoEventCall) {
  begin_capture();
  const driver::CallCounts before = machine_.calls();
  std::vector<void*> pointers;
  for (int i = 1; i < 8; ++i) pointers.push_back(machine_.allocate(i * kGranule, kCaptured));
  for (void* pointer : pointers) machine_.deallocate(pointer, kCaptured);
  pointers.clear();
  for (int i = 1; i < 8; ++i) pointers.push_back(machine_.allocate(i * kGranule, kCaptured));
  const driver::CallCounts made = machine_.calls() - before;
  EXPECT_EQ(made.event_record + made.event_query + made.event_synchronize + made.stream_wait, 0u);
  EXPECT_EQ(machine_.stats().all.reserved_bytes.current, 28 * kGranule);
  end_capture();
  for (void* pointer : pointers) machine_.deallocate(pointer, kCaptured);
}

TEST_F(ScarceCaptures, LookAtOtherStreamsWithoutBreakingTheCapture) {
  for (const auto mode : {driver::CaptureMode::global, driver::CaptureMode::per_thread, driver::CaptureMode::relaxed}) {
    void* pointer = machine_.allocate(30 * kGranule, kOther);
    use(pointer, 30 * kGranule, kOther);
    begin_capture(mode);
    machine_.deallocate(pointer, kOther);
    // Its fence is recorded and asked about now, in the middle of the capture.
    void* captured = machine_.allocate(30 * kGranule, kCaptured);
    EXPECT_GT(machine_.calls().event_query, 0u);
    EXPECT_LE(machine_.stats().all.reserved_bytes.current, 40 * kGranule);
    end_capture();
    machine_.deallocate(captured, kCaptured);
    ASSERT_TRUE(machine_.allocator().release_pool(kGraph, 0).ok());
    machine_.deallocate(machine_.allocate(40 * kGranule, kOther), kOther);
  }
}

TEST_F(ScarceCaptures, NeverWaitForAnyone) {
  machine_.streams().hold({0, kOther});
  void* pointer = machine_.allocate(30 * kGranule, kOther);
  use(pointer, 30 * kGranule, kOther);
  begin_capture();
  machine_.deallocate(pointer, kOther);
  EXPECT_EQ(machine_.refused(30 * kGranule, kCaptured).code, ErrorCode::out_of_memory);
  EXPECT_TRUE(machine_.allocator().trim().ok());
  EXPECT_EQ(machine_.calls().event_synchronize, 0u);
  EXPECT_EQ(machine_.calls().stream_wait, 0u);
  EXPECT_GT(machine_.streams().pending({0, kOther}), 0u);
  machine_.streams().advance_all({0, kOther});
  machine_.streams().resume({0, kOther});
  void* captured = machine_.allocate(30 * kGranule, kCaptured);  // without waiting, there is memory now
  end_capture();
  machine_.deallocate(captured, kCaptured);
}

TEST_F(ScarceCaptures, LetOthersWaitOnTheDeviceButNotOnTheHost) {
  machine_.deallocate(machine_.allocate(512, kCaptured), kCaptured);  // a stream that is known here
  machine_.streams().hold({0, kOther});
  void* pointer = machine_.allocate(20 * kGranule, kOther);
  use(pointer, 20 * kGranule, kOther);
  void* recorded = machine_.allocate(10 * kGranule, 4);
  use(recorded, 10 * kGranule, kOther);
  record(recorded, kOther);
  begin_capture();
  machine_.deallocate(pointer, kOther);
  machine_.deallocate(recorded, 4);
  void* waits = machine_.allocate(28 * kGranule, 5);
  EXPECT_EQ(machine_.calls().stream_wait, 1u);
  EXPECT_EQ(machine_.refused(10 * kGranule, 5).code, ErrorCode::out_of_memory);  // until the capture ends
  machine_.streams().advance_all({0, kOther});
  end_capture();
  machine_.streams().advance_all();
  machine_.deallocate(waits, 5);
}

// Outside any pool too: a stream that is captured takes no order from outside.
TEST_F(ScarceCaptures, PlaceNoWaitOnACapturedStream) {
  machine_.streams().hold({0, kOther});
  void* pointer = machine_.allocate(30 * kGranule, kOther);
  use(pointer, 30 * kGranule, kOther);
  machine_.deallocate(pointer, kOther);
  machine_.streams().set_capture({0, 9}, driver::CaptureState::active);
  EXPECT_EQ(machine_.refused(30 * kGranule, 9).code, ErrorCode::out_of_memory);
  EXPECT_EQ(machine_.calls().stream_wait, 0u);
  EXPECT_EQ(machine_.streams().capture_state({0, 9}).value(), driver::CaptureState::active);
  machine_.streams().set_capture({0, 9}, driver::CaptureState::none);
  void* after = machine_.allocate(30 * kGranule, 9);
  EXPECT_EQ(machine_.calls().stream_wait, 1u);
  machine_.deallocate(after, 9);
}

TEST_F(Captures, PutOffTheFencesOfCapturedStreamsUntilTheyEnd) {
  begin_capture();
  void* pointer = machine_.allocate(4 * kGranule, kCaptured);
  record(pointer, kSide);
  const driver::CallCounts before = machine_.calls();
  machine_.deallocate(pointer, kCaptured);
  EXPECT_EQ((machine_.calls() - before).event_record, 0u);
  EXPECT_EQ(pending_bytes(), 4 * kGranule);
  void* next = machine_.allocate(4 * kGranule, kCaptured);
  EXPECT_NE(next, pointer);  // the side stream may still use it, in the graph
  EXPECT_EQ(pending_bytes(), 4 * kGranule);
  end_capture();
  void* after = machine_.allocate(9 * kGranule, kCaptured);  // any slow request finds it
  EXPECT_EQ(pending_bytes(), 0u);
  machine_.deallocate(next, kCaptured);
  machine_.deallocate(after, kCaptured);
}

TEST_F(Captures, LeaveOrdinaryFreesOfOtherStreamsAsTheyAre) {
  machine_.streams().hold({0, kOther});
  void* pointer = machine_.allocate(4 * kGranule, 5);
  use(pointer, 4 * kGranule, kOther);
  record(pointer, kOther);
  begin_capture();
  machine_.deallocate(pointer, 5);
  EXPECT_EQ(machine_.calls().event_record, 1u);  // that stream is not captured
  machine_.streams().resume({0, kOther});
  std::vector<void*> many;  // frees that others still use look at the fences by themselves
  for (int i = 0; i < 200; ++i) {
    many.push_back(machine_.allocate(512, 5));
    record(many.back(), kOther);
  }
  for (void* each : many) machine_.deallocate(each, 5);
  EXPECT_LT(pending_bytes(), 200u * 512);
  end_capture();
}

TEST_F(Captures, KeepAStreamThatIsCapturedFromBeingForgotten) {
  machine_.deallocate(machine_.allocate(kGranule, kCaptured), kCaptured);
  begin_capture();
  EXPECT_EQ(machine_.allocator().forget_stream(stream_handle(kCaptured)).error().code, ErrorCode::captured);
  end_capture();
  EXPECT_TRUE(machine_.allocator().forget_stream(stream_handle(kCaptured)).ok());
}

// What is free in the pool of a graph belongs to the graph's next launch.
TEST_F(ScarceCaptures, KeepTheMemoryOfTheGraphFromEveryOtherUse) {
  begin_capture();
  void* pointer = machine_.allocate(20 * kGranule, kCaptured);
  machine_.deallocate(pointer, kCaptured);
  end_capture();
  for (int launch = 0; launch < 3; ++launch) {
    EXPECT_TRUE(machine_.device().launch({0, kOther}, {{address_of(pointer), 20 * kGranule, true}}).ok());
    void* other = machine_.allocate(20 * kGranule, kOther);
    EXPECT_GE(address_of(other) > address_of(pointer) ? address_of(other) - address_of(pointer)
                                                      : address_of(pointer) - address_of(other),
              20 * kGranule);
    machine_.deallocate(other, kOther);
  }
}

}  // namespace
}  // namespace gmlake::test
