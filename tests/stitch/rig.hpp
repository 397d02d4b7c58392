// What the tests of this folder share: two streams with a pool each, and everything below them, on a simulated driver
// behind a wrapper that makes calls fail. Layouts of segments are written as text: see layout.hpp.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "driver/fault.hpp"
#include "driver/model.hpp"
#include "driver/simulated.hpp"
#include "memory/fences.hpp"
#include "memory/mapping_table.hpp"
#include "memory/phy_pool.hpp"
#include "stitch/plan.hpp"
#include "stitch/pool.hpp"
#include "stitch/stitcher.hpp"
#include "support/sheltered_driver.hpp"

namespace gmlake::stitch::testing {

// A tick of a stream that no event stands for: a fence with it has not passed.
inline constexpr std::uint64_t kPending = 1000;

// What a test asks of the planner; sizes in granules. No headroom: only what is there may be used.
struct Ask {
  std::uint64_t headroom = 0;
  std::uint64_t slack = 0;
  std::uint32_t unit = 1;  // the size of new PhyBlocks
  bool stream_wait = false;
  std::vector<Pool*> donors = {};  // none: the pool's own
};

class Rig {
 public:
  Rig(driver::SimulatedDriver& driver, std::uint32_t granule_shift);
  ~Rig();  // shuts down, and finds nothing left in the driver
  Rig(const Rig&) = delete;
  Rig& operator=(const Rig&) = delete;

  std::uint64_t granule() const { return std::uint64_t{1} << shift_; }
  std::uint64_t bytes(double granules) const;

  // Makes a segment of `pool` that looks like the text, and a spare block of a name.
  memory::VmmSegment* lay(Pool& pool, std::string_view layout);
  memory::PhyBlock* spare(const std::string& name, std::uint32_t granules);
  // The VirBlocks of a segment as text, in the letters of a layout.
  std::string blocks(const Pool& pool, const memory::VmmSegment* segment) const;
  // All that the books say, but for the spare blocks: equal texts, equal books.
  std::string books() const;

  std::optional<Plan> plan(Pool& pool, double granules, const Ask& ask = {});
  std::string describe(const std::optional<Plan>& plan) const;
  Block* publish(const Plan& plan, std::uint64_t at, bool succeeded);
  // Claims, executes and publishes. Null where the plan is out of date or a call failed.
  Block* carry_out(const Plan& plan);

  void check() const;
  std::string name_of(const memory::PhyBlock* block) const;

  driver::SimulatedDriver& simulated;
  gmlake::testing::ShelteredDriver sheltered;
  driver::FaultDriver driver;
  memory::Fences fences;
  memory::PhyPool phy;
  memory::MappingTable table;
  Pool::BlockSlab slab;
  Pool a;  // of stream 0
  Pool b;  // of stream 1
  Planner planner;
  Stitcher stitcher;
  Mutex mutex;
  ShardedMutex state{mutex};
  StateSteps steps{.state = &state};
  std::map<std::string, memory::PhyBlock*> named;
  std::vector<Block*> live;  // of the layouts, in the order of their text
  std::uint64_t tick = 0;    // that what is published gets

 private:
  const std::uint32_t shift_;
};

// The pools of the first stream on a model whose granule the parameter says (its log2).
class StitchTest : public ::testing::TestWithParam<std::uint32_t> {
 protected:
  // Lays `layout`, asks for `granules`, compares the plan with `expected`; carries it out, takes the request, compares
  // what is there then with `after`.
  void expect_plan(std::string_view layout, double granules, const Ask& ask, const std::string& expected,
                   const std::string& after = "");

  static std::uint32_t shift() { return GetParam(); }
  driver::ModelDriver model_{{.capacity_bytes = std::uint64_t{1} << 42, .granularity = std::uint64_t{1} << shift()}};
};

}  // namespace gmlake::stitch::testing
