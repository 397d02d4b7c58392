#include "statistics.hpp"

namespace gmlake::torch_adapter {
namespace {

void add(c10::CachingAllocator::Stat& to, const Stat& now, const Stat& before) {
  to.current += static_cast<std::int64_t>(now.current);
  to.peak += static_cast<std::int64_t>(now.peak);
  to.allocated += static_cast<std::int64_t>(now.allocated - before.allocated);
  to.freed += static_cast<std::int64_t>(now.freed - before.freed);
}

}  // namespace

TorchStats Statistics::combine(c10::DeviceIndex device, const DeviceStats& stats, TorchStats all) const {
  Device base;
  {
    const std::lock_guard lock(mutex_);
    if (const auto known = devices_.find(device); known != devices_.end()) base = known->second;
  }
  const auto add_array = [&](auto& to, Stat PoolStats::*which) {
    add(to[0], stats.all.*which, base.before.all.*which);
    add(to[1], stats.small_pool.*which, base.before.small_pool.*which);
    add(to[2], stats.large_pool.*which, base.before.large_pool.*which);
  };
  add_array(all.allocation, &PoolStats::allocation);
  add_array(all.segment, &PoolStats::segment);
  add_array(all.active, &PoolStats::active);
  add_array(all.inactive_split, &PoolStats::inactive_split);
  add_array(all.allocated_bytes, &PoolStats::allocated_bytes);
  add_array(all.reserved_bytes, &PoolStats::reserved_bytes);
  add_array(all.active_bytes, &PoolStats::active_bytes);
  add_array(all.inactive_split_bytes, &PoolStats::inactive_split_bytes);
  add_array(all.requested_bytes, &PoolStats::requested_bytes);
  const auto add_count = [&](std::int64_t& to, std::uint64_t DeviceStats::*which) {
    to += static_cast<std::int64_t>(stats.*which - base.before.*which);
  };
  add_count(all.num_alloc_retries, &DeviceStats::num_alloc_retries);
  add_count(all.num_ooms, &DeviceStats::num_ooms);
  add_count(all.num_sync_all_streams, &DeviceStats::num_sync_all_streams);
  add_count(all.num_device_alloc, &DeviceStats::num_device_alloc);
  add_count(all.num_device_free, &DeviceStats::num_device_free);
  all.num_ooms += base.ooms;
  return all;
}

void Statistics::reset_accumulated(c10::DeviceIndex device, const DeviceStats& stats) {
  const std::lock_guard lock(mutex_);
  devices_[device] = {stats, 0};
}

void Statistics::correct_ooms(c10::DeviceIndex device, std::int64_t by) {
  const std::lock_guard lock(mutex_);
  devices_[device].ooms += by;
}

}  // namespace gmlake::torch_adapter
