// What the tests of this folder share: a model of one device behind a wrapper that makes calls fail, and the classes
// under test on top of it. When it goes, nothing may be left in the driver, unless the test says what is.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "driver/fault.hpp"
#include "driver/model.hpp"
#include "memory/fences.hpp"
#include "memory/mapping_table.hpp"
#include "memory/phy_pool.hpp"

namespace gmlake::memory::testing {

inline constexpr std::uint32_t kShift = 21;
inline constexpr std::uint64_t kGranule = std::uint64_t{1} << kShift;

class MemoryTest : public ::testing::Test {
 protected:
  void TearDown() override {
    fault_.heal();
    table_.shut_down();
    table_.check();
    pool_.check();
    model_.check();
    EXPECT_EQ(model_.usage(), driver::Usage{});
    EXPECT_TRUE(model_.streams().violations().empty());
  }

  // A new block of that many granules, mapped at `slot` with access.
  Mapping* place(VmmSegment* segment, std::uint32_t slot, std::uint32_t granules) {
    return place(segment, slot, pool_.create(granules).value());
  }
  Mapping* place(VmmSegment* segment, std::uint32_t slot, PhyBlock* block) {
    Mapping* mapping = table_.map(segment, slot, block).value();
    EXPECT_TRUE(table_.set_access(segment, slot, block->granules).ok());
    return mapping;
  }
  // The same, and it is the block's home.
  Mapping* settle(VmmSegment* segment, std::uint32_t slot, std::uint32_t granules) {
    Mapping* mapping = place(segment, slot, granules);
    table_.settle(mapping);
    return mapping;
  }
  // A stale mapping of a block of its own, which is spare then.
  Mapping* stale(VmmSegment* segment, std::uint32_t slot, std::uint32_t granules, Fence fence = {}) {
    Mapping* mapping = settle(segment, slot, granules);
    table_.leave_home(mapping->block, fence);
    return mapping;
  }
  void check() {
    table_.check();
    pool_.check();
    model_.check();
  }

  driver::ModelDriver model_{{.capacity_bytes = 64 * kGranule}};
  driver::FaultDriver fault_{model_};
  Fences fences_{fault_};
  PhyPool pool_{fault_, {}, kShift};
  MappingTable table_{fault_, pool_, kShift, {0}};
  const StreamIndex stream_ = fences_.open({0, 0});
  const StreamIndex other_ = fences_.open({0, 1});
};

}  // namespace gmlake::memory::testing
