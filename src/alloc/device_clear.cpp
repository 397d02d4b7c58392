// What DeviceAllocator clears: with the option zero_on_free, a freed block is filled with zeros before anyone else gets
// its memory.
//
// The zeros are enqueued on the stream of the block's pool once no other stream uses the block any more. Then it is
// back in its pool, freed at a tick that comes after them: whoever gets it, on that stream or behind a fence of it,
// finds them. So a block that is borrowed (device_borrow.cpp) would have to wait for both streams, and none is lent.
//
// What cannot be cleared now stays out of use, and is tried again at the next free or slow request: a block of the
// common cache while its stream is captured, where the zeros would go into a graph, and be written again at every
// launch; and one whose stream is forgotten, until another stream inherits its pool. A private pool's memory is a
// graph's own, and so are the zeros. The background worker clears nothing: it enqueues on no stream that a handle
// names.
#include <algorithm>

#include "alloc/device_allocator.hpp"

namespace gmlake::alloc {

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
  for (; left > 0; --left) any |= clear_next();
  return any;
}

// The block is in no list while it is cleared, and its stream not given to another: forget_stream() may come meanwhile,
// and after it a new owner of the pool, for whose stream the block is cleared again.
bool DeviceAllocator::clear_next() {
  Deferred* deferred = nullptr;
  const Pool* pool = nullptr;
  memory::StreamIndex stream = 0;
  {
    const MutexLock lock(state_);
    deferred = uncleared_.front();
    if (deferred == nullptr) return false;
    uncleared_.erase(deferred);
    pool = deferred->block->pool;
    stream = pool->stream();
    ++streams_[stream]->clearing;
  }
  const Block& block = *deferred->block;
  const Status cleared =
      driver_.lost() ? Status()
                     : fences_.clear(stream, block.address, block.bytes, pool->pinned());  // lost: nobody gets it
  const MutexLock lock(state_);
  --streams_[stream]->clearing;
  if (!cleared.ok() || block.pool != pool || pool->stream() != stream) {
    uncleared_.push_back(deferred);
    return false;
  }
  complete(*deferred, ++streams_[stream]->tick);
  deferred_.put(deferred);
  return true;
}

}  // namespace gmlake::alloc
