// Streams that are some events behind the host: what that leaves pending, and what it costs an allocator.
#include "replay/lagging_streams.hpp"

#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "gmlake/bytes.hpp"
#include "replay/trace_builder.hpp"

namespace gmlake::replay {
namespace {

ReplayOptions lagging(std::uint64_t events) {
  ReplayOptions options;
  options.lag_events = events;
  return options;
}

using namespace gmlake::literals;

constexpr driver::Stream kFirst{0, 1}, kSecond{0, 2}, kHeld{0, 3};

class LaggingStreamsTest : public testing::Test {
 protected:
  void begin(std::uint64_t lag) {
    lagging_.emplace(simulator_, std::vector{kFirst, kSecond, kHeld}, std::vector{false, false, true}, lag);
  }
  void event(std::size_t stream) { EXPECT_TRUE(lagging_->after_event(stream).ok()); }
  driver::Event record(driver::Stream stream) {
    const driver::Event event = simulator_.event_create(0);
    EXPECT_TRUE(simulator_.event_record(event, stream).ok());
    return event;
  }
  bool passed(driver::Event event) { return *simulator_.event_query(event); }

  driver::StreamSimulator simulator_;
  std::optional<LaggingStreams> lagging_;
};

TEST_F(LaggingStreamsTest, CompleteWorkSoManyEventsLater) {
  begin(3);
  event(0);
  EXPECT_EQ(simulator_.pending(kFirst), 1u);
  const driver::Event of_first = record(kFirst);
  event(1);  // the record was seen with this event, and is due three later
  event(1);
  EXPECT_EQ(simulator_.pending(kFirst), 2u);
  event(1);
  EXPECT_EQ(simulator_.pending(kFirst), 1u);  // the work of the first event is complete, what came behind it is not
  EXPECT_FALSE(passed(of_first));
  event(1);
  EXPECT_TRUE(passed(of_first));
  EXPECT_EQ(simulator_.pending(kSecond), 3u);
}

TEST_F(LaggingStreamsTest, LeaveHeldStreamsToThoseWhoHoldThem) {
  begin(1);
  event(2);
  EXPECT_EQ(simulator_.enqueued(kHeld), 0u);
  EXPECT_TRUE(passed(record(kHeld)));
  simulator_.hold(kHeld);
  const driver::Event held = record(kHeld);
  for (int i = 0; i < 5; ++i) event(0);
  EXPECT_FALSE(passed(held));
  lagging_.reset();
  EXPECT_FALSE(passed(held));
}

TEST_F(LaggingStreamsTest, GoOnFromWhatSomebodyWaitedFor) {
  begin(2);
  event(0);
  EXPECT_TRUE(simulator_.event_synchronize(record(kFirst)).ok());
  event(0);
  event(0);
  EXPECT_EQ(simulator_.pending(kFirst), 2u);
  event(0);
  EXPECT_EQ(simulator_.pending(kFirst), 2u);
}

TEST_F(LaggingStreamsTest, CompleteAWaitWithWhatItWaitsFor) {
  begin(2);
  const driver::Event of_second = record(kSecond);
  EXPECT_TRUE(simulator_.stream_wait(kFirst, of_second).ok());
  event(1);
  event(1);
  event(1);
  EXPECT_EQ(simulator_.pending(kFirst), 0u);
  simulator_.hold(kHeld);
  const driver::Event of_held = record(kHeld);
  EXPECT_TRUE(simulator_.stream_wait(kFirst, of_held).ok());
  for (int i = 0; i < 5; ++i) event(1);
  EXPECT_EQ(simulator_.pending(kFirst), 1u);
  simulator_.resume(kHeld);
  event(1);
  EXPECT_EQ(simulator_.pending(kFirst), 0u);
}

TEST(Replay, RefusesALagOfRealStreams) {
  TraceBuilder t;
  t.alloc(2_MiB);
  ModelRig rig("direct");
  const Result<ReplayReport> report = replay(t.trace(), rig.target(), rig.record(), nullptr, lagging(1));
  EXPECT_EQ(report.error(), (Error{ErrorCode::not_supported, Step::options, 0}));
}

TEST_F(LaggingStreamsTest, KeepUpAgainAtTheEnd) {
  begin(100);
  event(0);
  event(1);
  lagging_.reset();
  EXPECT_EQ(simulator_.pending(kFirst) + simulator_.pending(kSecond), 0u);
  EXPECT_TRUE(passed(record(kFirst)));
}

// What stream 0 has freed serves an idle stream only once its fence has passed; one that is behind waits for it.
TEST(Replay, OfLaggingStreamsShowsWhatTheLagCosts) {
  TraceBuilder idle;
  const auto side = idle.add_stream(kSideStream);
  TraceBuilder busy = idle;
  for (TraceBuilder* t : {&idle, &busy}) {
    if (t == &busy) t->alloc(2_MiB, side);
    t->free(t->alloc(40_MiB));
    t->alloc(40_MiB, side);
  }
  const auto replay = [](TraceBuilder& t, std::uint64_t lag) {
    return ModelRig("gmlake").replay(t.trace(), lagging(lag));
  };
  for (TraceBuilder* t : {&idle, &busy}) {
    const std::uint64_t live = t == &busy ? 42_MiB : 40_MiB;
    EXPECT_EQ(replay(*t, 0).peak_reserved_bytes, live);
    EXPECT_EQ(replay(*t, 0).driver_calls.stream_wait, 0u);
    EXPECT_EQ(replay(*t, 100).peak_reserved_bytes, t == &busy ? live : 80_MiB);
    EXPECT_EQ(replay(*t, 100).driver_calls.stream_wait, t == &busy ? 1u : 0u);
  }
}

}  // namespace
}  // namespace gmlake::replay
