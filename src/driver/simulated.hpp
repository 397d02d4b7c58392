// What host and model have in common: the books behind one lock, simulated streams, and the calls that need no more.
// Any thread may call anything. Lock order: the books' lock, then the simulator's.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/mutex.hpp"
#include "driver/books.hpp"
#include "driver/driver.hpp"
#include "driver/stream_simulator.hpp"
#include "gmlake/result.hpp"

namespace gmlake::driver {

class SimulatedDriver : public Driver {
 public:
  StreamSimulator& streams() { return streams_; }

  // A simulated kernel on `stream`: refused, and a violation, where the stream's device may not touch a range.
  // Otherwise enqueued as StreamSimulator::enqueue has it; its ranges cannot be unmapped before it completes.
  Status launch(Stream stream, std::vector<Access> accesses, std::function<void()> run = {}) GMLAKE_EXCLUDES(mutex_);

  bool has_access(Address address, int device) const { return has_access(address, 1, device); }
  bool has_access(Address address, std::uint64_t bytes, int device) const GMLAKE_EXCLUDES(mutex_);
  Usage usage() const GMLAKE_EXCLUDES(mutex_);
  void check() const GMLAKE_EXCLUDES(mutex_);  // the books recount themselves; aborts on a difference

  Result<int> device_count() override;
  Result<DeviceProperties> device_properties(int device) override;
  Result<MemoryInfo> memory_info(int device) override;
  Result<std::uint64_t> granularity(const MemoryProperties& properties) override;
  // A backend that has memory says otherwise.
  Result<int> export_fd(Handle handle) override {
    return Error{ErrorCode::not_supported, Step::share, static_cast<std::uint64_t>(handle)};
  }
  Result<Handle> import_fd(int, std::uint64_t bytes, const MemoryProperties&) override {
    return Error{ErrorCode::not_supported, Step::share, bytes};
  }
  Result<Event> event_create(int device) override;
  Status event_record(Event event, Stream stream) override;
  Result<bool> event_query(Event event) override { return streams_.event_query(event); }
  Status event_synchronize(Event event) override { return streams_.event_synchronize(event); }
  Status stream_wait(Stream stream, Event event) override;
  Status event_destroy(Event event) override { return streams_.event_destroy(event); }
  Status clear(Stream stream, Address address, std::uint64_t bytes) override GMLAKE_EXCLUDES(mutex_);
  Result<bool> stream_query(Stream stream) override;
  Result<CaptureState> capture_state(Stream stream) override;
  CaptureMode exchange_capture_mode(CaptureMode mode) override { return StreamSimulator::exchange_capture_mode(mode); }

 protected:
  SimulatedDriver(std::string device_name, BooksOptions options)
      : device_name_(std::move(device_name)), limits_(options), books_(std::move(options)) {}

  Status check_device(int device, Step step) const;
  // What clear() runs when its turn comes: nothing where there is no memory behind the addresses.
  virtual std::function<void()> zeroing(Address, std::uint64_t) { return {}; }

  mutable Mutex mutex_;

 private:
  const std::string device_name_;
  const BooksOptions limits_;  // a copy that needs no lock

 protected:
  DriverBooks books_ GMLAKE_GUARDED_BY(mutex_);
  StreamSimulator streams_;
};

}  // namespace gmlake::driver
