#include "stitch/stitcher.hpp"

#include <algorithm>
#include <new>

#include "base/check.hpp"

namespace gmlake::stitch {

using memory::Mapping;
using memory::PhyBlock;

void Stitcher::claim(const Plan& plan) {
  taken_.clear();
  taken_.reserve(plan.moves.size());
  placed_.clear();
  placed_.reserve(plan.fills.size());
  std::size_t pieces = 1;
  for (const Block* block = plan.first; block->end() < plan.end; block = block->next) ++pieces;
  plan.pool->set_aside(stash_, pieces, 2 * (plan.moves.size() + 1));
  window_ = plan.pool->claim(plan.first, plan.begin, plan.end);
  for (const Donor& donor : plan.moves) {
    Mapping* mapping = donor.mapping;
    Pool* pool = donor.run->pool;
    const memory::Fence fence{pool->stream(), donor.run->tick_or_requested};
    const Address begin = mapping->segment->address_of(mapping->slot);
    const Address end = mapping->segment->address_of(std::uint64_t{mapping->slot} + mapping->block->granules);
    // Donors of one run come by descending address, so the run's record stays with what is left of it.
    taken_.push_back({mapping, pool->claim(donor.run, begin, end), fence});
  }
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
  for (const Taken& taken : taken_) {
    if (taken.fence.stream == plan.pool->stream()) continue;
    const auto same = std::find_if(last.begin(), last.end(),
                                   [&](const memory::Fence& fence) { return fence.stream == taken.fence.stream; });
    if (same == last.end()) {
      last.push_back(taken.fence);
    } else {
      same->tick = std::max(same->tick, taken.fence.tick);
    }
  }
  for (const memory::Fence& fence : last) {
    if (Status waits = fences_.make_stream_wait(plan.pool->stream(), fence); !waits.ok()) return waits;
  }
  return {};
}

Status Stitcher::change_mappings(const Plan& plan, bool stream_wait) {
  if (stream_wait) {
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

Status Stitcher::execute(const Plan& plan, bool stream_wait) {
  Status changed;
  try {
    changed = change_mappings(plan, stream_wait);
  } catch (const std::bad_alloc&) {  // of the host, for the records of a block or a mapping
    changed = Error{ErrorCode::out_of_memory, Step::map, plan.end - plan.begin};
  }
  if (!changed.ok()) {
    undo();
    return changed;
  }
  // By ascending address within a run, so that neighbours are neighbours in the retire queue too, and go in one call.
  for (std::size_t i = taken_.size(); i-- > 0;) mappings_.leave_home(taken_[i].mapping->block, taken_[i].fence);
  for (Mapping* mapping : plan.revive) mappings_.settle(mapping);
  for (Mapping* mapping : placed_) mappings_.settle(mapping);
  return {};
}

Block* Stitcher::publish(const Plan& plan, std::uint64_t tick, bool succeeded) {
  plan.pool->return_stash(stash_);
  for (const Taken& taken : taken_) taken.claimed->pool->publish(taken.claimed, taken.fence.tick);
  Block* run = plan.pool->publish(window_, tick);
  GMLAKE_CHECK(!succeeded || run->state == State::free);
  return succeeded ? run : nullptr;
}

}  // namespace gmlake::stitch
