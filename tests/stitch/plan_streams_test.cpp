// Whose memory a plan may move: other streams give what is behind a fence that has passed, or behind a stream-wait.
#include "stitch/rig.hpp"

namespace gmlake::stitch::testing {
namespace {

class PlanStreams : public StitchTest {
 protected:
  // The plan for `granules` in the first stream's "L1 H8", where the second stream's segment looks like the text.
  std::string plan(std::string_view other, double granules, Ask ask) {
    Rig rig(model_, shift());
    (void)rig.lay(rig.a, "L1 H8");
    const memory::VmmSegment* segment = rig.lay(rig.b, other);
    if (ask.donors.empty()) ask.donors = {&rig.a, &rig.b};
    const auto plan = rig.plan(rig.a, granules, ask);
    const std::string text = rig.describe(plan);
    if (plan) {
      Block* run = rig.carry_out(*plan);
      EXPECT_NE(run, nullptr);
      rig.check();
      after_ = rig.blocks(rig.b, segment);
      waits_ = rig.driver.calls(Step::stream_wait);
    }
    return text;
  }

  std::string after_;        // the second stream's segment
  std::uint64_t waits_ = 0;  // calls of stream_wait
};
INSTANTIATE_TEST_SUITE_P(Granules, PlanStreams, ::testing::Values(16u, 21u, 25u));

TEST_P(PlanStreams, TakesOfAnotherStreamWhatIsBehindAPassedFence) {
  EXPECT_EQ(plan("L1 F2x L1", 2, {}), "1..3 move x@1");
  EXPECT_EQ(after_, "L1 H2 L1");
  EXPECT_EQ(waits_, 0u);
}

TEST_P(PlanStreams, LeavesWhatIsBehindAFenceThatHasNotPassed) {
  EXPECT_EQ(plan("L1 f2x L1", 2, {}), "no memory");
  EXPECT_EQ(plan("L1 f2x L1 F2y", 4, {.headroom = 2}), "1..5 move y@1 create 1@3 create 1@4");
}

TEST_P(PlanStreams, TakesItBehindAStreamWait) {
  EXPECT_EQ(plan("L1 f2x L1", 2, {.stream_wait = true}), "1..3 move x@1");
  EXPECT_EQ(after_, "L1 H2 L1");
  // The rig's streams run at once, so the event has not been seen to pass, and the wait is made.
  EXPECT_EQ(waits_, 1u);
}

TEST_P(PlanStreams, TakesNothingOfAPoolThatIsNotNamed) {
  Rig rig(model_, shift());
  (void)rig.lay(rig.a, "L1 H8");
  (void)rig.lay(rig.b, "F2x");
  EXPECT_EQ(rig.describe(rig.plan(rig.a, 2)), "no memory");
}

TEST_P(PlanStreams, TakesOfThePoolNamedFirstFirst) {
  for (const bool own_first : {true, false}) {
    Rig rig(model_, shift());
    (void)rig.lay(rig.a, "F2x L1 H8");
    (void)rig.lay(rig.b, "L1 F2y L1");
    const std::vector<Pool*> donors = own_first ? std::vector{&rig.a, &rig.b} : std::vector{&rig.b, &rig.a};
    EXPECT_EQ(rig.describe(rig.plan(rig.a, 2, {.donors = donors})), own_first ? "3..5 move x@3" : "3..5 move y@3");
  }
}

TEST_P(PlanStreams, RevivesWhatAnotherStreamHadLast) {
  Rig rig(model_, shift());
  (void)rig.lay(rig.a, "L1 S2x L1");
  (void)rig.lay(rig.b, "F2x");
  EXPECT_EQ(rig.describe(rig.plan(rig.a, 2, {.donors = {&rig.a, &rig.b}})), "1..3 revive x@1");
}

TEST_P(PlanStreams, RevivesNothingThatAnotherStreamMayStillUse) {
  Rig rig(model_, shift());
  (void)rig.lay(rig.a, "L1 S2x L1");
  (void)rig.lay(rig.b, "f2x");
  EXPECT_EQ(rig.describe(rig.plan(rig.a, 2, {.donors = {&rig.a, &rig.b}})), "no memory");
  const auto plan = rig.plan(rig.a, 2, {.stream_wait = true, .donors = {&rig.a, &rig.b}});
  EXPECT_EQ(rig.describe(plan), "1..3 revive x@1");
  rig.driver.reset_counts();
  ASSERT_NE(rig.carry_out(*plan), nullptr);
  EXPECT_EQ(rig.driver.calls(Step::stream_wait), 1u);
  // An event is created and recorded, and the streams are asked about captures: no mapping changes.
  EXPECT_EQ(rig.driver.calls(), 3u + rig.driver.calls(Step::properties));
  rig.check();
}

TEST_P(PlanStreams, WaitsForNothingOnItsOwnStream) {
  Rig rig(model_, shift());
  (void)rig.lay(rig.a, "f2x L1 H8");
  const auto plan = rig.plan(rig.a, 2, {.stream_wait = true});
  EXPECT_EQ(rig.describe(plan), "3..5 move x@3");
  ASSERT_NE(rig.carry_out(*plan), nullptr);
  EXPECT_EQ(rig.driver.calls(Step::event_record), 0u);
  rig.check();
}

TEST_P(PlanStreams, WaitsOnceForTheLastOfSeveralFrees) {
  const driver::Stream first{0, 0};
  const driver::Stream second{0, 1};
  Rig rig(model_, shift());
  (void)rig.lay(rig.a, "L1 H8");
  (void)rig.lay(rig.b, "L2x L1 L2y");
  model_.streams().hold(second);
  rig.b.give_back(rig.live[1], 1);
  ASSERT_TRUE(rig.fences.mark(rig.b.stream(), 1).ok());
  ASSERT_TRUE(model_.streams().enqueue(second, {}).ok());
  rig.b.give_back(rig.live[3], 2);
  rig.driver.reset_counts();
  const auto plan = rig.plan(rig.a, 4, {.stream_wait = true, .donors = {&rig.a, &rig.b}});
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->moves.size(), 2u);
  ASSERT_NE(rig.carry_out(*plan), nullptr);
  EXPECT_EQ(rig.driver.calls(Step::stream_wait), 1u);
  ASSERT_TRUE(model_.streams().enqueue(first, {}).ok());
  (void)model_.streams().advance(second, 2);  // past the first free, and the work behind it
  EXPECT_NE(model_.streams().pending(first), 0u);
  (void)model_.streams().advance(second, 1);
  EXPECT_EQ(model_.streams().pending(first), 0u);
  rig.check();
}

TEST_P(PlanStreams, AMovedMappingIsRetiredBehindTheFenceOfItsOldRun) {
  Rig rig(model_, shift());
  (void)rig.lay(rig.a, "L1 H8");
  const memory::VmmSegment* other = rig.lay(rig.b, "f2x");
  const auto plan = rig.plan(rig.a, 2, {.stream_wait = true, .donors = {&rig.a, &rig.b}});
  ASSERT_NE(rig.carry_out(*plan), nullptr);
  const memory::Mapping* old = other->at(0);
  ASSERT_NE(old, nullptr);
  EXPECT_TRUE(old->stale());
  EXPECT_EQ(old->stream, rig.b.stream());
  EXPECT_EQ(old->tick, kPending);
  EXPECT_EQ(rig.table.retire(rig.fences, 0), 0u);
  ASSERT_TRUE(rig.fences.poll().ok());  // the wait's event has passed by now
  EXPECT_EQ(rig.table.retire(rig.fences, 0), 2u);
  rig.check();
}

}  // namespace
}  // namespace gmlake::stitch::testing
