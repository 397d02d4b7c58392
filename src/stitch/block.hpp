// A VirBlock as the books see it: a contiguous run of bytes inside a VmmSegment, one of a list in address order that
// covers the segment without gaps. Split and merged at 512 B, by bookkeeping alone.
#pragma once

#include <cstdint>

#include "base/intrusive_list.hpp"
#include "memory/phy_block.hpp"

namespace gmlake::stitch {

using driver::Address;

// Every size and address handed out is a multiple of this, as with cudaMalloc.
inline constexpr std::uint64_t kAlignment = 512;
// Requests up to this size are small: they live in segments of their own, so that a few bytes never pin a large run.
inline constexpr std::uint64_t kSmallLimit = std::uint64_t{1} << 20;

enum class State : std::uint8_t {
  free,     // cached: every byte mapped, through homes, and no caller's
  live,     // a caller's
  pending,  // freed by its caller, still in use on other streams
  hole,     // no home under it: not mapped, or by stale mappings alone
  claimed,  // taken by the slow path, which is changing what lies under it
};

class Pool;

struct Block {
  Address address = 0;
  std::uint64_t bytes = 0;
  Block* prev = nullptr;  // neighbours in the segment, by address
  Block* next = nullptr;
  ListLinks<Block> links;  // free: in a bin of the free index; hole: in the pool's list of holes
  memory::VmmSegment* segment = nullptr;
  Pool* pool = nullptr;
  // free: the tick of its pool's stream at the last free of a part of it. live: the bytes that were asked for.
  std::uint64_t tick_or_requested = 0;
  State state = State::hole;
  bool used_elsewhere = false;  // live: record_stream named other streams; the allocator keeps which
  std::uint16_t bin = 0;        // free: of the free index, where it lies

  Address end() const { return address + bytes; }
};

}  // namespace gmlake::stitch
