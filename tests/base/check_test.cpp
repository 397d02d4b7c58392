// The check macros: what a failed one prints, which level runs which, and that an operand is evaluated once.
#include "base/check.hpp"

#include <gtest/gtest.h>

namespace gmlake {
namespace {

TEST(Check, LetsTrueConditionsPass) {
  GMLAKE_CHECK(1 + 1 == 2);
  GMLAKE_CHECK_EQ(2u, 2u);
  GMLAKE_DCHECK(true);
}

TEST(CheckDeathTest, PrintsTheConditionAndThePlaceAndAborts) {
  const int answer = 41;
  EXPECT_DEATH(GMLAKE_CHECK(answer == 42), "gmlake: check failed: answer == 42 at .*check_test.cpp:[0-9]+");
}

TEST(CheckDeathTest, PrintsBothValuesOfAComparison) {
  const unsigned left = 3;
  const unsigned long right = 5;
  EXPECT_DEATH(GMLAKE_CHECK_EQ(left, right), "left == right \\(3 and 5\\)");
  EXPECT_DEATH(GMLAKE_CHECK_EQ(true, false), "\\(1 and 0\\)");
}

TEST(CheckDeathTest, RunsDebugChecksFromLevelOneOn) {
#if GMLAKE_CHECK_LEVEL >= 1
  EXPECT_DEATH(GMLAKE_DCHECK(1 == 2), "1 == 2");
#else
  GMLAKE_DCHECK(1 == 2);
#endif
}

TEST(Check, RunsAuditsFromLevelTwoOn) {
  int runs = 0;
  GMLAKE_AUDIT(++runs);
  EXPECT_EQ(runs, GMLAKE_CHECK_LEVEL >= 2 ? 1 : 0);
}

TEST(Check, EvaluatesItsOperandsOnce) {
  int left = 0;
  int right = 0;
  GMLAKE_CHECK_EQ(++left, ++right);
  GMLAKE_CHECK(++left == 2);
  EXPECT_EQ(left, 2);
  EXPECT_EQ(right, 1);
}

TEST(Check, StandsAloneInABranch) {
  if (GMLAKE_CHECK_LEVEL < 0)
    GMLAKE_CHECK_EQ(1, 2);
  else
    GMLAKE_CHECK(true);
}

}  // namespace
}  // namespace gmlake
