// The search for the smallest capacity, on traces whose answer is known.
#include <gtest/gtest.h>

#include "gmlake/bytes.hpp"
#include "replay/engine.hpp"
#include "replay/trace_builder.hpp"

namespace gmlake::replay {
namespace {

using namespace gmlake::literals;

FitReport fit_of(const DeviceTrace& trace, std::string_view target, const FitOptions& options = {}) {
  const Result<FitReport> report = fit(trace, target, options);
  EXPECT_TRUE(report.ok()) << describe(report.error());
  return report ? *report : FitReport{};
}

TEST(Fit, FindsThePeakWhereNothingIsWasted) {
  TraceBuilder t;
  t.free(t.alloc(1_GiB));
  t.alloc(768_MiB);
  const FitReport report = fit_of(t.trace(), "direct");
  EXPECT_EQ(report.peak_allocated_bytes, 1_GiB);
  EXPECT_EQ(report.min_capacity_bytes, 1_GiB);
  EXPECT_EQ(report.replays, 2u);  // without a limit, and at its peak: less cannot do
}

TEST(Fit, FindsWhatReclaimingCachedSegmentsSaves) {
  // Unlimited, native caches 1 GiB while it serves 2 GiB; limited, it gives it back first.
  TraceBuilder t;
  t.free(t.alloc(1_GiB));
  t.alloc(2_GiB);
  const FitReport report = fit_of(t.trace(), "torch-native");
  EXPECT_GE(report.min_capacity_bytes, 2_GiB);
  EXPECT_LE(static_cast<double>(report.min_capacity_bytes), 1.001 * static_cast<double>(2_GiB));
}

TEST(Fit, EndsWithABracketOfItsToleranceWhoseLowerEndFailed) {
  // 100 pins of 1.5 MiB keep a segment of 20 MiB each.
  TraceBuilder t;
  std::vector<std::uint32_t> fillers;
  for (int i = 0; i < 100; ++i) {
    t.alloc(1536_KiB);
    fillers.push_back(t.alloc(9_MiB));
    fillers.push_back(t.alloc(9_MiB));
  }
  for (const auto filler : fillers) t.free(filler);
  t.alloc(1_GiB);
  for (const double tolerance : {0.1, 0.001, 0.0001}) {
    FitOptions options;
    options.tolerance = tolerance;
    const FitReport report = fit_of(t.trace(), "torch-native", options);
    EXPECT_LT(report.failed_capacity_bytes, report.min_capacity_bytes);
    const std::uint64_t bracket = report.min_capacity_bytes - report.failed_capacity_bytes;
    EXPECT_LE(static_cast<double>(bracket),
              std::max(tolerance * static_cast<double>(report.failed_capacity_bytes), static_cast<double>(2_MiB)));
    for (const std::uint64_t capacity : {report.min_capacity_bytes, report.failed_capacity_bytes}) {
      TargetOptions target;
      target.capacity_bytes = capacity;
      ModelRig rig("torch-native", target);
      EXPECT_EQ(rig.replay(t.trace()).ooms == 0, capacity == report.min_capacity_bytes);
    }
  }
}

TEST(Fit, RaisesTheUpperEndWhereTheUnlimitedPeakIsNotEnough) {
  // With 40 MiB mapped, 20 are missing for 21, and 60 are reserved in the end; but a limit is asked for 22 more
  // than 40.
  TraceBuilder t;
  t.alloc(39_MiB);
  t.alloc(21_MiB);
  const FitReport report = fit_of(t.trace(), "torch-expandable");
  EXPECT_GE(report.min_capacity_bytes, 62_MiB);
  EXPECT_LE(report.min_capacity_bytes, 64_MiB);
}

TEST(Fit, TakesALargerDeviceForALargerTrace) {
  TraceBuilder t;
  for (int i = 0; i < 3; ++i) t.alloc(100_GiB);
  EXPECT_EQ(fit_of(t.trace(), "direct").min_capacity_bytes, 300_GiB);
}

TEST(Fit, NeedsNothingForATraceThatAllocatesNothing) {
  TraceBuilder t;
  t.trim();
  EXPECT_EQ(fit_of(t.trace(), "torch-native").min_capacity_bytes, 0u);
}

TEST(Fit, RefusesUnknownTargetsSettingsAndTolerances) {
  TraceBuilder t;
  t.alloc(1);
  EXPECT_EQ(fit(t.trace(), "nothing", {}).error().code, ErrorCode::invalid_option);
  FitOptions options;
  options.tolerance = 0;
  EXPECT_EQ(fit(t.trace(), "direct", options).error().code, ErrorCode::invalid_option);
  options = {};
  options.settings["x"] = "1";
  EXPECT_EQ(fit(t.trace(), "direct", options).error().code, ErrorCode::invalid_option);
}

}  // namespace
}  // namespace gmlake::replay
