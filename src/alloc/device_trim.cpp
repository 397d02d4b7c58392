// What DeviceAllocator gives back to the driver: cached PhyBlocks behind passed fences, spare ones, segments that are
// all holes. The ladder's rungs and trim() come here.
#include <algorithm>

#include "alloc/device_allocator.hpp"
#include "gmlake/bytes.hpp"

namespace gmlake::alloc {

using stitch::Block;
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

std::vector<DeviceAllocator::Releasable> DeviceAllocator::releasable() {
  std::vector<Releasable> found;
  const auto& spare = phy_pool_.spare();
  for (memory::PhyBlock* block = spare.front(); block != nullptr; block = memory::PhyPool::BlockList::next(block)) {
    if (block->mappings == nullptr) found.push_back({block, nullptr, 0});
  }
  std::vector<Pool*> pools;
  for (const auto& stream : streams_) {
    pools.push_back(stream->large.get());
    pools.push_back(stream->small.get());
  }
  if (pools.empty()) return found;
  for (const stitch::Donor& donor : planner_.collect({.pool = pools.front(), .donors = pools})) {
    bool passed = fences_.passed({donor.run->pool->stream(), donor.run->tick_or_requested});
    for (const memory::Mapping* m = donor.mapping->block->mappings; m != nullptr; m = m->next_of_block) {
      passed = passed && !m->quarantined && (m == donor.mapping || fences_.passed(m->fence));
    }
    if (passed) found.push_back({donor.mapping->block, donor.run, 0});
  }
  return found;
}

void DeviceAllocator::take_out(std::vector<Releasable>& chosen) {
  if (chosen.empty()) return;
  // Of one run by descending address: see Pool::claim. Spare ones, which have no run, first.
  std::sort(chosen.begin(), chosen.end(), [](const Releasable& a, const Releasable& b) {
    if (a.run == nullptr || b.run == nullptr) return b.run != nullptr;
    return a.run != b.run ? a.run->address < b.run->address : a.block->home->slot > b.block->home->slot;
  });
  Pool::Stash none;
  streams_.front()->large->set_aside(none, 0, 2 * chosen.size());
  for (const Releasable& each : chosen) {
    if (each.run == nullptr) continue;
    const memory::Mapping& home = *each.block->home;
    const std::uint64_t tick = each.run->tick_or_requested;
    Pool* pool = each.run->pool;
    Block* claimed = pool->claim(each.run, home.segment->address_of(home.slot),
                                 home.segment->address_of(std::uint64_t{home.slot} + each.block->granules));
    if (history_.on()) {
      history_.add(History::Action::segment_unmap, home.segment->address_of(home.slot),
                   std::uint64_t{each.block->granules} << granule_shift_, streams_[pool->stream()]->stream.handle);
    }
    mappings_.leave_home(each.block, {pool->stream(), tick});
    pool->publish(claimed, tick);
  }
  usage_.recount_homes(cached_totals());
}

std::uint64_t DeviceAllocator::give_back(const std::vector<Releasable>& taken) {
  const std::uint64_t held = phy_pool_.held_bytes();
  for (const Releasable& each : taken) {  // what stays mapped stays spare, and what is refused is counted as lost
    if (mappings_.retire_all_of(each.block).ok()) (void)phy_pool_.release(each.block).ok();
  }
  return held - phy_pool_.held_bytes();
}

std::uint64_t DeviceAllocator::release_cached(std::uint64_t granules) {
  std::vector<Releasable> chosen;
  {
    const MutexLock lock(state_);
    chosen = releasable();
    std::stable_sort(chosen.begin(), chosen.end(),
                     [](const Releasable& a, const Releasable& b) { return a.block->granules > b.block->granules; });
    keep_least(chosen, granules);
    take_out(chosen);
  }
  return give_back(chosen);
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
  wait_for_all_streams();
  reclaim_deferred();
  mappings_.retire(fences_, 0);
  if (phy_pool_.held_bytes() > keep_bytes) {
    (void)release_cached(round_up(phy_pool_.held_bytes() - keep_bytes, granule()) >> granule_shift_);
  }
  release_vacant_segments();
  return refusal_ ? Status(*refusal_) : Status();
}

}  // namespace gmlake::alloc
