// The recorded traces that come with the sources: peaks as measured on the machine that recorded them, and every format
// keeps what it promises to keep of them.
#include <gtest/gtest.h>

#include <cmath>

#include "replay/files.hpp"
#include "replay/random_trace.hpp"
#include "replay/read_trace.hpp"
#include "replay/write_trace.hpp"

namespace gmlake::replay {
namespace {

struct Recorded {
  const char* name;
  double peak_allocated_gib;
  std::uint64_t peak_reserved_bytes;
};

class ExampleTraces : public testing::TestWithParam<Recorded> {
 protected:
  Trace read() const {
    auto trace = read_trace(example_trace(GetParam().name + std::string(".pickle.gz")));
    EXPECT_TRUE(trace) << trace.error().text();
    return trace ? std::move(*trace) : Trace();
  }
};

TEST_P(ExampleTraces, HaveTheRecordedPeaks) {
  const Trace trace = read();
  EXPECT_EQ(trace.name, GetParam().name);
  ASSERT_EQ(trace.devices.size(), 1u);
  const DeviceTrace& device = trace.devices[0];
  EXPECT_EQ(validate(device), std::nullopt);
  const double gib = static_cast<double>(peak_allocated_bytes(device)) / (1 << 30);
  EXPECT_EQ(std::round(gib * 1000), std::round(GetParam().peak_allocated_gib * 1000));
  EXPECT_EQ(device.recorded_peak_reserved_bytes, GetParam().peak_reserved_bytes);
}

TEST_P(ExampleTraces, SurviveEveryFormat) {
  const Trace trace = read();
  for (const TraceFormat format : {TraceFormat::gmtrace, TraceFormat::snapshot, TraceFormat::snapshot_gz}) {
    const auto bytes = encode_trace(trace, format, "f");
    ASSERT_TRUE(bytes) << bytes.error().text();
    auto again = read_trace_from(*bytes, "f");
    ASSERT_TRUE(again) << again.error().text();
    again->name = trace.name;
    EXPECT_EQ(*again == trace, true) << static_cast<int>(format);
  }
  const auto csv = encode_trace(trace, TraceFormat::rmm_csv, "f");
  ASSERT_TRUE(csv);
  const auto again = read_trace_from(*csv, "f");
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ(allocs_and_frees(again->devices[0]) == allocs_and_frees(trace.devices[0]), true);
}

INSTANTIATE_TEST_SUITE_P(
    All, ExampleTraces,
    testing::Values(Recorded{"gpt2_full", 47.466, 54087647232}, Recorded{"opt_recompute", 29.101, 52120518656},
                    Recorded{"llama7b_lr", 27.433, 36974886912}, Recorded{"opt_lro", 11.973, 22020096000},
                    Recorded{"detect", 18.713, 29731323904}, Recorded{"generate", 9.368, 12377391104}),
    [](const auto& instance) { return std::string(instance.param.name); });

TEST(ExampleTracesWithSeveralStreams, HoldTheFreesThatWaited) {
  const auto trace = read_trace(example_trace("opt_lro.pickle.gz"));
  ASSERT_TRUE(trace);
  std::size_t uses = 0, completed = 0;
  for (const Event& event : trace->devices[0].events) {
    uses += event.op == Op::record_stream;
    completed += event.op == Op::advance;
  }
  EXPECT_EQ(completed, 2583u);
  EXPECT_EQ(uses, 2583u + 288u);  // the last 288 never completed
}

}  // namespace
}  // namespace gmlake::replay
