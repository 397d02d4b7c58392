// What an allocator holds at one moment: every segment, what lies in it, and every PhyBlock with where it is mapped.
// Plain values; taking one stops the allocator's books for its length.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "gmlake/stats.hpp"
#include "gmlake/streams.hpp"

namespace gmlake {

struct PhyBlockInfo {
  std::uint64_t bytes = 0;
  int device = 0;                    // -1: it lies on the host,
  int numa_node = -1;                // in this node
  std::uint64_t home = 0;            // the address through which it is used; 0: none, it is spare
  std::vector<std::uint64_t> stale;  // other addresses that still show it
};

struct BlockInfo {
  enum class State : std::uint8_t { free, live, pending, hole, claimed };
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;
  std::uint64_t requested_bytes = 0;  // of a live one
  State state = State::free;
  std::uint64_t stream = 0;  // handle: that a live one was allocated for; else the segment's
};

struct SegmentInfo {
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;         // reserved addresses
  std::uint64_t mapped_bytes = 0;  // by homes and stale mappings
  std::uint64_t stream = 0;        // handle: whose cache it is
  bool small = false;              // for requests of up to 1 MiB
  PoolId pool;                     // the private pool that it belongs to, if any
  std::vector<BlockInfo> blocks;   // by address, without gaps
};

// A stretch of a segment that has memory under it throughout: what PyTorch calls a segment.
struct SegmentRun {
  std::span<const BlockInfo> blocks;  // never empty
  std::uint64_t bytes = 0;
  std::uint64_t allocated_bytes = 0;  // live
  std::uint64_t active_bytes = 0;     // and freed, but used by other streams still
  std::uint64_t requested_bytes = 0;

  std::uint64_t address() const { return blocks.front().address; }
};

// what(SegmentRun) for each stretch between holes, by address.
template <class What>
void for_each_run(const SegmentInfo& segment, What&& what) {
  const std::span<const BlockInfo> all(segment.blocks);
  SegmentRun run;
  for (std::size_t begin = 0, i = 0; i <= all.size(); ++i) {
    if (i == all.size() || all[i].state == BlockInfo::State::hole) {
      run.blocks = all.subspan(begin, i - begin);
      if (!run.blocks.empty()) what(run);
      run = {};
      begin = i + 1;
      continue;
    }
    const bool live = all[i].state == BlockInfo::State::live;
    run.bytes += all[i].bytes;
    run.allocated_bytes += live ? all[i].bytes : 0;
    run.active_bytes += live || all[i].state == BlockInfo::State::pending ? all[i].bytes : 0;
    run.requested_bytes += live ? all[i].requested_bytes : 0;
  }
}

struct DeviceSnapshot {
  int device = 0;
  std::uint64_t history_end = 0;  // number of the next event of its history: the rest is as of then
  DeviceStats stats;
  std::vector<SegmentInfo> segments;
  std::vector<PhyBlockInfo> phy_blocks;
};

struct Snapshot {
  std::vector<DeviceSnapshot> devices;  // those that were used
};

}  // namespace gmlake
