// Random programs of operations, on the model driver for their number and on the host driver for contents. Every
// program is run against the reference of tests/support; what fails is shrunk and printed so that it can be pasted into
// regression_test.cpp.
#include <gtest/gtest.h>

#include "support/program.hpp"

namespace gmlake::test {
namespace {

// Release runs the full number; sanitizers and checks that recount everything, a part of it.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || (GMLAKE_CHECK_LEVEL >= 1)
constexpr std::size_t kShare = 20;
#else
constexpr std::size_t kShare = 1;
#endif

constexpr std::uint64_t kKiB = 1 << 10;
constexpr std::uint64_t kMiB = 1 << 20;

TEST(RandomPrograms, NearTheLimitOnTheModelEndAsTheReferenceAllows) {
  Conditions conditions;
  EXPECT_EQ(run_random_programs("near the limit", conditions, 1000, 400'000 / kShare, 2000), "");
}

TEST(RandomPrograms, FarFromTheLimitOnTheModelEndAsTheReferenceAllows) {
  Conditions conditions;
  conditions.capacity_granules = 16384;
  EXPECT_EQ(run_random_programs("far from the limit", conditions, 2000, 300'000 / kShare, 2000), "");
}

TEST(RandomPrograms, WithLargePhyBlocksOnTheModelEndAsTheReferenceAllows) {
  Conditions conditions;
  conditions.granularity = 4 * kKiB;
  conditions.capacity_granules = 8192;
  conditions.options.slack = 0.05;
  EXPECT_EQ(run_random_programs("large PhyBlocks", conditions, 3000, 100'000 / kShare, 2000), "");
}

TEST(RandomPrograms, OfManyStreamsOnTheModelEndAsTheReferenceAllows) {
  Conditions conditions;
  conditions.streams = 32;
  conditions.capacity_granules = 512;
  conditions.options.max_stale = 0.1;
  EXPECT_EQ(run_random_programs("many streams", conditions, 4000, 100'000 / kShare, 2000), "");
}

TEST(RandomPrograms, WithoutStreamWaitsOnTheModelEndAsTheReferenceAllows) {
  Conditions conditions;
  conditions.options.stream_wait = false;
  conditions.options.slack = 0;
  conditions.options.max_stale = 0;
  EXPECT_EQ(run_random_programs("no stream waits", conditions, 5000, 50'000 / kShare, 2000), "");
}

TEST(RandomPrograms, WithFailingCallsOnTheModelLeaveTheBooksExact) {
  Conditions conditions;
  conditions.faults = true;
  EXPECT_EQ(run_random_programs("failing calls", conditions, 6000, 100'000 / kShare, 500), "");
}

// The rung that is rarely needed: what is cached is as much as the request wants, but in sizes that fit nowhere. No
// short scenario reaches it, so programs are tried until one does.
TEST(RandomPrograms, ReachTheRungThatReleasesCachedMemory) {
  if (kShare > 1) GTEST_SKIP() << "it takes tens of thousands of operations";
  Conditions conditions;
  conditions.granularity = 4 * kKiB;
  conditions.capacity_granules = 8192;
  conditions.streams = 1;
  conditions.options.max_address_space = 1;
  std::uint64_t released = 0;
  std::uint64_t seed = 1;
  for (; seed <= 400 && released == 0; ++seed) {
    const Outcome outcome = run_program_apart(conditions, generate_program(conditions, seed, 1000));
    ASSERT_EQ(outcome.failure, "") << "seed " << seed;
    released += outcome.released;
  }
  EXPECT_GT(released, 0u) << "in " << seed - 1 << " programs";
}

TEST(RandomPrograms, WithFailingCallsAndLargePhyBlocksLeaveTheBooksExact) {
  Conditions conditions;
  conditions.granularity = 4 * kKiB;
  conditions.capacity_granules = 8192;
  conditions.faults = true;
  EXPECT_EQ(run_random_programs("failing calls, large PhyBlocks", conditions, 9000, 50'000 / kShare, 500), "");
}

TEST(RandomPrograms, OnTheHostKeepTheContentsOfEveryBlock) {
  Conditions conditions;
  conditions.host = true;
  conditions.capacity_granules = 512;
  conditions.max_bytes = 16 * kMiB;
  EXPECT_EQ(run_random_programs("host", conditions, 7000, 80'000 / kShare, 1000), "");
}

TEST(RandomPrograms, WithFailingCallsOnTheHostKeepTheContentsOfEveryBlock) {
  Conditions conditions;
  conditions.host = true;
  conditions.faults = true;
  EXPECT_EQ(run_random_programs("host, failing calls", conditions, 8000, 20'000 / kShare, 500), "");
}

}  // namespace
}  // namespace gmlake::test
