// Which allocations PyTorch's own allocator makes: those of graphs and of MemPools, whose private pools it keeps. This
// holds copies of the filters that choose them. Any thread; a filter is called by the allocating thread, with the lock
// held that protects the list.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <shared_mutex>
#include <vector>

#include "versions.hpp"

namespace gmlake::torch_adapter {

class PoolFilters {
 public:
  void begin(c10::DeviceIndex device, c10::MempoolId_t id, std::function<bool(cudaStream_t)> filter) {
    const std::unique_lock lock(mutex_);
    filters_.push_back({device, id, std::move(filter)});
    count_.store(filters_.size(), std::memory_order_release);
  }
  void end(c10::DeviceIndex device, c10::MempoolId_t id) {
    const std::unique_lock lock(mutex_);
    for (auto each = filters_.begin(); each != filters_.end(); ++each) {
      if (each->device != device || each->id != id) continue;
      filters_.erase(each);
      break;
    }
    count_.store(filters_.size(), std::memory_order_release);
  }

  // One load where no pool is open: on the path of every allocation.
  bool any() const { return count_.load(std::memory_order_acquire) != 0; }
  bool choose(c10::DeviceIndex device, cudaStream_t stream) const {
    const std::shared_lock lock(mutex_);
    for (const Filter& each : filters_) {
      if (each.device == device && each.choose(stream)) return true;
    }
    return false;
  }

 private:
  struct Filter {
    c10::DeviceIndex device;
    c10::MempoolId_t id;
    std::function<bool(cudaStream_t)> choose;
  };

  mutable std::shared_mutex mutex_;
  std::vector<Filter> filters_;
  std::atomic<std::size_t> count_ = 0;
};

}  // namespace gmlake::torch_adapter
