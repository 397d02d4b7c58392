// Errors as values: what they carry, and that taking the side that is not there aborts.
#include "gmlake/result.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>

namespace gmlake {
namespace {

constexpr Error kError{ErrorCode::out_of_memory, Step::create, 42};

TEST(Result, HoldsAValue) {
  Result<int> result = 7;
  EXPECT_TRUE(result.ok());
  EXPECT_TRUE(static_cast<bool>(result));
  EXPECT_EQ(result.value(), 7);
  *result = 8;
  EXPECT_EQ(*result, 8);
}

TEST(Result, HoldsAnError) {
  const Result<std::string> result = kError;
  EXPECT_FALSE(result.ok());
  EXPECT_FALSE(static_cast<bool>(result));
  EXPECT_EQ(result.error(), kError);
}

TEST(Result, MovesAValueThatCannotBeCopied) {
  Result<std::unique_ptr<int>> result = std::make_unique<int>(3);
  EXPECT_EQ(**result, 3);
  const std::unique_ptr<int> taken = std::move(result).value();
  EXPECT_EQ(*taken, 3);
}

TEST(Result, ReachesTheMembersOfItsValue) {
  Result<std::string> result = std::string("abc");
  EXPECT_EQ(result->size(), 3u);
  const Result<std::string>& constant = result;
  EXPECT_EQ(constant->size(), 3u);
}

TEST(ResultDeathTest, AbortsWhereTheValueOfAnErrorIsTaken) {
  Result<int> result = kError;
  EXPECT_DEATH((void)result.value(), "create: out of memory \\(42\\)");
  EXPECT_DEATH((void)*result, "create: out of memory \\(42\\)");
  EXPECT_DEATH((void)std::move(result).value(), "create: out of memory \\(42\\)");
}

TEST(ResultDeathTest, AbortsWhereTheErrorOfASuccessIsTaken) {
  const Result<int> result = 1;
  EXPECT_DEATH((void)result.error(), "error\\(\\) of a success");
  const Status status;
  EXPECT_DEATH((void)status.error(), "error\\(\\) of a success");
}

TEST(Status, IsASuccessUntilItHoldsAnError) {
  Status status;
  EXPECT_TRUE(status.ok());
  status = kError;
  EXPECT_FALSE(status.ok());
  EXPECT_FALSE(static_cast<bool>(status));
  EXPECT_EQ(status.error(), kError);
}

TEST(Describe, NamesTheStepTheErrorAndTheValue) {
  EXPECT_EQ(describe(kError), "create: out of memory (42)");
  EXPECT_EQ(describe({ErrorCode::shut_down, Step::none, 0}), "used after shutdown (0)");
  EXPECT_EQ(describe({ErrorCode::invalid_pointer, Step::deallocate, UINT64_MAX}),
            "deallocate: not the start of a live block (18446744073709551615)");
}

TEST(Describe, HasANameOfItsOwnForEveryCodeAndStep) {
  std::set<std::string> names;
  for (int code = 0; code <= static_cast<int>(ErrorCode::unknown); ++code) {
    EXPECT_TRUE(names.insert(to_string(static_cast<ErrorCode>(code))).second) << code;
  }
  EXPECT_FALSE(names.contains("unknown error code"));
  EXPECT_STREQ(to_string(static_cast<ErrorCode>(200)), "unknown error code");
  names.clear();
  for (int step = 0; step <= static_cast<int>(Step::options); ++step) {
    EXPECT_TRUE(names.insert(to_string(static_cast<Step>(step))).second) << step;
  }
  EXPECT_FALSE(names.contains("unknown step"));
  EXPECT_STREQ(to_string(static_cast<Step>(200)), "unknown step");
}

}  // namespace
}  // namespace gmlake
