// The figures that gmlake promises on the recorded jobs, with default options: memory held over memory live, the
// smallest limit that does, and the time in driver calls. And two jobs on real memory, with every byte where it was
// put.
#include <gtest/gtest.h>

#include <string>

#include "driver/host.hpp"
#include "driver/model.hpp"
#include "driver/record.hpp"
#include "replay/engine.hpp"
#include "replay/read_trace.hpp"

namespace gmlake::replay {
namespace {

struct Figures {
  const char* trace;
  double reserved = 1.010;  // at most, over the peak of live memory
  double fit = 1.005;       // the smallest limit, likewise
};

constexpr double kDriverSeconds = 0.20;
constexpr std::uint64_t kHandlesInSecondHalf = 600;

const Figures kFigures[] = {
    {"gpt2_full"}, {"opt_recompute"}, {"llama7b_lr"}, {"opt_lro"}, {"detect"}, {"generate", 1.015, 1.010},
};

DeviceTrace read(const std::string& name) {
  auto trace = read_trace(std::string(GMLAKE_SOURCE_DIR) + "/examples/traces/" + name + ".pickle.gz");
  EXPECT_TRUE(trace.ok()) << trace.error().text();
  return trace.ok() ? std::move(trace->devices.at(0)) : DeviceTrace{};
}

ReplayReport replay_on(driver::SimulatedDriver& device, const DeviceTrace& trace, const ReplayOptions& options) {
  driver::RecordDriver record(device);
  Result<std::unique_ptr<Target>> target = make_target("gmlake", record, {});
  EXPECT_TRUE(target.ok());
  const Result<ReplayReport> report = replay(trace, **target, record, &device.streams(), options);
  EXPECT_TRUE(report.ok()) << describe(report.error());
  (*target).reset();
  EXPECT_EQ(device.usage(), driver::Usage{});
  EXPECT_EQ(device.streams().live_events(), 0u);
  EXPECT_TRUE(device.streams().violations().empty());
  return report.ok() ? *report : ReplayReport{};
}

class PromisedFigures : public testing::TestWithParam<Figures> {};

TEST_P(PromisedFigures, HoldOnTheWholeDevice) {
  const DeviceTrace trace = read(GetParam().trace);
  driver::ModelDriver model;
  const ReplayReport report = replay_on(model, trace, {});
  EXPECT_EQ(report.ooms, 0u);
  EXPECT_EQ(model.streams().synchronizations(), 0u);
  EXPECT_LE(static_cast<double>(report.peak_reserved_bytes),
            GetParam().reserved * static_cast<double>(report.peak_allocated_bytes));
  EXPECT_LE(report.driver_seconds, kDriverSeconds);
  EXPECT_LE(report.handles_mapped_second_half, kHandlesInSecondHalf);
}

TEST_P(PromisedFigures, HoldAtTheSmallestLimit) {
  const DeviceTrace trace = read(GetParam().trace);
  const Result<FitReport> report = fit(trace, "gmlake", {});
  ASSERT_TRUE(report.ok()) << describe(report.error());
  EXPECT_LE(static_cast<double>(report->min_capacity_bytes),
            GetParam().fit * static_cast<double>(report->peak_allocated_bytes));
}

INSTANTIATE_TEST_SUITE_P(Recorded, PromisedFigures, testing::ValuesIn(kFigures),
                         [](const auto& job) { return std::string(job.param.trace); });

class VerifiedReplay : public testing::TestWithParam<const char*> {};

TEST_P(VerifiedReplay, FindsEveryByteWhereItWasPut) {
  const DeviceTrace trace = read(GetParam());
  Result<std::unique_ptr<driver::HostDriver>> host = driver::HostDriver::make();
  ASSERT_TRUE(host.ok());
  ReplayOptions options;
  options.verify = true;
  const ReplayReport report = replay_on(**host, trace, options);
  EXPECT_EQ(report.ooms, 0u);
  EXPECT_GT(report.verified_bytes, 0u);
  EXPECT_EQ(report.wrong_bytes, 0u);
}

INSTANTIATE_TEST_SUITE_P(Recorded, VerifiedReplay, testing::Values("generate", "opt_lro"),
                         [](const auto& job) { return std::string(job.param); });

}  // namespace
}  // namespace gmlake::replay
