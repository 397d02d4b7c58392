// Which window a plan takes: a table of layouts (see layout.hpp), the request, and the plan that is expected.
// Each case is planned with granules of several sizes, carried out, and its outcome compared as text.
#include "stitch/rig.hpp"

namespace gmlake::stitch::testing {
namespace {

class PlanWindow : public StitchTest {};
INSTANTIATE_TEST_SUITE_P(Granules, PlanWindow, ::testing::Values(12u, 16u, 21u, 25u));

TEST_P(PlanWindow, GrowsTheRunAtTheEnd) {
  expect_plan("L4 F2 H10", 5, {.headroom = 9}, "4..9 create 1@6 create 1@7 create 1@8", "L4 L5 H7");
  expect_plan("F1 H3", 2, {.headroom = 1}, "0..2 create 1@1", "L2 H2");
}

TEST_P(PlanWindow, StartsAnEmptySegment) {
  expect_plan("H4", 2, {.headroom = 2}, "0..2 create 1@0 create 1@1", "L2 H2");
  expect_plan("H4", 4, {.headroom = 4, .unit = 4}, "0..4 create 4@0", "L4");
}

TEST_P(PlanWindow, FillsAWholeSegmentToItsLastByte) {
  expect_plan("L4 F2 H2", 4, {.headroom = 2, .unit = 2}, "4..8 create 2@6", "L4 L4");
  expect_plan("L4 F2 H2", 4.5, {.headroom = 9}, "no window");
}

TEST_P(PlanWindow, TakesTheOneThatNeedsTheFewestNewMappings) {
  expect_plan("F1 H1 F1 L1 F1 H8", 3, {.headroom = 9, .slack = 9}, "0..3 create 1@1", "L3 L1 F1 H8");
  expect_plan("F1 H4 L1 F2 H1 L1 H9", 3, {.headroom = 9, .slack = 9}, "6..9 create 1@8", "F1 H4 L1 L3 L1 H9");
  // With large PhyBlocks a long gap costs no more than a short one: the first window considered stays.
  expect_plan("L1 F2 H2 L1 F3 H4", 4, {.headroom = 9, .slack = 9, .unit = 4}, "1..5 create 2@3", "L1 L4 L1 F3 H4");
}

TEST_P(PlanWindow, GoesToTheEndRatherThanIntoAHoleThatItWouldFillAlone) {
  expect_plan("L1 H8 L1 H9", 8, {.headroom = 8, .unit = 8}, "10..18 create 8@10", "L1 H8 L1 L8 H1");
  expect_plan("L1 H8 L1 F2 H9", 8, {.headroom = 8, .slack = 8, .unit = 2},
              "10..18 create 2@12 create 2@14 create 2@16");
  expect_plan("L1 H8 L1", 8, {.headroom = 8, .unit = 8}, "1..9 create 8@1");  // there is no other
}

TEST_P(PlanWindow, ReachesOverSeveralHolesAndRuns) {
  expect_plan("F1 H1 F1 H1 F1 L1", 5, {.headroom = 2}, "0..5 create 1@1 create 1@3", "L5 L1");
  expect_plan("L1 F1 H1 F1 H1 F2 H3", 6, {.headroom = 9}, "1..7 create 1@2 create 1@4", "L1 L6 H3");
}

TEST_P(PlanWindow, EndsInsideAFreeRunWhereThatWillDo) {
  expect_plan("F2 H2 F3 L1", 5, {.headroom = 2}, "0..5 create 1@2 create 1@3", "L5 F2 L1");
  expect_plan("F2 H2 F3 L1", 4.5, {.headroom = 2}, "0..4.5 create 1@2 create 1@3", "L4.5 F2.5 L1");
}

TEST_P(PlanWindow, EndsInTheHoleOnTheRunsRightAndStartsAsFarLeftAsItMust) {
  expect_plan("L1 H4 F2 L1", 4, {.headroom = 9}, "3..7 create 1@3 create 1@4", "L1 H2 L4 L1");
  expect_plan("L1 H2 F2 L1", 4, {.headroom = 9}, "1..5 create 1@1 create 1@2", "L1 L4 L1");
  expect_plan("L1 H1 F2 L1", 4, {.headroom = 9}, "no window");
}

TEST_P(PlanWindow, RoundsAWindowBeforeARunDownToASlot) {
  expect_plan("L1 H4 [2 F1.5 L0.5]", 3, {.headroom = 9}, "3..6 create 1@3 create 1@4", "L1 H2 L3 F0.5 L0.5");
}

TEST_P(PlanWindow, StartsAndEndsInsideSlotsOfFreeRuns) {
  expect_plan("[2 L0.5 F1.5] H4", 3, {.headroom = 9}, "0.5..4 create 1@2 create 1@3", "L0.5 L3 F0.5 H2");
  expect_plan("[1 L0.5 F0.5] H1 [1 F0.5 L0.5]", 2, {.headroom = 9}, "0.5..2.5 create 1@1", "L0.5 L2 L0.5");
  expect_plan("[1 L0.5 F0.5] H1 [1 F0.5 L0.5]", 2.5, {.headroom = 9}, "no window");
}

TEST_P(PlanWindow, StopsAtLiveAndPendingBlocks) {
  expect_plan("F1 H1 P1 H1 F1", 3, {.headroom = 9}, "no window");
  expect_plan("F1 H1 L1 H1 F1", 3, {.headroom = 9}, "no window");
  expect_plan("F1 H1 P1 H1 F1", 2, {.headroom = 9, .slack = 9}, "0..2 create 1@1", "L2 P1 H1 F1");
}

TEST_P(PlanWindow, RevivesAStaleMappingWhoseBlockIsFreeElsewhere) {
  expect_plan("F2a L1 S2a H3", 4, {.headroom = 2}, "3..7 revive a@3 create 1@5 create 1@6", "H2 L1 L4 H1");
  expect_plan("F2a L1 S2a L1", 2, {}, "3..5 revive a@3", "H2 L1 L2 L1");
}

TEST_P(PlanWindow, RevivesAStaleMappingOfASpareBlock) {
  expect_plan("L1 S2a H3", 3, {.headroom = 1}, "1..4 revive a@1 create 1@3", "L1 L3 H2");
}

TEST_P(PlanWindow, RevivesWholeMappingsAndKeepsTheRest) {
  expect_plan("L1 S4a H4", 2, {}, "1..5 revive a@1", "L1 L2 F2 H4");
  expect_plan("L1 H1 S4a F1 L1", 3, {}, "2..6 revive a@2", "L1 H1 L3 F2 L1");
}

TEST_P(PlanWindow, RevivesNoBlockFromInsideTheWindow) {
  // `a` lies in the run that the window starts with: it cannot leave for the hole behind.
  expect_plan("F2a S2a L1", 4, {.headroom = 9}, "0..4 retire a@2 create 1@2 create 1@3", "L4 L1");
  expect_plan("F2a S2a L1", 4, {}, "no memory");
}

TEST_P(PlanWindow, RetiresAStaleMappingThatIsInTheWay) {
  expect_plan("L2a S2a L1", 2, {.headroom = 2}, "2..4 retire a@2 create 1@2 create 1@3", "L2 L2 L1");
  expect_plan("L2a S2a L1 H2", 2, {.headroom = 2}, "5..7 create 1@5 create 1@6");  // that costs a call less
}

TEST_P(PlanWindow, RetiresNothingBehindAFenceThatHasNotPassed) {
  expect_plan("L2a s2a L1", 2, {.headroom = 9}, "no window");
  expect_plan("L2a s2a H2", 2, {.headroom = 9}, "4..6 create 1@4 create 1@5", "L2 H2 L2");
}

TEST_P(PlanWindow, RevivesBehindAFenceThatHasNotPassed) {
  expect_plan("F2a L1 s2a L1", 2, {}, "3..5 revive a@3", "H2 L1 L2 L1");  // the same stream: its order is enough
}

TEST_P(PlanWindow, TakesOnlyOneOfTwoStaleMappingsOfABlock) {
  expect_plan("S2a S2a L1", 4, {.headroom = 9}, "0..4 revive a@0 retire a@2 create 1@2 create 1@3", "L4 L1");
  expect_plan("F2a L1 S2a S2a L1", 4, {.headroom = 9}, "3..7 revive a@3 retire a@5 create 1@5 create 1@6");
  expect_plan("S2a s2a L1", 4, {.headroom = 9}, "no memory");
  expect_plan("S2a s2a H4", 4, {.headroom = 9}, "4..8 spare a@4 create 1@6 create 1@7", "H4 L4");
}

TEST_P(PlanWindow, RetiresAStaleMappingToTheEndWhereTheWindowEndsInIt) {
  expect_plan("L4a S4a", 2, {.headroom = 9, .unit = 2}, "4..8 retire a@4 create 2@4 create 2@6", "L4 L2 F2");
}

TEST_P(PlanWindow, GoesAroundQuarantinedMappings) {
  expect_plan("L1 H2 Q2q H4", 2, {.headroom = 9}, "1..3 spare q@1", "L1 L2 H6");
  expect_plan("L1 H2 Q2q H4", 3, {.headroom = 9}, "5..8 spare q@5 create 1@7", "L1 H4 L3 H1");
  expect_plan("L1 H2 Q2q L1 H1", 3, {.headroom = 9}, "no window");
  expect_plan("F1 H1 Q1q", 3, {.headroom = 9}, "no window");
}

TEST_P(PlanWindow, FallsThroughToTheNextWhereNothingFits) {
  expect_plan("F4a L1 H3 L1 H8", 3, {}, "9..13 move a@9", "H4 L1 H3 L1 L3 F1 H4");
  // Before the run nothing may leave it; the window that ends with the run leaves the other one free to go.
  expect_plan("F2a H2 F2+1 L1", 5, {}, "2..7 move a@2", "H2 L5 L1");
}

TEST_P(PlanWindow, OffersToTheNextWhatTheOneBeforeHadTaken) {
  // Before the live block `b` fits, and nothing else does; behind it all three are wanted.
  expect_plan("F4a+1b L1 F1c H2 L1 H8 L1", 3, {}, "10..16 move c@10 move b@11 move a@12");
}

TEST_P(PlanWindow, LooksAtAddressesThatNothingIsMappedAt) {
  expect_plan("L2a s2a H4", 3, {.headroom = 9}, "4..7 create 1@4 create 1@5 create 1@6", "L2 H2 L3 H1");
}

}  // namespace
}  // namespace gmlake::stitch::testing
