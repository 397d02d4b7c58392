// What DeviceAllocator does between requests: one small piece a step, in the background worker's thread or by hand.
//
// A step gives blocks back that other streams have come to the end of, then retires a few stale mappings where they
// come near a bound. It takes `grow` for one retirement, or to forget one stream, at a time and stands back while
// requests are on the slow path, so that one that comes waits for that and no longer. `state` is held across no driver
// call. No step records an event on a stream that a handle names, which is the business of those who know that it still
// exists; asking for events is left to Fences, which knows about captures. The per-thread default streams of threads
// that have ended are forgotten here too, for those who free on such streams and never lack memory: behind an event on
// the legacy stream, as decision 0009 says.
#include <new>

#include "alloc/background_policy.hpp"
#include "alloc/device_allocator.hpp"
#include "base/counter.hpp"
#include "base/process.hpp"

namespace gmlake::alloc {

using Next = BackgroundWorker::Next;

Next DeviceAllocator::background_step() noexcept {
  if (driver_.lost() || process::exiting()) return Next::idle;
  try {
    const std::uint64_t returned = reclaim_deferred();
    bool waiting = false;
    {
      const MutexLock lock(state_);
      counts_.background_returned += returned;
      waiting = !awaited_.empty();
    }
    if (slow_requests_.load() != 0) return Next::later;
    forget_ended_threads(Caller::worker);
    const MutexLock grow(grow_);
    const bool wanted = near_a_bound(stale_mappings());
    const std::uint64_t retired = wanted ? mappings_.retire_oldest(fences_, kRetiredAtOnce) : 0;
    add(background_retired_, retired);
    if (retired + returned > 0) return Next::again;
    waiting = waiting || wanted;
    return waiting && fences_.events_pending() > 0 ? Next::later : Next::idle;
  } catch (const std::bad_alloc&) {  // of the host: nothing is lost but time
    return Next::idle;
  }
}

// By counters alone, so that the end of a request costs no lock: it may be a little old.
StaleMappings DeviceAllocator::stale_mappings() const {
  return {.granules = mappings_.stale_granules(),
          .granules_bound = stale_granules_bound(),
          .count = mappings_.mapping_count(),
          .count_bound = options_.max_mappings};
}

DeviceAllocator::SlowRequest::SlowRequest(DeviceAllocator& device) : device_(device) { ++device_.slow_requests_; }

DeviceAllocator::SlowRequest::~SlowRequest() {
  --device_.slow_requests_;
  if (near_a_bound(device_.stale_mappings())) device_.worker_.wake();
}

}  // namespace gmlake::alloc
