// The hot path of DeviceAllocator, inline: what a request that a cached run fits costs, and the free of a block that
// its own stream alone has used. One lock, of the stream's shard, which hits on other shards do not want; no driver
// call, no heap call: about 300 instructions a pair, of which bench/hit.py keeps count.
//
// Which shard that is says a table that is read without a lock. It may be out of date; so what it names is looked at
// again under the lock, and where it is not what was meant, nothing is done and the other way finds out.
#pragma once

#include <cstdint>
#include <optional>

#include "alloc/device_allocator.hpp"
#include "gmlake/bytes.hpp"

namespace gmlake::alloc {

[[gnu::always_inline]] inline Address DeviceAllocator::hand_out(Shard& shard, stitch::Pool& pool, stitch::Block* run,
                                                                std::uint64_t bytes, std::uint64_t requested,
                                                                std::size_t runs_before) {
  stitch::Block* block = pool.take(run, bytes, requested);
  shard.live.insert_reserved(block);
  shard.usage.allocate(pool.size_class(), bytes, requested, runs_before, pool.settled_runs());
  if (history_.on()) [[unlikely]] {
    note_alloc(*block);
  }
  return block->address;
}

[[gnu::always_inline]] inline Address DeviceAllocator::allocate_cached(std::uint64_t bytes,
                                                                       std::uint64_t stream) noexcept {
  if (bytes - 1 >= total_bytes_ || driver_.lost() || routes_.any()) return 0;  // 0 bytes too
  const std::uint64_t rounded = round_up(bytes, stitch::kAlignment);
  const StreamState* state = stream_hints_.find(stream);
  if (state == nullptr) return 0;
  Shard& shard = *state->shard;
  const MutexLock lock(shard.mutex);
  stitch::Pool* const pool_here = rounded <= stitch::kSmallLimit ? state->small.get() : state->large.get();
  if (state->stream.handle != stream || pool_here == nullptr) return 0;
  stitch::Pool& pool = *pool_here;
  const std::size_t runs_before = pool.settled_runs();
  stitch::Block* run = pool.find(rounded);
  if (run == nullptr || !shard.live.has_room() || !shard.blocks.has_one()) return 0;
  const Address address = hand_out(shard, pool, run, rounded, bytes, runs_before);
  if (shard.usage.is_short()) [[unlikely]] {
    find_room(shard);
  }
  return address;
}

[[gnu::always_inline]] inline bool DeviceAllocator::deallocate_at_once(Address address,
                                                                       std::optional<std::uint64_t> stream) noexcept {
  Shard* shard = nullptr;
  if (stream) {
    const StreamState* state = stream_hints_.find(*stream);
    if (state == nullptr) return false;
    shard = state->shard;  // the block's, or it waits for that stream, and the other way is for it
  } else {
    shard = address_hints_.find(address);
    if (shard == nullptr) return false;
  }
  const MutexLock lock(shard->mutex);
  const stitch::AddressMap::Place place = shard->live.locate(address);
  stitch::Block* const block = place.block;
  if (block == nullptr || block->used_elsewhere) return false;
  auto& own = *static_cast<StreamState*>(block->pool->owner);
  if (stream && own.stream.handle != *stream) return false;
  shard->live.erase(place);
  if (history_.on()) [[unlikely]] {
    note_free(*block);
  }
  stitch::Pool& pool = *block->pool;
  const std::size_t runs_before = pool.settled_runs();
  const std::uint64_t requested = block->tick_or_requested;
  pool.give_back(block, ++own.tick);
  shard->usage.free(pool.size_class(), block->bytes, requested, runs_before, pool.settled_runs());
  if (shard->usage.is_short()) [[unlikely]] {
    find_room(*shard);
  }
  return true;
}

}  // namespace gmlake::alloc
