// Random programs of operations, on the model driver for their number and on the host driver for contents. Every
// program is run against the reference and the race detector of tests/support; what fails is shrunk and printed so that
// it can be pasted into regression_test.cpp. bench/random_programs_bench.cpp runs more of the same.
#include <gtest/gtest.h>

#include <cstdio>

#include "support/program.hpp"

namespace gmlake::test {

inline void PrintTo(const NamedConditions& named, std::ostream* out) { *out << named.name; }

namespace {

// Release runs the full number; sanitizers and checks that recount everything, a part of it.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || (GMLAKE_CHECK_LEVEL >= 1)
constexpr std::uint64_t kShare = 20;
#else
constexpr std::uint64_t kShare = 1;
#endif

class RandomPrograms : public testing::TestWithParam<NamedConditions> {};

TEST_P(RandomPrograms, EndAsTheReferenceAllows) {
  const NamedConditions& named = GetParam();
  constexpr std::uint64_t kFirstSeed = 1000;
  const Batch batch = run_random_programs(named.conditions, kFirstSeed, named.test_operations / kShare, named.length);
  const auto number = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
  std::printf(
      "%llu operations, seeds %llu to %llu, %llu out of memory, %llu waits, %llu faults, %llu blocks borrowed\n",
      number(batch.sum.operations), number(kFirstSeed), number(batch.last_seed), number(batch.sum.ooms),
      number(batch.sum.waits), number(batch.sum.faults), number(batch.sum.borrowed));
  EXPECT_EQ(batch.failure, "");
  EXPECT_EQ(batch.sum.borrowed > 0, !named.conditions.options.zero_on_free);
}

INSTANTIATE_TEST_SUITE_P(Conditions, RandomPrograms, testing::ValuesIn(named_conditions()),
                         [](const auto& named) { return std::string(named.param.name); });

// The rung that is rarely needed: what is cached is as much as the request wants, but in sizes that fit nowhere. No
// short scenario reaches it, so programs are tried until one does.
TEST(RandomProgram, ReachesTheRungThatReleasesCachedMemory) {
  if (kShare > 1) GTEST_SKIP() << "it takes tens of thousands of operations";
  Conditions conditions;
  conditions.granularity = 4096;
  conditions.capacity_granules = 8192;
  conditions.streams = 1;
  conditions.options.max_address_space = 1;
  conditions.limits = false;
  std::uint64_t released = 0;
  std::uint64_t seed = 1;
  for (; seed <= 400 && released == 0; ++seed) {
    const Outcome outcome = run_program_apart(conditions, generate_program(conditions, seed, 1000));
    ASSERT_EQ(outcome.failure, "") << "seed " << seed;
    released += outcome.released;
  }
  EXPECT_GT(released, 0u) << "in " << seed - 1 << " programs";
}

}  // namespace
}  // namespace gmlake::test
