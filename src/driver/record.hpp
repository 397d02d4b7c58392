// A wrapper that counts the calls that go through it and sums their time on the clock of the driver inside.
// It changes nothing else. Any thread may call it; the counters are relaxed atomics, so a reading taken while other
// threads call is a little old, and exact once they have stopped.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <span>

#include "driver/driver.hpp"
#include "gmlake/result.hpp"

namespace gmlake::driver {

// Calls by kind, those that failed included.
struct CallCounts {
  std::uint64_t reserve = 0;
  std::uint64_t address_free = 0;
  std::uint64_t create = 0;
  std::uint64_t release = 0;
  std::uint64_t map = 0;
  std::uint64_t unmap = 0;
  std::uint64_t set_access = 0;
  std::uint64_t event_create = 0;
  std::uint64_t event_record = 0;
  std::uint64_t event_query = 0;
  std::uint64_t event_synchronize = 0;
  std::uint64_t event_destroy = 0;
  std::uint64_t stream_wait = 0;
  std::uint64_t stream_query = 0;
  std::uint64_t clear = 0;

  std::uint64_t total() const {
    return reserve + address_free + create + release + map + unmap + set_access + event_create + event_record +
           event_query + event_synchronize + event_destroy + stream_wait + stream_query + clear;
  }
  friend bool operator==(const CallCounts&, const CallCounts&) = default;
};

// The calls between two readings: `later` - `earlier`, kind by kind.
CallCounts operator-(const CallCounts& later, const CallCounts& earlier);

class RecordDriver final : public Driver {
 public:
  explicit RecordDriver(Driver& inner) : inner_(inner) {}

  CallCounts counts() const;
  // Time inside the counted calls. A model's clock is one for all threads: calls that overlap are counted in each
  // other.
  double seconds() const { return vmm_seconds() + event_seconds(); }
  std::uint64_t nanoseconds() const {
    return vmm_ns_.load(std::memory_order_relaxed) + event_ns_.load(std::memory_order_relaxed);
  }
  double vmm_seconds() const;       // reserve to set_access
  double event_seconds() const;     // event_create to clear
  double max_call_seconds() const;  // the longest single call
  void reset();                     // all counters to 0

  std::string_view name() const override { return inner_.name(); }
  Result<int> device_count() override { return inner_.device_count(); }
  Result<DeviceProperties> device_properties(int device) override { return inner_.device_properties(device); }
  Result<MemoryInfo> memory_info(int device) override { return inner_.memory_info(device); }
  Result<std::uint64_t> granularity(const MemoryProperties& properties) override {
    return inner_.granularity(properties);
  }
  Result<Address> reserve(std::uint64_t bytes, std::uint64_t alignment) override;
  Status address_free(Address address, std::uint64_t bytes) override;
  Result<Handle> create(std::uint64_t bytes, const MemoryProperties& properties) override;
  Status release(Handle handle) override;
  Result<int> export_fd(Handle handle) override { return inner_.export_fd(handle); }  // these two are not counted
  Result<Handle> import_fd(int fd, std::uint64_t bytes, const MemoryProperties& properties) override {
    return inner_.import_fd(fd, bytes, properties);
  }
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
  Result<CaptureState> capture_state(Stream stream) override { return inner_.capture_state(stream); }
  CaptureMode exchange_capture_mode(CaptureMode mode) override { return inner_.exchange_capture_mode(mode); }
  std::uint64_t clock_ns() override { return inner_.clock_ns(); }

 private:
  template <class Call>
  auto timed(Step kind, Call call);
  std::uint64_t count(Step kind) const;

  static constexpr std::size_t kKinds = static_cast<std::size_t>(Step::clear) + 1;
  Driver& inner_;
  std::array<std::atomic<std::uint64_t>, kKinds> counts_{};  // by Step
  std::atomic<std::uint64_t> vmm_ns_ = 0;
  std::atomic<std::uint64_t> event_ns_ = 0;
  std::atomic<std::uint64_t> max_call_ns_ = 0;
};

}  // namespace gmlake::driver
