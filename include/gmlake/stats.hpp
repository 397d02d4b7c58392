// The counters of one device. A plain value: a copy is a consistent picture, taken under the allocator's lock.
#pragma once

#include <cstdint>

namespace gmlake {

// A quantity that rises and falls, in bytes or counts.
struct Stat {
  std::uint64_t current = 0;
  std::uint64_t peak = 0;
  std::uint64_t allocated = 0;  // all that was ever added
  std::uint64_t freed = 0;      // and taken away

  void add(std::uint64_t amount) {
    current += amount;
    allocated += amount;
    if (current > peak) peak = current;
  }
  void remove(std::uint64_t amount) {
    current -= amount;
    freed += amount;
  }
};

struct DeviceStats {
  Stat allocated_bytes;  // live blocks, in multiples of 512 B
  Stat requested_bytes;  // the same, as their callers asked
  Stat active_bytes;     // live blocks, and freed ones that other streams still use
  Stat allocations;      // live blocks, as a count

  std::uint64_t reserved_bytes = 0;  // physical memory held, each byte once
  std::uint64_t peak_reserved_bytes = 0;
  std::uint64_t spare_bytes = 0;        // of it, at no address
  std::uint64_t lost_bytes = 0;         // of it, what the driver would not take back
  std::uint64_t address_bytes = 0;      // addresses reserved
  std::uint64_t quarantined_bytes = 0;  // of them, what the driver would not unmap
  std::uint64_t stale_bytes = 0;        // mappings kept for reuse
  std::uint64_t mappings = 0;           // all mappings that the driver has
  std::uint64_t phy_blocks_created = 0;
  std::uint64_t phy_blocks_released = 0;
  std::uint64_t mappings_retired = 0;
  std::uint64_t events_pending = 0;

  std::uint64_t stitches = 0;       // requests that changed mappings
  std::uint64_t moved_bytes = 0;    // PhyBlocks that changed their address for them
  std::uint64_t revived_bytes = 0;  // and those that went back to an old one, with no driver call
  std::uint64_t grown_bytes = 0;    // and those created

  // How requests that no cached run fitted were met: the rungs of the ladder, first to last.
  std::uint64_t rung_own_stream = 0;
  std::uint64_t rung_passed_streams = 0;
  std::uint64_t rung_stream_wait = 0;
  std::uint64_t rung_release_cached = 0;
  std::uint64_t rung_wait = 0;
  std::uint64_t ooms = 0;           // requests that ended in an out-of-memory error
  std::uint64_t invalid_frees = 0;  // deallocate() of what was no start of a live block
};

}  // namespace gmlake
