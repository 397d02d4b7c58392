// The hot path of DeviceAllocator, inline: what a request that a cached run fits costs, and the free of a block that
// its own stream alone has used. One lock, no driver call, no heap call: about 300 instructions a pair, of which
// bench/hit.py keeps count.
#pragma once

#include <cstdint>
#include <optional>

#include "alloc/device_allocator.hpp"
#include "gmlake/bytes.hpp"

namespace gmlake::alloc {

[[gnu::always_inline]] inline Address DeviceAllocator::hand_out(stitch::Pool& pool, stitch::Block* run,
                                                                std::uint64_t bytes, std::uint64_t requested,
                                                                std::size_t runs_before) {
  stitch::Block* block = pool.take(run, bytes, requested);
  live_.insert_reserved(block);
  usage_.allocate(pool.size_class(), bytes, requested, runs_before, pool.settled_runs());
  if (history_.on()) [[unlikely]] {
    note_alloc(*block);
  }
  return block->address;
}

[[gnu::always_inline]] inline Address DeviceAllocator::allocate_cached(std::uint64_t bytes,
                                                                       std::uint64_t stream) noexcept {
  if (bytes - 1 >= total_bytes_ || driver_.lost() || routes_.any()) return 0;  // 0 bytes too
  const std::uint64_t rounded = round_up(bytes, stitch::kAlignment);
  const MutexLock lock(state_);
  const StreamState* state = last_stream_;
  if (state == nullptr || state->stream.handle != stream) {
    const auto found = stream_by_handle_.find({device_, stream});
    if (found == stream_by_handle_.end() || found->second->large == nullptr) return 0;
    state = last_stream_ = found->second;
  }
  stitch::Pool& pool = rounded <= stitch::kSmallLimit ? *state->small : *state->large;
  const std::size_t runs_before = pool.settled_runs();
  stitch::Block* run = pool.find(rounded);
  if (run == nullptr || !live_.has_room() || !blocks_.has_one()) return 0;
  return hand_out(pool, run, rounded, bytes, runs_before);
}

[[gnu::always_inline]] inline bool DeviceAllocator::deallocate_at_once(Address address,
                                                                       std::optional<std::uint64_t> stream) noexcept {
  const MutexLock lock(state_);
  stitch::AddressMap::Entry* entry = live_.locate(address);
  if (entry == nullptr || entry->block->used_elsewhere) return false;
  stitch::Block* block = entry->block;
  auto& own = *static_cast<StreamState*>(block->pool->owner);
  if (stream && own.stream.handle != *stream) return false;
  live_.erase(entry);
  if (history_.on()) [[unlikely]] {
    note_free(*block);
  }
  stitch::Pool& pool = *block->pool;
  const std::size_t runs_before = pool.settled_runs();
  const std::uint64_t requested = block->tick_or_requested;
  pool.give_back(block, ++own.tick);
  usage_.free(pool.size_class(), block->bytes, requested, runs_before, pool.settled_runs());
  return true;
}

}  // namespace gmlake::alloc
