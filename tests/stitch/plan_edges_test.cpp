// Plans at the edges: guard addresses, several segments, sizes past all bounds, and the planner without host memory.
#include <new>

#include "stitch/rig.hpp"
#include "support/failing_new.hpp"

namespace gmlake::stitch::testing {
namespace {

class PlanEdges : public StitchTest {};
INSTANTIATE_TEST_SUITE_P(Granules, PlanEdges, ::testing::Values(16u, 21u, 25u));

// Behind a live block of 256 MiB and more at a segment's end, twice as many addresses as it has stay free. Granules of
// 2 MiB.
class PlanGuard : public StitchTest {};
INSTANTIATE_TEST_SUITE_P(Granules, PlanGuard, ::testing::Values(21u));

TEST_P(PlanGuard, LeavesRoomBehindALongBlockAtTheEnd) {
  expect_plan("L128 H1000", 8, {.headroom = 8, .unit = 8}, "384..392 create 8@384", "L128 H256 L8 H736");
}

TEST_P(PlanGuard, LeavesRoomBehindTheRestOfItsLastPhyBlockToo) {
  expect_plan("[128+1 L128.5 F0.5] H1000", 8, {.headroom = 8, .unit = 8}, "386..394 create 8@386");
}

TEST_P(PlanGuard, LeavesNoneBehindAShorterOneOrAFreeOne) {
  expect_plan("L127 H1000", 8, {.headroom = 8, .unit = 8}, "127..135 create 8@127");
  expect_plan("F128 H1000", 130, {.headroom = 2, .unit = 2}, "0..130 create 2@128");
  expect_plan("L128 F1 H1000", 3, {.headroom = 2, .unit = 2}, "128..131 create 2@129");
}

TEST_P(PlanGuard, LeavesNoneWhereAddressesRunShort) {
  expect_plan("L128 H200", 8, {.headroom = 8, .unit = 8}, "128..136 create 8@128");
  expect_plan("L128 H527", 8, {.headroom = 8, .unit = 8}, "128..136 create 8@128");
  expect_plan("L128 H528", 8, {.headroom = 8, .unit = 8}, "384..392 create 8@384");
}

TEST_P(PlanGuard, LeavesNoneWhereTheAddressesBehindItAreMapped) {
  // The highest slot ever mapped lies at the segment's end: behind it nothing fits.
  expect_plan("L128a H984 S128a", 8, {.headroom = 8, .unit = 8}, "128..136 create 8@128");
  expect_plan("L128a H984 S128a H4", 8, {.headroom = 8, .unit = 8}, "128..136 create 8@128");
  expect_plan("L128a H984 S128a H8", 8, {.headroom = 8, .unit = 8}, "1240..1248 create 8@1240");
}

TEST_P(PlanGuard, LeavesNoneBeforeOtherBlocks) {
  expect_plan("L128 H1000 L1", 8, {.headroom = 8, .unit = 8}, "128..136 create 8@128");
}

TEST_P(PlanEdges, ChoosesAmongAllSegmentsOfThePool) {
  Rig rig(model_, shift());
  (void)rig.lay(rig.a, "L1 H8");
  (void)rig.lay(rig.a, "L1 F2 H8");
  (void)rig.lay(rig.a, "L1 F1c H8");
  EXPECT_EQ(rig.describe(rig.plan(rig.a, 3)), "#1 1..4 move c@3");
}

TEST_P(PlanEdges, MovesBlocksBetweenSegments) {
  Rig rig(model_, shift());
  memory::VmmSegment* first = rig.lay(rig.a, "L1 F4a H1 L1");
  memory::VmmSegment* second = rig.lay(rig.a, "L1 F2 H4");
  const auto plan = rig.plan(rig.a, 6);
  EXPECT_EQ(rig.describe(plan), "#1 1..7 move a@3");
  Block* run = rig.carry_out(*plan);
  ASSERT_NE(run, nullptr);
  (void)rig.a.take(run, rig.bytes(2), 1);
  rig.check();
  EXPECT_EQ(rig.blocks(rig.a, first), "L1 H5 L1");
  EXPECT_EQ(rig.blocks(rig.a, second), "L1 L2 F4");
  // Free there and wanted here, it goes home without a driver call.
  rig.driver.reset_counts();
  const auto back = rig.plan(rig.a, 5, {.headroom = 1});
  EXPECT_EQ(rig.describe(back), "1..6 revive a@1 create 1@5");
  ASSERT_NE(rig.carry_out(*back), nullptr);
  EXPECT_EQ(rig.driver.calls(), 3u);  // for the block that is created
  EXPECT_EQ(rig.blocks(rig.a, first), "L1 F5 L1");
  EXPECT_EQ(rig.blocks(rig.a, second), "L1 L2 H4");
  rig.check();
}

TEST_P(PlanEdges, HasNoWindowInAPoolWithoutSegments) {
  Rig rig(model_, shift());
  EXPECT_EQ(rig.describe(rig.plan(rig.a, 1, {.headroom = 9})), "no window");
  (void)rig.lay(rig.b, "F4");
  EXPECT_EQ(rig.describe(rig.plan(rig.a, 1, {.headroom = 9, .donors = {&rig.a, &rig.b}})), "no window");
}

TEST_P(PlanEdges, HasNoWindowForSizesThatReachPastAllAddresses) {
  Rig rig(model_, shift());
  (void)rig.lay(rig.a, "L1 F2 H8 F1");
  for (const std::uint64_t bytes : {~std::uint64_t{511}, std::uint64_t{1} << 63, ~std::uint64_t{0} << 40}) {
    const std::vector<Pool*> donors{&rig.a};
    const auto plan =
        rig.planner.make({.pool = &rig.a, .bytes = bytes, .donors = donors, .headroom_granules = 99}, rig.steps);
    EXPECT_EQ(rig.describe(plan), "no window") << bytes;
  }
}

TEST_P(PlanEdges, GivesUpAfterAFewWindows) {
  std::string layout = "F4a";
  for (int i = 0; i < 12; ++i) layout += " L1 H3";
  expect_plan(layout + " L1", 3, {}, "no memory");
  // A ninth window would do, but a plan has to end: the ladder tries other things first.
  expect_plan(layout + " L1 H4 L1", 3, {}, "no memory");
}

TEST_P(PlanEdges, LeavesNoMarkWhereTheHostIsOutOfMemory) {
  Rig rig(model_, shift());
  (void)rig.lay(rig.a, "F4a+2b+1c L1 H3 F1 L1 S2d S2e L1 H9");
  const std::string before = rig.books();
  std::string expected;
  bool reached = true;
  for (std::uint64_t nth = 1; reached; ++nth) {
    ASSERT_LT(nth, 1000u);
    Planner planner(rig.phy, rig.fences);  // with no memory of its own yet
    const std::vector<Pool*> donors{&rig.a};
    const PlanRequest request{.pool = &rig.a, .bytes = rig.bytes(9), .donors = donors, .headroom_granules = 4};
    std::optional<Plan> plan;
    {
      const gmlake::testing::FailingNew failing(nth);
      try {
        plan = planner.make(request, rig.steps);
      } catch (const std::bad_alloc&) {
      }
      reached = failing.reached();
    }
    rig.check();  // no donor keeps its mark
    ASSERT_EQ(rig.books(), before) << nth;
    if (!reached) expected = rig.describe(plan);
  }
  EXPECT_EQ(rig.describe(rig.plan(rig.a, 9, {.headroom = 4})), expected);
}

}  // namespace
}  // namespace gmlake::stitch::testing
