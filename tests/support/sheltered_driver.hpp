// A wrapper under which FailingNew leaves the driver inside alone: a real driver does not throw, and a simulated one is
// not what is tested.
#pragma once

#include "driver/driver.hpp"
#include "support/failing_new.hpp"

namespace gmlake::testing {

class ShelteredDriver : public driver::Driver {
 public:
  explicit ShelteredDriver(driver::Driver& inner) : inner_(inner) {}

  std::string_view name() const override { return inner_.name(); }
  Result<int> device_count() override {
    const NoFailingNew shelter;
    return inner_.device_count();
  }
  Result<driver::DeviceProperties> device_properties(int device) override {
    const NoFailingNew shelter;
    return inner_.device_properties(device);
  }
  Result<driver::MemoryInfo> memory_info(int device) override {
    const NoFailingNew shelter;
    return inner_.memory_info(device);
  }
  Result<std::uint64_t> granularity(const driver::MemoryProperties& properties) override {
    const NoFailingNew shelter;
    return inner_.granularity(properties);
  }
  Result<driver::Address> reserve(std::uint64_t bytes, std::uint64_t alignment) override {
    const NoFailingNew shelter;
    return inner_.reserve(bytes, alignment);
  }
  Status address_free(driver::Address address, std::uint64_t bytes) override {
    const NoFailingNew shelter;
    return inner_.address_free(address, bytes);
  }
  Result<driver::Handle> create(std::uint64_t bytes, const driver::MemoryProperties& properties) override {
    const NoFailingNew shelter;
    return inner_.create(bytes, properties);
  }
  Result<int> export_fd(driver::Handle handle) override {
    const NoFailingNew shelter;
    return inner_.export_fd(handle);
  }
  Result<driver::Handle> import_fd(int fd, std::uint64_t bytes, const driver::MemoryProperties& properties) override {
    const NoFailingNew shelter;
    return inner_.import_fd(fd, bytes, properties);
  }
  Status release(driver::Handle handle) override {
    const NoFailingNew shelter;
    return inner_.release(handle);
  }
  Status map(driver::Address address, std::uint64_t bytes, driver::Handle handle) override {
    const NoFailingNew shelter;
    return inner_.map(address, bytes, handle);
  }
  Status unmap(driver::Address address, std::uint64_t bytes) override {
    const NoFailingNew shelter;
    return inner_.unmap(address, bytes);
  }
  Status set_access(driver::Address address, std::uint64_t bytes, std::span<const int> devices) override {
    const NoFailingNew shelter;
    return inner_.set_access(address, bytes, devices);
  }
  Result<driver::Event> event_create(int device) override {
    const NoFailingNew shelter;
    return inner_.event_create(device);
  }
  Status event_record(driver::Event event, driver::Stream stream) override {
    const NoFailingNew shelter;
    return inner_.event_record(event, stream);
  }
  Result<bool> event_query(driver::Event event) override {
    const NoFailingNew shelter;
    return inner_.event_query(event);
  }
  Status event_synchronize(driver::Event event) override {
    const NoFailingNew shelter;
    return inner_.event_synchronize(event);
  }
  Status stream_wait(driver::Stream stream, driver::Event event) override {
    const NoFailingNew shelter;
    return inner_.stream_wait(stream, event);
  }
  Result<bool> stream_query(driver::Stream stream) override {
    const NoFailingNew shelter;
    return inner_.stream_query(stream);
  }
  Status event_destroy(driver::Event event) override {
    const NoFailingNew shelter;
    return inner_.event_destroy(event);
  }
  Status clear(driver::Stream stream, driver::Address address, std::uint64_t bytes) override {
    const NoFailingNew shelter;
    return inner_.clear(stream, address, bytes);
  }
  Result<driver::CaptureState> capture_state(driver::Stream stream) override {
    const NoFailingNew shelter;
    return inner_.capture_state(stream);
  }
  driver::CaptureMode exchange_capture_mode(driver::CaptureMode mode) override {
    return inner_.exchange_capture_mode(mode);
  }
  std::uint64_t clock_ns() override { return inner_.clock_ns(); }

 private:
  driver::Driver& inner_;
};

}  // namespace gmlake::testing
