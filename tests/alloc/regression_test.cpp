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

// Streams that had been waited for left what a released pool had, and the request that waited could not take it.
TEST(Regression, WhatAReleasedPoolHadIsThereForTheRequestThatWaitedForIt) {
  const Program program = {
      {Op::Kind::alloc, 68, 8388608, 14},  {Op::Kind::begin_pool, 3, 0, 0},    {Op::Kind::alloc, 77, 8132713, 0},
      {Op::Kind::free, 68, 0, ~0u},        {Op::Kind::spare, 0, 2, 0},         {Op::Kind::alloc, 163, 1441579, 0},
      {Op::Kind::free, 163, 0, ~0u},       {Op::Kind::alloc, 246, 8388608, 5}, {Op::Kind::alloc, 279, 8388608, 14},
      {Op::Kind::record, 279, 0, 9},       {Op::Kind::free, 279, 0, ~0u},      {Op::Kind::free, 246, 0, ~0u},
      {Op::Kind::limit, 0, 16976532, 0},   {Op::Kind::alloc, 397, 8388608, 0}, {Op::Kind::end_pool, 3, 0, 3},
      {Op::Kind::alloc, 492, 1722609, 28}, {Op::Kind::release_pool, 3, 0, 4},  {Op::Kind::alloc, 779, 212, 20},
  };
  Conditions conditions;
  conditions.streams = 32;
  conditions.capacity_granules = 512;
  conditions.options.max_stale = 0.1;
  EXPECT_EQ(run_program(conditions, program).failure, "");
}

}  // namespace
}  // namespace gmlake::test
