// How large PhyBlocks are created: the policy as a function.
#include "alloc/growth_policy.hpp"

#include <initializer_list>

#include <gtest/gtest.h>

namespace gmlake::alloc {
namespace {

// 64 GiB held, half of it settled, far from any limit; a request of 1 GiB. In granules of 2 MiB.
GrowthInput large_job() {
  return {.footprint_granules = 32768,
          .settled_granules = 16384,
          .freeing = true,
          .request_granules = 512,
          .headroom_granules = 1 << 20,
          .max_granules = 512,
          .usual_granules = 8};
}

TEST(GrowthPolicy, MakesLargeBlocksWhileNothingIsFreed) {
  GrowthInput input = large_job();
  input.freeing = false;
  EXPECT_EQ(growth_granules(input), 32u);  // a 640th of the footprint, rounded down to a power of two
  input.max_granules = 8;
  EXPECT_EQ(growth_granules(input), 8u);
}

TEST(GrowthPolicy, MakesThemByTheFootprintUpToTheUsualSize) {
  GrowthInput input = large_job();
  input.freeing = false;
  input.footprint_granules = 5 * 96;
  EXPECT_EQ(growth_granules(input), 4u);  // a 96th
  input.footprint_granules = 16 * 96;
  EXPECT_EQ(growth_granules(input), 8u);  // no more than usual
  input.footprint_granules = 16 * 640;
  EXPECT_EQ(growth_granules(input), 16u);  // a large job
}

TEST(GrowthPolicy, MakesSmallerOnesWhereMemoryComesAndGoes) { EXPECT_EQ(growth_granules(large_job()), 32u); }

TEST(GrowthPolicy, MakesThemSmallerStillWhereStreamsShareThem) {
  GrowthInput input = large_job();
  input.streams = 1.0;  // of several, one has all free runs
  EXPECT_EQ(growth_granules(input), 16u);
  input.streams = 1.1;  // sizes are powers of two, rounded down
  EXPECT_EQ(growth_granules(input), 8u);
  input.streams = 2.0;
  EXPECT_EQ(growth_granules(input), 8u);
  input.streams = 2.1;
  EXPECT_EQ(growth_granules(input), 4u);
  input.streams = 4.0;
  EXPECT_EQ(growth_granules(input), 4u);
  input.streams = 1000.0;
  EXPECT_EQ(growth_granules(input), 4u);
}

double spread_over(std::initializer_list<std::uint64_t> runs) {
  EffectiveStreams streams;
  for (const std::uint64_t own : runs) streams.add(own);
  return streams.number();
}

TEST(EffectiveStreams, CountStreamsByTheirShareOfFreeRuns) {
  EXPECT_EQ(spread_over({}), 1.0);
  EXPECT_EQ(spread_over({0, 0}), 1.0);
  EXPECT_EQ(spread_over({7}), 1.0);
  EXPECT_EQ(spread_over({7, 0, 0}), 1.0);
  EXPECT_EQ(spread_over({5, 5}), 2.0);
  EXPECT_EQ(spread_over({1, 1, 1, 1}), 4.0);
  EXPECT_EQ(spread_over({3, 1}), 1.6);
  EXPECT_NEAR(spread_over({100, 1, 1}), 1.04, 0.01);
}

TEST(GrowthPolicy, MakesNoneLongerThanTheRequest) {
  GrowthInput input = large_job();
  input.request_granules = 3;
  EXPECT_EQ(growth_granules(input), 4u);
  input.request_granules = 1;
  EXPECT_EQ(growth_granules(input), 1u);
}

TEST(GrowthPolicy, MakesThemSmallNearTheLimitDownToAShareOfTheFootprint) {
  GrowthInput input = large_job();
  input.headroom_granules = 16 * kBlocksPerHeadroom;
  EXPECT_EQ(growth_granules(input), 16u);
  input.headroom_granules = 2 * kBlocksPerHeadroom - 1;
  EXPECT_EQ(growth_granules(input), 4u);  // half of what is usual
  input.footprint_granules = 3 * kMostBlocks;
  EXPECT_EQ(growth_granules(input), 2u);  // a 3072nd of what is held, rounded down to a power of two
  input.refused = true;
  EXPECT_EQ(growth_granules(input), 1u);  // what the driver has left may lie in pieces
  input.refused = false;
  input.footprint_granules = 2 * kMostBlocks - 1;
  EXPECT_EQ(growth_granules(input), 1u);
}

TEST(GrowthPolicy, MakesSingleGranulesForSmallRequests) {
  GrowthInput input = large_job();
  input.small = true;
  EXPECT_EQ(growth_granules(input), 1u);
}

}  // namespace
}  // namespace gmlake::alloc
