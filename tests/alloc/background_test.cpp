// The background worker: its policy as a function, its steps by hand, and the thread that calls them.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <functional>
#include <thread>
#include <vector>

#include "alloc/background_policy.hpp"
#include "alloc/background_worker.hpp"
#include "support/machine.hpp"

namespace gmlake::test {
namespace {

using alloc::BackgroundWorker;
using alloc::kRetiredAtOnce;
using alloc::near_a_bound;
using alloc::StaleMappings;

// --- the policy ---

TEST(RetireAhead, IsWantedNearABoundAlone) {
  StaleMappings mappings{.granules = 1000, .granules_bound = 4000, .count = 2000, .count_bound = 400'000};
  EXPECT_FALSE(near_a_bound(mappings));
  mappings.granules = 3501;
  EXPECT_TRUE(near_a_bound(mappings));
  mappings.granules = 3500;
  EXPECT_FALSE(near_a_bound(mappings));
  mappings.count = 350'001;
  EXPECT_TRUE(near_a_bound(mappings));
  mappings.granules = 0;  // none of them is stale
  EXPECT_FALSE(near_a_bound(mappings));
}

// --- the steps, by hand ---

// A request that fills a hole and has to unmap what is stale there: 20 granules are stitched out of two runs, and then
// again out of a run and one of the holes. 10 stale mappings are retired by the request, 10 are left.
// With the bound of kLowBound, which is at 22 granules, these are too near to it, and 12 are not.
const Options kLowBound{.max_stale = 0.55};

struct Stitched {
  explicit Stitched(Machine& machine) {
    std::vector<void*> blocks;
    for (int i = 0; i < 4; ++i) blocks.push_back(machine.allocate(10 * kGranule));
    for (void* block : {blocks[0], blocks[2]}) machine.deallocate(block);
    first = machine.allocate(20 * kGranule);
    for (void* block : {blocks[1], blocks[3]}) machine.deallocate(block);
    second = machine.allocate(20 * kGranule);
  }
  void* first;
  void* second;
};

TEST(BackgroundSteps, RetireAheadOfTheBoundAlone) {
  Machine machine(small_model(40), kLowBound);
  const Stitched blocks(machine);
  const DeviceStats before = machine.stats();
  ASSERT_EQ(before.mappings_retired, 10u);
  ASSERT_EQ(before.stale_bytes, 20 * kGranule);
  EXPECT_EQ(before.background_retired, 0u);
  std::uint64_t unmapped = before.mappings_retired;
  while (machine.allocator().background_step()) {
    machine.allocator().check();
    const std::uint64_t now = machine.stats().mappings_retired;
    EXPECT_LE(now - unmapped, kRetiredAtOnce);
    unmapped = now;
  }
  EXPECT_GE(machine.stats().background_retired, 8u);  // more where it began late
  EXPECT_EQ(machine.stats().mappings_retired, 18u);
  EXPECT_EQ(machine.stats().stale_bytes, 12 * kGranule);
  EXPECT_FALSE(machine.allocator().background_step());
  for (void* block : {blocks.first, blocks.second}) machine.deallocate(block);
}

TEST(BackgroundSteps, KeepWhatIsStaleWhereNoBoundIsNear) {
  Machine machine(small_model(40));
  const Stitched blocks(machine);
  const driver::CallCounts calls = machine.calls();
  EXPECT_FALSE(machine.allocator().background_step());
  EXPECT_EQ(machine.calls(), calls);
  EXPECT_EQ(machine.stats().stale_bytes, 20 * kGranule);
  for (void* block : {blocks.first, blocks.second}) machine.deallocate(block);
}

TEST(BackgroundSteps, DoNothingForAJobThatUnmapsNothing) {
  Machine machine;
  for (int i = 0; i < 10; ++i) machine.deallocate(machine.allocate(10 * kGranule));
  const driver::CallCounts calls = machine.calls();
  EXPECT_FALSE(machine.allocator().background_step());
  EXPECT_EQ(machine.calls(), calls);
}

TEST(BackgroundSteps, GiveBackWhatOtherStreamsAreDoneWith) {
  Machine machine;
  machine.streams().hold({0, 2});
  void* block = machine.allocate(kGranule, 1);
  void* other = machine.allocate(kGranule, 2);
  ASSERT_TRUE(machine.device().launch({0, 2}, {{address_of(block), kGranule, true}}).ok());
  ASSERT_TRUE(machine.allocator().try_record_stream(block, stream_handle(2)).ok());
  machine.deallocate(block, 1);
  EXPECT_FALSE(machine.allocator().background_step());
  EXPECT_EQ(machine.stats().all.active_bytes.current, 2 * kGranule);
  machine.streams().advance_all({0, 2});
  ASSERT_TRUE(machine.allocator().try_record_stream(other, stream_handle(1)).ok());  // then there is reason to look
  machine.deallocate(other, 2);
  while (machine.allocator().background_step()) machine.allocator().check();
  EXPECT_EQ(machine.stats().all.active_bytes.current, 0u);
  EXPECT_EQ(machine.stats().background_returned, 2u);
  const driver::CallCounts calls = machine.calls();
  EXPECT_EQ(machine.allocate(kGranule, 1), block);  // a hit: the driver is not called
  EXPECT_EQ(machine.calls(), calls);
  machine.deallocate(block, 1);
}

TEST(BackgroundSteps, RetireNothingThatTheDeviceMayStillUse) {
  Machine machine(small_model(40), kLowBound);
  const Stitched blocks(machine);
  for (void* block : {blocks.first, blocks.second}) machine.deallocate(block);
  machine.streams().hold({0, 0});
  void* used = machine.allocate(20 * kGranule);
  ASSERT_TRUE(machine.device().launch({0, 0}, {{address_of(used), 20 * kGranule, true}}).ok());
  machine.deallocate(used);
  void* whole = machine.allocate(40 * kGranule);  // moves what the kernel still uses
  while (machine.allocator().background_step()) machine.allocator().check();
  EXPECT_TRUE(machine.streams().violations().empty());
  EXPECT_GT(machine.stats().stale_bytes, 0u);
  machine.deallocate(whole);
}

TEST(BackgroundSteps, LeaveWhatTheDriverRefusesAndGoOnLater) {
  Machine machine(small_model(40), kLowBound);
  const Stitched blocks(machine);
  machine.fault().arm({.kind = Step::unmap, .nth = 1, .sticky = false, .code = ErrorCode::invalid_value});
  while (machine.allocator().background_step()) {
  }
  machine.allocator().check();
  EXPECT_GT(machine.stats().quarantined_bytes, 0u);
  EXPECT_EQ(machine.stats().background_retired, 0u);
  for (void* block : {blocks.first, blocks.second}) machine.deallocate(block);
}

// --- the thread ---

// Waits until `done`, with no limit: a test that hangs says so by hanging.
void wait_until(const std::function<bool()>& done) {
  while (!done()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

TEST(BackgroundThread, SleepsUntilItIsWokenAndThenUntilNothingIsLeft) {
  std::atomic<int> left = 0;
  std::atomic<int> steps = 0;
  BackgroundWorker worker(
      [&] {
        const bool more = left.fetch_sub(1) > 1;  // before the count: once that is full, `left` is the next round's
        ++steps;
        return more ? BackgroundWorker::Next::again : BackgroundWorker::Next::idle;
      },
      BackgroundWorker::Mode::thread);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(steps, 0);
  for (int round = 1; round <= 100; ++round) {
    left = 3;
    worker.wake();
    wait_until([&] { return steps == 3 * round; });
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(steps, 300);
}

TEST(BackgroundThread, LooksAgainByItselfWhileSomethingWaitsForTheDevice) {
  std::atomic<int> steps = 0;
  BackgroundWorker worker([&] { return ++steps < 5 ? BackgroundWorker::Next::later : BackgroundWorker::Next::idle; },
                          BackgroundWorker::Mode::thread);
  worker.wake();
  wait_until([&] { return steps == 5; });
}

// A job that frees all the time what other streams use pays for a wake now and then, not for one with each free.
TEST(BackgroundThread, TakesAStepAMillisecondWhileItIsWokenAllTheTime) {
  std::atomic<std::int64_t> steps = 0;
  BackgroundWorker worker(
      [&] {
        ++steps;
        return BackgroundWorker::Next::idle;
      },
      BackgroundWorker::Mode::thread);
  const auto begin = std::chrono::steady_clock::now();
  while (steps < 20) worker.wake();
  worker.stop();
  const auto elapsed =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin).count();
  EXPECT_LE(steps, elapsed + 2);
}

TEST(BackgroundThread, LosesNoWakeThatComesDuringAStep) {
  std::atomic<int> wanted = 0;
  std::atomic<int> seen = 0;
  BackgroundWorker worker(
      [&] {
        seen = wanted.load();
        return BackgroundWorker::Next::idle;
      },
      BackgroundWorker::Mode::thread);
  for (int i = 1; i <= 10'000; ++i) {
    wanted = i;
    worker.wake();
    if (i % 100 == 0) wait_until([&] { return seen == i; });
  }
}

TEST(BackgroundThread, TakesAnotherStepWhenOneIsAskedForDuringTheLast) {
  std::atomic<int> steps = 0;
  std::atomic<BackgroundWorker*> self = nullptr;
  BackgroundWorker worker(
      [&] {
        if (++steps == 1) self.load()->wake();
        return BackgroundWorker::Next::idle;
      },
      BackgroundWorker::Mode::thread);
  self = &worker;
  worker.wake();
  wait_until([&] { return steps == 2; });
}

TEST(BackgroundThread, TakesNoSignalOfTheProgram) {
  std::atomic<int> blocked = 0;
  std::atomic<bool> stepped = false;
  BackgroundWorker worker(
      [&] {
        sigset_t mask;
        pthread_sigmask(SIG_SETMASK, nullptr, &mask);
        for (const int number : {SIGINT, SIGTERM, SIGCHLD, SIGUSR1, SIGALRM}) blocked += sigismember(&mask, number);
        stepped = true;
        return BackgroundWorker::Next::idle;
      },
      BackgroundWorker::Mode::thread);
  worker.wake();
  wait_until([&] { return stepped.load(); });
  EXPECT_EQ(blocked, 5);
}

TEST(BackgroundThread, StopsWhileItWaitsForTheDevice) {
  std::atomic<bool> stepped = false;
  BackgroundWorker worker(
      [&] {
        stepped = true;
        return BackgroundWorker::Next::later;
      },
      BackgroundWorker::Mode::thread);
  worker.wake();
  wait_until([&] { return stepped.load(); });
  worker.stop();
  stepped = false;
  worker.wake();
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_FALSE(stepped);
}

#if !defined(GMLAKE_SANITIZED)  // whose malloc may be locked in the child
// A child has no such thread: what is left of it is forgotten, whatever the thread was doing when the process forked.
TEST(BackgroundThread, IsForgottenByTheChildOfAFork) {
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> steps = 0;
    auto worker = std::make_unique<BackgroundWorker>(
        [&] {
          ++steps;
          return BackgroundWorker::Next::later;
        },
        BackgroundWorker::Mode::thread);
    worker->wake();
    wait_until([&] { return steps > 0; });
    const pid_t child = fork();
    if (child == 0) {
      worker.reset();
      _exit(0);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
}
#endif

TEST(BackgroundThread, RetiresAndReturnsWithNoRequestThatAsks) {
  Machine machine(small_model(40), kLowBound, Worker::thread);
  const Stitched blocks(machine);
  wait_until([&] { return machine.stats().stale_bytes == 12 * kGranule; });
  EXPECT_GE(machine.stats().background_retired, 8u);  // more where it began late
  machine.streams().hold({0, 2});
  machine.deallocate(blocks.first);
  void* block = machine.allocate(kGranule);
  ASSERT_TRUE(machine.device().launch({0, 2}, {{address_of(block), kGranule, true}}).ok());
  ASSERT_TRUE(machine.allocator().try_record_stream(block, stream_handle(2)).ok());
  machine.deallocate(block);
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(machine.stats().all.active_bytes.current, 21 * kGranule);
  machine.streams().advance_all({0, 2});
  wait_until([&] { return machine.stats().all.active_bytes.current == 20 * kGranule; });
  EXPECT_EQ(machine.stats().background_returned, 1u);
  machine.deallocate(blocks.second);
}

// The driver's call that the worker is in is all that a request waits for, and a hit does not wait at all; here the
// allocator's end comes in the middle of it.
TEST(BackgroundThread, EndsWithItsAllocator) {
  for (int round = 0; round < 20; ++round) {
    Machine machine(small_model(40), {}, Worker::thread);
    const Stitched blocks(machine);
    if (round % 2 == 0) {
      for (void* block : {blocks.first, blocks.second}) machine.deallocate(block);
    }
  }
}

}  // namespace
}  // namespace gmlake::test
