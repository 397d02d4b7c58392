// The driver seam on real GPUs: the CUDA driver of this machine, in the primary contexts that the CUDA runtime uses
// too.
//
// Calls need no current context of their own: those that are a device's (events, streams, memory_info) make its primary
// context current for their duration where another is. A context is made when a device is first used, and kept until
// the driver object goes.
//
// cuda.h leaves some misuse undefined (releasing what is no handle, say); it is passed on as it comes. Any thread.
#pragma once

#include <memory>
#include <vector>

#include "base/mutex.hpp"
#include "driver/cuda_api.hpp"
#include "driver/driver.hpp"

namespace gmlake::driver {

class CudaDriver final : public Driver {
 public:
  // Errors: no_driver (none installed, or no device that it serves), not_supported (older than CUDA 12.0).
  static Result<std::unique_ptr<CudaDriver>> make();
  ~CudaDriver() override;
  CudaDriver(const CudaDriver&) = delete;
  CudaDriver& operator=(const CudaDriver&) = delete;

  std::string_view name() const override { return "cuda"; }

  Result<int> device_count() override { return static_cast<int>(devices_.size()); }
  Result<DeviceProperties> device_properties(int device) override;
  Result<MemoryInfo> memory_info(int device) override;
  Result<std::uint64_t> granularity(const MemoryProperties& properties) override;

  Result<Address> reserve(std::uint64_t bytes, std::uint64_t alignment) override;
  Status address_free(Address address, std::uint64_t bytes) override;
  Result<Handle> create(std::uint64_t bytes, const MemoryProperties& properties) override;
  Status release(Handle handle) override;
  Result<int> export_fd(Handle handle) override;
  Result<Handle> import_fd(int fd, std::uint64_t bytes, const MemoryProperties& properties) override;
  Status map(Address address, std::uint64_t bytes, Handle handle) override;
  Status unmap(Address address, std::uint64_t bytes) override;
  Status set_access(Address address, std::uint64_t bytes, std::span<const int> devices) override;

  Result<Event> event_create(int device) override;
  Status event_record(Event event, Stream stream) override;
  Result<bool> event_query(Event event) override;
  Status event_synchronize(Event event) override;
  Status stream_wait(Stream stream, Event event) override;
  Status event_destroy(Event event) override;
  Result<bool> stream_query(Stream stream) override;
  Status clear(Stream stream, Address address, std::uint64_t bytes) override;

  Result<CaptureState> capture_state(Stream stream) override;
  CaptureMode exchange_capture_mode(CaptureMode mode) override;

  std::uint64_t clock_ns() override;

  // A stream of the device, for tools and tests that have none: it goes with the driver object. Errors: as primary().
  Result<Stream> make_stream(int device);

 private:
  struct Device {
    cuda::CUdevice ordinal = 0;
    cuda::CUcontext primary = nullptr;  // null until first used
  };
  class Current;  // a device's primary context, current from here to the end of a scope

  explicit CudaDriver(const cuda::Api& api) : api_(api) {}

  // Errors: invalid_device, out_of_memory (for the context), device_lost.
  Result<cuda::CUcontext> primary(int device, Step step);
  bool has_attribute(int device, int attribute) const;
  bool exists(const Location& location) const;
  bool valid(int device) const { return device >= 0 && static_cast<std::size_t>(device) < devices_.size(); }

  const cuda::Api& api_;
  Mutex retaining_;
  std::vector<Stream> streams_ GMLAKE_GUARDED_BY(retaining_);  // made here
  std::vector<Device> devices_;                                // their contexts: written under retaining_, once
};

}  // namespace gmlake::driver
