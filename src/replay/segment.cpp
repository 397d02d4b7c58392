// One driver allocation, made and unmade step by step. Callable from the replaying thread.
#include "replay/segment.hpp"

#include <span>

namespace gmlake::replay {

namespace {

Status map_with_access(driver::Driver& driver, int device, const Segment& segment) {
  if (Status mapped = driver.map(segment.address, segment.bytes, segment.handle); !mapped) return mapped;
  Status access = driver.set_access(segment.address, segment.bytes, std::span<const int>(&device, 1));
  if (access) return access;
  // The first error is the one to report; an unmap that fails here leaks the range, which the driver's own count shows.
  static_cast<void>(driver.unmap(segment.address, segment.bytes).ok());
  return access;
}

}  // namespace

Result<Segment> allocate_segment(driver::Driver& driver, int device, std::uint64_t bytes) {
  Segment segment{0, bytes, driver::Handle::none};
  Result<driver::Address> address = driver.reserve(bytes, 0);
  if (!address) return address.error();
  segment.address = *address;

  driver::MemoryProperties properties;
  properties.location = {driver::Location::Kind::device, device};
  Result<driver::Handle> handle = driver.create(bytes, properties);
  if (!handle) {
    static_cast<void>(driver.address_free(segment.address, bytes).ok());
    return handle.error();
  }
  segment.handle = *handle;

  if (Status mapped = map_with_access(driver, device, segment); !mapped) {
    static_cast<void>(driver.release(segment.handle).ok());
    static_cast<void>(driver.address_free(segment.address, bytes).ok());
    return mapped.error();
  }
  return segment;
}

Status free_segment(driver::Driver& driver, const Segment& segment) {
  const Status unmapped = driver.unmap(segment.address, segment.bytes);
  const Status released = driver.release(segment.handle);
  const Status freed = driver.address_free(segment.address, segment.bytes);
  if (!unmapped) return unmapped;
  if (!released) return released;
  return freed;
}

}  // namespace gmlake::replay
