// What DeviceAllocator gives back to the driver: cached PhyBlocks behind passed fences, spare ones, segments that are
// all holes. The ladder's rungs and trim() come here.
#include <algorithm>
#include <new>

#include "alloc/device_allocator.hpp"
#include "gmlake/bytes.hpp"

namespace gmlake::alloc {

using stitch::Pool;

namespace {

// The least of them that makes `granules`, out of blocks sorted by size, largest first; all where they are too few.
// Sizes are powers of two, so taking whatever still fits gives the most that is not too much. Where that is short, and
// a block was passed over for being too large, the last of these stands in for all that came after it.
template <class Candidate>
void keep_least(std::vector<Candidate>& candidates, std::uint64_t granules) {
  std::size_t kept = 0;
  std::size_t kept_before = 0;
  std::optional<Candidate> passed_over;
  for (std::size_t i = 0; i < candidates.size() && granules > 0; ++i) {
    if (candidates[i].block->granules <= granules) {
      granules -= candidates[i].block->granules;
      candidates[kept++] = candidates[i];
    } else {
      passed_over = candidates[i];
      kept_before = kept;
    }
  }
  if (granules > 0 && passed_over) {
    kept = kept_before;
    candidates[kept++] = *passed_over;
  }
  candidates.resize(kept);
}

}  // namespace

std::vector<DeviceAllocator::Releasable> DeviceAllocator::releasable(stitch::StateSteps& steps) {
  std::vector<Releasable> found;
  const auto& spare = phy_pool_.spare();
  for (memory::PhyBlock* block = spare.front(); block != nullptr; block = memory::PhyPool::BlockList::next(block)) {
    if (block->mappings == nullptr) found.push_back({block, {}, 0});
  }
  std::vector<Pool*> pools;
  {
    const MutexLock lock(state_);
    for (const StreamState* stream : allocating_) {
      pools.push_back(stream->large.get());
      pools.push_back(stream->small.get());
    }
  }
  if (pools.empty()) return found;
  for (const stitch::Donor& donor : planner_.collect({.pool = pools.front(), .donors = pools}, steps)) {
    bool passed = fences_.passed(donor.freed);
    for (const memory::Mapping* m = donor.mapping->block->mappings; m != nullptr; m = m->next_of_block) {
      passed = passed && !m->quarantined && (m == donor.mapping || fences_.passed(m->fence()));
    }
    if (passed) found.push_back({donor.mapping->block, donor, 0});
  }
  return found;
}

std::uint64_t DeviceAllocator::give_back(const std::vector<Releasable>& chosen, stitch::StateSteps& steps) {
  std::vector<stitch::Donor> donors;
  for (const Releasable& each : chosen) {
    if (each.donor) donors.push_back(*each.donor);
  }
  std::sort(donors.begin(), donors.end(),
            [](const stitch::Donor& a, const stitch::Donor& b) { return a.begin() > b.begin(); });
  std::vector<memory::PhyBlock*> blocks = stitcher_.vacate(donors, steps);
  {
    const MutexLock lock(state_);
    usage_.recount_homes(cached_totals());
    for (const stitch::Donor& donor : donors) {
      if (!history_.on() || !donor.mapping->stale()) continue;
      history_.add(History::Action::segment_unmap, donor.begin(), donor.end() - donor.begin(),
                   streams_[donor.freed.stream]->stream.handle);
    }
  }
  for (const Releasable& each : chosen) {
    if (!each.donor) blocks.push_back(each.block);
  }
  const std::uint64_t held = phy_pool_.held_bytes();
  for (memory::PhyBlock* block : blocks) {  // what stays mapped stays spare, and what is refused is counted as lost
    if (mappings_.retire_all_of(block).ok()) (void)phy_pool_.release(block).ok();
  }
  return held - phy_pool_.held_bytes();
}

std::uint64_t DeviceAllocator::release_cached(std::uint64_t granules) {
  stitch::StateSteps steps{.state = &state_};
  std::vector<Releasable> chosen = releasable(steps);
  std::stable_sort(chosen.begin(), chosen.end(),
                   [](const Releasable& a, const Releasable& b) { return a.block->granules > b.block->granules; });
  keep_least(chosen, granules);
  return give_back(chosen, steps);
}

void DeviceAllocator::release_spare() {
  for (memory::PhyBlock* block = phy_pool_.spare().front(); block != nullptr;) {
    memory::PhyBlock* next = memory::PhyPool::BlockList::next(block);
    if (block->mappings == nullptr) (void)phy_pool_.release(block).ok();  // a refusal is counted there
    block = next;
  }
}

void DeviceAllocator::release_vacant_segments() {
  std::vector<memory::VmmSegment*> vacant;
  {
    const MutexLock lock(state_);
    for (const auto& segment : mappings_.segments()) {
      if (static_cast<Pool*>(segment->owner)->is_vacant(segment.get())) vacant.push_back(segment.get());
    }
    for (memory::VmmSegment* segment : vacant) {
      usage_.remove_segment(static_cast<Pool*>(segment->owner)->size_class());
      static_cast<Pool*>(segment->owner)->abandon(segment);
      address_hints_.erase(segment->base);
    }
  }
  for (memory::VmmSegment* segment : vacant) (void)mappings_.address_free(segment).ok();  // a refusal is counted there
}

Status DeviceAllocator::trim(std::uint64_t keep_bytes) {
  if (driver_.lost()) return Error{ErrorCode::device_lost, driver_.lost_at(), keep_bytes};
  const MutexLock grow(grow_);
  refusal_.reset();
  {
    const MutexLock lock(state_);
    if (history_.on()) history_.add(History::Action::trim, 0, keep_bytes, 0);
  }
  give_back_cached(keep_bytes);
  return refusal_ ? Status(*refusal_) : Status();
}

// unmap_on_free: all that is free, so that what others were still using of it at the last free goes too.
void DeviceAllocator::unmap_freed() {
  if (driver_.lost()) return;
  const MutexLock grow(grow_);
  try {
    give_back_cached(0);
  } catch (const std::bad_alloc&) {  // of the host: it stays cached until the next free
  }
}

void DeviceAllocator::give_back_cached(std::uint64_t keep_bytes) {
  wait_for_all_streams();
  reclaim_deferred();
  {
    const MutexLock lock(state_);
    settle_estates(options_.zero_on_free ? find_heir() : nullptr);
  }
  if (clear_freed(SIZE_MAX)) wait_for_all_streams();
  mappings_.retire(fences_, 0);
  if (phy_pool_.held_bytes() > keep_bytes) {
    (void)release_cached(round_up(phy_pool_.held_bytes() - keep_bytes, granule()) >> granule_shift_);
  }
  release_vacant_segments();
  {
    const MutexLock lock(state_);
    settle_estates(nullptr);  // streams that have nothing left
  }
}

// A stream that clears what forgotten ones have left, if there is one.
DeviceAllocator::StreamState* DeviceAllocator::find_heir() {
  const auto found =
      std::find_if(allocating_.begin(), allocating_.end(), [](const StreamState* stream) { return !stream->closing; });
  return found == allocating_.end() ? nullptr : *found;
}

bool DeviceAllocator::take_room(std::uint64_t bytes, bool refused) {
  const MutexLock grow(grow_);
  if (refused || room_bytes() < bytes) {
    mark_all_streams();
    reclaim_deferred();
    (void)release_cached(round_up(bytes, granule()) >> granule_shift_);
  }
  if (room_bytes() < bytes) return false;
  placed_bytes_ += bytes;
  return true;
}

void DeviceAllocator::return_room(std::uint64_t bytes) {
  const MutexLock grow(grow_);
  placed_bytes_ -= bytes;
}

Status DeviceAllocator::grant(int peer) {
  const MutexLock grow(grow_);
  return mappings_.grant(peer);
}

}  // namespace gmlake::alloc
