#include "stitch/stitcher.hpp"

#include <algorithm>
#include <new>

#include "base/check.hpp"

namespace gmlake::stitch {

using memory::Mapping;
using memory::PhyBlock;

namespace {

constexpr std::size_t kSpansPerStep = 8;

bool is_open(const Block* block) { return block->state == State::free || block->state == State::hole; }

}  // namespace

bool Stitcher::claim_window(const Plan& plan, StateSteps& steps) {
  const StateStep step(steps);
  plan.pool->settle();
  Block* first = plan.begin < plan.hole->address ? plan.hole->prev : plan.hole;
  if (first == nullptr || first->address > plan.begin || !is_open(first)) return false;
  std::size_t pieces = 1;
  window_tick_ = first->tick_or_requested;
  for (const Block* block = first; block->end() < plan.end; ++pieces) {
    block = block->next;
    if (block == nullptr || !is_open(block)) return false;
    if (block->state == State::free) window_tick_ = std::max(window_tick_, block->tick_or_requested);
  }
  plan.pool->set_aside(stash_, pieces, 2);
  window_ = plan.pool->claim(first, plan.begin, plan.end);
  return true;
}

// Those of the first that lie next to each other in one run.
std::span<const Donor> Stitcher::adjacent(std::span<const Donor> donors) {
  std::size_t count = 1;
  while (count < donors.size() && donors[count].run == donors[0].run &&
         donors[count].end() == donors[count - 1].begin()) {
    ++count;
  }
  return donors.first(count);
}

// The run that was seen may be gone by now, and its record used for another. What counts is that all of the range is
// free, and behind a fence that another stream may rely on.
bool Stitcher::claim_span(std::span<const Donor> donors, memory::StreamIndex stream, bool stream_wait) {
  Block* run = donors.front().run;
  static_cast<Pool*>(donors.front().mapping->segment->owner)->settle();
  const Address begin = donors.back().begin();
  const Address end = donors.front().end();
  if (!Pool::BlockSlab::is_live(run) || run->state != State::free || run->address > begin || run->end() < end) {
    return false;
  }
  const memory::Fence freed{run->pool->stream(), run->tick_or_requested};
  if (freed.stream != stream && !stream_wait && !fences_.passed(freed)) return false;
  Pool::Stash none;
  run->pool->set_aside(none, 0, 2);
  spans_.push_back({donors, run->pool->claim(run, begin, end), freed});
  return true;
}

bool Stitcher::claim(const Plan& plan, StateSteps& steps) {
  window_ = nullptr;
  spans_.clear();
  spans_.reserve(plan.moves.size());
  placed_.clear();
  placed_.reserve(plan.fills.size());
  bool claimed = false;
  try {
    claimed = claim_window(plan, steps);
    for (std::span<const Donor> left = plan.moves; claimed && !left.empty();) {
      const StateStep step(steps);
      for (std::size_t i = 0; claimed && i < kSpansPerStep && !left.empty(); ++i) {
        const std::span<const Donor> donors = adjacent(left);
        claimed = claim_span(donors, plan.pool->order(), plan.stream_wait);
        left = left.subspan(donors.size());
      }
    }
  } catch (...) {
    unclaim(plan, steps);
    throw;
  }
  if (!claimed) unclaim(plan, steps);
  return claimed;
}

void Stitcher::unclaim(const Plan& plan, StateSteps& steps) {
  publish_donors(steps);
  const StateStep step(steps);
  if (window_ != nullptr) (void)publish(plan, window_tick_, false);
  plan.pool->return_stash(stash_);
}

std::vector<PhyBlock*> Stitcher::vacate(std::span<const Donor> donors, StateSteps& steps) {
  std::vector<PhyBlock*> blocks;
  blocks.reserve(donors.size());
  spans_.clear();
  spans_.reserve(donors.size());
  const auto leave_homes = [&] {
    for (const Span& span : spans_) {
      for (const Donor& donor : span.donors) {
        mappings_.leave_home(donor.mapping->block, span.freed);
        blocks.push_back(donor.mapping->block);
      }
    }
    publish_donors(steps);
  };
  while (!donors.empty()) {
    try {
      const StateStep step(steps);
      for (std::size_t i = 0; i < kSpansPerStep && !donors.empty(); ++i) {
        const std::span<const Donor> next = adjacent(donors);
        (void)claim_span(next, kNoStream, false);  // what has been taken meanwhile is left to whoever has it
        donors = donors.subspan(next.size());
      }
    } catch (...) {
      leave_homes();
      throw;
    }
    leave_homes();
  }
  return blocks;
}

Status Stitcher::retire(const Plan& plan) {
  std::size_t i = 0;
  while (i < plan.retire.size()) {
    std::size_t j = i + 1;
    while (j < plan.retire.size() &&
           plan.retire[j]->slot == plan.retire[j - 1]->slot + plan.retire[j - 1]->block->granules) {
      ++j;
    }
    if (Status unmapped = mappings_.unmap({plan.retire.data() + i, j - i}); !unmapped.ok()) return unmapped;
    i = j;
  }
  return {};
}

// One wait for each stream that memory is taken from, for the last of its frees.
Status Stitcher::make_waits(const Plan& plan) {
  std::vector<memory::Fence> last;
  for (const Span& taken : spans_) {
    if (taken.freed.stream == plan.pool->stream()) continue;
    const auto same = std::find_if(last.begin(), last.end(),
                                   [&](const memory::Fence& fence) { return fence.stream == taken.freed.stream; });
    if (same == last.end()) {
      last.push_back(taken.freed);
    } else {
      same->tick = std::max(same->tick, taken.freed.tick);
    }
  }
  for (const memory::Fence& fence : last) {
    if (Status waits = fences_.make_stream_wait(plan.pool->stream(), fence); !waits.ok()) return waits;
  }
  return {};
}

Status Stitcher::change_mappings(const Plan& plan) {
  if (plan.stream_wait) {
    if (Status waits = make_waits(plan); !waits.ok()) return waits;
  }
  if (Status retired = retire(plan); !retired.ok()) return retired;
  for (const Plan::Fill& fill : plan.fills) {
    PhyBlock* block = fill.block;
    if (block == nullptr) {
      Result<PhyBlock*> created = phy_pool_.create(fill.granules);
      if (!created) return created.error();
      block = *created;
    }
    Result<Mapping*> placed = mappings_.map(plan.segment, fill.slot, block);
    if (!placed) return placed.error();
    placed_.push_back(*placed);
  }
  for (std::size_t i = 0; i < placed_.size();) {
    const std::uint32_t begin = placed_[i]->slot;
    std::uint32_t end = begin;
    for (; i < placed_.size() && placed_[i]->slot == end; ++i) end += placed_[i]->block->granules;
    if (Status granted = mappings_.set_access(plan.segment, begin, end - begin); !granted.ok()) return granted;
  }
  return {};
}

// Back to where everything was: the mappings made are unmapped (no work can have used them), and donors keep their
// home.
void Stitcher::undo() {
  for (Mapping* mapping : placed_) (void)mappings_.unmap({&mapping, 1}).ok();
  placed_.clear();
}

Status Stitcher::execute(const Plan& plan) {
  Status changed;
  try {
    changed = change_mappings(plan);
  } catch (const std::bad_alloc&) {  // of the host, for the records of a block or a mapping
    changed = Error{ErrorCode::out_of_memory, Step::map, plan.end - plan.begin};
  }
  if (!changed.ok()) {
    undo();
    return changed;
  }
  // By ascending address, so that neighbours are neighbours in the retire queue too, and go in one call.
  for (std::size_t i = spans_.size(); i-- > 0;) {
    const std::span<const Donor> donors = spans_[i].donors;
    for (std::size_t j = donors.size(); j-- > 0;) mappings_.leave_home(donors[j].mapping->block, spans_[i].freed);
  }
  for (Mapping* mapping : plan.revive) mappings_.settle(mapping);
  for (Mapping* mapping : placed_) mappings_.settle(mapping);
  return {};
}

void Stitcher::publish_donors(StateSteps& steps) {
  for (std::size_t i = 0; i < spans_.size();) {
    const std::size_t stop = std::min(spans_.size(), i + kSpansPerStep);
    const StateStep step(steps);
    for (; i < stop; ++i) spans_[i].claimed->pool->publish(spans_[i].claimed, spans_[i].freed.tick);
  }
  spans_.clear();
}

Block* Stitcher::publish(const Plan& plan, std::uint64_t tick, bool succeeded) {
  plan.pool->return_stash(stash_);
  Block* run = plan.pool->publish(window_, tick);
  window_ = nullptr;
  GMLAKE_CHECK(!succeeded || run->state == State::free);
  return succeeded ? run : nullptr;
}

}  // namespace gmlake::stitch
