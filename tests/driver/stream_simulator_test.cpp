// Simulated streams: order, holds, waits, what is refused, and what is counted.
#include "driver/stream_simulator.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

namespace gmlake::driver {
namespace {

constexpr Stream kFirst{0, 1}, kSecond{0, 2}, kThird{0, 3};

class StreamSimulatorTest : public ::testing::Test {
 protected:
  Event record(Stream stream) {
    const Event event = streams_.event_create(stream.device);
    EXPECT_TRUE(streams_.event_record(event, stream).ok());
    return event;
  }
  bool passed(Event event) { return streams_.event_query(event).value(); }
  void wait(Stream stream, Event event) { EXPECT_TRUE(streams_.stream_wait(stream, event).ok()); }
  // A kernel that notes its letter when it runs.
  void work(Stream stream, char letter, std::vector<Access> accesses = {}) {
    EXPECT_TRUE(streams_.enqueue(stream, std::move(accesses), [this, letter] { log_ += letter; }).ok());
  }

  StreamSimulator streams_;
  std::string log_;
};

TEST_F(StreamSimulatorTest, CompletesAtOnceByDefault) {
  work(kFirst, 'a');
  EXPECT_EQ(log_, "a");
  EXPECT_TRUE(passed(record(kFirst)));
  EXPECT_EQ(streams_.pending(kFirst), 0u);
}

TEST_F(StreamSimulatorTest, AHeldStreamAdvancesByTheOperation) {
  streams_.hold(kFirst);
  work(kFirst, 'a');
  const Event between = record(kFirst);
  work(kFirst, 'b');
  const Event end = record(kFirst);
  EXPECT_EQ(streams_.pending(kFirst), 4u);
  EXPECT_EQ(streams_.advance(kFirst, 1), 1u);
  EXPECT_EQ(log_, "a");
  EXPECT_FALSE(passed(between));
  EXPECT_EQ(streams_.advance(kFirst, 1), 1u);
  EXPECT_TRUE(passed(between));
  EXPECT_FALSE(passed(end));
  EXPECT_EQ(streams_.advance(kFirst, 10), 2u);
  EXPECT_TRUE(passed(end));
  EXPECT_EQ(log_, "ab");
  EXPECT_EQ(streams_.advance(kFirst, 1), 0u);
  EXPECT_FALSE(passed(record(kFirst)));  // the hold goes on
}

TEST_F(StreamSimulatorTest, ResumeCompletesWhatIsPending) {
  streams_.hold(kFirst);
  work(kFirst, 'a');
  const Event event = record(kFirst);
  streams_.resume(kFirst);
  EXPECT_TRUE(passed(event));
  work(kFirst, 'b');
  EXPECT_EQ(log_, "ab");
}

TEST_F(StreamSimulatorTest, AHoldLeavesOtherStreamsAlone) {
  streams_.hold(kFirst);
  const Event held = record(kFirst);
  EXPECT_TRUE(passed(record(kSecond)));
  EXPECT_TRUE(passed(record({1, 1})));  // the same handle, of another device
  EXPECT_FALSE(passed(held));
}

TEST_F(StreamSimulatorTest, AWaitKeepsAFreeStreamPending) {
  streams_.hold(kFirst);
  work(kFirst, 'a');
  wait(kSecond, record(kFirst));
  work(kSecond, 'b');
  const Event end = record(kSecond);
  EXPECT_EQ(log_, "");
  EXPECT_FALSE(passed(end));
  streams_.advance(kFirst, 1);
  EXPECT_EQ(log_, "a");
  streams_.advance(kFirst, 1);
  EXPECT_EQ(log_, "ab");
  EXPECT_TRUE(passed(end));
}

TEST_F(StreamSimulatorTest, AdvanceStopsAtAWaitThatIsNotSatisfied) {
  streams_.hold(kFirst);
  streams_.hold(kSecond);
  work(kFirst, 'a');
  const Event first = record(kFirst);
  work(kSecond, 'b');
  wait(kSecond, first);
  work(kSecond, 'c');
  EXPECT_EQ(streams_.advance_all(kSecond), 1u);
  EXPECT_EQ(log_, "b");
  EXPECT_EQ(streams_.advance_all(kFirst), 2u);
  EXPECT_EQ(streams_.advance_all(kSecond), 2u);
  EXPECT_EQ(log_, "bac");
}

TEST_F(StreamSimulatorTest, WaitsChainThroughStreams) {
  streams_.hold(kFirst);
  work(kFirst, 'a');
  wait(kSecond, record(kFirst));
  work(kSecond, 'b');
  wait(kThird, record(kSecond));
  work(kThird, 'c');
  const Event end = record(kThird);
  EXPECT_FALSE(passed(end));
  streams_.advance_all(kFirst);
  EXPECT_EQ(log_, "abc");
  EXPECT_TRUE(passed(end));
}

TEST_F(StreamSimulatorTest, AdvanceAllFinishesEveryStream) {
  for (const Stream stream : {kFirst, kSecond, kThird}) streams_.hold(stream);
  work(kThird, 'a');
  const Event third = record(kThird);
  wait(kFirst, third);
  work(kFirst, 'b');
  work(kSecond, 'c');
  wait(kSecond, record(kFirst));
  streams_.advance_all();
  for (const Stream stream : {kFirst, kSecond, kThird}) EXPECT_EQ(streams_.pending(stream), 0u);
  EXPECT_EQ(log_, "abc");
}

TEST_F(StreamSimulatorTest, SynchronizeCompletesWhatTheEventStandsForAndNoMore) {
  streams_.hold(kFirst);
  streams_.hold(kSecond);
  work(kFirst, 'a');
  const Event first = record(kFirst);
  work(kFirst, 'x');
  wait(kSecond, first);
  work(kSecond, 'b');
  const Event second = record(kSecond);
  work(kSecond, 'y');
  EXPECT_TRUE(streams_.event_synchronize(second).ok());
  EXPECT_EQ(log_, "ab");
  EXPECT_TRUE(passed(first));
  EXPECT_TRUE(passed(second));
  EXPECT_EQ(streams_.pending(kFirst), 1u);
  EXPECT_EQ(streams_.pending(kSecond), 1u);
}

TEST_F(StreamSimulatorTest, CountsTheSynchronizationsThatWaited) {
  const Event free = record(kFirst);
  EXPECT_TRUE(streams_.event_synchronize(free).ok());
  EXPECT_EQ(streams_.synchronizations(), 0u);
  streams_.hold(kFirst);
  const Event held = record(kFirst);
  EXPECT_TRUE(streams_.event_synchronize(held).ok());
  EXPECT_TRUE(streams_.event_synchronize(held).ok());
  EXPECT_EQ(streams_.synchronizations(), 1u);
}

TEST_F(StreamSimulatorTest, LongChainsOfWaitsDoNotRecurse) {
  streams_.hold(kFirst);
  streams_.hold(kSecond);
  Event last = record(kFirst);
  for (int link = 0; link < 100'000; ++link) {
    const Stream stream = link % 2 == 0 ? kSecond : kFirst;
    wait(stream, last);
    ASSERT_TRUE(streams_.event_destroy(last).ok());
    last = record(stream);
  }
  EXPECT_TRUE(streams_.event_synchronize(last).ok());
  EXPECT_TRUE(passed(last));
  EXPECT_EQ(streams_.live_events(), 1u);
}

TEST_F(StreamSimulatorTest, ReportsUnmapsUnderPendingWork) {
  const Address address = 1 << 20;
  EXPECT_TRUE(streams_.check_unmap(0, ~std::uint64_t{0}).ok());
  streams_.hold(kFirst);
  work(kFirst, 'a', {{address, 100, true}, {address + 1000, 1, false}});
  EXPECT_TRUE(streams_.check_unmap(address - 10, 10).ok());
  EXPECT_TRUE(streams_.check_unmap(address + 100, 900).ok());
  EXPECT_TRUE(streams_.violations().empty());
  const auto refused = [&](Address at, std::uint64_t bytes) {
    const Status status = streams_.check_unmap(at, bytes);
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error(), (Error{ErrorCode::invalid_value, Step::unmap, at}));
    EXPECT_EQ(streams_.violations().back(), (Violation{Violation::Kind::unmap_in_use, kFirst, at, bytes}));
  };
  refused(address - 10, 11);
  refused(address + 99, 1);
  refused(address + 50, 1);
  refused(address - 10, 10'000);
  refused(address + 500, ~std::uint64_t{0} - address - 500);
  EXPECT_EQ(streams_.violations().size(), 5u);
  streams_.advance_all(kFirst);
  EXPECT_TRUE(streams_.check_unmap(address, 100).ok());
}

TEST_F(StreamSimulatorTest, RefusesEventsWhileAStreamIsCaptured) {
  const Event before = record(kFirst);
  streams_.set_capture(kSecond, CaptureState::active);
  EXPECT_EQ(streams_.capture_state(kSecond).value(), CaptureState::active);
  EXPECT_EQ(streams_.capture_state(kFirst).value(), CaptureState::none);
  EXPECT_EQ(streams_.event_query(before).error().code, ErrorCode::invalid_value);
  EXPECT_EQ(streams_.capture_state(kSecond).value(), CaptureState::invalidated);
  EXPECT_EQ(streams_.event_synchronize(before).error().code, ErrorCode::invalid_value);
  EXPECT_EQ(streams_.violations().size(), 2u);
  EXPECT_EQ(streams_.violations()[0].kind, Violation::Kind::captured_event);
  streams_.set_capture(kSecond, CaptureState::none);
  EXPECT_TRUE(passed(before));
  EXPECT_EQ(streams_.violations().size(), 2u);
}

TEST_F(StreamSimulatorTest, AsksTheModeOfTheThreadAndOfTheCaptureBeforeItRefuses) {
  const Event before = record(kFirst);
  // By the mode of the capture, and the mode of a thread: whether the capturing thread may query, and another one.
  struct Case {
    CaptureMode capture, thread;
    bool own, other;
  };
  for (const Case& c : {Case{CaptureMode::global, CaptureMode::global, false, false},
                        Case{CaptureMode::global, CaptureMode::per_thread, false, true},
                        Case{CaptureMode::global, CaptureMode::relaxed, true, true},
                        Case{CaptureMode::per_thread, CaptureMode::global, false, true},
                        Case{CaptureMode::per_thread, CaptureMode::per_thread, false, true},
                        Case{CaptureMode::per_thread, CaptureMode::relaxed, true, true},
                        Case{CaptureMode::relaxed, CaptureMode::global, true, true}}) {
    const auto allowed = [&] {
      streams_.set_capture(kSecond, CaptureState::active, c.capture);
      const CaptureMode was = StreamSimulator::exchange_capture_mode(c.thread);
      const bool queried = streams_.event_query(before).ok();
      EXPECT_EQ(streams_.capture_state(kSecond).value(), queried ? CaptureState::active : CaptureState::invalidated);
      EXPECT_EQ(StreamSimulator::exchange_capture_mode(was), c.thread);
      return queried;
    };
    EXPECT_EQ(allowed(), c.own);
    streams_.set_capture(kSecond, CaptureState::active, c.capture);
    bool other = false;
    std::thread([&] {
      const CaptureMode was = StreamSimulator::exchange_capture_mode(c.thread);
      EXPECT_EQ(was, CaptureMode::global);  // where every thread starts
      other = streams_.event_synchronize(before).ok();
    }).join();
    EXPECT_EQ(other, c.other);
  }
  streams_.set_capture(kSecond, CaptureState::none);
}

TEST_F(StreamSimulatorTest, RefusesEventsOfACaptureInEveryMode) {
  streams_.set_capture(kSecond, CaptureState::active);
  const Event inside = record(kSecond);
  const CaptureMode was = StreamSimulator::exchange_capture_mode(CaptureMode::relaxed);
  EXPECT_FALSE(streams_.event_query(inside).ok());
  EXPECT_FALSE(streams_.event_synchronize(inside).ok());
  EXPECT_EQ(streams_.capture_state(kSecond).value(), CaptureState::invalidated);
  StreamSimulator::exchange_capture_mode(was);
}

TEST_F(StreamSimulatorTest, ACaptureCarriesNoOrderOutOrIn) {
  const Event outside = record(kFirst);
  streams_.set_capture(kSecond, CaptureState::active);
  const Event inside = record(kSecond);
  work(kSecond, 'a');  // goes into the graph, and is not run
  EXPECT_EQ(log_, "");
  EXPECT_EQ(streams_.pending(kSecond), 0u);
  wait(kSecond, inside);
  EXPECT_FALSE(streams_.stream_wait(kFirst, inside).ok());
  EXPECT_FALSE(streams_.stream_wait(kSecond, outside).ok());
  EXPECT_EQ(streams_.violations().size(), 2u);
  streams_.set_capture(kSecond, CaptureState::none);
  EXPECT_FALSE(streams_.event_query(inside).ok());  // it has a place in the graph, not in time
  EXPECT_TRUE(streams_.event_record(inside, kSecond).ok());
  EXPECT_TRUE(passed(inside));
}

TEST_F(StreamSimulatorTest, TellsWhetherAStreamIsIdleAndHowMuchItWasGiven) {
  EXPECT_EQ(streams_.enqueued(kFirst), 0u);
  EXPECT_TRUE(streams_.stream_query(kFirst).value());
  streams_.hold(kFirst);
  work(kFirst, 'a');
  work(kFirst, 'b');
  EXPECT_FALSE(streams_.stream_query(kFirst).value());
  EXPECT_TRUE(streams_.stream_query(kSecond).value());
  EXPECT_EQ(streams_.advance(kFirst, 1), 1u);
  EXPECT_EQ(streams_.enqueued(kFirst), 2u);
  EXPECT_FALSE(streams_.stream_query(kFirst).value());
  streams_.resume(kFirst);
  EXPECT_TRUE(streams_.stream_query(kFirst).value());
  EXPECT_EQ(streams_.enqueued(kFirst), 2u);
}

TEST_F(StreamSimulatorTest, AStreamQueryBreaksACaptureUnlessItMayNot) {
  streams_.set_capture(kSecond, CaptureState::active);
  const CaptureMode was = StreamSimulator::exchange_capture_mode(CaptureMode::relaxed);
  EXPECT_TRUE(streams_.stream_query(kFirst).value());
  EXPECT_EQ(streams_.capture_state(kSecond).value(), CaptureState::active);
  EXPECT_FALSE(streams_.stream_query(kSecond).ok());  // the captured one, in any mode
  EXPECT_EQ(streams_.capture_state(kSecond).value(), CaptureState::invalidated);
  StreamSimulator::exchange_capture_mode(was);
  streams_.set_capture(kSecond, CaptureState::active);
  EXPECT_FALSE(streams_.stream_query(kFirst).ok());
  EXPECT_EQ(streams_.capture_state(kSecond).value(), CaptureState::invalidated);
  EXPECT_EQ(streams_.violations().size(), 2u);
}

TEST_F(StreamSimulatorTest, RefusesDestroyedStreams) {
  streams_.hold(kFirst);
  work(kFirst, 'a');
  const Event last = record(kFirst);
  EXPECT_TRUE(streams_.destroy_stream(kFirst).ok());
  EXPECT_FALSE(streams_.destroy_stream(kFirst).ok());
  EXPECT_FALSE(streams_.destroy_stream({0, 0}).ok());
  EXPECT_FALSE(streams_.event_record(last, kFirst).ok());
  EXPECT_FALSE(streams_.stream_wait(kFirst, last).ok());
  EXPECT_FALSE(streams_.enqueue(kFirst, {}).ok());
  EXPECT_FALSE(streams_.capture_state(kFirst).ok());
  EXPECT_FALSE(streams_.stream_query(kFirst).ok());
  EXPECT_EQ(streams_.violations().size(), 5u);
  EXPECT_EQ(streams_.violations()[0], (Violation{Violation::Kind::destroyed_stream, kFirst, 0, 0}));
  EXPECT_FALSE(passed(last));  // what was enqueued before completes all the same
  EXPECT_EQ(streams_.advance_all(kFirst), 2u);
  EXPECT_TRUE(passed(last));
}

TEST_F(StreamSimulatorTest, TakesCallsFromManyThreads) {
  constexpr std::uint64_t kThreads = 4;
  std::atomic<std::uint64_t> ran = 0;
  std::atomic<int> failures = 0;
  std::vector<std::thread> threads;
  for (std::uint64_t thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      const Stream mine{0, thread}, next{0, (thread + 1) % kThreads};
      const Event event = streams_.event_create(0);
      for (int round = 0; round < 500; ++round) {
        streams_.hold(mine);
        failures += streams_.enqueue(mine, {}, [&ran] { ++ran; }).ok() ? 0 : 1;
        failures += streams_.event_record(event, mine).ok() ? 0 : 1;
        failures += streams_.stream_wait(next, event).ok() ? 0 : 1;
        failures += streams_.event_query(event).ok() ? 0 : 1;
        if (round % 3 == 0) streams_.resume(mine);
        failures += streams_.event_synchronize(event).ok() ? 0 : 1;
      }
      failures += streams_.event_destroy(event).ok() ? 0 : 1;
    });
  }
  for (std::thread& thread : threads) thread.join();
  streams_.advance_all();
  EXPECT_EQ(ran, kThreads * 500);
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(streams_.live_events(), 0u);
}

}  // namespace
}  // namespace gmlake::driver
