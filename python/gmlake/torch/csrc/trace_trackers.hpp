// Who follows PyTorch's segments through its allocator trace, as libraries do that register memory with a network card.
// Native tells them of its own memory; this, of gmlake's: as for expandable segments, SEGMENT_MAP once memory can be
// used at an address and SEGMENT_UNMAP before it goes. It is never SEGMENT_ALLOC, upon which ProcessGroupNCCL registers
// a segment for as long as it is there: memory that is stitched does not stay at its address for that long.
//
// Called on the thread that changes a mapping, with the device's lock held, as native does: a tracker may not allocate.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <shared_mutex>
#include <utility>
#include <vector>

#include "gmlake/mappings.hpp"
#include "versions.hpp"

namespace gmlake::torch_adapter {

class TraceTrackers {
 public:
  void attach(native::AllocatorTraceTracker tracker) {
    const std::unique_lock lock(mutex_);
    trackers_.push_back(std::move(tracker));
    any_.store(true, std::memory_order_release);
  }

  void tell(const MappingChange& change) const {
    if (!any_.load(std::memory_order_acquire)) return;
    const TorchEvent event =
        torch_event(change.kind == MappingChange::Kind::mapped ? TorchEvent::SEGMENT_MAP : TorchEvent::SEGMENT_UNMAP,
                    static_cast<c10::DeviceIndex>(change.device), change.address, change.bytes, change.stream);
    const std::shared_lock lock(mutex_);
    for (const native::AllocatorTraceTracker& tracker : trackers_) tracker(event);
  }

 private:
  mutable std::shared_mutex mutex_;
  std::vector<native::AllocatorTraceTracker> trackers_;
  std::atomic<bool> any_ = false;
};

}  // namespace gmlake::torch_adapter
