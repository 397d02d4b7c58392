#include "driver/simulated.hpp"

#include <utility>

namespace gmlake::driver {

Status SimulatedDriver::check_device(int device, Step step) const {
  if (device >= 0 && device < limits_.devices) return {};
  return Error{ErrorCode::invalid_device, step, static_cast<std::uint64_t>(static_cast<std::int64_t>(device))};
}

Status SimulatedDriver::launch(Stream stream, std::vector<Access> accesses, std::function<void()> run) {
  if (Status status = check_device(stream.device, Step::none); !status.ok()) return status;
  MutexLock lock(mutex_);
  for (const Access& access : accesses) {
    if (books_.has_access(access.address, access.bytes, stream.device)) continue;
    streams_.report({Violation::Kind::no_access, stream, access.address, access.bytes});
    return Error{ErrorCode::invalid_value, Step::none, access.address};
  }
  return streams_.enqueue(stream, std::move(accesses), std::move(run));
}

bool SimulatedDriver::has_access(Address address, std::uint64_t bytes, int device) const {
  MutexLock lock(mutex_);
  return books_.has_access(address, bytes, device);
}

Usage SimulatedDriver::usage() const {
  MutexLock lock(mutex_);
  return books_.usage();
}

void SimulatedDriver::check() const {
  MutexLock lock(mutex_);
  books_.check();
}

Result<int> SimulatedDriver::device_count() { return limits_.devices; }

Result<DeviceProperties> SimulatedDriver::device_properties(int device) {
  if (Status status = check_device(device, Step::properties); !status.ok()) return status.error();
  MutexLock lock(mutex_);
  const DeviceFlags& flags = books_.options().flags[static_cast<std::size_t>(device)];
  DeviceProperties properties;
  properties.name = device_name_;
  properties.total_bytes = books_.options().capacity_bytes;
  properties.vmm_supported = flags.vmm;
  properties.rdma_supported = flags.vmm && flags.rdma;
  properties.posix_fd_supported = flags.vmm && flags.posix_fd;
  properties.fabric_supported = flags.vmm && flags.fabric;
  properties.host_numa_supported = flags.vmm && limits_.host_numa_nodes > 0;
  properties.host_numa_node = limits_.host_numa_nodes > 0 ? device % limits_.host_numa_nodes : -1;
  return properties;
}

Result<MemoryInfo> SimulatedDriver::memory_info(int device) {
  if (Status status = check_device(device, Step::memory_info); !status.ok()) return status.error();
  MutexLock lock(mutex_);
  const Location location{Location::Kind::device, device};
  return MemoryInfo{books_.capacity(location) - books_.used(location), books_.capacity(location)};
}

Result<std::uint64_t> SimulatedDriver::granularity(const MemoryProperties& properties) {
  MutexLock lock(mutex_);
  if (Status status = books_.check_properties(properties, Step::properties); !status.ok()) return status.error();
  return limits_.granularity;
}

Result<Event> SimulatedDriver::event_create(int device) {
  if (Status status = check_device(device, Step::event_create); !status.ok()) return status.error();
  return streams_.event_create(device);
}

Status SimulatedDriver::event_record(Event event, Stream stream) {
  if (Status status = check_device(stream.device, Step::event_record); !status.ok()) return status;
  return streams_.event_record(event, stream);
}

Status SimulatedDriver::stream_wait(Stream stream, Event event) {
  if (Status status = check_device(stream.device, Step::stream_wait); !status.ok()) return status;
  return streams_.stream_wait(stream, event);
}

Status SimulatedDriver::clear(Stream stream, Address address, std::uint64_t bytes) {
  if (Status status = check_device(stream.device, Step::clear); !status.ok()) return status;
  const Error refused{ErrorCode::invalid_value, Step::clear, address};
  const Result<CaptureState> capture = streams_.capture_state(stream);
  if (!capture) return refused;
  if (*capture == CaptureState::implicit || *capture == CaptureState::invalidated) {
    streams_.report({Violation::Kind::captured_event, stream, address, bytes});
    return Error{ErrorCode::captured, Step::clear, address};
  }
  MutexLock lock(mutex_);
  if (bytes == 0 || !books_.has_access(address, bytes, stream.device)) return refused;
  const bool enqueued = streams_.enqueue(stream, {{address, bytes, true}}, zeroing(address, bytes)).ok();
  return enqueued ? Status() : refused;
}

Result<bool> SimulatedDriver::stream_query(Stream stream) {
  if (Status status = check_device(stream.device, Step::stream_query); !status.ok()) return status.error();
  return streams_.stream_query(stream);
}

Result<CaptureState> SimulatedDriver::capture_state(Stream stream) {
  if (Status status = check_device(stream.device, Step::properties); !status.ok()) return status.error();
  return streams_.capture_state(stream);
}

}  // namespace gmlake::driver
