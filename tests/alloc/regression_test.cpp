// Programs that once failed, as the shrinker printed them. Each says what was wrong.
#include <gtest/gtest.h>

#include "support/program.hpp"

namespace gmlake::test {
namespace {

Conditions on_host(bool faults = false) {
  Conditions conditions;
  conditions.host = true;
  conditions.capacity_granules = 512;
  conditions.faults = faults;
  return conditions;
}

// A block that came back from other streams was stamped with a tick of now, whose fence nobody had waited for: the last
// rung waited for every stream and still could not take it.
TEST(Regression, WhatCameBackFromOtherStreamsIsThereForTheLastRung) {
  const Program program = {
      {Op::Kind::alloc, 217, 10533, 3},    {Op::Kind::record, 217, 0, 0}, {Op::Kind::alloc, 220, 16777216, 2},
      {Op::Kind::free, 217, 0, ~0u},       {Op::Kind::record, 220, 0, 0}, {Op::Kind::free, 220, 0, ~0u},
      {Op::Kind::alloc, 226, 16777216, 0},
  };
  EXPECT_EQ(run_program(on_host(), program).failure, "");
}

// Handles that the driver had once refused to release were forgotten, and never released.
TEST(Regression, WhatTheDriverRefusedToReleaseIsReleasedAtShutdown) {
  const Program program = {
      {Op::Kind::alloc, 97, 8388608, 3},
      {Op::Kind::free, 97, 0, ~0u},
      {Op::Kind::fail, 0, 28, 4},
      {Op::Kind::trim, 0, 2836988, 0},
  };
  EXPECT_EQ(run_program(on_host(true), program).failure, "");
}

// The same for mappings that could not be undone.
TEST(Regression, WhatCouldNotBeUndoneIsGoneAtShutdown) {
  const Program program = {
      {Op::Kind::alloc, 118, 3466076, 3}, {Op::Kind::alloc, 119, 580707, 3},  {Op::Kind::free, 118, 0, 2},
      {Op::Kind::alloc, 158, 2527066, 0}, {Op::Kind::alloc, 159, 6568818, 1}, {Op::Kind::alloc, 170, 3633592, 0},
      {Op::Kind::fail, 0, 22, 6},         {Op::Kind::alloc, 181, 7744988, 3},
  };
  Conditions conditions = on_host(true);
  conditions.capacity_granules = 256;
  EXPECT_EQ(run_program(conditions, program).failure, "");
}

}  // namespace
}  // namespace gmlake::test
