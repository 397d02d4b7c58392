// A wrapper that makes chosen calls fail, so that a test can ask of every call of a scenario: what if this one fails?
// A call made to fail does not reach the driver inside. A sweep runs the scenario once and reads calls(), then runs it
// again for each nth in 1..calls(), armed with that, expects success or a clean error, heals, and looks at the books.
// Any thread may call it; one lock, not held across the inner call.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/mutex.hpp"
#include "driver/driver.hpp"
#include "gmlake/result.hpp"

namespace gmlake::driver {

// Which calls fail, and how.
struct Fault {
  std::optional<Step> kind = {};  // count calls of this kind only; none: calls of every kind
  std::uint64_t nth = 1;          // the first call that fails, from 1, counted from arm() on
  bool sticky = false;            // from then on all calls of the kind fail, until heal()
  ErrorCode code = ErrorCode::out_of_memory;
};

class FaultDriver final : public Driver {
 public:
  explicit FaultDriver(Driver& inner) : inner_(inner) {}

  // Plans a fault, in place of those planned before, and sets the counts and reached() back.
  void arm(const Fault& fault);
  // Plans one more. Counts go on; a call that several faults are planned for fails by the first of them.
  void arm_also(const Fault& fault);
  void heal();           // no further call fails; counts and reached() stay
  void reset_counts();   // counts from 0 again
  bool reached() const;  // every planned fault has come to its call

  // Calls so far, those that failed included; clock_ns, name and exchange_capture_mode cannot fail and are not counted.
  // A call counts as the Step that its errors name: device_count, device_properties, granularity and capture_state
  // are `properties`.
  std::uint64_t calls() const;
  std::uint64_t calls(Step kind) const;

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
  CaptureMode exchange_capture_mode(CaptureMode mode) override { return inner_.exchange_capture_mode(mode); }
  std::uint64_t clock_ns() override { return inner_.clock_ns(); }

 private:
  static constexpr std::size_t kKinds = static_cast<std::size_t>(Step::share) + 1;

  // Counts a call, and gives the error with which it is to fail, if it is.
  std::optional<Error> strike(Step kind, std::uint64_t value);

  Driver& inner_;
  mutable Mutex mutex_;
  struct Planned {
    Fault fault;
    bool reached = false;
  };
  std::vector<Planned> faults_ GMLAKE_GUARDED_BY(mutex_);
  std::size_t unreached_ GMLAKE_GUARDED_BY(mutex_) = 0;  // planned faults whose first call has not come
  bool armed_ GMLAKE_GUARDED_BY(mutex_) = false;         // since it was made
  std::uint64_t calls_ GMLAKE_GUARDED_BY(mutex_) = 0;
  std::array<std::uint64_t, kKinds> calls_by_kind_ GMLAKE_GUARDED_BY(mutex_){};
};

}  // namespace gmlake::driver
