// Fences on simulated streams: what one event answers for, when a fence has passed, and how many calls that takes.
#include "memory/fences.hpp"

#include <gtest/gtest.h>

#include "driver/model.hpp"
#include "driver/record.hpp"

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
  Fences fences_{record_, 0};
  const StreamIndex a_ = fences_.intern(kA);
  const StreamIndex b_ = fences_.intern(kB);
};

TEST_F(FencesTest, NumbersStreamsInTheOrderTheyAreSeen) {
  EXPECT_EQ(a_, 0u);
  EXPECT_EQ(b_, 1u);
  EXPECT_EQ(fences_.intern(kA), a_);
  EXPECT_EQ(fences_.intern({0, 3}), 2u);
  EXPECT_EQ(fences_.stream(b_), kB);
  EXPECT_EQ(fences_.stream_count(), 3u);
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
                     asked = !fences_.passed({a_, 1}) && fences_.intern({0, 9}) == 2 && fences_.events_pending() == 1;
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
    Fences fences(model, 0);
    const StreamIndex a = fences.intern(kA);
    const StreamIndex b = fences.intern(kB);
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
