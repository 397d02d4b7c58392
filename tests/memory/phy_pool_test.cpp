// The pool of PhyBlocks: its counters equal a recount whatever was created, released or refused.
#include "memory/phy_pool.hpp"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "memory/rig.hpp"
#include "support/failing_new.hpp"

namespace gmlake::memory::testing {
namespace {

using PhyPoolTest = MemoryTest;

TEST_F(PhyPoolTest, CreatesSpareBlocksAndReleasesThem) {
  PhyBlock* block = pool_.create(4).value();
  EXPECT_EQ(block->granules, 4u);
  EXPECT_EQ(block->home, nullptr);
  EXPECT_EQ(pool_.spare().front(), block);
  EXPECT_EQ(pool_.held_bytes(), 4 * kGranule);
  EXPECT_EQ(pool_.spare_bytes(), 4 * kGranule);
  EXPECT_EQ(model_.usage().physical_bytes, 4 * kGranule);
  pool_.check();
  ASSERT_TRUE(pool_.release(block).ok());
  EXPECT_EQ(pool_.held_bytes(), 0u);
  EXPECT_EQ(pool_.created_count(), 1u);
  EXPECT_EQ(pool_.released_count(), 1u);
  EXPECT_EQ(model_.usage().handles, 0u);
  pool_.check();
}

TEST_F(PhyPoolTest, CountsTheUnusedAsSpareAndTheRestAsInUse) {
  VmmSegment* segment = table_.reserve(16).value();
  Mapping* home = settle(segment, 0, 4);
  (void)pool_.create(2).value();
  EXPECT_EQ(pool_.in_use().size(), 1u);
  EXPECT_EQ(pool_.spare_bytes(), 2 * kGranule);
  EXPECT_EQ(pool_.held_bytes(), 6 * kGranule);
  table_.leave_home(home->block, {});
  EXPECT_EQ(pool_.in_use().size(), 0u);
  EXPECT_EQ(pool_.spare_bytes(), 6 * kGranule);
  check();
}

TEST_F(PhyPoolTest, RemembersThePeakUntilItIsReset) {
  PhyBlock* block = pool_.create(8).value();
  (void)pool_.create(1).value();
  ASSERT_TRUE(pool_.release(block).ok());
  EXPECT_EQ(pool_.peak_held_bytes(), 9 * kGranule);
  pool_.reset_peak();
  EXPECT_EQ(pool_.peak_held_bytes(), kGranule);
  (void)pool_.create(2).value();
  EXPECT_EQ(pool_.peak_held_bytes(), 3 * kGranule);
}

TEST_F(PhyPoolTest, IsUnchangedWhereCreatingFails) {
  (void)pool_.create(1).value();
  fault_.arm({.kind = Step::create});
  EXPECT_EQ(pool_.create(4).error(), (Error{ErrorCode::out_of_memory, Step::create, 4 * kGranule}));
  EXPECT_EQ(pool_.create(128).error().code, ErrorCode::out_of_memory);  // more than the device has
  EXPECT_EQ(pool_.held_bytes(), kGranule);
  EXPECT_EQ(pool_.peak_held_bytes(), kGranule);
  EXPECT_EQ(pool_.created_count(), 1u);
  pool_.check();
}

TEST_F(PhyPoolTest, IsUnchangedWhereTheHostIsOutOfMemory) {
  bool threw = false;
  {
    const gmlake::testing::FailingNew failing(1);
    try {
      (void)pool_.create(4).ok();
    } catch (const std::bad_alloc&) {
      threw = true;
    }
  }
  EXPECT_TRUE(threw);
  EXPECT_EQ(fault_.calls(Step::create), 0u);
  EXPECT_EQ(pool_.held_bytes(), 0u);
  pool_.check();
}

TEST_F(PhyPoolTest, CountsAsLostWhatTheDriverWouldNotTakeBack) {
  PhyBlock* block = pool_.create(4).value();
  fault_.arm({.kind = Step::release, .code = ErrorCode::unknown});
  EXPECT_EQ(pool_.release(block).error().code, ErrorCode::unknown);
  EXPECT_EQ(pool_.lost_bytes(), 4 * kGranule);
  EXPECT_EQ(pool_.held_bytes(), 4 * kGranule);  // the device has that much less
  EXPECT_EQ(pool_.spare_bytes(), 0u);
  EXPECT_TRUE(pool_.spare().empty());
  EXPECT_EQ(pool_.released_count(), 0u);
  pool_.check();
  EXPECT_EQ(model_.usage().handles, 1u);
}  // and it goes at shutdown, with everything else: TearDown looks

TEST_F(PhyPoolTest, AgreesWithARecountUnderRandomPrograms) {
  std::mt19937_64 random(3);
  std::vector<PhyBlock*> spare;
  std::uint64_t lost = 0;
  for (int step = 0; step < 2000; ++step) {
    fault_.arm({.nth = random() % 4, .code = ErrorCode::unknown});
    if (random() % 2 == 0) {
      if (Result<PhyBlock*> block = pool_.create(1u << (random() % 4))) spare.push_back(*block);
    } else if (!spare.empty()) {
      const std::size_t i = random() % spare.size();
      const std::uint64_t bytes = spare[i]->granules * kGranule;
      if (!pool_.release(spare[i]).ok()) lost += bytes;
      spare.erase(spare.begin() + static_cast<std::ptrdiff_t>(i));
    }
    std::uint64_t spare_bytes = 0;
    for (const PhyBlock* block : spare) spare_bytes += block->granules * kGranule;
    ASSERT_EQ(pool_.spare_bytes(), spare_bytes);
    ASSERT_EQ(pool_.lost_bytes(), lost);
    ASSERT_EQ(pool_.held_bytes(), spare_bytes + lost);
    ASSERT_EQ(model_.usage().physical_bytes, pool_.held_bytes());
    pool_.check();
  }
}

using PhyPoolDeathTest = MemoryTest;

TEST_F(PhyPoolDeathTest, AbortsWhereABlockWithAMappingIsReleased) {
  VmmSegment* segment = table_.reserve(4).value();
  Mapping* mapping = stale(segment, 0, 1);
  EXPECT_DEATH((void)pool_.release(mapping->block).ok(), "check failed");
}

TEST_F(PhyPoolDeathTest, CheckFindsABlockOfAnotherSize) {
  PhyBlock* block = pool_.create(4).value();
  block->granules = 2;
  EXPECT_DEATH(pool_.check(), "spare_bytes == this->spare_bytes\\(\\)");
  block->granules = 4;
}

TEST_F(PhyPoolDeathTest, CheckFindsASpareBlockWithAHome) {
  PhyBlock* block = pool_.create(4).value();
  Mapping mapping;
  block->home = &mapping;
  EXPECT_DEATH(pool_.check(), "b->home == nullptr");
  block->home = nullptr;
}

}  // namespace
}  // namespace gmlake::memory::testing
