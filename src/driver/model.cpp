#include "driver/model.hpp"

#include <algorithm>
#include <bit>

#include "base/check.hpp"

namespace gmlake::driver {
namespace {

// No process of a 64-bit machine with 47-bit user addresses owns these: a pointer followed by mistake faults.
constexpr Address kFirstAddress = Address{1} << 47;

std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) { return (value + unit - 1) & ~(unit - 1); }

BooksOptions books_options(const ModelOptions& options) {
  BooksOptions books;
  books.devices = options.devices;
  books.capacity_bytes = options.capacity_bytes;
  books.host_numa_nodes = options.host_numa_nodes;
  books.host_bytes = options.host_bytes;
  books.granularity = options.granularity;
  books.max_mappings = options.max_mappings;
  books.flags = options.flags;
  return books;
}

}  // namespace

ModelDriver::ModelDriver(const ModelOptions& options)
    : SimulatedDriver(options.device_name, books_options(options)),
      costs_(options.costs),
      granularity_(options.granularity),
      end_(kFirstAddress + std::min(options.max_address_bytes, kFirstAddress)),
      max_reservation_bytes_(options.max_reservation_bytes),
      next_(kFirstAddress) {}

// The next free range after the last one handed out, then from the start: an address is used again as late as possible,
// so that a stale pointer is noticed. A granule is left free behind each reservation for the same reason.
Result<Address> ModelDriver::free_range(std::uint64_t bytes, std::uint64_t alignment) const {
  const Error none{ErrorCode::address_space, Step::reserve, bytes};
  const std::uint64_t unit = std::max(alignment, granularity_);
  if (bytes > max_reservation_bytes_ || unit > end_) return none;
  for (const Address start : {next_, kFirstAddress}) {
    Address address = round_up(start, unit);
    while (address <= end_ && end_ - address >= bytes + granularity_) {
      const auto taken = books_.reservation_after(address - granularity_);
      if (!taken || taken->first >= address + bytes + granularity_) return address;
      address = round_up(taken->first + taken->second + granularity_, unit);
    }
  }
  return none;
}

template <class Outcome>
Outcome ModelDriver::charged(Outcome outcome, double ns) {
  if (outcome.ok()) charge(ns);
  return outcome;
}

Result<Address> ModelDriver::reserve(std::uint64_t bytes, std::uint64_t alignment) {
  MutexLock lock(mutex_);
  if (Status status = books_.check_reserve(bytes, alignment); !status.ok()) return status.error();
  const Result<Address> address = free_range(bytes, alignment);
  if (!address.ok()) return address;
  books_.add_reservation(*address, bytes);
  next_ = *address + bytes + granularity_;
  charge(costs_.reserve.at(bytes));
  return address;
}

Status ModelDriver::address_free(Address address, std::uint64_t bytes) {
  MutexLock lock(mutex_);
  if (Status status = books_.check_address_free(address, bytes); !status.ok()) return status;
  books_.remove_reservation(address);
  charge(costs_.address_free.at(bytes));
  return {};
}

Result<Handle> ModelDriver::create(std::uint64_t bytes, const MemoryProperties& properties) {
  MutexLock lock(mutex_);
  if (Status status = books_.check_create(bytes, properties); !status.ok()) return status.error();
  charge(costs_.create.at(bytes));
  return books_.add_memory(bytes, properties, 0);
}

Status ModelDriver::release(Handle handle) {
  MutexLock lock(mutex_);
  if (Status status = books_.check_release(handle); !status.ok()) return status;
  charge(costs_.release.at(books_.memory(handle).bytes));
  books_.release(handle);
  return {};
}

Status ModelDriver::map(Address address, std::uint64_t bytes, Handle handle) {
  MutexLock lock(mutex_);
  if (Status status = books_.check_map(address, bytes, handle); !status.ok()) return status;
  const DriverBooks::Memory& memory = books_.memory(handle);
  charge(costs_.map + (memory.rdma && memory.mappings == 0 ? costs_.map_first_for_rdma : 0));
  books_.add_mapping(address, bytes, handle);
  return {};
}

Status ModelDriver::unmap(Address address, std::uint64_t bytes) {
  MutexLock lock(mutex_);
  if (Status status = books_.check_unmap(address, bytes); !status.ok()) return status;
  if (Status status = streams_.check_unmap(address, bytes); !status.ok()) return status;
  const std::uint64_t mappings = books_.usage().mappings;
  books_.unmap(address, bytes);
  charge(costs_.unmap * static_cast<double>(mappings - books_.usage().mappings));
  return {};
}

Status ModelDriver::set_access(Address address, std::uint64_t bytes, std::span<const int> devices) {
  MutexLock lock(mutex_);
  if (Status status = books_.check_set_access(address, bytes, devices); !status.ok()) return status;
  const std::uint64_t mask = DriverBooks::access_mask(devices);
  double ns = 0;
  books_.for_each_mapping(address, bytes, [&](const auto& mapping, const auto& memory) {
    const int added = std::popcount(mask & ~mapping.access);
    if (added == 0) {
      ns += costs_.set_access_again;
    } else if (mapping.access != 0) {
      ns += costs_.set_access_more * added;
    } else if (memory.location.kind == Location::Kind::host_numa) {
      ns += costs_.set_access_host.at(mapping.bytes);  // measured for two devices at once: none is added for a second
    } else {
      ns += costs_.set_access.at(mapping.bytes) + costs_.set_access_more * (added - 1);
    }
  });
  books_.set_access(address, bytes, devices);
  charge(ns);
  return {};
}

Result<Event> ModelDriver::event_create(int device) {
  return charged(SimulatedDriver::event_create(device), costs_.event_other);
}

Status ModelDriver::event_record(Event event, Stream stream) {
  return charged(SimulatedDriver::event_record(event, stream), costs_.event_record);
}

Result<bool> ModelDriver::event_query(Event event) {
  return charged(SimulatedDriver::event_query(event), costs_.event_query);
}

Status ModelDriver::event_synchronize(Event event) {
  return charged(SimulatedDriver::event_synchronize(event), costs_.event_other);
}

Status ModelDriver::stream_wait(Stream stream, Event event) {
  return charged(SimulatedDriver::stream_wait(stream, event), costs_.event_other);
}

Result<bool> ModelDriver::stream_query(Stream stream) {
  return charged(SimulatedDriver::stream_query(stream), costs_.event_query);
}

Status ModelDriver::event_destroy(Event event) {
  return charged(SimulatedDriver::event_destroy(event), costs_.event_other);
}

Status ModelDriver::clear(Stream stream, Address address, std::uint64_t bytes) {
  return charged(SimulatedDriver::clear(stream, address, bytes), costs_.clear);
}

}  // namespace gmlake::driver
