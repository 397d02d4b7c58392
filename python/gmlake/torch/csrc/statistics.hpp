// PyTorch's statistics of a device: gmlake's and those of PyTorch's own allocator, which keeps the pools of graphs,
// together. A peak is the sum of the two peaks: exact as long as only one of the two has moved, and never too low. More
// would take gmlake's peaks to be reset at each change of native's, and gmlake goes by them to decide how much to hold.
#pragma once

#include <map>
#include <mutex>

#include "gmlake/stats.hpp"
#include "versions.hpp"

namespace gmlake::torch_adapter {

class Statistics {
 public:
  // What PyTorch is told. `other` are the statistics of its own allocator.
  TorchStats combine(c10::DeviceIndex device, const DeviceStats& stats, TorchStats other) const;

  // From now on sums and counts of `device` begin at zero: those up to `stats` are not reported.
  void reset_accumulated(c10::DeviceIndex device, const DeviceStats& stats);

  // Requests that failed for want of memory, and that the allocator inside did not count (refused unseen: positive) or
  // should not have (met at the second attempt: negative).
  void correct_ooms(c10::DeviceIndex device, std::int64_t by);

 private:
  struct Device {
    DeviceStats before;
    std::int64_t ooms = 0;
  };

  mutable std::mutex mutex_;
  std::map<c10::DeviceIndex, Device> devices_;
};

}  // namespace gmlake::torch_adapter
