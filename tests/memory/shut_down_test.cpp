// Shutting down: nothing is left in the driver, whatever was refused before; and what it refuses then stays in the
// books.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "memory/rig.hpp"

namespace gmlake::memory::testing {
namespace {

class ShutDownTest : public MemoryTest {
 protected:
  // Homes, stale mappings, aliases, spare blocks, two segments.
  void populate() {
    VmmSegment* first = table_.reserve(32).value();
    VmmSegment* second = table_.reserve(16).value();
    Mapping* home = settle(first, 0, 4);
    (void)settle(first, 4, 2);
    (void)stale(first, 8, 2, {stream_, 1});
    Mapping* moved = place(second, 3, home->block);
    table_.leave_home(home->block, {stream_, 1});
    table_.settle(moved);
    (void)stale(second, 15, 1);
    (void)pool_.create(8).value();
  }
};

TEST_F(ShutDownTest, LeavesNothing) {
  populate();
  table_.shut_down();
  EXPECT_EQ(model_.usage(), driver::Usage{});
  EXPECT_EQ(pool_.held_bytes(), 0u);
  EXPECT_EQ(pool_.created_count(), pool_.released_count());
  EXPECT_EQ(table_.mapping_count(), 0u);
  EXPECT_EQ(table_.stale_granules(), 0u);
  EXPECT_EQ(table_.reserved_address_bytes(), 0u);
  check();
}

TEST_F(ShutDownTest, IsDoneOnce) {
  populate();
  table_.shut_down();
  fault_.reset_counts();
  table_.shut_down();
  EXPECT_EQ(fault_.calls(), 0u);
}

TEST_F(ShutDownTest, UnmapsRunsOfMappingsInOneCallEach) {
  populate();
  fault_.reset_counts();
  table_.shut_down();
  EXPECT_EQ(fault_.calls(Step::unmap), 4u);  // [0, 6) and [8, 10) of one, [3, 7) and [15, 16) of the other
}

TEST_F(ShutDownTest, UnmapsOneByOneWhereARunIsRefused) {
  populate();
  fault_.arm({.kind = Step::unmap, .nth = 1, .code = ErrorCode::unknown});
  table_.shut_down();
  EXPECT_EQ(model_.usage(), driver::Usage{});
  EXPECT_EQ(table_.mapping_count(), 0u);
  EXPECT_EQ(pool_.held_bytes(), 0u);
  check();
}

TEST_F(ShutDownTest, TriesAgainWhatWasRefusedBefore) {
  populate();
  fault_.arm({.kind = Step::unmap, .sticky = true, .code = ErrorCode::unknown});
  EXPECT_TRUE(fences_.wait({stream_, 1}).ok());
  EXPECT_EQ(table_.retire(fences_, 0), 0u);
  EXPECT_GT(table_.quarantined_bytes(), 0u);
  fault_.arm({.kind = Step::release, .sticky = true, .code = ErrorCode::unknown});
  EXPECT_FALSE(pool_.release(pool_.spare().back()).ok());
  EXPECT_GT(pool_.lost_bytes(), 0u);
  VmmSegment* third = table_.reserve(4).value();
  fault_.arm({.kind = Step::address_free, .sticky = true, .code = ErrorCode::unknown});
  EXPECT_FALSE(table_.address_free(third).ok());
  check();
  fault_.heal();
  table_.shut_down();
  EXPECT_EQ(model_.usage(), driver::Usage{});
  EXPECT_EQ(table_.quarantined_bytes(), 0u);
  EXPECT_EQ(pool_.lost_bytes(), 0u);
  EXPECT_EQ(pool_.held_bytes(), 0u);
  EXPECT_EQ(pool_.created_count(), pool_.released_count());
  EXPECT_EQ(table_.reserved_address_bytes(), 0u);
  check();
}

// Every call of the way down fails in turn: the books stay exact, and the next attempt finishes.
TEST_F(ShutDownTest, FinishesLaterWhateverFailsOnTheWay) {
  for (const bool sticky : {false, true}) {
    bool reached = true;
    for (std::uint64_t nth = 1; reached; ++nth) {
      ASSERT_LT(nth, 100u);
      populate();
      fault_.arm({.nth = nth, .sticky = sticky, .code = ErrorCode::unknown});
      table_.shut_down();
      reached = fault_.reached();
      EXPECT_TRUE(reached || nth > 11) << "the way down takes more calls than that";
      check();
      EXPECT_EQ(model_.usage().physical_bytes > 0, pool_.held_bytes() > 0) << nth;
      fault_.heal();
      table_.shut_down();
      EXPECT_EQ(model_.usage(), driver::Usage{}) << "call " << nth << (sticky ? " and all after it" : "") << " failed";
      EXPECT_EQ(pool_.held_bytes(), 0u) << nth;
      EXPECT_EQ(table_.reserved_address_bytes(), 0u) << nth;
      EXPECT_EQ(table_.quarantined_bytes(), 0u) << nth;
      check();
    }
  }
}

}  // namespace
}  // namespace gmlake::memory::testing
