// The driver contract as code: one suite that every backend passes. A backend joins with about 30 lines: a class that
// makes its driver and knows how to hold a stream and reach the bytes behind an address, and one instantiation.
// What a backend cannot do it says by leaving the default here; the tests that need it are then skipped.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "driver/simulated.hpp"
#include "gmlake/bytes.hpp"

namespace gmlake::driver::testing {

// The driver that a test wants. Unset: whatever the backend has.
struct BackendSpec {
  int devices = 1;
  std::optional<std::uint64_t> capacity_granules = {};  // of each device and each NUMA node
  std::optional<std::uint64_t> max_mappings = {};
  std::vector<DeviceFlags> flags = {};
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual Driver& driver() = 0;

  virtual SimulatedDriver* simulated() { return nullptr; }  // host and model: for what only simulations can say

  // False: what cuda.h forbids is not tried, since the real driver does not always refuse it (seen on an H200: unmap
  // of a part of a mapping succeeds, and a map that is refused over another may leave traces).
  virtual bool refuses_misuse() { return true; }

  // Bytes behind an address of device 0, when everything enqueued is complete. False: there is no memory there.
  virtual bool write(Address, std::span<const std::byte>) { return false; }
  virtual bool read(Address, std::span<std::byte>) { return false; }

  // Keeps the work of a stream from completing until release. False: it cannot.
  virtual bool block(Stream) { return false; }
  virtual void unblock(Stream) {}
  virtual Stream make_stream(int device) { return {device, ++streams_}; }

 private:
  std::uint64_t streams_ = 0;
};

struct BackendCase {
  std::string name;
  std::unique_ptr<Backend> (*make)(const BackendSpec& spec);  // null: this machine has no such thing
};

inline void PrintTo(const BackendCase& backend, std::ostream* out) { *out << backend.name; }

inline const Error* error_of(const Status& status) { return status.ok() ? nullptr : &status.error(); }
template <class T>
const Error* error_of(const Result<T>& result) {
  return result.ok() ? nullptr : &result.error();
}

MATCHER_P2(FailsWith, code, step, std::string("fails with ") + to_string(code) + " at " + to_string(step)) {
  const Error* error = error_of(arg);
  *result_listener << (error == nullptr ? "it succeeded" : describe(*error));
  return error != nullptr && error->code == code && error->step == step;
}
MATCHER(Succeeds, "succeeds") {
  const Error* error = error_of(arg);
  *result_listener << (error == nullptr ? "it succeeded" : describe(*error));
  return error == nullptr;
}

class DriverConformance : public ::testing::TestWithParam<BackendCase> {
 protected:
  void SetUp() override { start({}); }
  void TearDown() override {
    if (backend_ != nullptr && simulated() != nullptr) simulated()->check();
  }

  // Makes the backend anew. False: the test is skipped, and returns.
  bool start(const BackendSpec& spec) {
    backend_.reset();
    backend_ = GetParam().make(spec);
    if (backend_ == nullptr) {
      [] { GTEST_SKIP() << "this machine has no such backend"; }();
      return false;
    }
    const Result<std::uint64_t> granularity = driver().granularity({});
    granule_ = granularity.ok() ? *granularity : 0;
    return true;
  }

  Driver& driver() { return backend_->driver(); }
  SimulatedDriver* simulated() { return backend_->simulated(); }
  std::uint64_t granule() const { return granule_; }

  Address reserve(std::uint64_t granules) { return driver().reserve(granules * granule_, 0).value(); }
  Handle create(std::uint64_t granules, const MemoryProperties& properties = {}) {
    return driver().create(granules * granule_, properties).value();
  }
  Status map(Address address, std::uint64_t granules, Handle handle) {
    return driver().map(address, granules * granule_, handle);
  }
  Status unmap(Address address, std::uint64_t granules) { return driver().unmap(address, granules * granule_); }
  Status set_access(Address address, std::uint64_t granules, std::initializer_list<int> devices = {0}) {
    return driver().set_access(address, granules * granule_, std::span(devices.begin(), devices.size()));
  }
  // A new handle, mapped with access for device 0.
  Handle map_new(Address address, std::uint64_t granules, const MemoryProperties& properties = {}) {
    const Handle handle = create(granules, properties);
    EXPECT_THAT(map(address, granules, handle), Succeeds());
    EXPECT_THAT(set_access(address, granules), Succeeds());
    return handle;
  }

  // False: this backend has no memory behind its addresses.
  [[nodiscard]] bool write(Address address, std::uint64_t value) {
    return backend_->write(address, std::as_bytes(std::span(&value, 1)));
  }
  std::uint64_t read(Address address) {
    std::uint64_t value = 0;
    backend_->read(address, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }

  // What is visible of the driver's state, to see that a refused call changed nothing.
  std::string state() {
    std::string text;
    const int devices = driver().device_count().value();
    for (int device = 0; device < devices; ++device) {
      text += std::to_string(driver().memory_info(device).value().free_bytes) + " free; ";
    }
    if (simulated() == nullptr) return text;
    simulated()->check();
    const Usage usage = simulated()->usage();
    for (const std::uint64_t number :
         {usage.reservations, usage.reserved_bytes, usage.handles, usage.physical_bytes, usage.mappings,
          usage.mapped_bytes, usage.accessible, simulated()->streams().live_events()}) {
      text += std::to_string(number) + " ";
    }
    return text;
  }

  template <class Call>
  void expect_refused(ErrorCode code, Step step, Call call) {
    const std::string before = state();
    EXPECT_THAT(call(), FailsWith(code, step));
    EXPECT_EQ(state(), before);
  }

  std::unique_ptr<Backend> backend_;
  std::uint64_t granule_ = 0;
};

}  // namespace gmlake::driver::testing
