// Carrying plans out: which driver calls are made, how many, and what the books say between the three steps.
#include "stitch/stitcher.hpp"

#include <gtest/gtest.h>

#include "stitch/rig.hpp"

namespace gmlake::stitch::testing {
namespace {

class StitcherTest : public ::testing::Test {
 protected:
  std::uint64_t calls(Step step) const { return rig_.driver.calls(step); }

  driver::ModelDriver model_;
  Rig rig_{model_, 21};
};

TEST_F(StitcherTest, MapsEachBlockAndGrantsAccessToWholeRunsAtOnce) {
  (void)rig_.lay(rig_.a, "F2a L1 F1b L1 F1 H2 F1 H3 L1");
  const auto plan = rig_.plan(rig_.a, 7, {.headroom = 4, .unit = 2});
  ASSERT_TRUE(plan.has_value());
  rig_.driver.reset_counts();
  ASSERT_NE(rig_.carry_out(*plan), nullptr);
  std::uint64_t created = 0;
  for (const Plan::Fill& fill : plan->fills) created += fill.block == nullptr ? 1 : 0;
  EXPECT_EQ(calls(Step::create), created);
  EXPECT_EQ(calls(Step::map), plan->fills.size());
  EXPECT_EQ(calls(Step::set_access), 2u);  // one for each gap
  EXPECT_EQ(calls(Step::unmap), 0u);       // nothing is unmapped now, and nothing waits
  rig_.check();
}

TEST_F(StitcherTest, UnmapsNeighboursThatAreInTheWayInOneCall) {
  (void)rig_.lay(rig_.a, "L1a+2b+1c S1a S2b H1 S1c");
  const auto plan = rig_.plan(rig_.a, 5, {.headroom = 5});
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->retire.size(), 3u);
  rig_.driver.reset_counts();
  ASSERT_NE(rig_.carry_out(*plan), nullptr);
  EXPECT_EQ(calls(Step::unmap), 2u);
  EXPECT_EQ(rig_.table.stale_granules(), 0u);
  rig_.check();
}

TEST_F(StitcherTest, LeavesNeighboursInTheRetireQueueSoThatOneCallUnmapsThem) {
  (void)rig_.lay(rig_.a, "F1a+1b+1c+1d L1 H8");
  const auto plan = rig_.plan(rig_.a, 4);
  ASSERT_TRUE(plan.has_value());
  ASSERT_NE(rig_.carry_out(*plan), nullptr);
  rig_.driver.reset_counts();
  EXPECT_EQ(rig_.table.retire(rig_.fences, 0), 4u);
  EXPECT_EQ(calls(Step::unmap), 1u);
  rig_.check();
}

TEST_F(StitcherTest, HidesTheWindowAndTheDonorsUntilItPublishes) {
  const memory::VmmSegment* segment = rig_.lay(rig_.a, "F2a+1b L1 F1 H3");
  const auto plan = rig_.plan(rig_.a, 3);
  ASSERT_EQ(rig_.describe(plan), "4..7 move a@5");
  ASSERT_TRUE(rig_.stitcher.claim(*plan, rig_.steps));
  EXPECT_EQ(rig_.blocks(rig_.a, segment), "C2 F1 L1 C3 H1");
  rig_.a.check();
  ASSERT_TRUE(rig_.stitcher.execute(*plan).ok());
  // Another thread's hit meanwhile.
  Block* other = rig_.a.take(rig_.a.find(512), 512, 512);
  EXPECT_EQ(other->address, segment->address_of(2));
  Block* run = rig_.publish(*plan, 4, true);
  EXPECT_EQ(run->address, segment->address_of(4));
  EXPECT_EQ(run->tick_or_requested, 4u);
  rig_.check();
}

TEST_F(StitcherTest, ReturnsTheRunThatBeginsTheWindowEvenWhereItGrewToTheRight) {
  const memory::VmmSegment* segment = rig_.lay(rig_.a, "L1 H4 F2a L1");
  const auto plan = rig_.plan(rig_.a, 3, {.headroom = 9});
  ASSERT_EQ(rig_.describe(plan), "4..7 create 1@4");
  Block* run = rig_.carry_out(*plan);
  EXPECT_EQ(run->address, segment->address_of(4));
  EXPECT_EQ(run->bytes, rig_.bytes(3));
  rig_.check();
}

TEST_F(StitcherTest, KeepsWhatIsBeyondTheRequestAsPartOfTheRun) {
  const memory::VmmSegment* segment = rig_.lay(rig_.a, "F8a L1 H9");
  const auto plan = rig_.plan(rig_.a, 5);
  Block* run = rig_.carry_out(*plan);
  EXPECT_EQ(run->bytes, rig_.bytes(8));
  EXPECT_EQ(rig_.blocks(rig_.a, segment), "H8 L1 F8 H1");
  rig_.check();
}

TEST_F(StitcherTest, MovesBlocksBackAndForthAndKeepsTheBooks) {
  const memory::VmmSegment* segment = rig_.lay(rig_.a, "F2a L1 F2b L1 H6");
  for (int round = 0; round < 20; ++round) {
    const auto plan = rig_.plan(rig_.a, 4, {.headroom = 0});
    if (!plan) break;
    Block* run = rig_.carry_out(*plan);
    ASSERT_NE(run, nullptr);
    rig_.check();
    Block* taken = rig_.a.take(run, rig_.bytes(4), 1);
    EXPECT_TRUE(model_.has_access(taken->address, taken->bytes, 0));
    rig_.a.give_back(taken, 0);
    rig_.check();
    EXPECT_EQ(rig_.a.free_bytes(), rig_.bytes(4)) << rig_.blocks(rig_.a, segment);
  }
  EXPECT_EQ(rig_.phy.created_count(), 4u);
}

}  // namespace
}  // namespace gmlake::stitch::testing
