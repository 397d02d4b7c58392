#include "driver/fault.hpp"

namespace gmlake::driver {

void FaultDriver::arm(const Fault& fault) {
  MutexLock lock(mutex_);
  faults_.assign(1, {fault});
  unreached_ = 1;
  armed_ = true;
  calls_ = 0;
  calls_by_kind_ = {};
}

void FaultDriver::arm_also(const Fault& fault) {
  MutexLock lock(mutex_);
  faults_.push_back({fault});
  ++unreached_;
  armed_ = true;
}

void FaultDriver::heal() {
  MutexLock lock(mutex_);
  faults_.clear();
}

void FaultDriver::reset_counts() {
  MutexLock lock(mutex_);
  calls_ = 0;
  calls_by_kind_ = {};
}

bool FaultDriver::reached() const {
  MutexLock lock(mutex_);
  return armed_ && unreached_ == 0;
}

std::uint64_t FaultDriver::calls() const {
  MutexLock lock(mutex_);
  return calls_;
}

std::uint64_t FaultDriver::calls(Step kind) const {
  MutexLock lock(mutex_);
  const auto index = static_cast<std::size_t>(kind);
  return index < kKinds ? calls_by_kind_[index] : 0;
}

std::optional<Error> FaultDriver::strike(Step kind, std::uint64_t value) {
  MutexLock lock(mutex_);
  ++calls_;
  const std::uint64_t of_kind = ++calls_by_kind_[static_cast<std::size_t>(kind)];
  std::optional<Error> error;
  for (auto& [fault, reached] : faults_) {
    if (fault.kind && *fault.kind != kind) continue;
    const std::uint64_t count = fault.kind ? of_kind : calls_;
    if (count < fault.nth) continue;
    if (!reached) --unreached_;
    reached = true;
    if ((count == fault.nth || fault.sticky) && !error) error = Error{fault.code, kind, value};
  }
  return error;
}

Result<int> FaultDriver::device_count() {
  if (const auto error = strike(Step::properties, 0)) return *error;
  return inner_.device_count();
}

Result<DeviceProperties> FaultDriver::device_properties(int device) {
  if (const auto error = strike(Step::properties, static_cast<std::uint64_t>(device))) return *error;
  return inner_.device_properties(device);
}

Result<MemoryInfo> FaultDriver::memory_info(int device) {
  if (const auto error = strike(Step::memory_info, static_cast<std::uint64_t>(device))) return *error;
  return inner_.memory_info(device);
}

Result<std::uint64_t> FaultDriver::granularity(const MemoryProperties& properties) {
  if (const auto error = strike(Step::properties, 0)) return *error;
  return inner_.granularity(properties);
}

Result<Address> FaultDriver::reserve(std::uint64_t bytes, std::uint64_t alignment) {
  if (const auto error = strike(Step::reserve, bytes)) return *error;
  return inner_.reserve(bytes, alignment);
}

Status FaultDriver::address_free(Address address, std::uint64_t bytes) {
  if (const auto error = strike(Step::address_free, address)) return *error;
  return inner_.address_free(address, bytes);
}

Result<Handle> FaultDriver::create(std::uint64_t bytes, const MemoryProperties& properties) {
  if (const auto error = strike(Step::create, bytes)) return *error;
  return inner_.create(bytes, properties);
}

Status FaultDriver::release(Handle handle) {
  if (const auto error = strike(Step::release, static_cast<std::uint64_t>(handle))) return *error;
  return inner_.release(handle);
}

Result<int> FaultDriver::export_fd(Handle handle) {
  if (const auto error = strike(Step::share, static_cast<std::uint64_t>(handle))) return *error;
  return inner_.export_fd(handle);
}

Result<Handle> FaultDriver::import_fd(int fd, std::uint64_t bytes, const MemoryProperties& properties) {
  if (const auto error = strike(Step::share, bytes)) return *error;
  return inner_.import_fd(fd, bytes, properties);
}

Status FaultDriver::map(Address address, std::uint64_t bytes, Handle handle) {
  if (const auto error = strike(Step::map, address)) return *error;
  return inner_.map(address, bytes, handle);
}

Status FaultDriver::unmap(Address address, std::uint64_t bytes) {
  if (const auto error = strike(Step::unmap, address)) return *error;
  return inner_.unmap(address, bytes);
}

Status FaultDriver::set_access(Address address, std::uint64_t bytes, std::span<const int> devices) {
  if (const auto error = strike(Step::set_access, address)) return *error;
  return inner_.set_access(address, bytes, devices);
}

Result<Event> FaultDriver::event_create(int device) {
  if (const auto error = strike(Step::event_create, static_cast<std::uint64_t>(device))) return *error;
  return inner_.event_create(device);
}

Status FaultDriver::event_record(Event event, Stream stream) {
  if (const auto error = strike(Step::event_record, static_cast<std::uint64_t>(event))) return *error;
  return inner_.event_record(event, stream);
}

Result<bool> FaultDriver::event_query(Event event) {
  if (const auto error = strike(Step::event_query, static_cast<std::uint64_t>(event))) return *error;
  return inner_.event_query(event);
}

Status FaultDriver::event_synchronize(Event event) {
  if (const auto error = strike(Step::event_synchronize, static_cast<std::uint64_t>(event))) return *error;
  return inner_.event_synchronize(event);
}

Status FaultDriver::stream_wait(Stream stream, Event event) {
  if (const auto error = strike(Step::stream_wait, static_cast<std::uint64_t>(event))) return *error;
  return inner_.stream_wait(stream, event);
}

Result<bool> FaultDriver::stream_query(Stream stream) {
  if (const auto error = strike(Step::stream_query, stream.handle)) return *error;
  return inner_.stream_query(stream);
}

Status FaultDriver::event_destroy(Event event) {
  if (const auto error = strike(Step::event_destroy, static_cast<std::uint64_t>(event))) return *error;
  return inner_.event_destroy(event);
}

Status FaultDriver::clear(Stream stream, Address address, std::uint64_t bytes) {
  if (const auto error = strike(Step::clear, address)) return *error;
  return inner_.clear(stream, address, bytes);
}

Result<CaptureState> FaultDriver::capture_state(Stream stream) {
  if (const auto error = strike(Step::properties, stream.handle)) return *error;
  return inner_.capture_state(stream);
}

}  // namespace gmlake::driver
