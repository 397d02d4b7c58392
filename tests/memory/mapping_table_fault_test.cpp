// Mapping calls that fail: the books stay as they were, and what cannot be undone is quarantined and counted.
#include <gtest/gtest.h>

#include <vector>

#include "memory/rig.hpp"
#include "support/failing_new.hpp"

namespace gmlake::memory::testing {
namespace {

using MappingTableFaultTest = MemoryTest;

TEST_F(MappingTableFaultTest, AReservationThatFailsLeavesNothing) {
  fault_.arm({.kind = Step::reserve, .code = ErrorCode::address_space});
  EXPECT_EQ(table_.reserve(8).error(), (Error{ErrorCode::address_space, Step::reserve, 8 * kGranule}));
  EXPECT_TRUE(table_.segments().empty());
  EXPECT_EQ(table_.reserved_address_bytes(), 0u);
  for (std::uint64_t nth = 1; nth <= 2; ++nth) {
    bool threw = false;
    {
      const gmlake::testing::FailingNew failing(nth);
      try {
        (void)table_.reserve(8).ok();
      } catch (const std::bad_alloc&) {
        threw = true;
      }
    }
    EXPECT_TRUE(threw) << nth;
    EXPECT_EQ(model_.usage().reservations, 0u) << nth;
  }
  check();
}

TEST_F(MappingTableFaultTest, AMapThatFailsLeavesNothing) {
  VmmSegment* segment = table_.reserve(8).value();
  PhyBlock* block = pool_.create(2).value();
  fault_.arm({.kind = Step::map, .code = ErrorCode::too_many_mappings});
  EXPECT_EQ(table_.map(segment, 4, block).error().code, ErrorCode::too_many_mappings);
  EXPECT_EQ(segment->slots.size(), 0u) << "nothing was ever mapped there";
  EXPECT_EQ(segment->mapped_slots, 0u);
  EXPECT_EQ(block->mappings, nullptr);
  EXPECT_EQ(table_.mapping_count(), 0u);
  EXPECT_EQ(table_.stale_granules(), 0u);
  check();
}

TEST_F(MappingTableFaultTest, AMapWithoutHostMemoryLeavesNothing) {
  for (std::uint64_t nth = 1; nth <= 2; ++nth) {
    VmmSegment* segment = table_.reserve(8).value();
    PhyBlock* block = pool_.create(2).value();
    bool reached = false;
    {
      const gmlake::testing::FailingNew failing(nth);
      try {
        (void)table_.map(segment, 4, block).ok();
      } catch (const std::bad_alloc&) {
      }
      reached = failing.reached();
    }
    EXPECT_TRUE(reached) << nth;
    EXPECT_EQ(block->mappings, nullptr) << nth;
    EXPECT_EQ(segment->mapped_slots, 0u) << nth;
    EXPECT_EQ(model_.usage().mappings, 0u) << nth;
    check();
  }
}

TEST_F(MappingTableFaultTest, AccessThatIsRefusedChangesNoBooks) {
  VmmSegment* segment = table_.reserve(8).value();
  Mapping* mapping = table_.map(segment, 0, pool_.create(2).value()).value();
  fault_.arm({.kind = Step::set_access});
  EXPECT_FALSE(table_.set_access(segment, 0, 2).ok());
  EXPECT_TRUE(mapping->stale());
  ASSERT_TRUE(table_.unmap({&mapping, 1}).ok());
  check();
}

TEST_F(MappingTableFaultTest, AnUnmapThatFailsQuarantinesEachOfTheRun) {
  VmmSegment* segment = table_.reserve(8).value();
  std::vector<Mapping*> mappings = {stale(segment, 0, 2), stale(segment, 2, 1)};
  fault_.arm({.kind = Step::unmap, .code = ErrorCode::unknown});
  EXPECT_EQ(table_.unmap(mappings).error().code, ErrorCode::unknown);
  EXPECT_TRUE(mappings[0]->quarantined && mappings[1]->quarantined);
  EXPECT_EQ(table_.quarantined_bytes(), 3 * kGranule);
  EXPECT_EQ(table_.stale_granules(), 0u);
  EXPECT_EQ(table_.mapping_count(), 2u);
  EXPECT_EQ(segment->mapped_slots, 3u);
  EXPECT_EQ(table_.retired_count(), 0u);
  check();
  fault_.arm({.kind = Step::unmap, .code = ErrorCode::unknown});
  EXPECT_FALSE(table_.unmap(mappings).ok());  // again: counted once
  EXPECT_EQ(table_.quarantined_bytes(), 3 * kGranule);
  check();
  fault_.heal();
  ASSERT_TRUE(table_.unmap(mappings).ok());
  EXPECT_EQ(table_.quarantined_bytes(), 0u);
  EXPECT_EQ(table_.mapping_count(), 0u);
  check();
}

TEST_F(MappingTableFaultTest, ASpareBlockWithAQuarantinedMappingCannotBeReleased) {
  VmmSegment* segment = table_.reserve(8).value();
  Mapping* first = settle(segment, 0, 2);
  PhyBlock* block = first->block;
  Mapping* second = place(segment, 4, block);
  table_.leave_home(block, {});
  table_.settle(second);
  table_.leave_home(block, {});
  fault_.arm({.kind = Step::unmap, .nth = 1, .code = ErrorCode::unknown});
  EXPECT_FALSE(table_.retire_all_of(block).ok());
  EXPECT_EQ(table_.mapping_count(), 1u);
  ASSERT_NE(block->mappings, nullptr);
  EXPECT_TRUE(block->mappings->quarantined);
  EXPECT_FALSE(table_.retire_all_of(block).ok());  // says so again, and leaves it alone
  EXPECT_EQ(fault_.calls(Step::unmap), 2u);
  check();
}

TEST_F(MappingTableFaultTest, ARangeThatIsNotTakenBackIsLostAndCounted) {
  VmmSegment* segment = table_.reserve(8).value();
  fault_.arm({.kind = Step::address_free, .code = ErrorCode::unknown});
  EXPECT_FALSE(table_.address_free(segment).ok());
  EXPECT_TRUE(table_.segments().empty());
  EXPECT_EQ(table_.quarantined_bytes(), 8 * kGranule);
  EXPECT_EQ(table_.reserved_address_bytes(), 8 * kGranule);
  EXPECT_EQ(model_.usage().reservations, 1u);
  check();
}  // it goes at shutdown: TearDown looks

}  // namespace
}  // namespace gmlake::memory::testing
