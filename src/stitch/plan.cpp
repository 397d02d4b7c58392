#include "stitch/plan.hpp"

#include <algorithm>
#include <bit>

#include "base/check.hpp"
#include "gmlake/bytes.hpp"

namespace gmlake::stitch {
namespace {

using memory::Mapping;
using memory::PhyBlock;
using memory::VmmSegment;

// What the driver charges inside jobs, measured on an H200 (docs/driver.md): map and set_access, and unmap, of one
// handle.
constexpr std::uint64_t kMapNs = 31'000;
constexpr std::uint64_t kUnmapNs = 25'000;

// A live VirBlock of this length keeps addresses free behind itself, and how many times its own length.
constexpr std::uint64_t kGuardedBytes = std::uint64_t{256} << 20;
constexpr std::uint64_t kGuardFactor = 2;
constexpr int kMaxWindows = 8;  // tried for one request before it counts as impossible

// How much is looked at before a plan that needs no more than the slack is good enough: recorded jobs have at most a
// hundred free runs, and a few thousand PhyBlocks in them.
constexpr std::size_t kEnoughRuns = 1024;
constexpr std::size_t kEnoughDonors = 4096;

std::uint32_t order_of(std::uint32_t granules) { return static_cast<std::uint32_t>(std::bit_width(granules)) - 1; }

Address end_of(const Mapping* mapping) {
  return mapping->segment->address_of(std::uint64_t{mapping->slot} + mapping->block->granules);
}

}  // namespace

void Planner::see_runs(const PlanRequest& request, StateSteps& steps, std::size_t most) {
  survey_.see_runs(request.donors, request.pool->order(), request.stream_wait, most, steps);
  runs_seen_ = true;
  donors_.clear();
  expanded_runs_ = 0;
  expanded_at_ = 0;
  expanded_granules_ = 0;
}

// Looks into runs, the first choice first and each from its end down, until so much was found.
void Planner::expand(std::uint64_t granules, std::size_t count) {
  for (; expanded_runs_ < survey_.runs().size(); ++expanded_runs_, expanded_at_ = 0) {
    const RunView& run = survey_.runs()[expanded_runs_];
    const VmmSegment* segment = run.segment;
    Address end = expanded_at_ != 0 ? expanded_at_ : run.end;
    while (end > run.address) {
      if (expanded_granules_ >= granules && donors_.size() >= count) {
        expanded_at_ = end;
        return;
      }
      Mapping* mapping = segment->at(segment->slot_of(end - 1));
      const Address begin = segment->address_of(mapping->slot);
      if (begin >= run.address && end_of(mapping) <= end) {
        donors_.push_back({mapping, run.run, run.freed});
        expanded_granules_ += mapping->block->granules;
      }
      end = begin;
    }
  }
}

const std::vector<Donor>& Planner::collect(const PlanRequest& request, StateSteps& steps) {
  see_runs(request, steps, SIZE_MAX);
  expand(UINT64_MAX, SIZE_MAX);
  return donors_;
}

std::uint64_t Planner::donor_granules() const {
  std::uint64_t granules = 0;
  for (const Donor& donor : donors_) granules += donor.mapping->block->granules;
  return granules;
}

// A stale mapping may be its block's home again where the block is free: spare, or a donor from outside the window.
[[gnu::always_inline]] inline bool Planner::may_revive(const PlanRequest& request, StateSteps& steps,
                                                       const Mapping* mapping, Address begin, Address end) {
  const Mapping* home = mapping->block->home;
  if (home == nullptr) return true;
  if (!runs_seen_) [[unlikely]] {
    see_runs(request, steps, kEnoughRuns);
  }
  const Address at = home->segment->address_of(home->slot);
  const RunView* run =
      survey_.run_over(at, at + (std::uint64_t{mapping->block->granules} << home->segment->granule_shift));
  return run != nullptr && (run->end <= begin || run->address >= end);
}

// Prices the window of request.bytes that starts at `begin`, in a hole or in the free run before it, and keeps it if it
// beats the best so far.
void Planner::consider(const PlanRequest& request, StateSteps& steps, std::size_t hole, Address begin, Window& best) {
  const std::vector<HoleView>& holes = survey_.holes();
  const VmmSegment* segment = holes[hole].segment;
  if (request.bytes > segment->end() - begin || best.cost_ns == 0) return;  // before sums with these could overflow
  const Address wanted_end = begin + request.bytes;
  for (std::size_t i = hole; holes[i].right < wanted_end; ++i) {
    if (!survey_.joined(i)) return;  // too short
  }
  Address end = wanted_end;
  std::uint64_t cost_ns = 0;  // of the unmappings
  std::uint64_t empty = 0;
  const int unit_shift = std::countr_zero(request.block_granules);
  const auto price = [&] { return cost_ns + ((empty + request.block_granules - 1) >> unit_shift) * kMapNs; };
  std::size_t last = hole;
  for (;; ++last) {
    const HoleView& view = holes[last];
    const Address stop_address = std::min(end, view.end);
    std::uint32_t slot = segment->slot_of(std::max(begin, view.address));
    const std::uint32_t stop = segment->slot_at_or_after(stop_address);
    while (slot < stop) {
      const Mapping* mapping = segment->at(slot);
      if (mapping == nullptr) {
        // No further than where it costs too much.
        const std::uint64_t blocks = std::min<std::uint64_t>((best.cost_ns - 1 - cost_ns) / kMapNs, UINT32_MAX);
        const std::uint64_t enough = slot + (blocks << unit_shift) - empty + 1;
        const std::uint32_t from = slot;
        slot = segment->mapped_from(slot, static_cast<std::uint32_t>(std::min<std::uint64_t>(stop, enough)));
        empty += slot - from;
        if (price() >= best.cost_ns) return;
        continue;
      }
      if (mapping->quarantined || mapping->slot < slot) return;
      slot += mapping->block->granules;
      if (may_revive(request, steps, mapping, begin, end)) continue;
      cost_ns += kUnmapNs;
      empty += mapping->block->granules;
      if (price() >= best.cost_ns) return;  // it only grows from here on
      if (!fences_.passed(mapping->fence())) return;
    }
    end = std::max(end, segment->address_of(slot));
    if (view.right >= wanted_end) break;
    if (price() >= best.cost_ns) return;
  }
  cost_ns = price();
  // One that is nearly all empty has no reason to be here, and would take the addresses that a long neighbour may grow
  // into: the segment's end is the place for it.
  const Address last_end = wanted_end <= holes[last].end ? holes[last].end : holes[last].right;
  if (last_end != segment->end() && (empty << segment->granule_shift) > request.bytes / 8 * 7) cost_ns *= 2;
  if (cost_ns >= best.cost_ns) return;
  if (std::find(rejected_.begin(), rejected_.end(), begin) == rejected_.end()) best = {hole, begin, end, cost_ns};
}

// Behind a long live VirBlock at a segment's end, addresses twice as long as itself stay free, so that a longer one can
// grow out of its run when it is gone; else each new length would be stitched together anew. What is left of its last
// PhyBlock, less than a granule, stays behind. 0 where this does not apply.
Address Planner::behind_guard(const PlanRequest& request, const HoleView& hole) const {
  const VmmSegment* segment = hole.segment;
  if (!hole.ends_segment() || hole.live_before < kGuardedBytes) return 0;
  const std::uint64_t guard = round_up(kGuardFactor * hole.live_before, segment->granule());
  if ((hole.end - hole.address) / 2 < guard + request.bytes) return 0;  // addresses run short
  const Address begin = std::max<Address>(hole.address + guard, segment->address_of(segment->slots.size()));
  return hole.end - begin >= request.bytes ? begin : 0;  // what was ever mapped may reach to the segment's end
}

Planner::Window Planner::cheapest_window(const PlanRequest& request, StateSteps& steps) {
  Window best;
  for (const std::size_t i : survey_.by_age()) {
    const HoleView& hole = survey_.holes()[i];
    const VmmSegment* segment = hole.segment;
    // From the free run on its left, or from its own begin, as far right as it takes.
    if (const Address begin = behind_guard(request, hole); begin != 0) {
      consider(request, steps, i, begin, best);
      continue;
    }
    consider(request, steps, i, hole.left, best);
    // The end of the free run on its right, as far left into the hole as it takes.
    if (hole.right > hole.end && hole.right - hole.end < request.bytes && hole.right - hole.address >= request.bytes) {
      const std::uint32_t slot = segment->slot_of(hole.right - request.bytes);
      const Mapping* mapping = segment->at(slot);
      consider(request, steps, i, segment->address_of(mapping != nullptr ? mapping->slot : slot), best);
    }
    // Where the hole is the segment's end: addresses that nothing is mapped at.
    if (hole.ends_segment() && !segment->slots.empty()) {
      const Address virgin = segment->address_of(segment->slots.size());
      if (virgin > hole.address && virgin < hole.end) consider(request, steps, i, virgin, best);
    }
  }
  return best;
}

// The plan takes the block, unless it has it already or, by what was seen, it is not free.
bool Planner::use(Plan& plan, PhyBlock* block) {
  if (block->planned) return false;
  if (Mapping* home = block->home; home != nullptr) {
    const RunView* run = survey_.run_over(home->segment->address_of(home->slot), end_of(home));
    if (run == nullptr) return false;
    plan.moves.push_back({home, run->run, run->freed});
  }
  planned_.push_back(block);
  block->planned = true;
  return true;
}

void Planner::unmark() {
  for (PhyBlock* block : planned_) block->planned = false;
  planned_.clear();
}

std::optional<Plan> Planner::lay_out(const PlanRequest& request, StateSteps& steps, const Window& window) {
  unmark();
  gaps_.clear();
  const std::vector<HoleView>& holes = survey_.holes();
  Plan plan;
  plan.pool = request.pool;
  plan.hole = holes[window.hole].hole;
  plan.segment = plan.hole->segment;
  plan.begin = window.begin;
  plan.end = window.end;
  plan.stream_wait = request.stream_wait;
  const VmmSegment* segment = plan.segment;
  const auto add_gap = [&](std::uint32_t slot, std::uint32_t granules) {
    if (!gaps_.empty() && gaps_.back().slot + gaps_.back().granules == slot) {
      gaps_.back().granules += granules;
    } else {
      gaps_.push_back({slot, granules});
    }
  };
  std::size_t last = window.hole;
  for (std::size_t i = window.hole; i < holes.size() && holes[i].address < window.end; ++i) {
    if (holes[i].segment != segment) break;
    last = i;
    const std::uint32_t stop = segment->slot_at_or_after(std::min(window.end, holes[i].end));
    for (std::uint32_t slot = segment->slot_of(std::max(window.begin, holes[i].address)); slot < stop;) {
      Mapping* mapping = segment->at(slot);
      if (mapping == nullptr) {
        const std::uint32_t end = segment->mapped_from(slot, stop);
        add_gap(slot, end - slot);
        slot = end;
        continue;
      }
      const std::uint32_t granules = mapping->block->granules;
      // Of two stale mappings of one block in one window only one can be its home.
      if (may_revive(request, steps, mapping, window.begin, window.end) && use(plan, mapping->block)) {
        plan.revive.push_back(mapping);
        plan.revived_granules += granules;
      } else {
        if (!fences_.passed(mapping->fence())) return std::nullopt;
        plan.retire.push_back(mapping);
        add_gap(slot, granules);
      }
      slot += granules;
    }
  }
  // Room behind the last gap, for a block that is longer than what is left of it.
  std::uint32_t room = 0;
  if (!gaps_.empty() && plan.end <= holes[last].end) {
    const std::uint32_t after = gaps_.back().slot + gaps_.back().granules;
    const std::uint32_t stop = segment->slot_of(holes[last].end);
    const std::uint32_t most = std::max<std::uint32_t>(request.block_granules, 64);
    if (segment->address_of(after) == plan.end) {
      while (room < most && after + room < stop && segment->at(after + room) == nullptr) ++room;
    }
  }
  if (!fill_gaps(request, steps, plan, room)) return std::nullopt;
  std::sort(plan.moves.begin(), plan.moves.end(), [](const Donor& a, const Donor& b) { return a.begin() > b.begin(); });
  return plan;
}

// Sorts what may be put into the plan's gaps by size. What its window covers stays there.
void Planner::offer(const Plan& plan, bool donors) {
  const auto offer_one = [this](PhyBlock* block) {
    const std::uint32_t order = order_of(block->granules);
    if (by_order_.size() <= order) by_order_.resize(order + 1);
    by_order_[order].push_back(block);
  };
  for (std::vector<PhyBlock*>& blocks : by_order_) blocks.clear();
  const Block* run = nullptr;
  bool outside = false;
  for (std::size_t i = donors ? donors_.size() : 0; i-- > 0;) {
    if (donors_[i].run != run) {
      const RunView* view = survey_.run_over(donors_[i].begin(), donors_[i].end());
      outside = view != nullptr && (view->end <= plan.begin || view->address >= plan.end);
      run = donors_[i].run;
    }
    if (outside) offer_one(donors_[i].mapping->block);
  }
  // Spare blocks are held already, whatever the slack, and at no address that anyone could use.
  using memory::PhyPool;
  for (PhyBlock* block = phy_pool_.spare().front(); block != nullptr; block = PhyPool::BlockList::next(block)) {
    offer_one(block);
  }
}

// The largest free block of at most `granules`; or else one that is longer by no more than `room`. Null: none.
PhyBlock* Planner::pick(std::uint32_t granules, std::uint32_t room) {
  for (std::size_t order = std::min<std::size_t>(order_of(granules) + 1, by_order_.size()); order-- > 0;) {
    if (by_order_[order].empty()) continue;
    PhyBlock* block = by_order_[order].back();
    by_order_[order].pop_back();
    return block;
  }
  for (std::vector<PhyBlock*>& blocks : by_order_) {
    if (blocks.empty() || blocks.back()->granules - granules > room) continue;
    PhyBlock* block = blocks.back();
    blocks.pop_back();
    return block;
  }
  return nullptr;
}

bool Planner::fill_gaps(const PlanRequest& request, StateSteps& steps, Plan& plan, std::uint32_t room) {
  if (gaps_.empty()) return true;
  std::uint64_t missing = 0;
  for (const Gap& gap : gaps_) missing += gap.granules;
  const std::uint32_t unit = request.block_granules;
  const std::uint32_t last_granules = gaps_.back().granules;
  const std::uint32_t overshoot = std::min((unit - last_granules % unit) % unit, room);
  const bool grow_first = missing + overshoot <= std::min(request.slack_granules, request.headroom_granules);
  if (!grow_first) {
    if (!runs_seen_) see_runs(request, steps, kEnoughRuns);
    expand(2 * missing, kEnoughDonors);
  }
  offer(plan, !grow_first);

  const VmmSegment* segment = plan.segment;
  for (std::size_t i = 0; i < gaps_.size(); ++i) {
    const bool last = i + 1 == gaps_.size();
    std::uint32_t slot = gaps_[i].slot;
    std::uint32_t left = gaps_[i].granules;
    while (left > 0) {
      PhyBlock* block = pick(left, last ? room : 0);
      if (block == nullptr) break;
      if (!use(plan, block)) continue;
      plan.fills.push_back({slot, block->granules, block});
      plan.moved_granules += block->granules;
      slot += block->granules;
      left -= std::min(left, block->granules);
    }
    while (left > 0) {
      const bool whole_unit = left >= unit || (last && grow_first && unit - left <= room);
      const std::uint32_t granules = whole_unit ? unit : std::bit_floor(left);
      plan.fills.push_back({slot, granules, nullptr});
      plan.created_granules += granules;
      slot += granules;
      left -= std::min(left, granules);
    }
    if (last) plan.end = std::max(plan.end, segment->address_of(slot));
  }
  return plan.created_granules <= request.headroom_granules;
}

std::optional<Plan> Planner::make(const PlanRequest& request, StateSteps& steps) {
  // A block is marked only while a plan is made, also where that ends by an exception: afterwards it may go.
  struct Unmark {
    Planner& planner;
    ~Unmark() { planner.unmark(); }
  };
  const Unmark unmark{*this};
  survey_.begin();
  runs_seen_ = false;
  donors_.clear();
  rejected_.clear();
  failure_ = PlanFailure::no_window;
  survey_.see_holes(*request.pool, steps);
  for (int tries = 0; tries < kMaxWindows; ++tries) {
    const Window window = cheapest_window(request, steps);
    if (window.hole == SIZE_MAX) return std::nullopt;
    std::optional<Plan> plan = lay_out(request, steps, window);
    const bool saw_enough = !runs_seen_ || (survey_.saw_all_runs() && expanded_runs_ == survey_.runs().size());
    if (!saw_enough && (!plan || plan->created_granules > request.slack_granules)) {
      (void)collect(request, steps);  // before more is created than the slack: everything there is
      plan = lay_out(request, steps, window);
    }
    if (plan) {
      failure_ = PlanFailure::none;
      return plan;
    }
    // Cheap, but what would have to lie there is not to be had in those sizes. Another place may take other sizes.
    failure_ = PlanFailure::memory;
    rejected_.push_back(window.begin);
  }
  return std::nullopt;
}

}  // namespace gmlake::stitch
