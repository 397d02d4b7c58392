// The plan of one stitch, as a value: which run to grow, which PhyBlocks to move there, which to create. Making it
// calls no driver and changes no books.
//
// A plan covers a window: a range of free runs and holes of one segment. Where the window is free it stays as it is.
// Where it is a hole, PhyBlocks are put: first by reviving stale mappings whose PhyBlock is free elsewhere (no driver
// call at all), then by moving PhyBlocks that lie whole inside other free runs, then by creating the rest.
// Among all windows the cheapest by the driver's cost is taken.
//
// Called with the device's `grow` and `state` locks held.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "memory/fences.hpp"
#include "memory/phy_pool.hpp"
#include "stitch/pool.hpp"

namespace gmlake::stitch {

// A PhyBlock that lies whole inside a free run, and may leave it.
struct Donor {
  memory::Mapping* mapping = nullptr;  // its home
  Block* run = nullptr;
  bool used = false;
};

struct PlanRequest {
  Pool* pool = nullptr;     // where the VirBlock is wanted
  std::uint64_t bytes = 0;  // a multiple of 512
  // Pools whose free runs may be taken apart, the one named first as the first choice. Those of other streams give only
  // what is behind a fence that has passed, unless `stream_wait`.
  std::span<Pool* const> donors;
  bool stream_wait = false;
  std::uint32_t block_granules = 1;     // how large to create PhyBlocks, a power of two
  std::uint64_t slack_granules = 0;     // how much may be created where moving memory would do
  std::uint64_t headroom_granules = 0;  // how much may be created at all
};

struct Plan {
  // PhyBlocks to put at `slot`; `block` is null where one is to be created.
  struct Fill {
    std::uint32_t slot = 0;
    std::uint32_t granules = 0;
    memory::PhyBlock* block = nullptr;
  };

  Pool* pool = nullptr;
  memory::VmmSegment* segment = nullptr;
  Block* first = nullptr;  // the block that contains `begin`
  Address begin = 0;
  Address end = 0;                       // at a slot's end
  std::vector<memory::Mapping*> revive;  // stale mappings in the window that become homes again
  std::vector<memory::Mapping*> retire;  // stale mappings in the window that have to be unmapped first
  std::vector<Fill> fills;               // by ascending slot
  std::vector<Donor> moves;              // the donors among revived and moved blocks: by run, then descending address
  std::uint64_t created_granules = 0;
  std::uint64_t moved_granules = 0;
  std::uint64_t revived_granules = 0;
};

enum class PlanFailure : std::uint8_t {
  none,
  no_window,  // no segment has room: another one must be reserved
  memory,     // what may be moved and created is too little, in every window tried
};

class Planner {
 public:
  Planner(const memory::PhyPool& phy_pool, const memory::Fences& fences) : phy_pool_(phy_pool), fences_(fences) {}

  // Null where the request cannot be met; failure() then says why.
  std::optional<Plan> make(const PlanRequest& request);
  PlanFailure failure() const { return failure_; }

  // Every PhyBlock that lies whole in a free run of the request's donors and may leave it, the first choice first.
  const std::vector<Donor>& collect(const PlanRequest& request);
  // Of the donors of the last request: what could have been moved to it. Before any mapping ends.
  std::uint64_t donor_granules() const;

 private:
  struct Window {
    Block* first = nullptr;
    Address begin = 0;
    Address end = 0;
    std::uint64_t cost_ns = UINT64_MAX;
  };
  struct Gap {  // slots to fill
    std::uint32_t slot = 0;
    std::uint32_t granules = 0;
  };

  std::optional<Plan> make_with_donors(const PlanRequest& request);
  void consider(const PlanRequest& request, Block* first, Address begin, Window& best);
  Address behind_guard(const PlanRequest& request, const Block* hole) const;
  Window cheapest_window(const PlanRequest& request);
  bool may_revive(const memory::Mapping* mapping, Address begin, Address end) const;
  std::optional<Plan> lay_out(const PlanRequest& request, const Window& window);
  void take_donor(Plan& plan, memory::PhyBlock* block);
  bool fill_gaps(const PlanRequest& request, Plan& plan);
  memory::PhyBlock* pick(std::uint32_t granules);
  void create(Plan& plan, std::uint32_t slot, std::uint32_t granules);

  const memory::PhyPool& phy_pool_;
  const memory::Fences& fences_;
  std::vector<Donor> donors_;
  std::vector<std::vector<memory::PhyBlock*>> by_order_;  // free blocks by log2 of their size, the best choice last
  std::vector<Gap> gaps_;
  std::vector<Address> rejected_;  // where windows begin that turned out not to do
  PlanFailure failure_ = PlanFailure::none;
};

}  // namespace gmlake::stitch
