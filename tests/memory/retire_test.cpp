// Retiring stale mappings: oldest first, behind passed fences alone, down to what is to be kept, neighbours at once.
#include <gtest/gtest.h>

#include <vector>

#include "memory/rig.hpp"

namespace gmlake::memory::testing {
namespace {

class RetireTest : public MemoryTest {
 protected:
  // Whether slots are mapped, as one letter each.
  std::string slots(std::uint32_t count) const {
    std::string text;
    for (std::uint32_t slot = 0; slot < count; ++slot) text += segment_->at(slot) != nullptr ? 'm' : '-';
    return text;
  }
  std::uint64_t unmaps() const { return fault_.calls(Step::unmap); }
  void pass(StreamIndex stream, std::uint64_t tick) { EXPECT_TRUE(fences_.wait({stream, tick}).ok()); }

  VmmSegment* segment_ = table_.reserve(32).value();
};

TEST_F(RetireTest, KeepsTheYoungest) {
  for (const std::uint32_t slot : {6u, 3u, 0u}) (void)stale(segment_, slot, 2);
  EXPECT_EQ(table_.retire(fences_, 4), 2u);
  EXPECT_EQ(slots(8), "mm-mm---");
  EXPECT_EQ(table_.retire(fences_, 4), 0u);
  EXPECT_EQ(table_.retire(fences_, 0), 4u);
  EXPECT_EQ(slots(8), "--------");
  EXPECT_EQ(table_.retired_count(), 3u);
  check();
}

TEST_F(RetireTest, RetiresWholeMappingsAndAtLeastWhatIsAsked) {
  (void)stale(segment_, 0, 4);
  (void)stale(segment_, 8, 4);
  EXPECT_EQ(table_.retire(fences_, 7), 4u);
  EXPECT_EQ(table_.stale_granules(), 4u);
  EXPECT_EQ(table_.retire(fences_, 4), 0u);
  EXPECT_EQ(table_.retire(fences_, 3), 4u);
  check();
}

TEST_F(RetireTest, LeavesWhatIsBehindAFence) {
  (void)stale(segment_, 0, 1, {stream_, 1});
  (void)stale(segment_, 2, 1, {stream_, 2});
  EXPECT_EQ(table_.retire(fences_, 0), 0u);
  pass(stream_, 1);
  EXPECT_EQ(table_.retire(fences_, 0), 1u);
  EXPECT_EQ(slots(4), "--m-");
  pass(stream_, 2);
  EXPECT_EQ(table_.retire(fences_, 0), 1u);
  check();
}

TEST_F(RetireTest, PassesOverAStreamThatIsBehindToAYoungerMappingOfAnother) {
  (void)stale(segment_, 0, 1, {stream_, 1});
  (void)stale(segment_, 2, 1, {other_, 1});
  (void)stale(segment_, 4, 1, {stream_, 1});
  (void)stale(segment_, 6, 1, {other_, 1});
  pass(other_, 1);
  EXPECT_EQ(table_.retire(fences_, 0), 2u);
  EXPECT_EQ(slots(8), "m---m---");
  check();
}

TEST_F(RetireTest, UnmapsNeighboursInOneCall) {
  for (std::uint32_t slot = 0; slot < 8; slot += 2) (void)stale(segment_, slot, 2);
  fault_.reset_counts();
  EXPECT_EQ(table_.retire(fences_, 0), 8u);
  EXPECT_EQ(unmaps(), 1u);
  check();
}

TEST_F(RetireTest, UnmapsNoMoreNeighboursThanItMust) {
  for (std::uint32_t slot = 0; slot < 8; slot += 2) (void)stale(segment_, slot, 2);
  EXPECT_EQ(table_.retire(fences_, 3), 6u);
  EXPECT_EQ(slots(8), "------mm");
  check();
}

TEST_F(RetireTest, StopsARunAtAGapAHomeAnotherSegmentOrAFence) {
  VmmSegment* second = table_.reserve(8).value();
  (void)stale(segment_, 0, 2);
  (void)stale(segment_, 3, 1);  // a gap before it
  (void)stale(segment_, 4, 1, {stream_, 1});
  (void)stale(segment_, 5, 1);
  (void)settle(segment_, 6, 1);
  (void)stale(segment_, 7, 1);
  (void)stale(second, 0, 2);
  fault_.reset_counts();
  EXPECT_EQ(table_.retire(fences_, 0), 7u);
  EXPECT_EQ(unmaps(), 5u);
  EXPECT_EQ(slots(8), "----m-m-");
  check();
}

TEST_F(RetireTest, LeavesARevivedMappingAlone) {
  Mapping* first = stale(segment_, 0, 2);
  (void)stale(segment_, 4, 2);
  table_.settle(first);
  EXPECT_EQ(table_.retire(fences_, 0), 2u);
  EXPECT_EQ(slots(8), "mm------");
  check();
}

TEST_F(RetireTest, QuarantinesWhatTheDriverWouldNotUnmapAndGoesOn) {
  (void)stale(segment_, 0, 2);
  (void)stale(segment_, 4, 2);
  (void)stale(segment_, 8, 1);
  fault_.arm({.kind = Step::unmap, .nth = 2, .code = ErrorCode::unknown});
  EXPECT_EQ(table_.retire(fences_, 0), 3u);
  EXPECT_EQ(slots(10), "----mm----");
  EXPECT_TRUE(segment_->at(4)->quarantined);
  EXPECT_EQ(table_.quarantined_bytes(), 2 * kGranule);
  EXPECT_EQ(table_.stale_granules(), 0u);
  EXPECT_EQ(table_.mapping_count(), 1u);
  EXPECT_EQ(table_.retire(fences_, 0), 0u);  // never tried again before shutdown
  EXPECT_EQ(fault_.calls(Step::unmap), 3u);
  check();
}

}  // namespace
}  // namespace gmlake::memory::testing
