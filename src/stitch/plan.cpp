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

// What the driver charges, measured on an H200 (docs/driver.md): map and set_access, create, and unmap of one handle.
constexpr std::uint64_t kMapNs = 24'000;
constexpr std::uint64_t kUnmapNs = 15'000;

// A live VirBlock of this length keeps addresses free behind itself, and how many times its own length.
constexpr std::uint64_t kGuardedBytes = std::uint64_t{256} << 20;
constexpr std::uint64_t kGuardFactor = 2;
constexpr int kMaxWindows = 8;  // tried for one request before it counts as impossible

std::uint32_t order_of(std::uint32_t granules) { return static_cast<std::uint32_t>(std::bit_width(granules)) - 1; }

}  // namespace

const std::vector<Donor>& Planner::collect(const PlanRequest& request) {
  donors_.clear();
  for (Pool* pool : request.donors) {
    if (pool->segment_count() == 0) continue;
    const auto first_of_pool = static_cast<std::ptrdiff_t>(donors_.size());
    pool->for_each_free(pool->segment(0)->granule(), [&](Block* run) {
      if (pool->stream() != request.pool->stream() && !request.stream_wait &&
          !fences_.passed({pool->stream(), run->tick_or_requested})) {
        return;
      }
      const VmmSegment* segment = run->segment;
      for (Address at = segment->address_of(segment->slot_at_or_after(run->address)); at < run->end();) {
        Mapping* mapping = segment->at(segment->slot_of(at));
        const Address end = segment->address_of(std::uint64_t{mapping->slot} + mapping->block->granules);
        if (segment->address_of(mapping->slot) == at && end <= run->end()) donors_.push_back({mapping, run, false});
        at = end;
      }
    });
    // Within a pool the smallest runs first: they are of least use as they are. Of one run, the highest addresses
    // first.
    std::sort(donors_.begin() + first_of_pool, donors_.end(), [](const Donor& a, const Donor& b) {
      if (a.run == b.run) return a.mapping->slot > b.mapping->slot;
      return a.run->bytes != b.run->bytes ? a.run->bytes < b.run->bytes : a.run->address > b.run->address;
    });
  }
  return donors_;
}

std::uint64_t Planner::donor_granules() const {
  std::uint64_t granules = 0;
  for (const Donor& donor : donors_) granules += donor.mapping->block->granules;
  return granules;
}

// A stale mapping may be its block's home again where the block is free: spare, or a donor from outside the window.
bool Planner::may_revive(const Mapping* mapping, Address begin, Address end) const {
  const PhyBlock* block = mapping->block;
  if (block->home == nullptr) return true;
  if (block->donor == 0) return false;
  const Block* run = donors_[block->donor - 1].run;
  return run->end() <= begin || run->address >= end;
}

// Prices the window of request.bytes that starts at `begin`, and keeps it if it beats the best so far.
void Planner::consider(const PlanRequest& request, Block* first, Address begin, Window& best) {
  const VmmSegment* segment = first->segment;
  if (request.bytes > segment->end() - begin) return;  // before sums with it could overflow
  Address end = begin + request.bytes;
  std::uint64_t cost_ns = 0;
  std::uint64_t empty = 0;
  for (Block* block = first; block != nullptr; block = block->next) {
    if (block->address >= end || cost_ns >= best.cost_ns) break;
    if (block->state == State::free) continue;
    if (block->state != State::hole) return;
    const Address part_begin = std::max(begin, block->address);
    std::uint32_t slot = segment->slot_of(part_begin);
    while (segment->address_of(slot) < std::min(end, block->end())) {
      if (slot >= segment->slots.size()) {
        const std::uint32_t stop = segment->slot_at_or_after(std::min(end, block->end()));
        empty += stop - slot;
        slot = stop;
        break;
      }
      const Mapping* mapping = segment->slots[slot];
      if (mapping == nullptr) {
        ++empty;
        ++slot;
        continue;
      }
      if (mapping->quarantined || mapping->slot < slot) return;
      if (!may_revive(mapping, begin, end)) {
        if (!fences_.passed(mapping->fence)) return;
        cost_ns += kUnmapNs;
        empty += mapping->block->granules;
      }
      slot += mapping->block->granules;
    }
    end = std::max(end, segment->address_of(slot));
    if (end <= block->end()) break;
  }
  Block* last = first;
  while (last->end() < begin + request.bytes) {
    last = last->next;
    if (last == nullptr || (last->state != State::free && last->state != State::hole)) return;
  }
  cost_ns += (empty + request.block_granules - 1) / request.block_granules * kMapNs;
  // One that is nearly all empty has no reason to be here, and would take the addresses that a long neighbour may grow
  // into: the segment's end is the place for it.
  if (last->next != nullptr && (empty << segment->granule_shift) > request.bytes / 8 * 7) cost_ns *= 2;
  if (cost_ns >= best.cost_ns) return;
  if (std::find(rejected_.begin(), rejected_.end(), begin) == rejected_.end()) best = {first, begin, end, cost_ns};
}

// Behind a long live VirBlock at a segment's end, addresses twice as long as itself stay free, so that a longer one can
// grow out of its run when it is gone; else each new length would be stitched together anew. What is left of its last
// PhyBlock, less than a granule, stays behind. 0 where this does not apply.
Address Planner::behind_guard(const PlanRequest& request, const Block* hole) const {
  const VmmSegment* segment = hole->segment;
  const Block* last = hole->prev;
  if (last != nullptr && last->state == State::free && last->bytes < segment->granule()) last = last->prev;
  if (hole->next != nullptr || last == nullptr || last->state != State::live || last->bytes < kGuardedBytes) return 0;
  const std::uint64_t guard = round_up(kGuardFactor * last->bytes, segment->granule());
  if (hole->bytes / 2 < guard + request.bytes) return 0;  // addresses run short
  const Address begin = std::max<Address>(hole->address + guard, segment->address_of(segment->slots.size()));
  return hole->end() - begin >= request.bytes ? begin : 0;  // what was ever mapped may reach to the segment's end
}

Planner::Window Planner::cheapest_window(const PlanRequest& request) {
  Window best;
  for (Block* hole = request.pool->holes().front(); hole != nullptr; hole = Pool::HoleList::next(hole)) {
    const VmmSegment* segment = hole->segment;
    // From the free run on its left, or from its own begin, as far right as it takes.
    Block* left = hole->prev != nullptr && hole->prev->state == State::free ? hole->prev : hole;
    if (const Address begin = behind_guard(request, hole); begin != 0) {
      consider(request, hole, begin, best);
      continue;
    }
    consider(request, left, left->address, best);
    // The end of the free run on its right, as far left into the hole as it takes.
    if (Block* right = hole->next; right != nullptr && right->state == State::free && right->bytes < request.bytes &&
                                   right->bytes + hole->bytes >= request.bytes) {
      const std::uint32_t slot = segment->slot_of(right->end() - request.bytes);
      const Mapping* mapping = segment->at(slot);
      consider(request, hole, segment->address_of(mapping != nullptr ? mapping->slot : slot), best);
    }
    // Where the hole is the segment's end: addresses that nothing is mapped at.
    if (hole->next == nullptr && !segment->slots.empty()) {
      const Address virgin = segment->address_of(segment->slots.size());
      if (virgin > hole->address && virgin < hole->end()) consider(request, hole, virgin, best);
    }
  }
  return best;
}

void Planner::take_donor(Plan& plan, PhyBlock* block) {
  if (block->donor == 0) return;  // it is spare
  Donor& donor = donors_[block->donor - 1];
  donor.used = true;
  plan.moves.push_back(donor);
}

std::optional<Plan> Planner::lay_out(const PlanRequest& request, const Window& window) {
  Plan plan;
  plan.pool = request.pool;
  plan.segment = window.first->segment;
  plan.first = window.first;
  plan.begin = window.begin;
  plan.end = window.end;
  gaps_.clear();
  const VmmSegment* segment = plan.segment;
  const auto add_gap = [&](std::uint32_t slot, std::uint32_t granules) {
    if (!gaps_.empty() && gaps_.back().slot + gaps_.back().granules == slot) {
      gaps_.back().granules += granules;
    } else {
      gaps_.push_back({slot, granules});
    }
  };
  for (Block* block = window.first; block != nullptr && block->address < window.end; block = block->next) {
    if (block->state != State::hole) continue;
    const std::uint32_t stop = segment->slot_at_or_after(std::min(window.end, block->end()));
    for (std::uint32_t slot = segment->slot_of(std::max(window.begin, block->address)); slot < stop;) {
      Mapping* mapping = segment->at(slot);
      if (mapping == nullptr) {
        add_gap(slot, 1);
        ++slot;
        continue;
      }
      const std::uint32_t granules = mapping->block->granules;
      // Of two stale mappings of one block in one window only one can be its home.
      const bool taken = mapping->block->donor != 0
                             ? donors_[mapping->block->donor - 1].used
                             : std::find_if(plan.revive.begin(), plan.revive.end(),
                                            [&](auto* m) { return m->block == mapping->block; }) != plan.revive.end();
      if (!taken && may_revive(mapping, window.begin, window.end)) {
        plan.revive.push_back(mapping);
        take_donor(plan, mapping->block);
        plan.revived_granules += granules;
      } else {
        if (!fences_.passed(mapping->fence)) return std::nullopt;
        plan.retire.push_back(mapping);
        add_gap(slot, granules);
      }
      slot += granules;
    }
  }
  if (!fill_gaps(request, plan)) return std::nullopt;
  std::sort(plan.moves.begin(), plan.moves.end(), [](const Donor& a, const Donor& b) {
    return a.run != b.run ? a.run->address < b.run->address : a.mapping->slot > b.mapping->slot;
  });
  return plan;
}

// The largest free block of at most `granules`; null where there is none.
PhyBlock* Planner::pick(std::uint32_t granules) {
  for (std::size_t order = std::min<std::size_t>(order_of(granules) + 1, by_order_.size()); order-- > 0;) {
    if (by_order_[order].empty()) continue;
    PhyBlock* block = by_order_[order].back();
    by_order_[order].pop_back();
    return block;
  }
  return nullptr;
}

void Planner::create(Plan& plan, std::uint32_t slot, std::uint32_t granules) {
  plan.fills.push_back({slot, granules, nullptr});
  plan.created_granules += granules;
}

bool Planner::fill_gaps(const PlanRequest& request, Plan& plan) {
  std::uint64_t missing = 0;
  for (const Gap& gap : gaps_) missing += gap.granules;
  if (missing == 0) return true;
  // Room behind the last gap, for a block that is longer than what is left of it.
  const VmmSegment* segment = plan.segment;
  std::uint32_t room = 0;
  const std::uint32_t after = gaps_.back().slot + gaps_.back().granules;
  if (segment->address_of(after) == plan.end) {
    const Block* last = plan.first;
    while (last->end() < plan.end) last = last->next;
    if (last->state == State::hole) {
      const std::uint32_t stop = segment->slot_of(last->end());
      while (after + room < stop && segment->at(after + room) == nullptr &&
             room < std::max<std::uint32_t>(request.block_granules, 64)) {
        ++room;
      }
    }
  }

  const std::uint32_t unit = request.block_granules;
  const std::uint32_t last_granules = gaps_.back().granules;
  const std::uint32_t overshoot = std::min((unit - last_granules % unit) % unit, room);
  const bool grow_first = missing + overshoot <= std::min(request.slack_granules, request.headroom_granules);
  by_order_.clear();
  if (!grow_first) {
    const auto offer = [this](PhyBlock* block) {
      const std::uint32_t order = order_of(block->granules);
      if (by_order_.size() <= order) by_order_.resize(order + 1);
      by_order_[order].push_back(block);
    };
    for (std::size_t i = donors_.size(); i-- > 0;) {
      const Block* run = donors_[i].run;  // what the window itself covers stays there
      const bool outside = run->end() <= plan.begin || run->address >= plan.end;
      if (!donors_[i].used && outside) offer(donors_[i].mapping->block);
    }
  }
  // Spare blocks are held already, whatever the slack.
  for (PhyBlock* block = phy_pool_.spare().front(); block != nullptr; block = memory::PhyPool::BlockList::next(block)) {
    const bool revived = std::any_of(plan.revive.begin(), plan.revive.end(),
                                     [block](const Mapping* mapping) { return mapping->block == block; });
    if (revived) continue;
    const std::uint32_t order = order_of(block->granules);
    if (by_order_.size() <= order) by_order_.resize(order + 1);
    by_order_[order].push_back(block);
  }

  for (std::size_t i = 0; i < gaps_.size(); ++i) {
    const bool last = i + 1 == gaps_.size();
    std::uint32_t slot = gaps_[i].slot;
    std::uint32_t left = gaps_[i].granules;
    while (left > 0) {
      PhyBlock* block = pick(left);
      if (block == nullptr && last && room > 0) {  // a longer one, if it ends within the room
        for (auto& blocks : by_order_) {
          if (!blocks.empty() && blocks.back()->granules - left <= room) {
            block = blocks.back();
            blocks.pop_back();
            break;
          }
        }
      }
      if (block == nullptr) break;
      plan.fills.push_back({slot, block->granules, block});
      take_donor(plan, block);
      plan.moved_granules += block->granules;
      slot += block->granules;
      left -= std::min(left, block->granules);
    }
    while (left > 0) {
      const bool whole_unit = left >= unit || (last && grow_first && unit - left <= room);
      const std::uint32_t granules = whole_unit ? unit : std::bit_floor(left);
      create(plan, slot, granules);
      slot += granules;
      left -= std::min(left, granules);
    }
    if (last) plan.end = std::max(plan.end, segment->address_of(slot));
  }
  return plan.created_granules <= request.headroom_granules;
}

std::optional<Plan> Planner::make_with_donors(const PlanRequest& request) {
  rejected_.clear();
  failure_ = PlanFailure::no_window;
  for (int tries = 0; tries < kMaxWindows; ++tries) {
    const Window window = cheapest_window(request);
    if (window.first == nullptr) return std::nullopt;
    if (std::optional<Plan> plan = lay_out(request, window)) {
      failure_ = PlanFailure::none;
      return plan;
    }
    // Cheap, but what would have to lie there is not to be had in those sizes. Another place may take other sizes.
    failure_ = PlanFailure::memory;
    rejected_.push_back(window.begin);
    for (Donor& donor : donors_) donor.used = false;
  }
  return std::nullopt;
}

std::optional<Plan> Planner::make(const PlanRequest& request) {
  collect(request);
  // A block knows its donor only while a plan is made, also where that ends by an exception: afterwards either may go.
  struct Marks {
    const std::vector<Donor>& donors;
    explicit Marks(const std::vector<Donor>& marked) : donors(marked) {
      std::uint32_t place = 0;
      for (const Donor& donor : donors) donor.mapping->block->donor = ++place;
    }
    ~Marks() {
      for (const Donor& donor : donors) donor.mapping->block->donor = 0;
    }
  };
  const Marks marks(donors_);
  return make_with_donors(request);
}

}  // namespace gmlake::stitch
