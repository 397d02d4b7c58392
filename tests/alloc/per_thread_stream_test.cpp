// CU_STREAM_PER_THREAD is a stream of each thread's own: what one thread freed on it, another gets behind a fence. One
// thread passes for several here, so that every order of their steps is at hand; the last tests run threads.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "driver/per_thread_stream.hpp"
#include "support/forwarding_driver.hpp"
#include "support/machine.hpp"
#include "support/race_detector.hpp"

namespace gmlake::test {
namespace {

using driver::kPerThreadStream;
using driver::ThreadStream;

constexpr std::uint64_t kLarge = 10 * kGranule;

class PerThreadStreams : public testing::Test {
 protected:
  explicit PerThreadStreams(std::uint64_t granules = 256)
      : machine_(std::make_unique<driver::ModelDriver>(small_model(granules)), {}, [](driver::Driver& inner) {
          return std::unique_ptr<driver::Driver>(std::make_unique<RaceDetector>(inner));
        }) {}
  ~PerThreadStreams() override { ThreadStream::impersonate(nullptr); }
  void TearDown() override {
    EXPECT_TRUE(races().races().empty()) << describe(races().races().front());
    races().synchronize();  // as machine_ does at its end
  }

  // From here on the caller is that thread.
  void be(const std::optional<ThreadStream>& thread) { ThreadStream::impersonate(thread ? &*thread : nullptr); }
  driver::Stream stream_of(const std::optional<ThreadStream>& thread) const { return {0, thread->number()}; }

  void* allocate(std::uint64_t bytes) { return machine_.allocate(bytes, kPerThreadStream); }
  void deallocate(void* pointer) { machine_.deallocate(pointer, kPerThreadStream); }
  // A kernel on the caller's own stream.
  void use(void* pointer, std::uint64_t bytes) {
    const std::vector<driver::Access> accesses{{address_of(pointer), bytes, true}};
    races().kernel({0, kPerThreadStream}, accesses);
    EXPECT_TRUE(machine_.device().launch({0, kPerThreadStream}, accesses).ok());
  }
  RaceDetector& races() { return static_cast<RaceDetector&>(machine_.wrapper()); }

  std::optional<ThreadStream> first_{std::in_place}, second_{std::in_place};
  Machine machine_;
};

class ScarcePerThreadStreams : public PerThreadStreams {
 protected:
  ScarcePerThreadStreams() : PerThreadStreams(40) {}
};

TEST_F(PerThreadStreams, HaveACacheEach) {
  be(first_);
  void* pointer = allocate(kLarge);
  deallocate(pointer);
  EXPECT_EQ(allocate(kLarge), pointer);
  machine_.streams().hold(stream_of(first_));
  use(pointer, kLarge);
  deallocate(pointer);
  be(second_);
  void* other = allocate(kLarge);
  EXPECT_NE(other, pointer);
  use(other, kLarge);
  deallocate(other);
  be(first_);
  EXPECT_EQ(allocate(kLarge), pointer);  // its own order is enough
  use(pointer, kLarge);
  deallocate(pointer);
}

TEST_F(PerThreadStreams, GiveMemoryToAnotherThreadOnceTheirWorkIsComplete) {
  be(first_);
  machine_.streams().hold(stream_of(first_));
  void* pointer = allocate(kLarge);
  use(pointer, kLarge);
  deallocate(pointer);
  machine_.streams().resume(stream_of(first_));
  be(second_);
  void* again = allocate(kLarge);
  EXPECT_EQ(again, pointer);
  use(again, kLarge);
  deallocate(again);
}

TEST_F(ScarcePerThreadStreams, WaitForEachOtherOnTheDevice) {
  constexpr std::uint64_t kNearlyAll = 30 * kGranule;
  for (const auto* thread : {&first_, &second_}) machine_.streams().hold(stream_of(*thread));
  std::uint64_t waits = 0;
  for (const auto* thread : {&first_, &second_, &first_, &second_}) {
    be(*thread);
    void* pointer = allocate(kNearlyAll);
    EXPECT_EQ(machine_.stats().rung_stream_wait, waits++);
    use(pointer, kNearlyAll);
    deallocate(pointer);
  }
  EXPECT_EQ(machine_.streams().synchronizations(), 0u);
}

// The other thread's stream uses the block last: the one that it was allocated for has to wait for that.
TEST_F(PerThreadStreams, ThatFreeAnothersBlockKeepItUntilTheyAreThrough) {
  be(first_);
  void* pointer = allocate(kLarge);
  be(second_);
  machine_.streams().hold(stream_of(second_));
  use(pointer, kLarge);
  deallocate(pointer);
  be(first_);
  void* other = allocate(kLarge);
  EXPECT_NE(other, pointer);
  machine_.streams().advance_all(stream_of(second_));
  void* more = allocate(kLarge);
  EXPECT_EQ(more, pointer);
  use(more, kLarge);
  deallocate(more);
  deallocate(other);
}

// A free that names no stream is one on the block's own, whichever thread makes it.
TEST_F(PerThreadStreams, GetBackAtOnceWhatAnotherThreadFreesForThem) {
  be(first_);
  machine_.streams().hold(stream_of(first_));
  void* pointer = allocate(kLarge);
  use(pointer, kLarge);
  be(second_);
  ASSERT_TRUE(machine_.allocator().try_deallocate(pointer).ok());
  void* other = allocate(kLarge);
  EXPECT_NE(other, pointer);
  be(first_);
  EXPECT_EQ(allocate(kLarge), pointer);
  use(pointer, kLarge);
  deallocate(pointer);
  be(second_);
  deallocate(other);
}

TEST_F(PerThreadStreams, AreRecordedAsTheCallersOwn) {
  be(first_);
  void* pointer = allocate(kLarge);
  be(second_);
  machine_.streams().hold(stream_of(second_));
  ASSERT_TRUE(machine_.allocator().try_record_stream(pointer, stream_handle(kPerThreadStream)).ok());
  use(pointer, kLarge);
  be(first_);
  deallocate(pointer);
  void* other = allocate(kLarge);
  EXPECT_NE(other, pointer);
  deallocate(other);
}

TEST_F(PerThreadStreams, AreForgottenOneAtATime) {
  std::vector<void*> pointers;
  for (const auto* thread : {&first_, &second_}) {
    be(*thread);
    machine_.streams().hold(stream_of(*thread));
    pointers.push_back(allocate(kLarge));
    use(pointers.back(), kLarge);
    deallocate(pointers.back());
  }
  be(first_);
  ASSERT_TRUE(machine_.allocator().forget_stream(stream_handle(kPerThreadStream)).ok());
  void* anew = allocate(kLarge);
  EXPECT_NE(anew, pointers[0]);  // a new stream by its books, which knows of no order
  deallocate(anew);
  be(second_);
  EXPECT_EQ(allocate(kLarge), pointers[1]);
  deallocate(pointers[1]);
}

TEST_F(PerThreadStreams, AreShownToFiltersByTheHandleThatTheCallerKnows) {
  std::vector<StreamHandle> seen;
  const PoolId pool{1, 0};
  ASSERT_TRUE(machine_.allocator()
                  .begin_pool(pool, 0,
                              [&](StreamHandle stream) {
                                seen.push_back(stream);
                                return stream == stream_handle(kPerThreadStream);
                              })
                  .ok());
  for (const auto* thread : {&first_, &second_}) {
    be(*thread);
    deallocate(allocate(kLarge));
  }
  machine_.deallocate(machine_.allocate(kLarge, 5), 5);
  ASSERT_TRUE(machine_.allocator().end_pool(pool, 0).ok());
  ASSERT_TRUE(machine_.allocator().release_pool(pool, 0).ok());
  EXPECT_EQ(seen, (std::vector{stream_handle(2), stream_handle(2), stream_handle(5)}));
}

// Nothing tells another thread that this stream is captured; that a blocking one is, the legacy stream does. Here every
// stream is one.
TEST_F(PerThreadStreams, AreNotMarkedByOthersDuringACapture) {
  be(first_);
  void* pointer = allocate(kLarge);
  use(pointer, kLarge);
  deallocate(pointer);
  machine_.streams().set_capture({0, 7}, driver::CaptureState::active);
  be(second_);
  void* other = allocate(kLarge);  // a record on the first one's stream now would be a violation
  EXPECT_NE(other, pointer);
  machine_.streams().set_capture({0, 7}, driver::CaptureState::none);
  EXPECT_EQ(allocate(kLarge), pointer);
  deallocate(pointer);
  deallocate(other);
}

TEST_F(PerThreadStreams, OfThreadsThatEndedLeaveTheirMemoryToOthers) {
  be(first_);
  machine_.streams().hold(stream_of(first_));
  const driver::Stream gone = stream_of(first_);
  void* pointer = allocate(kLarge);
  use(pointer, kLarge);
  deallocate(pointer);
  be(second_);
  first_.reset();
  void* other = allocate(kLarge);
  EXPECT_NE(other, pointer);
  machine_.streams().advance_all(gone);
  EXPECT_EQ(allocate(kLarge), pointer);
  deallocate(pointer);
  deallocate(other);
}

TEST_F(PerThreadStreams, OfThreadsThatEndedAreForgottenAfterACapture) {
  be(first_);
  void* pointer = allocate(kLarge);
  deallocate(pointer);
  be(second_);
  first_.reset();
  const ThreadStream another;  // those that have ended are looked for when one has come
  machine_.streams().set_capture({0, 7}, driver::CaptureState::active);
  void* other = allocate(kLarge);
  EXPECT_NE(other, pointer);
  machine_.streams().set_capture({0, 7}, driver::CaptureState::none);
  void* more = allocate(3 * kLarge);
  const Snapshot snapshot = machine_.allocator().snapshot();
  for (const SegmentInfo& segment : snapshot.devices.at(0).segments) {
    EXPECT_EQ(segment.stream, second_->number());  // the other one's are inherited
  }
  deallocate(more);
  deallocate(other);
}

// A block may be freed by what the thread destroys after everything else.
TEST_F(PerThreadStreams, OfThreadsThatEndedMayStillBeNamedByTheirLastObjects) {
  be(first_);
  void* pointer = allocate(kLarge);
  first_.reset();  // the caller goes on passing for it
  deallocate(pointer);
  deallocate(allocate(kLarge));
  be(second_);
  EXPECT_EQ(allocate(kLarge), pointer);
  deallocate(pointer);
}

// Threads that come, take memory and end: books and addresses are those of as many as live at a time.
TEST_F(PerThreadStreams, OfManyThreadsInTurnNeedTheBooksOfOne) {
  std::optional<Overhead> before;
  std::uint64_t addresses = 0;
  for (int i = 0; i < 300; ++i) {
    first_.emplace();
    be(first_);
    void* large = allocate(kLarge);
    void* small = allocate(1000);
    use(large, kLarge);
    be(second_);
    ASSERT_TRUE(machine_.allocator().try_record_stream(small, stream_handle(kPerThreadStream)).ok());
    ASSERT_TRUE(machine_.allocator().try_deallocate(small).ok());
    be(first_);
    deallocate(large);
    if (i == 20) {
      before = machine_.allocator().overhead();
      addresses = machine_.stats().address_bytes;
    }
  }
  const Overhead after = machine_.allocator().overhead();
  EXPECT_LE(after.block_metadata_bytes, before->block_metadata_bytes);
  EXPECT_LE(after.phy_metadata_bytes, before->phy_metadata_bytes);
  EXPECT_LE(machine_.stats().address_bytes, addresses);
  EXPECT_LE(machine_.stats().all.reserved_bytes.current, 2 * kLarge);
  be(std::nullopt);
}

// Nor do threads leave books behind that name their stream in a free alone, while all requests hit.
TEST_F(PerThreadStreams, OfManyThreadsThatOnlyFreeAreForgottenInTheBackground) {
  be(std::nullopt);
  machine_.deallocate(machine_.allocate(1000));
  for (int i = 0; i < 300; ++i) {
    void* pointer = machine_.allocate(1000);
    first_.emplace();
    be(first_);
    deallocate(pointer);
    be(std::nullopt);
    while (machine_.allocator().background_step()) {
    }
  }
  const driver::CallCounts before = machine_.calls();
  machine_.deallocate(machine_.allocate(kLarge));
  EXPECT_LE((machine_.calls() - before).event_record, 8u);  // not one for each of the streams that there were
}

// A block that outlives many threads, each of which says that it uses it, keeps no trace of those that have ended.
TEST_F(PerThreadStreams, OfManyThreadsThatUseOneBlockAreForgottenByIt) {
  be(std::nullopt);
  void* weights = machine_.allocate(1000);
  std::uint64_t before = 0;
  for (int i = 0; i < 300; ++i) {
    first_.emplace();
    be(first_);
    ASSERT_TRUE(machine_.allocator().try_record_stream(weights, stream_handle(kPerThreadStream)).ok());
    be(std::nullopt);
    machine_.deallocate(machine_.allocate(3 * kLarge, 5), 5);  // looks who has ended
    ASSERT_TRUE(machine_.allocator().trim().ok());
    if (i == 20) before = machine_.allocator().overhead().block_metadata_bytes;
  }
  EXPECT_LE(machine_.allocator().overhead().block_metadata_bytes, before);
  be(first_);  // the last one lives, and is at work on it
  machine_.streams().hold(stream_of(first_));
  use(weights, 1000);
  be(std::nullopt);
  machine_.deallocate(weights);
  EXPECT_NE(machine_.allocate(1000), weights);
  machine_.streams().advance_all(stream_of(first_));
}

TEST_F(PerThreadStreams, UsePlacedBlocksAsTheCallersOwn) {
  driver::ModelOptions model = small_model();
  model.devices = 2;
  Machine machine(model);
  be(first_);
  void* pointer =
      machine.allocator().try_allocate(kLarge, Placement::stripe({1}), 0, stream_handle(kPerThreadStream)).value();
  be(second_);
  machine.streams().hold(stream_of(second_));
  EXPECT_TRUE(machine.device().launch(stream_of(second_), {{address_of(pointer), kLarge, true}}).ok());
  machine.deallocate(pointer, kPerThreadStream);
  EXPECT_EQ(machine.device().usage().physical_bytes, kLarge);  // kept for the second thread's work
  machine.streams().resume(stream_of(second_));
  ASSERT_TRUE(machine.allocator().trim().ok());
  EXPECT_EQ(machine.device().usage().physical_bytes, 0u);
}

// Threads that run: each has its own cache, and blocks that they hand to each other are freed by whoever had them.
TEST(PerThreadStreamsOfThreads, ServeAllOfThemAtOnce) {
  Machine machine(small_model(4096), {}, Worker::thread);
  Allocator& allocator = machine.allocator();
  std::atomic<std::uint64_t*> handed{nullptr};
  const auto work = [&] {
    for (int i = 0; i < 2000; ++i) {
      const std::uint64_t bytes = std::uint64_t{512} << (i % 14);
      void* pointer = allocator.allocate(bytes, 0, stream_handle(kPerThreadStream));
      pointer = handed.exchange(static_cast<std::uint64_t*>(pointer));
      if (pointer != nullptr && i % 2 == 0) allocator.deallocate(pointer, stream_handle(kPerThreadStream));
      if (pointer != nullptr && i % 2 != 0) allocator.deallocate(pointer);
    }
  };
  for (int round = 0; round < 3; ++round) {  // the second time none of the threads is one of the first
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) threads.emplace_back(work);
    for (std::thread& thread : threads) thread.join();
    allocator.check();
  }
  allocator.deallocate(handed.load());
  EXPECT_EQ(machine.stats().all.allocation.current, 0u);
}

// Of a thread, to be destroyed after what gives the thread its number.
struct LateObject {
  std::function<void()> at_end;
  ~LateObject() {
    if (at_end) at_end();
  }
};
thread_local LateObject late;

TEST(PerThreadStreamsOfThreads, ServeWhatTheirThreadsDestroyLast) {
  Machine machine(small_model());
  Allocator& allocator = machine.allocator();
  void* pointer = nullptr;
  std::thread([&] {
    late.at_end = [&] {
      std::thread([&] { machine.deallocate(machine.allocate(3 * kLarge, 5), 5); }).join();  // looks who has ended
      machine.streams().hold({0, kPerThreadStream});
      EXPECT_TRUE(machine.device().launch({0, kPerThreadStream}, {{address_of(pointer), kLarge, true}}).ok());
      allocator.deallocate(pointer);
    };
    pointer = allocator.allocate(kLarge, 0, stream_handle(kPerThreadStream));
  }).join();
  for (int i = 0; i < 3; ++i) EXPECT_NE(machine.allocate(kLarge, 5), pointer);
}

// A trim waits for the device; a free beside it does not, whoever has ended.
TEST(PerThreadStreamsOfThreads, ThatEndedKeepNoFreeWaiting) {
  static std::atomic<bool> open;
  static std::atomic<bool> waiting;
  class Waits final : public ForwardingDriver {
   public:
    using ForwardingDriver::ForwardingDriver;
    Status event_synchronize(Event event) override {
      waiting = true;
      while (!open) std::this_thread::yield();
      return ForwardingDriver::event_synchronize(event);
    }
  };
  open = waiting = false;
  Machine machine(std::make_unique<driver::ModelDriver>(small_model()), {}, [](driver::Driver& inner) {
    return std::unique_ptr<driver::Driver>(std::make_unique<Waits>(inner));
  });
  Allocator& allocator = machine.allocator();
  machine.streams().hold({0, 7});
  std::vector<void*> blocks;
  for (int i = 0; i < 200; ++i) {
    blocks.push_back(allocator.allocate(1000, 0, stream_handle(5)));
    allocator.record_stream(blocks.back(), stream_handle(7));
    ASSERT_TRUE(machine.device().launch({0, 7}, {{address_of(blocks.back()), 1000, true}}).ok());
  }
  std::thread([&] {
    void* pointer = allocator.allocate(1000, 0, stream_handle(kPerThreadStream));
    allocator.deallocate(pointer, stream_handle(kPerThreadStream));
  }).join();
  allocator.deallocate(blocks.back());
  blocks.pop_back();
  std::thread trims([&] { EXPECT_TRUE(allocator.trim().ok()); });
  while (!waiting) std::this_thread::yield();
  for (void* block : blocks) allocator.deallocate(block);  // where one waits, this test hangs
  open = true;
  trims.join();
}

// What one thread uses, the other never has: neither gets an address that the other's work may still touch.
TEST(PerThreadStreamsOfThreads, AreTwoStreams) {
  Machine machine(small_model());
  Allocator& allocator = machine.allocator();
  void* pointer = nullptr;
  std::uint64_t number = 0;
  std::thread first([&] {
    number = driver::thread_stream();
    pointer = allocator.allocate(kLarge, 0, stream_handle(kPerThreadStream));
    machine.streams().hold({0, kPerThreadStream});
    EXPECT_TRUE(machine.device().launch({0, kPerThreadStream}, {{address_of(pointer), kLarge, true}}).ok());
    allocator.deallocate(pointer, stream_handle(kPerThreadStream));
  });
  first.join();
  void* other = allocator.allocate(kLarge, 0, stream_handle(kPerThreadStream));
  EXPECT_NE(other, pointer);
  machine.streams().advance_all({0, number});
  EXPECT_EQ(allocator.allocate(kLarge, 0, stream_handle(kPerThreadStream)), pointer);
  allocator.deallocate(pointer);
  allocator.deallocate(other);
}

}  // namespace
}  // namespace gmlake::test
