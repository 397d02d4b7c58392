// The option zero_on_free, on memory that can be looked at: whoever gets what another has freed finds zeros there, and
// nothing is cleared that somebody uses.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <vector>

#include "driver/host.hpp"
#include "support/contents.hpp"
#include "support/forwarding_driver.hpp"
#include "support/machine.hpp"

namespace gmlake::test {
namespace {

constexpr PoolId kGraphPool{7, 0};

std::unique_ptr<driver::SimulatedDriver> host(std::uint64_t granules, int devices = 1) {
  driver::HostOptions options;
  options.devices = devices;
  options.capacity_bytes = granules * kGranule;
  return std::move(driver::HostDriver::make(options)).value();
}

Options zeroing() {
  Options options;
  options.zero_on_free = true;
  return options;
}

class ZeroOnFree : public testing::Test {
 protected:
  explicit ZeroOnFree(std::uint64_t granules = 64) : machine_(host(granules, 2), zeroing()) {}

  // Its owner leaves something in every word.
  void* allocate_and_write(std::uint64_t bytes, std::uint64_t stream) {
    void* pointer = machine_.allocate(bytes, stream);
    run(pointer, bytes, stream, [=] { std::memset(pointer, 0xEE, bytes); });
    return pointer;
  }
  // A kernel of whoever has it now.
  void expect_zeros(void* pointer, std::uint64_t bytes, std::uint64_t stream) {
    run(pointer, bytes, stream, [this, pointer, bytes] {
      EXPECT_TRUE(is_zero(address_of(pointer), bytes));
      ++looks_;
    });
  }
  void run(void* pointer, std::uint64_t bytes, std::uint64_t stream, std::function<void()> kernel) {
    EXPECT_TRUE(machine_.device().launch({0, stream}, {{address_of(pointer), bytes, true}}, std::move(kernel)).ok());
  }
  void record(void* pointer, std::uint64_t stream) {
    EXPECT_TRUE(machine_.allocator().try_record_stream(pointer, stream_handle(stream)).ok());
  }
  void capture(std::uint64_t stream, driver::CaptureState state) { machine_.streams().set_capture({0, stream}, state); }
  std::uint64_t pending_bytes() const {
    const DeviceStats stats = machine_.stats();
    return stats.all.active_bytes.current - stats.all.allocated_bytes.current;
  }

  Machine machine_;
  int looks_ = 0;
};

class ScarceZeroOnFree : public ZeroOnFree {
 protected:
  ScarceZeroOnFree() : ZeroOnFree(10) {}
};

TEST_F(ZeroOnFree, TheNextOwnerOnTheStreamFindsZeros) {
  for (const std::uint64_t bytes : {std::uint64_t{512}, std::uint64_t{100'000}, 5 * kGranule}) {
    void* pointer = allocate_and_write(bytes, 1);
    machine_.deallocate(pointer, 1);
    EXPECT_EQ(pending_bytes(), 0u);
    EXPECT_EQ(machine_.allocate(bytes, 1), pointer);
    expect_zeros(pointer, bytes, 1);
    machine_.deallocate(pointer, 1);
  }
  EXPECT_EQ(looks_, 3);
}

TEST_F(ZeroOnFree, InTheOrderOfAStreamThatLagsBehind) {
  machine_.streams().hold({0, 1});
  void* pointer = allocate_and_write(4 * kGranule, 1);
  machine_.deallocate(pointer, 1);
  EXPECT_EQ(machine_.allocate(4 * kGranule, 1), pointer);
  expect_zeros(pointer, 4 * kGranule, 1);
  EXPECT_EQ(looks_, 0);
  machine_.streams().advance_all({0, 1});
  EXPECT_EQ(looks_, 1);
  EXPECT_EQ(machine_.streams().synchronizations(), 0u);
  machine_.deallocate(pointer, 1);
}

// Both when it moves behind a fence, and when the streams have to wait for each other.
TEST_F(ScarceZeroOnFree, AnotherStreamFindsThemToo) {
  for (const bool lags : {false, true}) {
    if (lags) machine_.streams().hold({0, 1});
    void* pointer = allocate_and_write(8 * kGranule, 1);
    machine_.deallocate(pointer, 1);
    void* other = machine_.allocate(8 * kGranule, 2);
    expect_zeros(other, 8 * kGranule, 2);
    machine_.streams().advance_all({0, 1});
    machine_.streams().advance_all({0, 2});
    machine_.deallocate(other, 2);
  }
  EXPECT_EQ(looks_, 2);
  EXPECT_EQ(machine_.streams().synchronizations(), 0u);
}

TEST_F(ZeroOnFree, WhatAnotherStreamStillUsesIsClearedBehindIt) {
  void* pointer = allocate_and_write(4 * kGranule, 1);
  machine_.streams().hold({0, 2});
  int wrong = 0;
  run(pointer, 4 * kGranule, 2, [=, &wrong] {
    wrong += is_zero(address_of(pointer), 4 * kGranule) ? 1 : 0;
    std::memset(pointer, 0xDD, 4 * kGranule);
  });
  record(pointer, 2);
  const std::uint64_t cleared = machine_.calls().clear;
  machine_.deallocate(pointer, 1);
  EXPECT_EQ(machine_.calls().clear, cleared);
  EXPECT_EQ(pending_bytes(), 4 * kGranule);
  machine_.streams().advance_all({0, 2});
  void* next = machine_.allocate(4 * kGranule, 1);
  EXPECT_EQ(next, pointer);
  EXPECT_EQ(wrong, 0);
  expect_zeros(next, 4 * kGranule, 1);
  EXPECT_EQ(looks_, 1);
  machine_.deallocate(next, 1);
}

// A borrower that has a block again before its owner does would find what it left there itself.
TEST_F(ZeroOnFree, NoStreamLendsToAnother) {
  machine_.deallocate(allocate_and_write(4 * kGranule, 1), 1);
  void* pointer = allocate_and_write(4 * kGranule, 2);
  EXPECT_EQ(machine_.stats().borrowed_blocks, 0u);
  machine_.deallocate(pointer, 2);
}

TEST_F(ZeroOnFree, TheWorkerLeavesClearingToThoseWhoKnowTheStream) {
  void* pointer = allocate_and_write(4 * kGranule, 1);
  machine_.streams().hold({0, 2});
  run(pointer, 4 * kGranule, 2, {});
  record(pointer, 2);
  machine_.deallocate(pointer, 1);
  machine_.streams().advance_all({0, 2});
  const std::uint64_t cleared = machine_.calls().clear;
  while (machine_.allocator().background_step()) {
  }
  machine_.allocator().check();
  EXPECT_EQ(machine_.calls().clear, cleared);
  EXPECT_EQ(pending_bytes(), 4 * kGranule);
  machine_.deallocate(machine_.allocate(512, 1), 1);  // any free will do
  EXPECT_EQ(pending_bytes(), 0u);
}

// Zeros that went into the graph would be written at every launch, whoever has the memory by then.
TEST_F(ZeroOnFree, WhatIsFreedDuringACaptureIsClearedAfterIt) {
  void* pointer = allocate_and_write(4 * kGranule, 1);
  capture(1, driver::CaptureState::active);
  machine_.deallocate(pointer, 1);
  EXPECT_EQ(pending_bytes(), 4 * kGranule);
  EXPECT_EQ(machine_.calls().clear, 0u);
  void* other = machine_.allocate(4 * kGranule, 2);  // nobody else gets it
  EXPECT_NE(other, pointer);
  EXPECT_FALSE(is_zero(address_of(pointer), 8));
  capture(1, driver::CaptureState::none);
  machine_.deallocate(other, 2);
  EXPECT_EQ(pending_bytes(), 0u);
  EXPECT_EQ(machine_.allocate(4 * kGranule, 1), pointer);
  expect_zeros(pointer, 4 * kGranule, 1);
  EXPECT_EQ(looks_, 1);
  machine_.deallocate(pointer, 1);
}

// Its graphs may be running: while it is theirs nobody writes there.
TEST_F(ZeroOnFree, APrivatePoolIsClearedWhenItIsReleased) {
  ASSERT_TRUE(machine_.allocator().begin_pool(kGraphPool, 0, [](StreamHandle) { return true; }).ok());
  void* first = allocate_and_write(4 * kGranule, 1);
  void* live = allocate_and_write(kGranule, 1);
  void* second = allocate_and_write(3 * kGranule, 1);
  machine_.deallocate(first, 1);
  EXPECT_EQ(machine_.allocate(4 * kGranule, 1), first);
  machine_.deallocate(first, 1);
  machine_.deallocate(second, 1);
  EXPECT_TRUE(machine_.allocator().end_pool(kGraphPool, 0).ok());
  EXPECT_EQ(machine_.calls().clear, 0u);
  const DeviceStats before = machine_.stats();
  EXPECT_TRUE(machine_.allocator().release_pool(kGraphPool, 0).ok());
  for (int i = 0; i < 2; ++i) {
    void* pointer = machine_.allocate(7 * kGranule, 1);
    expect_zeros(pointer, 7 * kGranule, 1);
    machine_.deallocate(pointer, 1);
  }
  EXPECT_EQ(looks_, 2);
  EXPECT_EQ(machine_.stats().all.allocated_bytes.peak, before.all.allocated_bytes.peak);
  machine_.deallocate(live, 1);
  EXPECT_EQ(machine_.stats().all.active_bytes.current, 0u);
}

TEST_F(ZeroOnFree, TrimGivesBackAReleasedPoolCleared) {
  ASSERT_TRUE(machine_.allocator().begin_pool(kGraphPool, 0, [](StreamHandle) { return true; }).ok());
  machine_.deallocate(allocate_and_write(4 * kGranule, 1), 1);
  EXPECT_TRUE(machine_.allocator().end_pool(kGraphPool, 0).ok());
  EXPECT_TRUE(machine_.allocator().release_pool(kGraphPool, 0).ok());
  EXPECT_TRUE(machine_.allocator().trim().ok());
  EXPECT_EQ(machine_.calls().clear, 1u);
  EXPECT_EQ(machine_.stats().all.reserved_bytes.current, 0u);
}

// The legacy default stream cannot be used while a stream that it waits for is captured.
TEST_F(ZeroOnFree, OfADefaultStreamItWaitsForTheCaptureOfOthers) {
  void* pointer = allocate_and_write(4 * kGranule, 0);
  capture(0, driver::CaptureState::implicit);
  machine_.deallocate(pointer, 0);
  EXPECT_EQ(machine_.calls().clear, 0u);
  capture(0, driver::CaptureState::none);
  machine_.deallocate(machine_.allocate(512, 0), 0);
  EXPECT_EQ(pending_bytes(), 0u);
}

// Its end unmaps: the zeros, of which the program knows nothing, have to be written by then.
TEST_F(ZeroOnFree, TheEndOfTheAllocatorWaitsForTheZeros) {
  void* pointer = allocate_and_write(4 * kGranule, 1);
  machine_.streams().hold({0, 1});
  machine_.deallocate(pointer, 1);
  EXPECT_EQ(machine_.streams().pending({0, 1}), 2u);  // the zeros, and the event behind them
  machine_.destroy_allocator();
  EXPECT_EQ(machine_.streams().pending({0, 1}), 0u);
  EXPECT_TRUE(machine_.streams().violations().empty());
}

// A capture that another thread begins at the last moment has the zeros in its graph, which writes them at each launch.
class CaptureAtTheLastMoment final : public ForwardingDriver {
 public:
  using ForwardingDriver::ForwardingDriver;
  Status clear(Stream stream, Address address, std::uint64_t bytes) override {
    if (begins) simulator->set_capture(stream, driver::CaptureState::active);
    return ForwardingDriver::clear(stream, address, bytes);
  }
  bool begins = false;
  driver::StreamSimulator* simulator = nullptr;
};

TEST(ZeroOnFreeInAGraph, TheBlockIsNobodysAnyMore) {
  Machine machine(host(64, 2), zeroing(), [](driver::Driver& inner) -> std::unique_ptr<driver::Driver> {
    return std::make_unique<CaptureAtTheLastMoment>(inner);
  });
  auto& driver = static_cast<CaptureAtTheLastMoment&>(machine.wrapper());
  driver.simulator = &machine.streams();
  void* pointer = machine.allocate(4 * kGranule, 1);
  const Result<void*> striped =
      machine.allocator().try_allocate(16 * kGranule, Placement::stripe({0, 1}), 0, stream_handle(1));
  ASSERT_TRUE(striped.ok());
  for (void* block : {pointer, *striped}) {
    driver.begins = true;
    machine.deallocate(block, 1);
    driver.begins = false;
    machine.streams().set_capture({0, 1}, driver::CaptureState::none);
  }
  EXPECT_TRUE(machine.allocator().trim().ok());
  machine.allocator().check();
  EXPECT_EQ(machine.calls().clear, 2u);
  EXPECT_EQ(machine.stats().all.active_bytes.current, 4 * kGranule);
  EXPECT_EQ(machine.device().usage().physical_bytes, 20 * kGranule);
  void* other = machine.allocate(4 * kGranule, 1);
  EXPECT_NE(other, pointer);
  machine.deallocate(other, 1);
}

// Memory of a stream that is gone is cleared on that of whoever inherits it.
TEST_F(ZeroOnFree, WhatAForgottenStreamLeavesIsCleared) {
  void* pointer = allocate_and_write(40 * kGranule, 1);
  ASSERT_TRUE(machine_.allocator().forget_stream(stream_handle(1)).ok());
  ASSERT_TRUE(machine_.streams().destroy_stream({0, 1}).ok());
  EXPECT_TRUE(machine_.allocator().try_deallocate(pointer).ok());
  EXPECT_EQ(machine_.calls().clear, 0u);
  void* other = machine_.allocate(40 * kGranule, 2);
  EXPECT_EQ(machine_.calls().clear, 1u);
  expect_zeros(other, 40 * kGranule, 2);
  EXPECT_EQ(looks_, 1);
  machine_.deallocate(other, 2);
}

// What the driver would not clear nobody gets; the next free tries again.
// Somebody else's stream clears it then, though nobody asks for memory on it.
TEST_F(ZeroOnFree, TrimGivesBackWhatAForgottenStreamLeft) {
  machine_.deallocate(machine_.allocate(kGranule, 4), 4);
  machine_.streams().hold({0, 3});
  void* pointer = allocate_and_write(4 * kGranule, 1);
  run(pointer, 4 * kGranule, 3, {});
  record(pointer, 3);
  machine_.deallocate(pointer, 1);
  EXPECT_TRUE(machine_.allocator().forget_stream(stream_handle(1)).ok());
  EXPECT_TRUE(machine_.streams().destroy_stream({0, 1}).ok());
  EXPECT_TRUE(machine_.allocator().trim().ok());
  machine_.allocator().check();
  EXPECT_EQ(machine_.stats().all.reserved_bytes.current, 0u);
  EXPECT_EQ(machine_.calls().clear, 2u);
  EXPECT_TRUE(machine_.streams().violations().empty());
}

TEST_F(ZeroOnFree, TrimGivesBackWhatAForgottenStreamLeftInAPrivatePool) {
  constexpr PoolId kPool{1, 0};
  machine_.deallocate(machine_.allocate(kGranule, 4), 4);
  ASSERT_TRUE(
      machine_.allocator().begin_pool(kPool, 0, [](StreamHandle asked) { return asked == stream_handle(1); }).ok());
  void* pointer = allocate_and_write(4 * kGranule, 1);
  ASSERT_TRUE(machine_.allocator().end_pool(kPool, 0).ok());
  machine_.deallocate(pointer, 1);
  EXPECT_TRUE(machine_.allocator().forget_stream(stream_handle(1)).ok());
  EXPECT_TRUE(machine_.streams().destroy_stream({0, 1}).ok());
  ASSERT_TRUE(machine_.allocator().release_pool(kPool, 0).ok());
  EXPECT_TRUE(machine_.allocator().trim().ok());
  machine_.allocator().check();
  EXPECT_EQ(machine_.stats().all.reserved_bytes.current, 0u);
  EXPECT_TRUE(machine_.streams().violations().empty());
}

TEST_F(ZeroOnFree, WhatCannotBeClearedStaysOutOfUse) {
  void* pointer = allocate_and_write(4 * kGranule, 1);
  void* small = machine_.allocate(512, 1);
  machine_.fault().arm({.kind = Step::clear, .sticky = true, .code = ErrorCode::unknown});
  machine_.deallocate(pointer, 1);
  EXPECT_EQ(pending_bytes(), 4 * kGranule);
  void* other = machine_.allocate(4 * kGranule, 1);
  EXPECT_NE(other, pointer);
  machine_.fault().heal();
  machine_.deallocate(small, 1);
  EXPECT_EQ(pending_bytes(), 0u);
  machine_.deallocate(other, 1);
}

// Whether there was a capture, asked about again after the zeros: where the driver does not say, they are written
// again.
TEST_F(ZeroOnFree, WhatMayBeInAGraphIsClearedAgain) {
  void* pointer = allocate_and_write(4 * kGranule, 1);
  void* small = machine_.allocate(512, 1);
  machine_.fault().arm({.kind = Step::properties, .nth = 2, .code = ErrorCode::unknown});
  machine_.deallocate(pointer, 1);
  EXPECT_TRUE(machine_.fault().reached());
  EXPECT_EQ(pending_bytes(), 4 * kGranule);
  machine_.deallocate(small, 1);
  EXPECT_EQ(pending_bytes(), 0u);
  EXPECT_EQ(machine_.allocate(4 * kGranule, 1), pointer);
  machine_.deallocate(pointer, 1);
}

TEST_F(ScarceZeroOnFree, TrimGivesBackAllThatWasCleared) {
  machine_.streams().hold({0, 2});
  void* pointer = allocate_and_write(4 * kGranule, 1);
  run(pointer, 4 * kGranule, 2, {});
  record(pointer, 2);
  machine_.deallocate(pointer, 1);
  EXPECT_TRUE(machine_.allocator().trim().ok());
  machine_.allocator().check();
  EXPECT_EQ(machine_.stats().all.reserved_bytes.current, 0u);
  EXPECT_EQ(machine_.calls().clear, 1u);
}

// A request that has to wait gets what is cleared while it does.
TEST_F(ScarceZeroOnFree, ARequestWaitsForWhatIsToBeCleared) {
  void* pointer = allocate_and_write(8 * kGranule, 1);
  machine_.streams().hold({0, 2});
  run(pointer, 8 * kGranule, 2, {});
  record(pointer, 2);
  machine_.deallocate(pointer, 1);
  void* other = machine_.allocate(8 * kGranule, 3);
  EXPECT_EQ(machine_.streams().synchronizations(), 1u);
  expect_zeros(other, 8 * kGranule, 3);
  EXPECT_EQ(looks_, 1);
  machine_.deallocate(other, 3);
}

// Where the stream that clears is behind, there are two waits: for the last use, and for the zeros.
TEST_F(ScarceZeroOnFree, ARequestWaitsForTheZeros) {
  for (const std::uint64_t stream : {1, 2}) machine_.streams().hold({0, stream});
  void* pointer = allocate_and_write(8 * kGranule, 1);
  run(pointer, 8 * kGranule, 2, {});
  record(pointer, 2);
  machine_.deallocate(pointer, 1);
  void* other = machine_.allocate(8 * kGranule, 3);
  expect_zeros(other, 8 * kGranule, 3);
  EXPECT_EQ(looks_, 1);
  machine_.deallocate(other, 3);
}

// What is cleared is free at a point behind the zeros, and not at that of its free, which the stream may have come to.
TEST_F(ScarceZeroOnFree, AnotherStreamDoesNotHaveItBeforeTheZeros) {
  machine_.streams().hold({0, 3});
  void* pointer = allocate_and_write(8 * kGranule, 1);
  run(pointer, 8 * kGranule, 3, {});
  record(pointer, 3);
  machine_.deallocate(pointer, 1);
  void* beside = machine_.allocate(kGranule, 2);  // looks at all streams: the first has come to the free
  machine_.streams().hold({0, 1});
  machine_.streams().resume({0, 3});
  void* other = machine_.allocate(8 * kGranule, 2);
  EXPECT_EQ(machine_.calls().clear, 1u);
  expect_zeros(other, 8 * kGranule, 2);
  EXPECT_EQ(looks_, 0);
  machine_.streams().advance_all({0, 1});
  machine_.streams().advance_all({0, 2});
  EXPECT_EQ(looks_, 1);
  for (void* block : {beside, other}) machine_.deallocate(block, 2);
}

// Over 200 frees, more than are cleared at once, with a capture in between: none is lost, none is cleared twice.
TEST_F(ZeroOnFree, ManyThatHadToWaitAreAllCleared) {
  std::vector<void*> blocks;
  for (int i = 0; i < 200; ++i) blocks.push_back(allocate_and_write(4096, 1));
  capture(1, driver::CaptureState::active);
  for (void* pointer : blocks) machine_.deallocate(pointer, 1);
  EXPECT_EQ(pending_bytes(), 200 * 4096u);
  capture(1, driver::CaptureState::none);
  void* whole = machine_.allocate(kGranule, 1);
  EXPECT_EQ(pending_bytes(), 0u);
  EXPECT_EQ(machine_.calls().clear, 200u);
  blocks.clear();
  for (int i = 0; i < 200; ++i) {
    blocks.push_back(machine_.allocate(4096, 1));
    expect_zeros(blocks.back(), 4096, 1);
  }
  EXPECT_EQ(looks_, 200);
  for (void* pointer : blocks) machine_.deallocate(pointer, 1);
  machine_.deallocate(whole, 1);
}

TEST(ZeroOnFreePlaced, MemoryOfOtherPlacesIsClearedBeforeTheDriverHasIt) {
  Machine machine(host(64, 2), zeroing());
  machine.streams().hold({0, 1});
  const Result<void*> pointer =
      machine.allocator().try_allocate(16 * kGranule, Placement::stripe({0, 1}), 0, stream_handle(1));
  ASSERT_TRUE(pointer.ok());
  machine.deallocate(*pointer, 1);
  machine.streams().advance({0, 1}, 1);  // the event of the free
  EXPECT_EQ(machine.calls().clear, 0u);
  EXPECT_TRUE(machine.allocator().trim().ok());  // waits for the work, clears, and waits for that
  EXPECT_EQ(machine.calls().clear, 1u);
  EXPECT_EQ(machine.device().usage().physical_bytes, 0u);
}

TEST(ZeroOnFreePlaced, NotWhileItsStreamIsCaptured) {
  Machine machine(host(64, 2), zeroing());
  const Result<void*> pointer =
      machine.allocator().try_allocate(16 * kGranule, Placement::stripe({0, 1}), 0, stream_handle(1));
  ASSERT_TRUE(pointer.ok());
  machine.streams().set_capture({0, 1}, driver::CaptureState::active);
  machine.deallocate(*pointer, 1);
  (void)machine.allocator().trim().ok();
  EXPECT_EQ(machine.calls().clear, 0u);
  EXPECT_EQ(machine.device().usage().physical_bytes, 16 * kGranule);
  machine.streams().set_capture({0, 1}, driver::CaptureState::none);
  EXPECT_TRUE(machine.allocator().trim().ok());
  EXPECT_EQ(machine.calls().clear, 1u);
  EXPECT_EQ(machine.device().usage().physical_bytes, 0u);
}

// Its stream may be destroyed once it is forgotten, though the block is yet to be cleared.
TEST(ZeroOnFreePlaced, WhoseStreamIsForgottenIsClearedOnAnother) {
  Machine machine(host(64, 2), zeroing());
  machine.streams().hold({0, 1});
  const Result<void*> pointer =
      machine.allocator().try_allocate(16 * kGranule, Placement::stripe({0, 1}), 0, stream_handle(1));
  ASSERT_TRUE(pointer.ok());
  EXPECT_TRUE(machine.device().launch({0, 1}, {{address_of(*pointer), 16 * kGranule, true}}).ok());
  machine.deallocate(*pointer, 1);
  ASSERT_TRUE(machine.allocator().forget_stream(stream_handle(1)).ok());
  ASSERT_TRUE(machine.streams().destroy_stream({0, 1}).ok());
  machine.streams().advance_all({0, 1});
  EXPECT_TRUE(machine.allocator().trim().ok());
  EXPECT_EQ(machine.calls().clear, 1u);
  EXPECT_EQ(machine.device().usage().physical_bytes, 0u);
}

// As WhatMayBeInAGraphIsClearedAgain above.
TEST(ZeroOnFreePlaced, WhatMayBeInAGraphIsClearedAgain) {
  Machine machine(host(64, 2), zeroing());
  const Result<void*> pointer =
      machine.allocator().try_allocate(16 * kGranule, Placement::stripe({0, 1}), 0, stream_handle(1));
  ASSERT_TRUE(pointer.ok());
  machine.fault().arm({.kind = Step::properties, .nth = 3, .code = ErrorCode::unknown});  // of mark, clear, clear
  machine.deallocate(*pointer, 1);
  EXPECT_TRUE(machine.fault().reached());
  EXPECT_EQ(machine.calls().clear, 1u);
  EXPECT_TRUE(machine.allocator().trim().ok());
  EXPECT_EQ(machine.calls().clear, 2u);
  EXPECT_EQ(machine.device().usage().physical_bytes, 0u);
}

TEST(ZeroOnFreeOff, ClearsNothing) {
  Machine machine(host(64), {});
  machine.deallocate(machine.allocate(4 * kGranule, 1), 1);
  EXPECT_EQ(machine.calls().clear, 0u);
}

}  // namespace
}  // namespace gmlake::test
