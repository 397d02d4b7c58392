// The counters of one device. A plain value: a copy is a consistent picture, taken under the allocator's lock.
//
// What PyTorch counts too has PyTorch's name and meaning (torch.cuda.memory_stats), so that tools made for it can read
// it; docs/statistics.md says of each counter what it is, and where stitching makes a difference.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace gmlake {

// A quantity that rises and falls, in bytes or counts.
struct Stat {
  std::uint64_t current = 0;
  std::uint64_t peak = 0;       // since the start, or since reset_peaks()
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

// Of the requests of one size class, or of all. Bytes are those of blocks, multiples of 512, but for the requested.
struct PoolStats {
  Stat allocation;      // live blocks
  Stat segment;         // address ranges that blocks lie in
  Stat active;          // live blocks, and freed ones that other streams still use
  Stat inactive_split;  // cached runs
  Stat allocated_bytes;
  Stat reserved_bytes;  // physical memory, each byte once. Of a class: what lies in its segments for use
  Stat active_bytes;
  Stat inactive_split_bytes;
  Stat requested_bytes;  // of live blocks, as their callers asked
};

struct DeviceStats {
  PoolStats all;
  PoolStats small_pool;  // requests of up to 1 MiB
  PoolStats large_pool;

  std::uint64_t num_alloc_retries = 0;     // times that cached memory went back to the driver to try a request again
  std::uint64_t num_ooms = 0;              // requests that ended in an out-of-memory error
  std::uint64_t num_sync_all_streams = 0;  // times that the host waited for every stream
  std::uint64_t num_device_alloc = 0;      // calls that map memory
  std::uint64_t num_device_free = 0;       // calls that unmap it
  Stat oversize_allocations;               // of PyTorch's max_split_size alone, which is unlimited here: always 0
  Stat oversize_segments;
  std::int64_t max_split_size = -1;  // unlimited

  std::uint64_t spare_bytes = 0;        // physical memory held and at no address
  std::uint64_t lost_bytes = 0;         // physical memory that the driver would not take back
  std::uint64_t address_bytes = 0;      // addresses reserved
  std::uint64_t quarantined_bytes = 0;  // of them, what the driver would not unmap
  std::uint64_t stale_bytes = 0;        // mappings kept for reuse
  std::uint64_t mappings = 0;           // all mappings that the driver has
  std::uint64_t phy_blocks_created = 0;
  std::uint64_t phy_blocks_released = 0;
  std::uint64_t mappings_retired = 0;
  std::uint64_t background_retired = 0;   // of them, by the background worker, ahead of requests
  std::uint64_t background_returned = 0;  // blocks that it gave back once other streams had come to the end of them
  std::uint64_t events_pending = 0;
  std::uint64_t driver_calls = 0;  // that deal with addresses, memory, mappings or events; failed ones too
  std::uint64_t driver_ns = 0;     // nanoseconds spent in them, by the driver's clock

  std::uint64_t stitches = 0;          // requests that changed mappings
  std::uint64_t moved_bytes = 0;       // PhyBlocks that changed their address for them
  std::uint64_t revived_mappings = 0;  // old mappings that were taken up again, with no driver call,
  std::uint64_t revived_bytes = 0;     // and their bytes
  std::uint64_t grown_bytes = 0;       // PhyBlocks created for them
  std::uint64_t borrowed_blocks = 0;   // requests met out of a free run of another stream, where it lies

  // How requests that no cached run fitted were met: the rungs of the ladder, first to last.
  std::uint64_t rung_own_stream = 0;
  std::uint64_t rung_passed_streams = 0;
  std::uint64_t rung_stream_wait = 0;
  std::uint64_t rung_release_cached = 0;
  std::uint64_t rung_wait = 0;
  std::uint64_t rung_callbacks = 0;

  // Blocks that were placed, or spilled: no part of all the above. What they hold, by where it lies.
  std::uint64_t placed_blocks = 0;
  std::uint64_t placed_device_bytes = 0;  // on the block's own device
  std::uint64_t placed_peer_bytes = 0;    // on other GPUs
  std::uint64_t placed_host_bytes = 0;
  std::uint64_t imported_bytes = 0;     // of other processes
  std::uint64_t placed_lost_bytes = 0;  // of these, what a driver would not take back
  std::uint64_t spills = 0;             // requests met so

  std::uint64_t collections = 0;      // times that garbage_collection_threshold gave cached memory back,
  std::uint64_t collected_bytes = 0;  // and how much
  std::uint64_t invalid_frees = 0;    // deallocate() of what was no start of a live block
};

// What a device costs beside the memory that is live, counted when it is asked for.
struct Overhead {
  // Of the cached bytes (inactive_split_bytes), those in PhyBlocks that hold live memory too, or memory that other
  // streams still use: they can be handed out as they are, but neither move to another address nor go to the driver.
  std::uint64_t pinned_bytes = 0;
  // Memory of the host: for the records of VirBlocks, live and cached, and for finding them; and for those of
  // PhyBlocks, mappings and address ranges. What once was needed is kept.
  std::uint64_t block_metadata_bytes = 0;
  std::uint64_t block_records = 0;  // of VirBlocks: live, cached and holes between them
  std::uint64_t phy_metadata_bytes = 0;
};

// One counter under its name: PyTorch's key ("allocated_bytes.all.current", "num_ooms"), or for what PyTorch does not
// count "gmlake." and the field's name. Names live as long as the process.
struct NamedStat {
  std::string_view name;
  std::int64_t value = 0;
};

// Every counter, PyTorch's keys first. Throws std::bad_alloc.
std::vector<NamedStat> named_stats(const DeviceStats& stats);

}  // namespace gmlake
