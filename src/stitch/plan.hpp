// The plan of one stitch, as a value: which run to grow, which PhyBlocks to move there, which to create. Making it
// calls no driver and changes no books.
//
// A plan covers a window: a range of free runs and holes of one segment. Where the window is free it stays as it is.
// Where it is a hole, PhyBlocks are put: first by reviving stale mappings whose PhyBlock is free elsewhere (no driver
// call at all), then by moving PhyBlocks that lie whole inside other free runs, then by creating the rest.
// Among all windows the cheapest by the driver's cost is taken.
//
// Called with the device's `grow` lock held. `state` is taken in short steps to copy what is free (stitch/survey.hpp);
// all else is done without it. So a plan may be out of date when it is done: Stitcher::claim() says.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "memory/fences.hpp"
#include "memory/phy_pool.hpp"
#include "stitch/pool.hpp"
#include "stitch/survey.hpp"

namespace gmlake::stitch {

// A PhyBlock that lies whole inside a free run, and may leave it.
struct Donor {
  memory::Mapping* mapping = nullptr;  // its home
  Block* run = nullptr;                // as RunView::run
  memory::Fence freed;                 // the last free there, when it was looked at
  Address begin() const { return mapping->segment->address_of(mapping->slot); }
  Address end() const { return mapping->segment->address_of(std::uint64_t{mapping->slot} + mapping->block->granules); }
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
  Block* hole = nullptr;  // the first of the window; `begin` lies in it or in the free run before it
  Address begin = 0;
  Address end = 0;                       // at a slot's end
  std::vector<memory::Mapping*> revive;  // stale mappings in the window that become homes again
  std::vector<memory::Mapping*> retire;  // stale mappings in the window that have to be unmapped first
  std::vector<Fill> fills;               // by ascending slot
  std::vector<Donor> moves;              // the donors among revived and moved blocks: by descending address
  bool stream_wait = false;
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
  Planner(const memory::PhyPool& phy_pool, const memory::Fences& fences)
      : phy_pool_(phy_pool), fences_(fences), survey_(fences) {}

  // Null where the request cannot be met; failure() then says why.
  std::optional<Plan> make(const PlanRequest& request, StateSteps& steps);
  PlanFailure failure() const { return failure_; }

  // Every PhyBlock that lies whole in a free run of the request's donors and may leave it, the first choice first.
  const std::vector<Donor>& collect(const PlanRequest& request, StateSteps& steps);
  // Of the donors of the last request that could not be met: what could have been moved to it. Before any mapping ends.
  std::uint64_t donor_granules() const;

 private:
  struct Window {
    std::size_t hole = SIZE_MAX;  // of the survey: the first one
    Address begin = 0;
    Address end = 0;
    std::uint64_t cost_ns = UINT64_MAX;
  };
  struct Gap {  // slots to fill
    std::uint32_t slot = 0;
    std::uint32_t granules = 0;
  };

  void see_runs(const PlanRequest& request, StateSteps& steps, std::size_t most);
  void expand(std::uint64_t granules, std::size_t count);
  void consider(const PlanRequest& request, StateSteps& steps, std::size_t hole, Address begin, Window& best);
  Address behind_guard(const PlanRequest& request, const HoleView& hole) const;
  Window cheapest_window(const PlanRequest& request, StateSteps& steps);
  bool may_revive(const PlanRequest& request, StateSteps& steps, const memory::Mapping* mapping, Address begin,
                  Address end);
  std::optional<Plan> lay_out(const PlanRequest& request, StateSteps& steps, const Window& window);
  bool use(Plan& plan, memory::PhyBlock* block);
  bool fill_gaps(const PlanRequest& request, StateSteps& steps, Plan& plan, std::uint32_t room);
  void offer(const Plan& plan, bool donors);
  memory::PhyBlock* pick(std::uint32_t granules, std::uint32_t room);
  void unmark();

  const memory::PhyPool& phy_pool_;
  const memory::Fences& fences_;
  Survey survey_;
  bool runs_seen_ = false;
  // What of survey_.runs() was looked into: all before expanded_runs_, and of that one all from expanded_at_ on.
  std::vector<Donor> donors_;
  std::size_t expanded_runs_ = 0;
  Address expanded_at_ = 0;
  std::uint64_t expanded_granules_ = 0;
  std::vector<std::vector<memory::PhyBlock*>> by_order_;  // free blocks by log2 of their size, the best choice last
  std::vector<memory::PhyBlock*> planned_;                // the ones that are marked so
  std::vector<Gap> gaps_;
  std::vector<Address> rejected_;  // where windows begin that turned out not to do
  PlanFailure failure_ = PlanFailure::none;
};

}  // namespace gmlake::stitch
