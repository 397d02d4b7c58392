// Private pools: memory that stays at its addresses, for CUDA graphs, whose kernels keep the addresses that they were
// captured with, and for whoever wants allocations kept apart.
//
// A private pool is in use while it has references. It holds pinned stitch::Pools, two for each stream that allocates
// in it: free memory of others may be moved in, behind passed fences, but nothing moves out. With its last reference
// its addresses lose their meaning. A graph may have been launched on any stream, so what is free in the pool waits for
// all of them; then its segments, with what is live in them, join the cache of their streams.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/mutex.hpp"
#include "gmlake/result.hpp"
#include "gmlake/streams.hpp"
#include "memory/fences.hpp"
#include "stitch/pool.hpp"

namespace gmlake::alloc {

// Which allocations go to which pool. Thread-safe by a lock of its own, under which filters are called.
class PoolRoutes {
 public:
  // From now on allocations that the filter chooses go to `id`; of several filters the one that came last is asked
  // first. Errors: invalid_value (that pool has a filter already). Throws std::bad_alloc with nothing changed.
  Status begin(PoolId id, StreamFilter filter);
  Status end(PoolId id);  // Errors: invalid_value (it has no filter)
  std::optional<PoolId> find(StreamHandle stream) const;

  // For the hot path: whether there is any filter. What one thread begins, it sees; others see it a little later unless
  // they are told.
  bool any() const { return any_.load(std::memory_order_relaxed); }

 private:
  struct Route {
    PoolId id;
    StreamFilter filter;
  };

  mutable Mutex mutex_;
  std::vector<Route> routes_ GMLAKE_GUARDED_BY(mutex_);  // in the order of begin()
  std::atomic<bool> any_ = false;
};

// The small and the large pool of one stream.
struct PoolPair {
  std::unique_ptr<stitch::Pool> small;
  std::unique_ptr<stitch::Pool> large;

  PoolPair() = default;
  PoolPair(memory::StreamIndex stream, stitch::Pool::BlockSlab& blocks, bool pinned);
  stitch::Pool& of(std::uint64_t bytes) const { return bytes <= stitch::kSmallLimit ? *small : *large; }
};

// The books of one device's private pools. The device's `state` lock covers them; whoever changes which pools there are
// for a stream holds `grow` too.
class PrivatePools {
 public:
  struct PrivatePool {
    PoolId id;
    std::uint64_t references = 0;
    std::unordered_map<memory::StreamIndex, PoolPair> by_stream = {};
    std::vector<memory::Fence> fences = {};  // once it has no references: when its memory may leave it
  };

  // One more reference; makes the pool with the first. Throws std::bad_alloc with nothing changed.
  void retain(PoolId id);
  std::uint64_t references(PoolId id) const;
  PrivatePool* find(PoolId id);
  void erase(PoolId id) { pools_.erase(id); }  // one that holds nothing
  // Takes out a pool that has lost its last reference, and keeps it until its fences have passed. Throws std::bad_alloc
  // with nothing changed.
  void retire(PoolId id, std::vector<memory::Fence> fences);
  // A retired pool whose fences have passed; null where there is none. Gone with drop().
  PrivatePool* first_passed(const memory::Fences& fences);
  void drop(const PrivatePool* retired);
  bool any_retired() const { return !retired_.empty(); }

  bool has_pools_of(memory::StreamIndex stream) const;

  // Calls visit(const PrivatePool&, stitch::Pool&) for every pool, retired ones included.
  template <class Visit>
  void for_each(Visit&& visit) const {
    const auto visit_all = [&visit](const PrivatePool& pool) {
      for (const auto& [stream, pair] : pool.by_stream) {
        visit(pool, *pair.small);
        visit(pool, *pair.large);
      }
    };
    for (const auto& [id, pool] : pools_) visit_all(pool);
    for (const PrivatePool& pool : retired_) visit_all(pool);
  }

 private:
  std::map<PoolId, PrivatePool> pools_;
  std::vector<PrivatePool> retired_;
};

}  // namespace gmlake::alloc
