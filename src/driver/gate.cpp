#include "driver/gate.hpp"

namespace gmlake::driver {

template <class Call>
auto Gate::pass(Step step, std::uint64_t value, Call call) -> decltype(call()) {
  if (!origin_.intact()) return Error{origin_.lapse(), step, value};
  if (lost()) return Error{ErrorCode::device_lost, step, value};
  auto result = call();
  if (!result.ok() && result.error().code == ErrorCode::device_lost) {
    Step none = Step::none;
    lost_at_.compare_exchange_strong(none, step, std::memory_order_relaxed);
  }
  return result;
}

Result<int> Gate::device_count() {
  return pass(Step::properties, 0, [&] { return inner_.device_count(); });
}

Result<DeviceProperties> Gate::device_properties(int device) {
  return pass(Step::properties, static_cast<std::uint64_t>(device), [&] { return inner_.device_properties(device); });
}

Result<MemoryInfo> Gate::memory_info(int device) {
  return pass(Step::memory_info, static_cast<std::uint64_t>(device), [&] { return inner_.memory_info(device); });
}

Result<std::uint64_t> Gate::granularity(const MemoryProperties& properties) {
  return pass(Step::properties, 0, [&] { return inner_.granularity(properties); });
}

Result<Address> Gate::reserve(std::uint64_t bytes, std::uint64_t alignment) {
  return pass(Step::reserve, bytes, [&] { return inner_.reserve(bytes, alignment); });
}

Status Gate::address_free(Address address, std::uint64_t bytes) {
  return pass(Step::address_free, address, [&] { return inner_.address_free(address, bytes); });
}

Result<Handle> Gate::create(std::uint64_t bytes, const MemoryProperties& properties) {
  return pass(Step::create, bytes, [&] { return inner_.create(bytes, properties); });
}

Status Gate::release(Handle handle) {
  return pass(Step::release, static_cast<std::uint64_t>(handle), [&] { return inner_.release(handle); });
}

Result<int> Gate::export_fd(Handle handle) {
  return pass(Step::share, static_cast<std::uint64_t>(handle), [&] { return inner_.export_fd(handle); });
}

Result<Handle> Gate::import_fd(int fd, std::uint64_t bytes, const MemoryProperties& properties) {
  return pass(Step::share, bytes, [&] { return inner_.import_fd(fd, bytes, properties); });
}

Status Gate::map(Address address, std::uint64_t bytes, Handle handle) {
  return pass(Step::map, address, [&] { return inner_.map(address, bytes, handle); });
}

Status Gate::unmap(Address address, std::uint64_t bytes) {
  return pass(Step::unmap, address, [&] { return inner_.unmap(address, bytes); });
}

Status Gate::set_access(Address address, std::uint64_t bytes, std::span<const int> devices) {
  return pass(Step::set_access, address, [&] { return inner_.set_access(address, bytes, devices); });
}

Result<Event> Gate::event_create(int device) {
  return pass(Step::event_create, static_cast<std::uint64_t>(device), [&] { return inner_.event_create(device); });
}

Status Gate::event_record(Event event, Stream stream) {
  return pass(Step::event_record, static_cast<std::uint64_t>(event),
              [&] { return inner_.event_record(event, stream); });
}

Result<bool> Gate::event_query(Event event) {
  return pass(Step::event_query, static_cast<std::uint64_t>(event), [&] { return inner_.event_query(event); });
}

Status Gate::event_synchronize(Event event) {
  return pass(Step::event_synchronize, static_cast<std::uint64_t>(event),
              [&] { return inner_.event_synchronize(event); });
}

Status Gate::stream_wait(Stream stream, Event event) {
  return pass(Step::stream_wait, static_cast<std::uint64_t>(event), [&] { return inner_.stream_wait(stream, event); });
}

Result<bool> Gate::stream_query(Stream stream) {
  return pass(Step::stream_query, stream.handle, [&] { return inner_.stream_query(stream); });
}

Status Gate::event_destroy(Event event) {
  return pass(Step::event_destroy, static_cast<std::uint64_t>(event), [&] { return inner_.event_destroy(event); });
}

Status Gate::clear(Stream stream, Address address, std::uint64_t bytes) {
  return pass(Step::clear, address, [&] { return inner_.clear(stream, address, bytes); });
}

Result<CaptureState> Gate::capture_state(Stream stream) {
  return pass(Step::properties, stream.handle, [&] { return inner_.capture_state(stream); });
}

}  // namespace gmlake::driver
