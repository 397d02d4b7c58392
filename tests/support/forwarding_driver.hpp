// A driver that passes every call on to another one: what wrappers of tests are made from, each of which changes or
// watches a few of the calls.
#pragma once

#include "driver/driver.hpp"

namespace gmlake::test {

class ForwardingDriver : public driver::Driver {
 public:
  using Address = driver::Address;
  using Handle = driver::Handle;
  using Event = driver::Event;
  using Stream = driver::Stream;

  explicit ForwardingDriver(driver::Driver& inner) : inner_(inner) {}

  std::string_view name() const override { return inner_.name(); }
  Result<int> device_count() override { return inner_.device_count(); }
  Result<driver::DeviceProperties> device_properties(int device) override { return inner_.device_properties(device); }
  Result<driver::MemoryInfo> memory_info(int device) override { return inner_.memory_info(device); }
  Result<std::uint64_t> granularity(const driver::MemoryProperties& properties) override {
    return inner_.granularity(properties);
  }
  Result<Address> reserve(std::uint64_t bytes, std::uint64_t alignment) override {
    return inner_.reserve(bytes, alignment);
  }
  Status address_free(Address address, std::uint64_t bytes) override { return inner_.address_free(address, bytes); }
  Result<Handle> create(std::uint64_t bytes, const driver::MemoryProperties& properties) override {
    return inner_.create(bytes, properties);
  }
  Result<int> export_fd(Handle handle) override { return inner_.export_fd(handle); }
  Result<Handle> import_fd(int fd, std::uint64_t bytes, const driver::MemoryProperties& properties) override {
    return inner_.import_fd(fd, bytes, properties);
  }
  Status release(Handle handle) override { return inner_.release(handle); }
  Status map(Address address, std::uint64_t bytes, Handle handle) override {
    return inner_.map(address, bytes, handle);
  }
  Status unmap(Address address, std::uint64_t bytes) override { return inner_.unmap(address, bytes); }
  Status set_access(Address address, std::uint64_t bytes, std::span<const int> devices) override {
    return inner_.set_access(address, bytes, devices);
  }
  Result<Event> event_create(int device) override { return inner_.event_create(device); }
  Status event_record(Event event, Stream stream) override { return inner_.event_record(event, stream); }
  Result<bool> event_query(Event event) override { return inner_.event_query(event); }
  Status event_synchronize(Event event) override { return inner_.event_synchronize(event); }
  Status stream_wait(Stream stream, Event event) override { return inner_.stream_wait(stream, event); }
  Result<bool> stream_query(Stream stream) override { return inner_.stream_query(stream); }
  Status event_destroy(Event event) override { return inner_.event_destroy(event); }
  Status clear(Stream stream, Address address, std::uint64_t bytes) override {
    return inner_.clear(stream, address, bytes);
  }
  Result<driver::CaptureState> capture_state(Stream stream) override { return inner_.capture_state(stream); }
  driver::CaptureMode exchange_capture_mode(driver::CaptureMode mode) override {
    return inner_.exchange_capture_mode(mode);
  }
  std::uint64_t clock_ns() override { return inner_.clock_ns(); }

 protected:
  driver::Driver& inner() { return inner_; }

 private:
  driver::Driver& inner_;
};

}  // namespace gmlake::test
