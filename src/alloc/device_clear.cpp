// What DeviceAllocator clears: with the option zero_on_free, memory that was freed is filled with zeros before anyone
// else gets it.
//
// The zeros are enqueued on the stream of the block's pool once no other stream uses the block any more. Then it is
// back in its pool, freed at a tick that comes after them: whoever gets it, on that stream or behind a fence of it,
// finds them. A borrowed block (device_borrow.cpp) would have to wait for both streams, so none is lent. What is free
// in a private pool is its graphs' own, which may be running on any stream: it is cleared when the pool is released and
// its memory goes to others.
//
// What cannot be cleared now stays out of use and is tried again at the next free or slow request: while its stream is
// captured, where the zeros would go into a graph, and be written again at every launch; and once its stream is
// forgotten, until another stream inherits the pool, as one does when memory is trimmed. The background worker clears
// nothing: it enqueues on no stream that a handle names.
#include <algorithm>

#include "alloc/device_allocator.hpp"
#include "alloc/hot_path.hpp"

namespace gmlake::alloc {

using memory::Fences;
using stitch::Block;
using stitch::Pool;

bool DeviceAllocator::clear_freed(std::size_t most) {
  if (!options_.zero_on_free) return false;
  std::size_t left = 0;
  {
    const MutexLock lock(state_);
    left = std::min(most, uncleared_.size());
  }
  bool any = false;
  memory::StreamIndex refused = stitch::kNoStream;
  for (; left > 0; --left) any |= clear_next(refused);
  if (any) (void)fences_.poll().ok();  // frees that hit ask about no fence, and each of these has one
  return any;
}

// The block is in no list while it is cleared, and its stream neither closed nor given to another. Should the pool be
// inherited meanwhile, the block is cleared again, on the heir's stream. `refused`: a stream that just was.
bool DeviceAllocator::clear_next(memory::StreamIndex& refused) {
  Deferred* deferred = nullptr;
  const Pool* pool = nullptr;
  Address address = 0;
  std::uint64_t bytes = 0;
  StreamState* stream = nullptr;
  {
    const MutexLock lock(state_);
    deferred = uncleared_.front();
    if (deferred == nullptr) return false;
    uncleared_.erase(deferred);
    const Block& block = *deferred->block;
    pool = block.pool;
    address = block.address;
    bytes = block.bytes;
    stream = streams_[pool->stream()].get();
    if (stream->closing || stream->index == refused) {
      uncleared_.push_back(deferred);
      return false;
    }
    ++stream->clearing;
  }
  Result<Fences::Cleared> cleared = Fences::Cleared::in_order;  // a lost device gives it to nobody
  if (!driver_.lost()) cleared = fences_.clear(stream->index, address, bytes);
  memory::Fence fence;
  {
    const MutexLock lock(state_);
    --stream->clearing;
    if (cleared && *cleared == Fences::Cleared::in_a_graph) {
      ++spoiled_;  // each launch may write zeros there: it is nobody's any more
      return false;
    }
    if (!cleared || deferred->block->pool != pool || pool->stream() != stream->index) {
      if (!cleared) refused = stream->index;
      uncleared_.push_back(deferred);
      return false;
    }
    fence = {stream->index, ++stream->tick};
    complete(*deferred, fence.tick);
    deferred_.put(deferred);
  }
  (void)fences_.mark(fence.stream, fence.tick).ok();  // so that the end of the allocator can wait for the zeros
  return true;
}

// The free runs of a private pool that goes to others wait to be cleared, as blocks do that somebody freed.
void DeviceAllocator::withdraw_free(Pool& pool) {
  std::vector<Block*> runs;
  pool.for_each_free(stitch::kAlignment, [&runs](Block* run) { runs.push_back(run); });
  deferred_.reserve(runs.size());
  for (Block* run : runs) {
    const std::size_t runs_before = pool.settled_runs();
    Block* const block = pool.take(run, run->bytes, run->bytes);
    usage_.withdraw(pool.size_class(), block->bytes, runs_before, pool.settled_runs());
    block->state = stitch::State::pending;
    Deferred* const deferred = deferred_.take();
    *deferred = {block, 0, pool.stream(), 0, false};
    uncleared_.push_back(deferred);
  }
}

}  // namespace gmlake::alloc
