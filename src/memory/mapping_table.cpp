#include "memory/mapping_table.hpp"

#include <algorithm>

#include "base/check.hpp"
#include "base/counter.hpp"
#include "base/room.hpp"

namespace gmlake::memory {
namespace {

// How many of the oldest stale mappings to look at for one that has passed, where a few are wanted: a stream that
// stands still may have left thousands.
constexpr int kOldest = 256;
// By how many slots a segment's table grows at least: half a kilobyte.
constexpr std::size_t kMoreSlots = 64;

std::uint32_t end_slot(const Mapping* mapping) { return mapping->slot + mapping->block->granules; }

// Does `mapping` lie right behind the last of those gathered, so that one call can unmap it with them?
bool continues(const std::vector<Mapping*>& gathered, const Mapping* mapping) {
  return gathered.empty() ||
         (mapping->segment == gathered.back()->segment && mapping->slot == end_slot(gathered.back()));
}

}  // namespace

Result<VmmSegment*> MappingTable::reserve(std::uint32_t slot_count) {
  make_room(segments_, segments_.size() + 1);
  make_room(lost_segments_, lost_segments_.size() + segments_.size() + 1);  // each may end there
  auto segment = std::make_unique<VmmSegment>();
  segment->granule_shift = granule_shift_;
  segment->slot_count = slot_count;
  Result<driver::Address> base = driver_.reserve(segment->bytes(), 0);
  if (!base) return base.error();
  segment->base = *base;
  add(reserved_bytes_, segment->bytes());
  segments_.push_back(std::move(segment));
  return segments_.back().get();
}

Status MappingTable::address_free(VmmSegment* segment) {
  GMLAKE_CHECK_EQ(segment->mapped_slots, 0u);
  const Status freed = driver_.address_free(segment->base, segment->bytes());
  const auto owned = std::find_if(segments_.begin(), segments_.end(),
                                  [segment](const auto& candidate) { return candidate.get() == segment; });
  if (freed.ok()) {
    add(reserved_bytes_, -segment->bytes());
  } else {
    add(quarantined_bytes_, segment->bytes());
    lost_segments_.push_back(std::move(*owned));
  }
  segments_.erase(owned);
  return freed;
}

Result<Mapping*> MappingTable::map(VmmSegment* segment, std::uint32_t slot, PhyBlock* block) {
  const std::uint32_t end = slot + block->granules;
  GMLAKE_CHECK(end <= segment->slot_count);
  std::vector<Mapping*>& slots = segment->slots;
  if (slots.capacity() < end) {  // had now, used once the driver has mapped
    slots.reserve(std::clamp<std::size_t>(slots.capacity() / 16 * 17 + kMoreSlots, end, segment->slot_count));
  }
  Mapping* mapping = mappings_.take();
  mapping->block = block;
  mapping->segment = segment;
  mapping->slot = slot & 0x7fffffffU;  // all of it: slots are counted in granules
  const Status mapped =
      driver_.map(segment->address_of(slot), std::uint64_t{block->granules} << granule_shift_, block->handle);
  if (!mapped.ok()) {
    mappings_.put(mapping);
    return mapped.error();
  }
  if (slots.size() < end) slots.resize(end);
  for (std::uint32_t i = slot; i < end; ++i) {
    GMLAKE_DCHECK(slots[i] == nullptr);
    slots[i] = mapping;
  }
  segment->mapped_slots += block->granules;
  mapping->next_of_block = block->mappings;
  block->mappings = mapping;
  stale_.push_back(mapping);  // until it settles it is nobody's home
  add(stale_granules_, block->granules);
  add(mapping_count_, 1);
  return mapping;
}

Status MappingTable::set_access(VmmSegment* segment, std::uint32_t slot, std::uint32_t granules) {
  const std::uint64_t bytes = std::uint64_t{granules} << granule_shift_;
  const Status granted = driver_.set_access(segment->address_of(slot), bytes, access_);
  if (granted.ok() && watcher_ != nullptr) watcher_->mapped(*segment, slot, slot + granules);
  return granted;
}

// Stale mappings too: they may be homes again with no driver call.
Status MappingTable::grant(int device) {
  if (std::find(access_.begin(), access_.end(), device) != access_.end()) return {};
  access_.reserve(access_.size() + 1);
  for (const auto& segment : segments_) {
    for (std::uint32_t slot = 0; slot < segment->slots.size();) {
      const std::uint32_t begin = slot;
      while (slot < segment->slots.size() && segment->slots[slot] != nullptr) ++slot;
      if (slot == begin) {
        ++slot;
        continue;
      }
      const std::uint64_t bytes = std::uint64_t{slot - begin} << granule_shift_;
      if (Status granted = driver_.set_access(segment->address_of(begin), bytes, {&device, 1}); !granted.ok()) {
        return granted;
      }
    }
  }
  access_.push_back(device);
  return {};
}

// Takes a mapping that the driver no longer has out of every list.
void MappingTable::forget(Mapping* mapping) {
  VmmSegment* segment = mapping->segment;
  PhyBlock* block = mapping->block;
  for (std::uint32_t i = mapping->slot; i < end_slot(mapping); ++i) segment->slots[i] = nullptr;
  segment->mapped_slots -= block->granules;
  Mapping** link = &block->mappings;
  while (*link != mapping) link = &(*link)->next_of_block;
  *link = mapping->next_of_block;
  if (mapping->quarantined) {
    add(quarantined_bytes_, -(std::uint64_t{block->granules} << granule_shift_));
  } else {
    stale_.erase(mapping);
    add(stale_granules_, -std::uint64_t{block->granules});
  }
  add(mapping_count_, -std::uint64_t{1});
  mappings_.put(mapping);
}

Status MappingTable::unmap_slots(const VmmSegment& segment, std::uint32_t begin, std::uint32_t end) {
  if (watcher_ != nullptr) watcher_->unmapping(segment, begin, end);
  return driver_.unmap(segment.address_of(begin), std::uint64_t{end - begin} << granule_shift_);
}

Status MappingTable::unmap(std::span<Mapping* const> adjacent) {
  for (std::size_t i = 0; i < adjacent.size(); ++i) {
    GMLAKE_CHECK(adjacent[i]->stale());
    GMLAKE_CHECK(i == 0 ||
                 (adjacent[i]->segment == adjacent[i - 1]->segment && adjacent[i]->slot == end_slot(adjacent[i - 1])));
  }
  const Status unmapped = unmap_slots(*adjacent.front()->segment, adjacent.front()->slot, end_slot(adjacent.back()));
  for (Mapping* mapping : adjacent) {
    if (unmapped.ok()) {
      add(retired_, 1);
      forget(mapping);
    } else if (!mapping->quarantined) {
      stale_.erase(mapping);
      mapping->quarantined = 1;
      add(stale_granules_, -std::uint64_t{mapping->block->granules});
      add(quarantined_bytes_, std::uint64_t{mapping->block->granules} << granule_shift_);
    }
  }
  return unmapped;
}

void MappingTable::leave_home(PhyBlock* block, Fence fence) {
  Mapping* home = block->home;
  if (home == nullptr) return;
  home->stream = fence.stream;
  home->tick = fence.tick;
  block->home = nullptr;
  stale_.push_back(home);
  add(stale_granules_, block->granules);
  pool_.join_spare(block);
}

void MappingTable::settle(Mapping* mapping) {
  PhyBlock* block = mapping->block;
  GMLAKE_CHECK(block->home == nullptr && !mapping->quarantined);
  stale_.erase(mapping);
  add(stale_granules_, -std::uint64_t{block->granules});
  block->home = mapping;
  pool_.leave_spare(block);
}

std::uint64_t MappingTable::retire(const Fences& fences, std::uint64_t keep_granules) {
  std::uint64_t retired = 0;
  Mapping* next = stale_.front();
  while (next != nullptr && stale_granules() > keep_granules) {
    scratch_.clear();
    std::uint64_t over = stale_granules() - keep_granules;
    while (next != nullptr && over > 0 && fences.passed(next->fence()) && continues(scratch_, next)) {
      scratch_.push_back(next);
      over -= std::min<std::uint64_t>(over, next->block->granules);
      next = RetireQueue::next(next);
    }
    if (scratch_.empty()) {
      next = RetireQueue::next(next);  // its stream is behind: a younger one of another stream may have passed
      continue;
    }
    std::uint64_t granules = 0;
    for (const Mapping* mapping : scratch_) granules += mapping->block->granules;
    if (unmap(scratch_).ok()) retired += granules;
  }
  return retired;
}

std::uint64_t MappingTable::retire_oldest(const Fences& fences, std::uint64_t most) {
  Mapping* next = stale_.front();
  for (int looked = 0; next != nullptr && looked < kOldest && !fences.passed(next->fence()); ++looked) {
    next = RetireQueue::next(next);
  }
  scratch_.clear();
  while (next != nullptr && scratch_.size() < most && fences.passed(next->fence()) && continues(scratch_, next)) {
    scratch_.push_back(next);
    next = RetireQueue::next(next);
  }
  return !scratch_.empty() && unmap(scratch_).ok() ? scratch_.size() : 0;
}

Status MappingTable::retire_all_of(PhyBlock* block) {
  GMLAKE_CHECK(block->home == nullptr);
  Status result;
  for (Mapping* mapping = block->mappings; mapping != nullptr;) {
    Mapping* next = mapping->next_of_block;
    if (!mapping->quarantined) {
      if (Status unmapped = unmap({&mapping, 1}); !unmapped.ok()) result = unmapped;
    } else {
      result = Error{ErrorCode::invalid_value, Step::unmap, mapping->segment->address_of(mapping->slot)};
    }
    mapping = next;
  }
  return result;
}

void MappingTable::shut_down() {
  while (PhyBlock* block = pool_.in_use().front()) leave_home(block, {});
  // Whole runs of mappings in one call each, and with no host memory; one by one where that is refused, so that one
  // that the driver will not unmap keeps no other. What it refuses then is left to it.
  for (const auto& segment : segments_) {
    for (std::uint32_t slot = 0; slot < segment->slots.size();) {
      const std::uint32_t begin = slot;
      while (const Mapping* mapping = segment->at(slot)) slot = end_slot(mapping);
      if (slot == begin) {
        ++slot;
        continue;
      }
      const bool all = unmap_slots(*segment, begin, slot).ok();
      for (std::uint32_t at = begin; at < slot;) {
        Mapping* mapping = segment->slots[at];
        at = end_slot(mapping);
        if (all || unmap_slots(*segment, mapping->slot, at).ok()) forget(mapping);
      }
    }
  }
  for (PhyBlock* block = pool_.spare().front(); block != nullptr;) {
    PhyBlock* next = PhyPool::BlockList::next(block);
    if (block->mappings == nullptr) (void)pool_.release(block).ok();
    block = next;
  }
  pool_.release_lost();
  for (const auto& segment : lost_segments_) {
    if (!driver_.address_free(segment->base, segment->bytes()).ok()) continue;
    add(reserved_bytes_, -segment->bytes());
    add(quarantined_bytes_, -segment->bytes());
  }
  lost_segments_.clear();
  for (std::size_t i = segments_.size(); i-- > 0;) {
    if (segments_[i]->mapped_slots == 0) (void)address_free(segments_[i].get()).ok();
  }
}

std::uint64_t MappingTable::metadata_bytes() const {
  std::uint64_t bytes = mappings_.bytes();
  for (const auto& segment : segments_) bytes += sizeof(VmmSegment) + segment->slots.capacity() * sizeof(void*);
  return bytes;
}

void MappingTable::check() const {
  std::uint64_t mappings = 0;
  std::uint64_t stale_granules = 0;
  std::uint64_t quarantined = 0;
  std::uint64_t reserved = 0;
  std::size_t queued = 0;
  for (const auto& segment : lost_segments_) {
    reserved += segment->bytes();
    quarantined += segment->bytes();
  }
  for (const auto& segment : segments_) {
    std::uint32_t mapped_slots = 0;
    reserved += segment->bytes();
    for (std::uint32_t slot = 0; slot < segment->slots.size();) {
      const Mapping* mapping = segment->slots[slot];
      if (mapping == nullptr) {
        ++slot;
        continue;
      }
      GMLAKE_CHECK_EQ(mapping->slot, slot);
      GMLAKE_CHECK(mapping->segment == segment.get());
      for (; slot < end_slot(mapping); ++slot) GMLAKE_CHECK(segment->slots[slot] == mapping);
      const Mapping* listed = mapping->block->mappings;
      while (listed != mapping && listed != nullptr) listed = listed->next_of_block;
      GMLAKE_CHECK(listed == mapping);
      ++mappings;
      mapped_slots += mapping->block->granules;
      if (mapping->quarantined) {
        GMLAKE_CHECK(mapping->stale());
        quarantined += std::uint64_t{mapping->block->granules} << granule_shift_;
      } else if (mapping->stale()) {
        stale_granules += mapping->block->granules;
        ++queued;
      }
    }
    GMLAKE_CHECK_EQ(mapped_slots, segment->mapped_slots);
  }
  GMLAKE_CHECK_EQ(mappings, mapping_count());
  GMLAKE_CHECK_EQ(mappings, mappings_.live_count());
  GMLAKE_CHECK_EQ(stale_granules, this->stale_granules());
  GMLAKE_CHECK_EQ(queued, stale_.size());
  GMLAKE_CHECK_EQ(quarantined, quarantined_bytes());
  GMLAKE_CHECK_EQ(reserved, reserved_address_bytes());
}

}  // namespace gmlake::memory
