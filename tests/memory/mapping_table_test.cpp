// Making, moving and ending mappings, and what the books say about it.
#include "memory/mapping_table.hpp"

#include <gtest/gtest.h>

#include "memory/rig.hpp"

namespace gmlake::memory::testing {
namespace {

using MappingTableTest = MemoryTest;

TEST_F(MappingTableTest, ReservesSegmentsAndGivesThemBack) {
  VmmSegment* segment = table_.reserve(8).value();
  EXPECT_EQ(segment->bytes(), 8 * kGranule);
  EXPECT_EQ(segment->end(), segment->base + 8 * kGranule);
  EXPECT_EQ(table_.reserved_address_bytes(), 8 * kGranule);
  VmmSegment* second = table_.reserve(1).value();
  ASSERT_TRUE(table_.address_free(segment).ok());
  ASSERT_EQ(table_.segments().size(), 1u);
  EXPECT_EQ(table_.segments()[0].get(), second);
  EXPECT_EQ(table_.reserved_address_bytes(), kGranule);
  EXPECT_EQ(model_.usage().reservations, 1u);
}

TEST_F(MappingTableTest, FindsTheSlotOfAnAddress) {
  VmmSegment* segment = table_.reserve(8).value();
  EXPECT_EQ(segment->address_of(3), segment->base + 3 * kGranule);
  EXPECT_EQ(segment->slot_of(segment->base), 0u);
  EXPECT_EQ(segment->slot_of(segment->base + kGranule - 1), 0u);
  EXPECT_EQ(segment->slot_of(segment->base + kGranule), 1u);
  EXPECT_EQ(segment->slot_at_or_after(segment->base), 0u);
  EXPECT_EQ(segment->slot_at_or_after(segment->base + 1), 1u);
  EXPECT_EQ(segment->slot_at_or_after(segment->end()), 8u);
  EXPECT_EQ(segment->at(7), nullptr);  // nothing was ever mapped there
}

TEST_F(MappingTableTest, AMappingIsStaleUntilItSettles) {
  VmmSegment* segment = table_.reserve(8).value();
  Mapping* mapping = place(segment, 2, 4);
  EXPECT_TRUE(mapping->stale());
  EXPECT_EQ(segment->mapped_slots, 4u);
  EXPECT_EQ(segment->at(1), nullptr);
  for (std::uint32_t slot = 2; slot < 6; ++slot) EXPECT_EQ(segment->at(slot), mapping);
  EXPECT_EQ(segment->at(6), nullptr);
  EXPECT_EQ(table_.stale_granules(), 4u);
  EXPECT_EQ(table_.mapping_count(), 1u);
  check();
  table_.settle(mapping);
  EXPECT_FALSE(mapping->stale());
  EXPECT_EQ(mapping->block->home, mapping);
  EXPECT_EQ(table_.stale_granules(), 0u);
  EXPECT_EQ(pool_.spare_bytes(), 0u);
  EXPECT_TRUE(model_.has_access(segment->address_of(2), 4 * kGranule, 0));
  check();
}

TEST_F(MappingTableTest, MapsAtTheFirstAndTheLastSlotOfASegment) {
  VmmSegment* segment = table_.reserve(8).value();
  (void)settle(segment, 4, 4);
  EXPECT_EQ(segment->slots.size(), 8u);
  (void)settle(segment, 0, 4);
  check();
}

TEST_F(MappingTableTest, ABlockMovesAndLeavesAStaleMappingBehind) {
  VmmSegment* segment = table_.reserve(8).value();
  Mapping* old = settle(segment, 0, 2);
  PhyBlock* block = old->block;
  Mapping* fresh = place(segment, 4, block);
  EXPECT_EQ(block->home, old);  // until the books say so
  table_.leave_home(block, {stream_, 7});
  table_.settle(fresh);
  EXPECT_EQ(block->home, fresh);
  EXPECT_TRUE(old->stale());
  EXPECT_EQ(old->tick, 7u);
  EXPECT_EQ(table_.stale_granules(), 2u);
  EXPECT_EQ(table_.mapping_count(), 2u);
  EXPECT_EQ(pool_.in_use().size(), 1u);
  check();
}

TEST_F(MappingTableTest, AStaleMappingIsRevivedWithoutADriverCall) {
  VmmSegment* segment = table_.reserve(8).value();
  Mapping* old = settle(segment, 0, 2);
  PhyBlock* block = old->block;
  Mapping* fresh = place(segment, 4, block);
  table_.leave_home(block, {});
  table_.settle(fresh);
  const std::uint64_t calls = fault_.calls();
  table_.leave_home(block, {stream_, 9});
  table_.settle(old);
  EXPECT_EQ(fault_.calls(), calls);
  EXPECT_EQ(block->home, old);
  EXPECT_EQ(fresh->tick, 9u);
  EXPECT_EQ(table_.stale_granules(), 2u);
  check();
}

TEST_F(MappingTableTest, ASpareBlockStaysAsItIsWhereItIsToLeaveHome) {
  PhyBlock* block = pool_.create(2).value();
  table_.leave_home(block, {});
  EXPECT_EQ(pool_.spare().front(), block);
  EXPECT_EQ(table_.stale_granules(), 0u);
  check();
}

TEST_F(MappingTableTest, UnmapsNeighboursInOneCall) {
  VmmSegment* segment = table_.reserve(16).value();
  std::vector<Mapping*> mappings = {stale(segment, 1, 2), stale(segment, 3, 1), stale(segment, 4, 4)};
  Mapping* kept = settle(segment, 8, 2);
  fault_.reset_counts();
  ASSERT_TRUE(table_.unmap(mappings).ok());
  EXPECT_EQ(fault_.calls(), 1u);
  EXPECT_EQ(table_.retired_count(), 3u);
  EXPECT_EQ(segment->mapped_slots, 2u);
  EXPECT_EQ(segment->at(8), kept);
  EXPECT_EQ(table_.mapping_count(), 1u);
  EXPECT_EQ(pool_.spare().size(), 3u);
  for (const PhyBlock* block = pool_.spare().front(); block != nullptr; block = PhyPool::BlockList::next(block)) {
    EXPECT_EQ(block->mappings, nullptr);
  }
  check();
}

TEST_F(MappingTableTest, RetiresEveryMappingOfASpareBlock) {
  VmmSegment* segment = table_.reserve(16).value();
  Mapping* first = settle(segment, 0, 2);
  PhyBlock* block = first->block;
  for (const std::uint32_t slot : {4u, 8u}) {
    Mapping* next = place(segment, slot, block);
    table_.leave_home(block, {});
    table_.settle(next);
  }
  table_.leave_home(block, {});
  EXPECT_EQ(table_.mapping_count(), 3u);
  ASSERT_TRUE(table_.retire_all_of(block).ok());
  EXPECT_EQ(block->mappings, nullptr);
  EXPECT_EQ(table_.mapping_count(), 0u);
  EXPECT_EQ(table_.stale_granules(), 0u);
  ASSERT_TRUE(pool_.release(block).ok());
  check();
}

using MappingTableDeathTest = MemoryTest;

TEST_F(MappingTableDeathTest, AbortsWhereAHomeIsUnmapped) {
  VmmSegment* segment = table_.reserve(4).value();
  Mapping* home = settle(segment, 0, 1);
  EXPECT_DEATH((void)table_.unmap({&home, 1}).ok(), "stale\\(\\)");
}

TEST_F(MappingTableDeathTest, AbortsWhereMappingsToUnmapAreNoNeighbours) {
  VmmSegment* segment = table_.reserve(8).value();
  std::vector<Mapping*> mappings = {stale(segment, 0, 2), stale(segment, 3, 1)};
  EXPECT_DEATH((void)table_.unmap(mappings).ok(), "end_slot");
}

TEST_F(MappingTableDeathTest, AbortsPastTheEndOfASegment) {
  VmmSegment* segment = table_.reserve(4).value();
  PhyBlock* block = pool_.create(2).value();
  EXPECT_DEATH((void)table_.map(segment, 3, block).ok(), "end <= segment->slot_count");
}

TEST_F(MappingTableDeathTest, AbortsWhereASecondHomeSettles) {
  VmmSegment* segment = table_.reserve(8).value();
  Mapping* home = settle(segment, 0, 2);
  Mapping* other = place(segment, 2, home->block);
  EXPECT_DEATH(table_.settle(other), "home == nullptr");
}

TEST_F(MappingTableDeathTest, AbortsWhereASegmentWithMappingsIsFreed) {
  VmmSegment* segment = table_.reserve(4).value();
  (void)stale(segment, 0, 1);
  EXPECT_DEATH((void)table_.address_free(segment).ok(), "mapped_slots == 0");
}

// What check() is for: each kind of damage to the books is found.
TEST_F(MappingTableDeathTest, CheckFindsPlantedDamage) {
  VmmSegment* segment = table_.reserve(8).value();
  Mapping* home = settle(segment, 0, 2);
  Mapping* old = stale(segment, 4, 2, {stream_, 1});
  check();
  EXPECT_DEATH((++segment->mapped_slots, table_.check()), "mapped_slots == segment->mapped_slots");
  EXPECT_DEATH((segment->slots[1] = nullptr, table_.check()), "check failed");
  EXPECT_DEATH((segment->slots[5] = home, table_.check()), "check failed");
  EXPECT_DEATH((home->slot = 1, table_.check()), "check failed");
  EXPECT_DEATH((home->block->mappings = nullptr, table_.check()), "listed == mapping");
  EXPECT_DEATH((home->block->home = nullptr, table_.check()), "stale_granules == this->stale_granules\\(\\)");
  EXPECT_DEATH((old->block->home = old, table_.check()), "stale_granules == this->stale_granules\\(\\)");
  EXPECT_DEATH((old->quarantined = true, table_.check()), "check failed");
  EXPECT_DEATH((home->quarantined = true, table_.check()), "check failed");
}

}  // namespace
}  // namespace gmlake::memory::testing
