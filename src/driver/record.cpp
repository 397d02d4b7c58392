#include "driver/record.hpp"

namespace gmlake::driver {

CallCounts operator-(const CallCounts& later, const CallCounts& earlier) {
  CallCounts between;
  between.reserve = later.reserve - earlier.reserve;
  between.address_free = later.address_free - earlier.address_free;
  between.create = later.create - earlier.create;
  between.release = later.release - earlier.release;
  between.map = later.map - earlier.map;
  between.unmap = later.unmap - earlier.unmap;
  between.set_access = later.set_access - earlier.set_access;
  between.event_create = later.event_create - earlier.event_create;
  between.event_record = later.event_record - earlier.event_record;
  between.event_query = later.event_query - earlier.event_query;
  between.event_synchronize = later.event_synchronize - earlier.event_synchronize;
  between.event_destroy = later.event_destroy - earlier.event_destroy;
  between.stream_wait = later.stream_wait - earlier.stream_wait;
  between.stream_query = later.stream_query - earlier.stream_query;
  between.clear = later.clear - earlier.clear;
  return between;
}

template <class Call>
auto RecordDriver::timed(Step kind, Call call) {
  constexpr auto kRelaxed = std::memory_order_relaxed;
  const std::uint64_t start = inner_.clock_ns();
  auto result = call();
  const std::uint64_t elapsed = inner_.clock_ns() - start;
  counts_[static_cast<std::size_t>(kind)].fetch_add(1, kRelaxed);
  (kind >= Step::event_create ? event_ns_ : vmm_ns_).fetch_add(elapsed, kRelaxed);
  std::uint64_t longest = max_call_ns_.load(kRelaxed);
  while (elapsed > longest && !max_call_ns_.compare_exchange_weak(longest, elapsed, kRelaxed)) {
  }
  return result;
}

std::uint64_t RecordDriver::count(Step kind) const {
  return counts_[static_cast<std::size_t>(kind)].load(std::memory_order_relaxed);
}

CallCounts RecordDriver::counts() const {
  CallCounts counts;
  counts.reserve = count(Step::reserve);
  counts.address_free = count(Step::address_free);
  counts.create = count(Step::create);
  counts.release = count(Step::release);
  counts.map = count(Step::map);
  counts.unmap = count(Step::unmap);
  counts.set_access = count(Step::set_access);
  counts.event_create = count(Step::event_create);
  counts.event_record = count(Step::event_record);
  counts.event_query = count(Step::event_query);
  counts.event_synchronize = count(Step::event_synchronize);
  counts.event_destroy = count(Step::event_destroy);
  counts.stream_wait = count(Step::stream_wait);
  counts.stream_query = count(Step::stream_query);
  counts.clear = count(Step::clear);
  return counts;
}

double RecordDriver::vmm_seconds() const { return 1e-9 * static_cast<double>(vmm_ns_.load(std::memory_order_relaxed)); }

double RecordDriver::event_seconds() const {
  return 1e-9 * static_cast<double>(event_ns_.load(std::memory_order_relaxed));
}

double RecordDriver::max_call_seconds() const {
  return 1e-9 * static_cast<double>(max_call_ns_.load(std::memory_order_relaxed));
}

void RecordDriver::reset() {
  for (auto& counter : counts_) counter.store(0, std::memory_order_relaxed);
  vmm_ns_.store(0, std::memory_order_relaxed);
  event_ns_.store(0, std::memory_order_relaxed);
  max_call_ns_.store(0, std::memory_order_relaxed);
}

Result<Address> RecordDriver::reserve(std::uint64_t bytes, std::uint64_t alignment) {
  return timed(Step::reserve, [&] { return inner_.reserve(bytes, alignment); });
}

Status RecordDriver::address_free(Address address, std::uint64_t bytes) {
  return timed(Step::address_free, [&] { return inner_.address_free(address, bytes); });
}

Result<Handle> RecordDriver::create(std::uint64_t bytes, const MemoryProperties& properties) {
  return timed(Step::create, [&] { return inner_.create(bytes, properties); });
}

Status RecordDriver::release(Handle handle) {
  return timed(Step::release, [&] { return inner_.release(handle); });
}

Status RecordDriver::map(Address address, std::uint64_t bytes, Handle handle) {
  return timed(Step::map, [&] { return inner_.map(address, bytes, handle); });
}

Status RecordDriver::unmap(Address address, std::uint64_t bytes) {
  return timed(Step::unmap, [&] { return inner_.unmap(address, bytes); });
}

Status RecordDriver::set_access(Address address, std::uint64_t bytes, std::span<const int> devices) {
  return timed(Step::set_access, [&] { return inner_.set_access(address, bytes, devices); });
}

Result<Event> RecordDriver::event_create(int device) {
  return timed(Step::event_create, [&] { return inner_.event_create(device); });
}

Status RecordDriver::event_record(Event event, Stream stream) {
  return timed(Step::event_record, [&] { return inner_.event_record(event, stream); });
}

Result<bool> RecordDriver::event_query(Event event) {
  return timed(Step::event_query, [&] { return inner_.event_query(event); });
}

Status RecordDriver::event_synchronize(Event event) {
  return timed(Step::event_synchronize, [&] { return inner_.event_synchronize(event); });
}

Status RecordDriver::stream_wait(Stream stream, Event event) {
  return timed(Step::stream_wait, [&] { return inner_.stream_wait(stream, event); });
}

Result<bool> RecordDriver::stream_query(Stream stream) {
  return timed(Step::stream_query, [&] { return inner_.stream_query(stream); });
}

Status RecordDriver::event_destroy(Event event) {
  return timed(Step::event_destroy, [&] { return inner_.event_destroy(event); });
}

Status RecordDriver::clear(Stream stream, Address address, std::uint64_t bytes) {
  return timed(Step::clear, [&] { return inner_.clear(stream, address, bytes); });
}

}  // namespace gmlake::driver
