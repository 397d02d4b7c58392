// The models against what PyTorch did: six jobs recorded on an H200 (examples/traces), the bytes that their allocator
// reserved, and what the peers were measured to need there. A model that drifts from the original fails here.
#include <gtest/gtest.h>

#include <string>

#include "driver/model.hpp"
#include "driver/record.hpp"
#include "replay/engine.hpp"
#include "replay/read_trace.hpp"

namespace gmlake::replay {
namespace {

struct Expected {
  const char* trace;
  std::uint64_t native_reserved_bytes;  // as recorded
  // Over peak allocated.
  double expandable_reserved;  // the trace's calls replayed on the GPU
  double native_capacity;      // the smallest limit at which the replay ended without running out
  double expandable_capacity;
};

constexpr double kTolerance = 0.015;

const Expected kExpected[] = {
    {"gpt2_full", 54'087'647'232, 1.018, 1.0573, 1.0038},  {"opt_recompute", 52'120'518'656, 1.135, 1.0685, 1.0085},
    {"llama7b_lr", 36'974'886'912, 1.074, 1.0641, 1.0048}, {"opt_lro", 22'020'096'000, 1.136, 1.0479, 1.0079},
    {"detect", 29'731'323'904, 1.081, 1.1868, 1.0084},     {"generate", 12'377'391'104, 1.039, 1.2299, 1.0358},
};

class RecordedTrace : public testing::TestWithParam<Expected> {
 protected:
  void SetUp() override {
    const std::string path = std::string(GMLAKE_SOURCE_DIR) + "/examples/traces/" + GetParam().trace + ".pickle.gz";
    auto read = read_trace(path);
    ASSERT_TRUE(read.ok()) << read.error().text();
    trace_ = std::move(read->devices.at(0));
  }

  ReplayReport replay_through(std::string_view name, bool recorded_addresses = false) {
    driver::ModelDriver model;
    driver::RecordDriver record(model);
    TargetOptions options;
    if (recorded_addresses) options.recorded_segments = &trace_;
    Result<std::unique_ptr<Target>> target = make_target(name, record, options);
    EXPECT_TRUE(target.ok());
    const Result<ReplayReport> report = replay(trace_, **target, record, &model.streams(), {});
    EXPECT_TRUE(report.ok()) << describe(report.error());
    (*target).reset();
    EXPECT_EQ(model.usage(), driver::Usage{});
    EXPECT_EQ(model.streams().live_events(), 0u);
    EXPECT_TRUE(model.streams().violations().empty());
    return report ? *report : ReplayReport{};
  }

  double smallest_capacity(std::string_view name) {
    const Result<FitReport> report = fit(trace_, name, {});
    EXPECT_TRUE(report.ok()) << describe(report.error());
    if (!report) return 0;
    return static_cast<double>(report->min_capacity_bytes) / static_cast<double>(report->peak_allocated_bytes);
  }

  DeviceTrace trace_;
};

TEST_P(RecordedTrace, ReservesToTheByteWhatNativeDidAtTheRecordedAddresses) {
  const ReplayReport report = replay_through("torch-native", true);
  EXPECT_EQ(report.peak_reserved_bytes, GetParam().native_reserved_bytes);
  EXPECT_EQ(trace_.recorded_peak_reserved_bytes, GetParam().native_reserved_bytes);
  EXPECT_EQ(report.ooms, 0u);
}

TEST_P(RecordedTrace, ReservesAboutWhatNativeDidAtOtherAddresses) {
  const double reserved = static_cast<double>(replay_through("torch-native").peak_reserved_bytes);
  const double recorded = static_cast<double>(GetParam().native_reserved_bytes);
  EXPECT_NEAR(reserved / recorded, 1, kTolerance);
}

TEST_P(RecordedTrace, ReservesWhatExpandableSegmentsDid) {
  const ReplayReport report = replay_through("torch-expandable");
  const double ratio =
      static_cast<double>(report.peak_reserved_bytes) / static_cast<double>(report.peak_allocated_bytes);
  EXPECT_NEAR(ratio / GetParam().expandable_reserved, 1, kTolerance);
  EXPECT_EQ(report.ooms, 0u);
}

TEST_P(RecordedTrace, NeedsTheCapacityThatNativeDid) {
  EXPECT_NEAR(smallest_capacity("torch-native") / GetParam().native_capacity, 1, kTolerance);
}

TEST_P(RecordedTrace, NeedsTheCapacityThatExpandableSegmentsDid) {
  EXPECT_NEAR(smallest_capacity("torch-expandable") / GetParam().expandable_capacity, 1, kTolerance);
}

TEST_P(RecordedTrace, IsServedWithoutACacheToo) {
  const ReplayReport report = replay_through("direct");
  EXPECT_EQ(report.ooms, 0u);
  EXPECT_GE(report.peak_reserved_bytes, report.peak_allocated_bytes);
}

INSTANTIATE_TEST_SUITE_P(Jobs, RecordedTrace, testing::ValuesIn(kExpected),
                         [](const auto& row) { return std::string(row.param.trace); });

}  // namespace
}  // namespace gmlake::replay
