// PhyBlock, Mapping and VmmSegment: physical memory, an address range, and what joins them. Plain records; the classes
// beside this file own them and change them, under the lock of the device's slow path (`grow`).
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

#include "base/intrusive_list.hpp"
#include "driver/driver.hpp"

namespace gmlake::memory {

struct Mapping;
struct VmmSegment;

// A stream of one device, numbered by Fences in the order in which streams were first seen.
using StreamIndex = std::uint32_t;

// A point on a stream: everything enqueued there before the stream's `tick`-th free. Passed when that is complete.
struct Fence {
  StreamIndex stream = 0;
  std::uint64_t tick = 0;
};

// One physical allocation, one driver handle, in one place. It is never split: the handle is the unit of stitching.
struct PhyBlock {
  driver::Handle handle = driver::Handle::none;
  std::uint32_t granules = 0;
  bool planned = false;  // scratch of the planner: the plan being made uses it
  // The mapping through which it is used. Null while it is spare (held, but at no address of its own).
  Mapping* home = nullptr;
  // Every mapping of it that the driver still has: the home and stale ones.
  Mapping* mappings = nullptr;
  ListLinks<PhyBlock> links;  // in the pool's list of blocks with a home, or of spare ones
};

// A PhyBlock at an address. It is the block's home, or stale: never handed out, unmapped later.
struct Mapping {
  PhyBlock* block = nullptr;
  VmmSegment* segment = nullptr;
  std::uint32_t slot : 31 = 0;        // the first granule of the segment that it covers
  std::uint32_t quarantined : 1 = 0;  // the driver refused to unmap it: its addresses are lost until shutdown
  StreamIndex stream = 0;             // of a stale one, with the tick: the fence behind which it may be unmapped
  std::uint64_t tick = 0;
  Mapping* next_of_block = nullptr;
  ListLinks<Mapping> links;  // a stale one: in the retire queue, oldest first

  bool stale() const { return block->home != this; }
  Fence fence() const { return {stream, tick}; }
};

// One reserved address range. Each slot, one granule long, is mapped to a PhyBlock or is empty.
struct VmmSegment {
  driver::Address base = 0;
  std::uint32_t granule_shift = 0;
  std::uint32_t slot_count = 0;  // reserved
  std::uint32_t mapped_slots = 0;
  std::uint32_t index = 0;      // among the segments of its pool
  void* owner = nullptr;        // the pool (stitch::Pool) whose VirBlocks lie here
  std::vector<Mapping*> slots;  // up to the highest slot ever mapped; the rest is empty

  std::uint64_t granule() const { return std::uint64_t{1} << granule_shift; }
  std::uint64_t bytes() const { return std::uint64_t{slot_count} << granule_shift; }
  driver::Address end() const { return base + bytes(); }
  driver::Address address_of(std::uint64_t slot) const { return base + (slot << granule_shift); }
  // The slot that holds `address`, and the first slot that begins at or after it.
  std::uint32_t slot_of(driver::Address address) const {
    return static_cast<std::uint32_t>((address - base) >> granule_shift);
  }
  std::uint32_t slot_at_or_after(driver::Address address) const {
    return static_cast<std::uint32_t>((address - base + granule() - 1) >> granule_shift);
  }
  Mapping* at(std::uint32_t slot) const { return slot < slots.size() ? slots[slot] : nullptr; }
  // The first slot from `slot` on that something is mapped at; `stop` where there is none before that.
  std::uint32_t mapped_from(std::uint32_t slot, std::uint32_t stop) const {
    const auto known = static_cast<std::uint32_t>(std::min<std::size_t>(stop, slots.size()));
    const auto bits = [at = slots.data()](std::uint32_t i) { return std::bit_cast<std::uintptr_t>(at[i]); };
    // Long stretches are empty: four at a time.
    while (slot + 4 <= known && (bits(slot) | bits(slot + 1) | bits(slot + 2) | bits(slot + 3)) == 0) slot += 4;
    while (slot < known && bits(slot) == 0) ++slot;
    return slot < known ? slot : stop;
  }
};

}  // namespace gmlake::memory
