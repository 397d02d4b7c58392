// The gate in front of a driver: shut for good once a call can do no good any more.
//
// A call that finds the device lost shuts it, since an error that outlives its call says nothing new the next time, and
// a call to a broken context may hang. Which errors do outlive their call a backend knows: it calls them device_lost.
// In the child of a fork and in a process that exits it is shut from the outset (base/process.hpp). A call that it
// refuses does not reach the driver, and fails with device_lost, forked or shut_down. Any thread may call; no lock.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>

#include "base/process.hpp"
#include "driver/driver.hpp"
#include "gmlake/result.hpp"

namespace gmlake::driver {

class Gate final : public Driver {
 public:
  explicit Gate(Driver& inner) : inner_(inner) {}

  // Some call has said that the device is lost. It stays so.
  bool lost() const { return lost_at() != Step::none; }
  // Which kind of call said so first; none where none has.
  Step lost_at() const { return lost_at_.load(std::memory_order_relaxed); }

  std::string_view name() const override { return inner_.name(); }
  Result<int> device_count() override;
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
  Result<bool> stream_query(Stream stream) override;
  Status event_destroy(Event event) override;
  Status clear(Stream stream, Address address, std::uint64_t bytes) override;
  Result<CaptureState> capture_state(Stream stream) override;
  // The thread's, not the device's: what is set before the device is lost is set back after it.
  CaptureMode exchange_capture_mode(CaptureMode mode) override {
    return origin_.intact() ? inner_.exchange_capture_mode(mode) : mode;
  }
  std::uint64_t clock_ns() override { return inner_.clock_ns(); }

 private:
  template <class Call>
  auto pass(Step step, std::uint64_t value, Call call) -> decltype(call());

  Driver& inner_;
  const process::Origin origin_;
  std::atomic<Step> lost_at_{Step::none};
};

}  // namespace gmlake::driver
