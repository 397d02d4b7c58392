// Fences on simulated streams: what one event answers for, when a fence has passed, and how many calls that takes.
#include "memory/fences.hpp"

#include <gtest/gtest.h>

#include "driver/model.hpp"
#include "driver/record.hpp"
#include "support/sheltered_driver.hpp"

namespace gmlake::memory {
namespace {

constexpr driver::Stream kA{0, 1};
constexpr driver::Stream kB{0, 2};

class FencesTest : public ::testing::Test {
 protected:
  void work(driver::Stream stream) { EXPECT_TRUE(streams().enqueue(stream, {}).ok()); }
  driver::StreamSimulator& streams() { return model_.streams(); }
  driver::CallCounts calls() const { return record_.counts(); }

  driver::ModelDriver model_;
  driver::RecordDriver record_{model_};
  Fences fences_{record_};
  const StreamIndex a_ = fences_.open(kA);
  const StreamIndex b_ = fences_.open(kB);
};

TEST_F(FencesTest, NumbersClocksInTheOrderTheyAreOpened) {
  EXPECT_EQ(a_, 0u);
  EXPECT_EQ(b_, 1u);
  EXPECT_EQ(fences_.open({0, 3}), 2u);
  EXPECT_EQ(fences_.stream(b_), kB);
}

TEST_F(FencesTest, TheLastMarkOfAClosedClockStandsForEveryTick) {
  streams().hold(kA);
  work(kA);
  ASSERT_TRUE(fences_.mark(a_, 3).ok());
  fences_.close(a_);
  const driver::CallCounts before = calls();
  ASSERT_TRUE(fences_.mark(a_, 7).ok());  // nothing is recorded on a stream that may be gone
  EXPECT_EQ((calls() - before).total(), 0u);
  EXPECT_FALSE(fences_.passed({a_, 7}));
  ASSERT_TRUE(fences_.make_stream_wait(b_, {a_, 7}).ok());
  work(kB);
  EXPECT_EQ(streams().pending(kB), 2u);
  streams().resume(kA);
  EXPECT_EQ(streams().pending(kB), 0u);
  ASSERT_TRUE(fences_.poll().ok());
  EXPECT_TRUE(fences_.passed({a_, 7}));
}

TEST_F(FencesTest, AReclaimedClockGoesOnWithTheNextStream) {
  ASSERT_TRUE(fences_.mark(a_, 3).ok());
  fences_.close(a_);
  ASSERT_TRUE(fences_.poll().ok());
  fences_.reclaim(a_, 9);
  constexpr driver::Stream kNext{0, 7};
  EXPECT_EQ(fences_.open(kNext), a_);
  EXPECT_EQ(fences_.stream(a_), kNext);
  EXPECT_TRUE(fences_.passed({a_, 9}));  // the former stream's
  EXPECT_FALSE(fences_.passed({a_, 10}));
  streams().hold(kNext);
  work(kNext);
  ASSERT_TRUE(fences_.mark(a_, 10).ok());
  ASSERT_TRUE(fences_.poll().ok());
  EXPECT_FALSE(fences_.passed({a_, 10}));
  EXPECT_EQ(fences_.open({0, 8}), 2u);
}

TEST_F(FencesTest, FollowStreamsOfSeveralDevices) {
  driver::ModelDriver model({.devices = 2});
  Fences fences(model);
  const StreamIndex own = fences.open({0, 1});
  const StreamIndex peer = fences.open({1, 1});
  model.streams().hold({1, 1});
  ASSERT_TRUE(fences.mark(own, 1).ok());
  ASSERT_TRUE(fences.mark(peer, 1).ok());  // by an event of that device: another is refused
  ASSERT_TRUE(fences.poll().ok());
  EXPECT_TRUE(fences.passed({own, 1}));
  EXPECT_FALSE(fences.passed({peer, 1}));
  ASSERT_TRUE(fences.make_stream_wait(own, {peer, 1}).ok());
  ASSERT_TRUE(model.streams().enqueue({0, 1}, {}).ok());
  EXPECT_EQ(model.streams().pending({0, 1}), 2u);
  model.streams().resume({1, 1});
  EXPECT_EQ(model.streams().pending({0, 1}), 0u);
}

TEST_F(FencesTest, RecordNothingOnACapturedStreamAndCatchUpAfterwards) {
  streams().set_capture(kA, driver::CaptureState::active);
  EXPECT_TRUE(fences_.captured(a_));
  EXPECT_FALSE(fences_.captured(b_));
  EXPECT_TRUE(fences_.capture_under_way());
  const driver::CallCounts before = calls();
  EXPECT_EQ(fences_.mark(a_, 1).error().code, ErrorCode::captured);
  EXPECT_TRUE(fences_.poll().ok());
  EXPECT_EQ(fences_.wait({a_, 1}).error().code, ErrorCode::captured);
  EXPECT_EQ(fences_.make_stream_wait(b_, {a_, 1}).error().code, ErrorCode::captured);
  EXPECT_EQ((calls() - before).total(), 0u);
  EXPECT_FALSE(fences_.passed({a_, 1}));
  streams().set_capture(kA, driver::CaptureState::none);
  ASSERT_TRUE(fences_.poll().ok());  // nobody marks it again
  EXPECT_TRUE(fences_.passed({a_, 1}));
  EXPECT_EQ(fences_.events_pending(), 0u);
  EXPECT_FALSE(fences_.capture_under_way());
  EXPECT_TRUE(streams().violations().empty());
}

TEST_F(FencesTest, AskAboutOtherStreamsDuringACaptureAndLeaveItValid) {
  ASSERT_TRUE(fences_.mark(b_, 1).ok());
  streams().set_capture(kA, driver::CaptureState::active);
  ASSERT_TRUE(fences_.poll().ok());
  EXPECT_TRUE(fences_.passed({b_, 1}));
  EXPECT_EQ(streams().capture_state(kA).value(), driver::CaptureState::active);
  EXPECT_EQ(driver::StreamSimulator::exchange_capture_mode(driver::CaptureMode::global), driver::CaptureMode::global);
  EXPECT_TRUE(streams().violations().empty());
  streams().set_capture(kA, driver::CaptureState::none);
}

TEST_F(FencesTest, LetNoCapturedStreamWaitForWorkOutside) {
  streams().hold(kB);
  ASSERT_TRUE(fences_.mark(b_, 1).ok());
  streams().set_capture(kA, driver::CaptureState::active);
  EXPECT_EQ(fences_.make_stream_wait(a_, {b_, 1}).error().code, ErrorCode::captured);
  EXPECT_EQ(calls().stream_wait, 0u);
  EXPECT_TRUE(streams().violations().empty());
  streams().set_capture(kA, driver::CaptureState::none);
}

// A capture that another thread begins between the question and the record.
class CapturesBeforeARecord final : public gmlake::testing::ShelteredDriver {
 public:
  explicit CapturesBeforeARecord(driver::ModelDriver& model) : ShelteredDriver(model), model_(model) {}
  Status event_record(driver::Event event, driver::Stream stream) override {
    if (armed) model_.streams().set_capture(stream, driver::CaptureState::active);
    return ShelteredDriver::event_record(event, stream);
  }
  bool armed = true;

 private:
  driver::ModelDriver& model_;
};

TEST(Fences, DropAnEventThatACaptureTookIn) {
  driver::ModelDriver model;
  {
    CapturesBeforeARecord driver(model);
    Fences fences(driver);
    const StreamIndex a = fences.open(kA);
    EXPECT_EQ(fences.mark(a, 1).error().code, ErrorCode::captured);
    EXPECT_EQ(fences.events_pending(), 0u);
    EXPECT_TRUE(fences.poll().ok());
    driver.armed = false;
    model.streams().set_capture(kA, driver::CaptureState::none);
    EXPECT_TRUE(fences.poll().ok());
    EXPECT_TRUE(fences.passed({a, 1}));
  }
  EXPECT_EQ(model.streams().live_events(), 0u);
  EXPECT_TRUE(model.streams().violations().empty());
}

TEST_F(FencesTest, TickZeroHasPassedFromTheStart) {
  EXPECT_TRUE(fences_.passed({a_, 0}));
  EXPECT_FALSE(fences_.passed({a_, 1}));
  EXPECT_TRUE(fences_.wait({a_, 0}).ok());
  EXPECT_TRUE(fences_.make_stream_wait(b_, {a_, 0}).ok());
  EXPECT_EQ(calls().total(), 0u);
}

TEST_F(FencesTest, PassesOnlyByPoll) {
  ASSERT_TRUE(fences_.mark(a_, 3).ok());
  EXPECT_FALSE(fences_.passed({a_, 3}));
  EXPECT_EQ(fences_.events_pending(), 1u);
  ASSERT_TRUE(fences_.poll().ok());
  EXPECT_TRUE(fences_.passed({a_, 3}));
  EXPECT_TRUE(fences_.passed({a_, 1}));  // one event answers for all before it
  EXPECT_FALSE(fences_.passed({a_, 4}));
  EXPECT_FALSE(fences_.passed({b_, 1}));  // and for its own stream alone
  EXPECT_EQ(fences_.events_pending(), 0u);
}

TEST_F(FencesTest, DoesNotPassWhileItsStreamIsBehind) {
  streams().hold(kA);
  work(kA);
  ASSERT_TRUE(fences_.mark(a_, 1).ok());
  work(kA);
  ASSERT_TRUE(fences_.mark(a_, 2).ok());
  ASSERT_TRUE(fences_.poll().ok());
  EXPECT_FALSE(fences_.passed({a_, 1}));
  streams().advance(kA, 2);  // the kernel and the first record
  ASSERT_TRUE(fences_.poll().ok());
  EXPECT_TRUE(fences_.passed({a_, 1}));
  EXPECT_FALSE(fences_.passed({a_, 2}));
  streams().advance_all(kA);
  ASSERT_TRUE(fences_.poll().ok());
  EXPECT_TRUE(fences_.passed({a_, 2}));
}

TEST_F(FencesTest, OneStreamBehindKeepsNoOtherBack) {
  streams().hold(kA);
  ASSERT_TRUE(fences_.mark(a_, 1).ok());
  ASSERT_TRUE(fences_.mark(b_, 1).ok());
  ASSERT_TRUE(fences_.poll().ok());
  EXPECT_FALSE(fences_.passed({a_, 1}));
  EXPECT_TRUE(fences_.passed({b_, 1}));
}

TEST_F(FencesTest, MarksOnceForATick) {
  streams().hold(kA);
  for (const std::uint64_t tick : {5, 5, 4, 1}) ASSERT_TRUE(fences_.mark(a_, tick).ok());
  EXPECT_EQ(calls().event_record, 1u);
  EXPECT_EQ(fences_.events_pending(), 1u);
  ASSERT_TRUE(fences_.mark(a_, 6).ok());
  EXPECT_EQ(calls().event_record, 2u);
  streams().resume(kA);
  ASSERT_TRUE(fences_.poll().ok());
  ASSERT_TRUE(fences_.mark(a_, 6).ok());
  EXPECT_EQ(calls().event_record, 2u);
}

TEST_F(FencesTest, UsesItsEventsAgain) {
  for (std::uint64_t tick = 1; tick <= 100; ++tick) {
    ASSERT_TRUE(fences_.mark(a_, tick).ok());
    ASSERT_TRUE(fences_.poll().ok());
  }
  EXPECT_EQ(calls().event_create, 1u);
  EXPECT_EQ(calls().event_query, 100u);
  EXPECT_EQ(streams().live_events(), 1u);
}

TEST_F(FencesTest, PollsWithoutACallWhereNothingIsPending) {
  ASSERT_TRUE(fences_.poll().ok());
  EXPECT_EQ(calls().total(), 0u);
}

TEST_F(FencesTest, WaitsForAFenceThatNothingStandsForYet) {
  streams().hold(kA);
  work(kA);
  ASSERT_TRUE(fences_.wait({a_, 2}).ok());
  EXPECT_TRUE(fences_.passed({a_, 2}));
  EXPECT_EQ(streams().pending(kA), 0u);
  EXPECT_EQ(fences_.events_pending(), 0u);
}

TEST_F(FencesTest, WaitsNoLongerThanItsFence) {
  streams().hold(kA);
  work(kA);
  ASSERT_TRUE(fences_.mark(a_, 1).ok());
  ASSERT_TRUE(fences_.mark(a_, 2).ok());
  work(kA);
  ASSERT_TRUE(fences_.mark(a_, 3).ok());
  ASSERT_TRUE(fences_.wait({a_, 2}).ok());
  EXPECT_TRUE(fences_.passed({a_, 2}));
  EXPECT_FALSE(fences_.passed({a_, 3}));
  EXPECT_EQ(streams().pending(kA), 2u);
}

// Frees on other threads ask about fences too: they must not wait for the device along with the one that does.
TEST_F(FencesTest, CanBeAskedByOthersWhileOneWaits) {
  bool asked = false;
  streams().hold(kA);
  ASSERT_TRUE(
      streams()
          .enqueue(kA, {},
                   [&] {  // runs inside event_synchronize
                     asked = !fences_.passed({a_, 1}) && fences_.open({0, 9}) == 2 && fences_.events_pending() == 1;
                   })
          .ok());
  ASSERT_TRUE(fences_.wait({a_, 1}).ok());
  EXPECT_TRUE(asked);
}

TEST_F(FencesTest, HoldsAnotherStreamBackUntilTheFence) {
  streams().hold(kA);
  work(kA);
  ASSERT_TRUE(fences_.make_stream_wait(b_, {a_, 1}).ok());
  work(kB);
  EXPECT_EQ(streams().pending(kB), 2u);  // the wait, and the work behind it
  EXPECT_EQ(calls().stream_wait, 1u);
  streams().resume(kA);
  EXPECT_EQ(streams().pending(kB), 0u);
}

TEST_F(FencesTest, HoldsAnotherStreamBackByTheFirstEventThatWillDo) {
  streams().hold(kA);
  ASSERT_TRUE(fences_.mark(a_, 1).ok());
  ASSERT_TRUE(fences_.mark(a_, 3).ok());
  work(kA);
  ASSERT_TRUE(fences_.mark(a_, 5).ok());
  ASSERT_TRUE(fences_.make_stream_wait(b_, {a_, 2}).ok());
  work(kB);
  EXPECT_EQ(calls().event_record, 3u);
  streams().advance(kA, 1);
  EXPECT_EQ(streams().pending(kB), 2u);
  streams().advance(kA, 1);  // tick 3 covers tick 2
  EXPECT_EQ(streams().pending(kB), 0u);
}

TEST_F(FencesTest, HoldsNoStreamBackForAFenceThatHasPassed) {
  ASSERT_TRUE(fences_.mark(a_, 1).ok());
  ASSERT_TRUE(fences_.poll().ok());
  ASSERT_TRUE(fences_.make_stream_wait(b_, {a_, 1}).ok());
  EXPECT_EQ(calls().stream_wait, 0u);
}

TEST(Fences, DestroysEveryEventItMade) {
  driver::ModelDriver model;
  {
    Fences fences(model);
    const StreamIndex a = fences.open(kA);
    const StreamIndex b = fences.open(kB);
    ASSERT_TRUE(fences.mark(a, 1).ok());
    ASSERT_TRUE(fences.poll().ok());  // an idle one
    model.streams().hold(kB);
    for (std::uint64_t tick = 1; tick <= 3; ++tick) ASSERT_TRUE(fences.mark(b, tick).ok());  // pending ones
    EXPECT_EQ(model.streams().live_events(), 3u);
  }
  EXPECT_EQ(model.streams().live_events(), 0u);
}

}  // namespace
}  // namespace gmlake::memory
