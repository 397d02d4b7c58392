// What DeviceAllocator does between requests: one small piece a step, in the background worker's thread or by hand.
//
// A step gives blocks back that other streams have come to the end of, then retires a few stale mappings. It takes
// `grow` for one driver call at most and stands back while requests are on the slow path, so that one that comes waits
// for that call and no longer. `state` is held across no driver call. No step records an event, which is the business
// of those who know that the stream still exists; asking for events is left to Fences, which knows about captures.
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
    const MutexLock grow(grow_);
    const std::uint64_t wanted = retire_ahead_.wanted(mappings_to_retire());
    const std::uint64_t retired = wanted == 0 ? 0 : mappings_.retire_oldest(fences_, wanted);
    retire_ahead_.retired(retired);
    add(background_retired_, retired);
    if (retired + returned > 0) return Next::again;
    waiting = waiting || wanted > 0;
    return waiting && fences_.events_pending() > 0 ? Next::later : Next::idle;
  } catch (const std::bad_alloc&) {  // of the host: nothing is lost but time
    return Next::idle;
  }
}

RetireAhead::Mappings DeviceAllocator::mappings_to_retire() const {
  return {.by_requests = mappings_.retired_count() - background_retired_.load(std::memory_order_relaxed),
          .stale_granules = mappings_.stale_granules(),
          .stale_granules_bound = stale_granules_bound(),
          .count = mappings_.mapping_count(),
          .count_bound = options_.max_mappings};
}

// By counters alone, so that the end of a request costs no lock: it may be a little old.
DeviceAllocator::SlowRequest::SlowRequest(DeviceAllocator& device)
    : device_(device), retired_before_(device.mappings_.retired_count()) {
  ++device_.slow_requests_;
}

DeviceAllocator::SlowRequest::~SlowRequest() {
  --device_.slow_requests_;
  const RetireAhead::Mappings mappings = device_.mappings_to_retire();
  if (device_.mappings_.retired_count() != retired_before_ || RetireAhead::near_a_bound(mappings)) {
    device_.worker_.wake();
  }
}

}  // namespace gmlake::alloc
