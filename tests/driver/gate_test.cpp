// The gate: passes every call through while all is well, and none once the device is lost.
#include "driver/gate.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "driver/conformance.hpp"
#include "driver/fault.hpp"
#include "driver/model.hpp"
#include "driver/one_device.hpp"
#include "process/child.hpp"

namespace gmlake::driver {
namespace {

// One call of each kind, with whatever arguments: the error of each, if it has one.
std::vector<std::function<std::optional<Error>(Driver&)>> all_calls() {
  const auto error = [](const auto& result) { return result.ok() ? std::nullopt : std::optional(result.error()); };
  return {
      [=](Driver& d) { return error(d.device_count()); },
      [=](Driver& d) { return error(d.device_properties(0)); },
      [=](Driver& d) { return error(d.memory_info(0)); },
      [=](Driver& d) { return error(d.granularity({})); },
      [=](Driver& d) { return error(d.reserve(2 * kMiB, 0)); },
      [=](Driver& d) { return error(d.address_free(2 * kMiB, 2 * kMiB)); },
      [=](Driver& d) { return error(d.create(2 * kMiB, {})); },
      [=](Driver& d) { return error(d.release(Handle{1})); },
      [=](Driver& d) { return error(d.map(2 * kMiB, 2 * kMiB, Handle{1})); },
      [=](Driver& d) { return error(d.unmap(2 * kMiB, 2 * kMiB)); },
      [=](Driver& d) { return error(d.set_access(2 * kMiB, 2 * kMiB, kDevices)); },
      [=](Driver& d) { return error(d.event_create(0)); },
      [=](Driver& d) {
        return error(d.event_record(Event{1}, {0, 1}));
      },
      [=](Driver& d) { return error(d.event_query(Event{1})); },
      [=](Driver& d) {
        return error(d.stream_query({0, 1}));
      },
      [=](Driver& d) { return error(d.event_synchronize(Event{1})); },
      [=](Driver& d) {
        return error(d.stream_wait({0, 1}, Event{1}));
      },
      [=](Driver& d) { return error(d.event_destroy(Event{1})); },
      [=](Driver& d) {
        return error(d.clear({0, 1}, 2 * kMiB, 2 * kMiB));
      },
      [=](Driver& d) {
        return error(d.capture_state({0, 1}));
      },
  };
}

TEST(Gate, IsShutForGoodByWhicheverCallFindsTheDeviceLost) {
  for (const auto& finder : all_calls()) {
    ModelDriver model;
    FaultDriver fault(model);
    Gate gate(fault);
    fault.arm({.sticky = false, .code = ErrorCode::device_lost});
    EXPECT_FALSE(gate.lost());
    const std::optional<Error> found = finder(gate);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->code, ErrorCode::device_lost);
    EXPECT_TRUE(gate.lost());
    EXPECT_EQ(gate.lost_at(), found->step);
    const std::uint64_t calls = fault.calls();
    for (const auto& call : all_calls()) {
      const std::optional<Error> refused = call(gate);
      ASSERT_TRUE(refused);
      EXPECT_EQ(refused->code, ErrorCode::device_lost);
      EXPECT_NE(refused->step, Step::none);
    }
    EXPECT_EQ(fault.calls(), calls) << "a call reached the driver";
  }
}

TEST(Gate, StaysOpenAfterEveryOtherError) {
  for (const ErrorCode code : {ErrorCode::out_of_memory, ErrorCode::too_many_mappings, ErrorCode::address_space,
                               ErrorCode::invalid_value, ErrorCode::not_supported, ErrorCode::unknown}) {
    ModelDriver model;
    FaultDriver fault(model);
    Gate gate(fault);
    fault.arm({.sticky = true, .code = code});
    for (const auto& call : all_calls()) EXPECT_EQ(call(gate).value().code, code);
    EXPECT_FALSE(gate.lost());
    fault.heal();
    EXPECT_TRUE(gate.reserve(2 * kMiB, 0).ok());
  }
}

TEST(Gate, IsShutInTheChildOfAFork) {
  ASSERT_TRUE(process::watch().ok());
  ModelDriver model;
  FaultDriver fault(model);
  Gate gate(fault);
  EXPECT_EQ(test::in_child([&] {
              const std::uint64_t before = fault.calls();
              for (const auto& call : all_calls()) {
                const std::optional<Error> refused = call(gate);
                if (!refused || refused->code != ErrorCode::forked || refused->step == Step::none) return 1;
              }
              return fault.calls() == before && !gate.lost() ? 0 : 2;
            }),
            0);
  EXPECT_TRUE(gate.reserve(2 * kMiB, 0).ok());
}

}  // namespace
}  // namespace gmlake::driver

// And through the gate a driver is what it is without.
namespace gmlake::driver::testing {
namespace {

class GatedBackend final : public Backend {
 public:
  explicit GatedBackend(const ModelOptions& options) : model_(options) {}

  Driver& driver() override { return gate_; }
  SimulatedDriver* simulated() override { return &model_; }
  bool block(Stream stream) override { return model_.streams().hold(stream), true; }
  void unblock(Stream stream) override { model_.streams().resume(stream); }

 private:
  ModelDriver model_;
  Gate gate_{model_};
};

std::unique_ptr<Backend> make_gated(const BackendSpec& spec) {
  ModelOptions options;
  options.devices = spec.devices;
  options.flags = spec.flags;
  if (spec.capacity_granules) {
    options.capacity_bytes = options.host_bytes = *spec.capacity_granules * options.granularity;
  }
  if (spec.max_mappings) options.max_mappings = *spec.max_mappings;
  return std::make_unique<GatedBackend>(options);
}

INSTANTIATE_TEST_SUITE_P(Gated, DriverConformance, ::testing::Values(BackendCase{"model", &make_gated}),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace gmlake::driver::testing
