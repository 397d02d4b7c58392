// What a plan puts into its window: which blocks move, which are created, and how far the window may grow for them.
#include "stitch/rig.hpp"

namespace gmlake::stitch::testing {
namespace {

class PlanFill : public StitchTest {};
INSTANTIATE_TEST_SUITE_P(Granules, PlanFill, ::testing::Values(16u, 21u, 25u));

TEST_P(PlanFill, MovesBlocksOfTheSmallestRunsFirst) {
  expect_plan("F2a+2b L1 F2c L1 H8", 2, {}, "8..10 move c@8", "F4 L1 H2 L1 L2 H6");
  expect_plan("F4a L1 F2b L1 F1c L1 H8", 3, {}, "10..13 move b@10 move c@12", "F4 L1 H2 L1 H1 L1 L3 H5");
}

TEST_P(PlanFill, MovesTheHighestBlockOfARunFirst) {
  expect_plan("F2a+2b L1 H4", 2, {}, "5..7 move b@5", "F2 H2 L1 L2 H2");
  expect_plan("F1a+1b+1c L1 H4", 2, {}, "4..6 move c@4 move b@5", "F1 H2 L1 L2 H2");
}

TEST_P(PlanFill, MovesTheHighestOfRunsOfOneSizeFirst) {
  expect_plan("F2a L1 F2b L1 H4", 2, {}, "6..8 move b@6", "F2 L1 H2 L1 L2 H2");
}

TEST_P(PlanFill, MovesTheLargestBlockThatFitsFirst) {
  expect_plan("F4a L1 F2b L1 H8", 4, {}, "8..12 move a@8", "H4 L1 F2 L1 L4 H4");
  expect_plan("F1a+2b+4c L1 H8", 7, {}, "8..15 move c@8 move b@12 move a@14", "H7 L1 L7 H1");
}

TEST_P(PlanFill, TakesBlocksOutOfTheMiddleOfARun) {
  expect_plan("F1a+2b+1c L1 H2", 2, {}, "5..7 move b@5", "F1 H2 F1 L1 L2");
}

TEST_P(PlanFill, MovesNoBlockThatLiesPartlyUnderSomethingLive) {
  expect_plan("[4a+1b L0.5 F4 L0.5] H4", 1, {}, "no memory");
  expect_plan("[1a+1b+1c L0.5 F2 L0.5] H4", 1, {}, "3..4 move b@3");
}

TEST_P(PlanFill, MovesNoBlockThatStraddlesTheEndOfARun) {
  expect_plan("[2a L1.5 F0.5] F1b [4c F2 L2] H1", 1, {}, "7..8 move b@7", "L1.5 F0.5 H1 F2 L2 L1");
  expect_plan("[2a L1.5 F0.5] [4c F2 L2] H1", 1, {}, "no memory");
}

TEST_P(PlanFill, UsesALongerBlockWhereTheHoleGoesOn) {
  expect_plan("F4a L1 H8", 3, {}, "5..9 move a@5", "H4 L1 L3 F1 H4");
  expect_plan("F4a L1 H4", 3, {}, "5..9 move a@5", "H4 L1 L3 F1");
  expect_plan("F4a L1 H3", 3, {}, "no memory");
  expect_plan("F8a L1 H4", 3, {}, "no memory");                // it does go on, but not that far
  expect_plan("F8a L1 F4b L1 H8", 3, {}, "14..18 move b@14");  // the shortest that will do
}

TEST_P(PlanFill, GoesOnIntoNoStaleMapping) { expect_plan("F4a L2b L1 H3 S2b", 3, {}, "no memory"); }

TEST_P(PlanFill, FillsEveryGapAndUsesALongerBlockInTheLastAlone) {
  expect_plan("F1a L1 F2b L1 F1 H1 F1 H4", 4, {}, "5..10 move a@6 move b@8", "H1 L1 H2 L1 L4 F1 H2");
  expect_plan("F2a L1 F1 H1 F1 L1", 3, {}, "no memory");
}

TEST_P(PlanFill, CreatesOnlyTheShortfall) {
  expect_plan("F2a L1 H8", 5, {.headroom = 3}, "3..8 move a@3 create 1@5 create 1@6 create 1@7", "H2 L1 L5 H3");
  expect_plan("F2a L1 H8", 5, {.headroom = 3, .unit = 2}, "3..8 move a@3 create 2@5 create 1@7");
  expect_plan("F2a L1 H8", 5, {.headroom = 2}, "no memory");
}

TEST_P(PlanFill, CreatesInUnitsAndThenInPowersOfTwo) {
  expect_plan("L1 H9", 7, {.headroom = 9, .unit = 4}, "1..8 create 4@1 create 2@5 create 1@7", "L1 L7 H2");
}

TEST_P(PlanFill, GrowsFirstWithinTheSlack) {
  expect_plan("F2a L1 H8", 2, {.headroom = 2, .slack = 2}, "3..5 create 1@3 create 1@4", "F2 L1 L2 H6");
  expect_plan("F2a L1 H8", 2, {.headroom = 2, .slack = 1}, "3..5 move a@3");
  expect_plan("F2a L1 H8", 2, {.headroom = 1, .slack = 2}, "3..5 move a@3");
}

TEST_P(PlanFill, GrowsByWholeUnitsWhereTheSlackAllowsIt) {
  expect_plan("L4 F2 H10", 5, {.headroom = 9, .slack = 4, .unit = 4}, "4..10 create 4@6", "L4 L5 F1 H6");
  expect_plan("L4 F2 H10", 5, {.headroom = 9, .slack = 3, .unit = 4}, "4..9 create 2@6 create 1@8", "L4 L5 H7");
  expect_plan("L4 F2 H3", 5, {.headroom = 9, .slack = 4, .unit = 4}, "4..9 create 2@6 create 1@8", "L4 L5");
}

TEST_P(PlanFill, TakesMovedBlocksInTheirOldPlaceIntoAccount) {
  // A block that is revived is no donor for the gap beside it.
  expect_plan("F2a L1 S2a H2 L1", 4, {}, "no memory");
  expect_plan("F2a L1 S2a H2 L1", 4, {.headroom = 2}, "3..7 revive a@3 create 1@5 create 1@6");
}

TEST_P(PlanFill, UsesSpareBlocksWhateverTheSlack) {
  for (const std::uint64_t slack : {0, 9}) {
    Rig rig(model_, shift());
    (void)rig.lay(rig.a, "F2a L1 H8");
    (void)rig.spare("c", 2);
    const auto plan = rig.plan(rig.a, 3, {.headroom = slack, .slack = slack});
    EXPECT_EQ(rig.describe(plan), slack == 0 ? "3..7 spare c@3 move a@5" : "3..6 spare c@3 create 1@5");
  }
}

TEST_P(PlanFill, UsesARevivedSpareBlockOnce) {
  Rig rig(model_, shift());
  (void)rig.lay(rig.a, "L1 S2c H2 L1");
  EXPECT_EQ(rig.describe(rig.plan(rig.a, 4)), "no memory");
  EXPECT_EQ(rig.describe(rig.plan(rig.a, 4, {.headroom = 2, .unit = 2})), "1..5 revive c@1 create 2@3");
}

TEST_P(PlanFill, CountsWhatItPlans) {
  Rig rig(model_, shift());
  (void)rig.lay(rig.a, "F2a L1 F1b L1 S2a H9");
  const auto plan = rig.plan(rig.a, 6, {.headroom = 9, .unit = 2});
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(rig.describe(plan), "5..11 revive a@5 move b@7 create 2@8 create 1@10");
  EXPECT_EQ(plan->revived_granules, 2u);
  EXPECT_EQ(plan->moved_granules, 1u);
  EXPECT_EQ(plan->created_granules, 3u);
  ASSERT_EQ(plan->moves.size(), 2u);
}

}  // namespace
}  // namespace gmlake::stitch::testing
