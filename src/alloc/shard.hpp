// A share of a device's VirBlock books: all that a hit on one of its streams reads and writes, on cache lines of its
// own. Streams are dealt out to the shards by their numbers; a block belongs to the shard of its pool's stream.
//
// The shard's lock is one of those that make up the device's `state`, and covers, besides what is here, the pools and
// the clock of its streams. Whoever holds all of `state` says so with assert_held() before it looks in.
#pragma once

#include <cstddef>

#include "alloc/usage.hpp"
#include "base/sharded_mutex.hpp"
#include "stitch/address_map.hpp"
#include "stitch/pool.hpp"

namespace gmlake::alloc {

struct alignas(kCacheLine) Shard {
  explicit Shard(std::size_t index) : number(index) {}

  void assert_held() const GMLAKE_ASSERT_CAPABILITY(mutex) {}

  Mutex mutex;
  const std::size_t number;
  stitch::AddressMap live GMLAKE_GUARDED_BY(mutex);         // its live blocks
  stitch::Pool::BlockSlab blocks GMLAKE_GUARDED_BY(mutex);  // of its pools
  Usage::Share usage GMLAKE_GUARDED_BY(mutex);
};

}  // namespace gmlake::alloc
