// The model backend under the driver contract.
#include "driver/conformance.hpp"
#include "driver/model.hpp"

namespace gmlake::driver::testing {
namespace {

class ModelBackend final : public Backend {
 public:
  explicit ModelBackend(const ModelOptions& options) : driver_(options) {}

  Driver& driver() override { return driver_; }
  SimulatedDriver* simulated() override { return &driver_; }
  bool block(Stream stream) override { return driver_.streams().hold(stream), true; }
  void unblock(Stream stream) override { driver_.streams().resume(stream); }

 private:
  ModelDriver driver_;
};

template <std::uint64_t kGranularity>
std::unique_ptr<Backend> make_model(const BackendSpec& spec) {
  ModelOptions options;
  options.devices = spec.devices;
  options.granularity = kGranularity;
  options.flags = spec.flags;
  if (spec.capacity_granules) options.capacity_bytes = options.host_bytes = *spec.capacity_granules * kGranularity;
  if (spec.max_mappings) options.max_mappings = *spec.max_mappings;
  return std::make_unique<ModelBackend>(options);
}

INSTANTIATE_TEST_SUITE_P(Model, DriverConformance,
                         ::testing::Values(BackendCase{"2MiB", &make_model<std::uint64_t{2} << 20>},
                                           BackendCase{"64KiB", &make_model<std::uint64_t{64} << 10>}),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace gmlake::driver::testing
