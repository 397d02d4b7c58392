// The host backend under the driver contract.
#include <cstring>
#include <utility>

#include "driver/conformance.hpp"
#include "driver/host.hpp"

namespace gmlake::driver::testing {
namespace {

class HostBackend final : public Backend {
 public:
  explicit HostBackend(const HostOptions& options) : driver_(HostDriver::make(options).value()) {}

  Driver& driver() override { return *driver_; }
  SimulatedDriver* simulated() override { return driver_.get(); }
  bool write(Address address, std::span<const std::byte> bytes) override {
    std::memcpy(reinterpret_cast<void*>(address), bytes.data(), bytes.size());
    return true;
  }
  bool read(Address address, std::span<std::byte> bytes) override {
    std::memcpy(bytes.data(), reinterpret_cast<const void*>(address), bytes.size());
    return true;
  }
  bool block(Stream stream) override { return driver_->streams().hold(stream), true; }
  void unblock(Stream stream) override { driver_->streams().resume(stream); }

 private:
  std::unique_ptr<HostDriver> driver_;
};

template <std::uint64_t kGranularity>
std::unique_ptr<Backend> make_host(const BackendSpec& spec) {
  if (spec.max_mappings) return nullptr;  // the kernel's own bound: see host_test.cpp
  HostOptions options;
  options.devices = spec.devices;
  options.granularity = kGranularity;
  options.flags = spec.flags;
  if (spec.capacity_granules) options.capacity_bytes = options.host_bytes = *spec.capacity_granules * kGranularity;
  return std::make_unique<HostBackend>(options);
}

INSTANTIATE_TEST_SUITE_P(Host, DriverConformance,
                         ::testing::Values(BackendCase{"2MiB", &make_host<std::uint64_t{2} << 20>},
                                           BackendCase{"64KiB", &make_host<std::uint64_t{64} << 10>}),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace gmlake::driver::testing
