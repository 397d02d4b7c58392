// What the replay engine measures, and that its verification finds memory that is given out twice.
#include "replay/engine.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

#include "driver/host.hpp"
#include "driver/per_thread_stream.hpp"
#include "gmlake/bytes.hpp"
#include "replay/segment.hpp"
#include "replay/trace_builder.hpp"

namespace gmlake::replay {
namespace {

using namespace gmlake::literals;

TEST(Replay, MeasuresPeaksOfLiveAndReservedMemory) {
  TraceBuilder t;
  const auto a = t.alloc(1);
  const auto b = t.alloc(3_MiB + 1);
  t.free(a);
  t.free(b);
  t.alloc(100);
  ModelRig rig("direct");
  const ReplayReport report = rig.replay(t.trace());
  EXPECT_EQ(report.events, 5u);
  EXPECT_EQ(report.peak_requested_bytes, 3_MiB + 2);
  EXPECT_EQ(report.peak_allocated_bytes, 3_MiB + 1024);
  EXPECT_EQ(report.peak_reserved_bytes, 6_MiB);
  EXPECT_EQ(report.ooms, 0u);
  EXPECT_EQ(report.verified_bytes, 0u);
}

TEST(Replay, CountsDriverCallsAndThoseOfTheSecondHalf) {
  TraceBuilder t;
  t.free(t.alloc(2_MiB));
  t.alloc(2_MiB);
  t.alloc(2_MiB);  // the second half begins here
  t.alloc(2_MiB);
  t.trim();
  ModelRig rig("direct");
  rig.free(rig.alloc(2_MiB));  // calls from before are not counted
  const ReplayReport report = rig.replay(t.trace());
  EXPECT_EQ(report.driver_calls.map, 4u);
  EXPECT_EQ(report.driver_calls.unmap, 1u);  // what is freed after the last event is not counted
  EXPECT_EQ(report.handles_mapped_second_half, 2u);
  EXPECT_GT(report.driver_seconds, 0.0);
  EXPECT_GT(report.host_ns_per_event, 0.0);
}

TEST(Replay, FreesWhatIsLeftAtTheEnd) {
  TraceBuilder t;
  const auto stream = t.add_held_stream();
  const auto side = t.add_stream(7);
  t.alloc(5_MiB);
  t.alloc(5_MiB, side);
  const auto block = t.alloc(5_MiB);
  t.use(block, stream);
  t.free(block);  // still pending at the end
  for (const char* name : {"direct", "torch-native", "torch-expandable"}) {
    ModelRig rig(name);
    rig.replay(t.trace());
    EXPECT_TRUE(rig.target().trim().ok());
    EXPECT_EQ(rig.reserved(), 0u) << name;
    rig.finish();
  }
}

TEST(Replay, CountsRefusedRequestsAndSkipsTheirLaterEvents) {
  TraceBuilder t;
  const auto held = t.add_held_stream();
  const auto a = t.alloc(4_MiB);
  const auto refused = t.alloc(8_MiB);
  t.use(refused, held);
  t.free(refused);
  t.free(a);
  t.alloc(8_MiB);
  TargetOptions options;
  options.capacity_bytes = 8_MiB;
  ModelRig rig("direct", options);
  const ReplayReport report = rig.replay(t.trace());
  EXPECT_EQ(report.ooms, 1u);
  EXPECT_EQ(report.events, 6u);
  EXPECT_EQ(report.peak_allocated_bytes, 8_MiB);
}

// What a stream of a thread's own was called where it was recorded means another stream here, or none.
TEST(Replay, GivesTheStreamsOfThreadsHandlesOfTheirOwn) {
  struct Seen final : Target {
    std::vector<std::uint64_t> handles;
    std::string_view name() const override { return "seen"; }
    Result<driver::Address> allocate(std::uint64_t, driver::Stream stream) override {
      handles.push_back(stream.handle);
      return handles.size() * 4096;
    }
    Status deallocate(driver::Address, driver::Stream) override { return {}; }
    Status record_stream(driver::Address, driver::Stream) override { return {}; }
    Status trim() override { return {}; }
    std::uint64_t reserved_bytes() const override { return 0; }
    std::uint64_t peak_reserved_bytes() const override { return 0; }
  };
  TraceBuilder t;
  const std::uint64_t number = driver::kThreadStreamBit + 7;
  t.alloc(4096);
  for (const std::uint64_t handle : {driver::kPerThreadStream, number, number + 1, std::uint64_t{3}}) {
    t.alloc(4096, t.add_stream(handle));
  }
  driver::ModelDriver model;
  driver::RecordDriver record(model);
  Seen seen;
  ASSERT_TRUE(replay::replay(t.trace(), seen, record, &model.streams(), {}).ok());
  ASSERT_EQ(seen.handles.size(), 5u);
  EXPECT_EQ(seen.handles[0], 0u);
  EXPECT_EQ(seen.handles[4], 3u);
  const std::set<std::uint64_t> distinct(seen.handles.begin(), seen.handles.end());
  EXPECT_EQ(distinct.size(), 5u);
  for (const std::uint64_t handle : distinct) {
    EXPECT_FALSE(driver::is_thread_stream(handle));
    EXPECT_NE(handle, driver::kPerThreadStream);
  }
}

TEST(Replay, StopsAtTheFirstRefusalWhereAsked) {
  TraceBuilder t;
  t.alloc(4_MiB);
  t.alloc(8_MiB);
  t.alloc(8_MiB);
  TargetOptions options;
  options.capacity_bytes = 8_MiB;
  ModelRig rig("direct", options);
  ReplayOptions stop;
  stop.stop_at_first_oom = true;
  const ReplayReport report = rig.replay(t.trace(), stop);
  EXPECT_EQ(report.ooms, 1u);
  EXPECT_EQ(report.events, 2u);
}

TEST(Replay, ReportsProgressUpToTheEnd) {
  TraceBuilder t;
  for (int i = 0; i < 500; ++i) t.free(t.alloc(512));
  std::vector<std::uint64_t> seen;
  ReplayOptions options;
  options.progress = [&](std::uint64_t done, std::uint64_t total) {
    EXPECT_EQ(total, 1000u);
    seen.push_back(done);
  };
  ModelRig rig("torch-native");
  rig.replay(t.trace(), options);
  EXPECT_EQ(seen.size(), 100u);
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  EXPECT_EQ(seen.back(), 1000u);
}

TEST(Replay, RefusesTracesWhoseIndicesAreOutOfRange) {
  const auto error_of = [](DeviceTrace& trace) {
    ModelRig rig("direct");
    const auto report = replay(trace, rig.target(), rig.record(), &rig.streams(), {});
    return report ? ErrorCode::unknown : report.error().code;
  };
  TraceBuilder id;
  id.free(id.alloc(1));
  id.trace().events[1].id = 1;
  EXPECT_EQ(error_of(id.trace()), ErrorCode::invalid_value);
  TraceBuilder stream;
  stream.alloc(1, 1);
  EXPECT_EQ(error_of(stream.trace()), ErrorCode::invalid_value);
  TraceBuilder held;
  held.alloc(1);
  held.trace().held_streams.clear();
  EXPECT_EQ(error_of(held.trace()), ErrorCode::invalid_value);
}

TEST(Replay, UsesTheStreamsThatItIsGiven) {
  TraceBuilder t;
  t.alloc(20_MiB, t.add_stream(7));
  ReplayOptions options;
  options.stream_handles = {0, 0};
  ModelRig rig("torch-native");
  rig.free(rig.alloc(20_MiB, 0));
  rig.replay(t.trace(), options);
  EXPECT_EQ(rig.reserved(), 20_MiB);  // stream 1 is the default stream here: its cached block was taken
  options.stream_handles = {0};
  const auto report = replay(t.trace(), rig.target(), rig.record(), &rig.streams(), options);
  EXPECT_EQ(report.error().code, ErrorCode::invalid_value);
}

// Gives out addresses at fixed offsets of one segment, whether they overlap or not.
class Careless final : public Target {
 public:
  Careless(driver::Driver& driver, std::vector<std::uint64_t> offsets) : driver_(driver), offsets_(std::move(offsets)) {
    segment_ = *allocate_segment(driver, 0, 16_MiB);
  }
  ~Careless() override { EXPECT_TRUE(free_segment(driver_, segment_).ok()); }

  std::string_view name() const override { return "careless"; }
  Result<driver::Address> allocate(std::uint64_t, driver::Stream) override {
    return segment_.address + offsets_[next_++ % offsets_.size()];
  }
  Status deallocate(driver::Address, driver::Stream) override { return {}; }
  Status record_stream(driver::Address, driver::Stream) override { return {}; }
  Status trim() override { return {}; }
  std::uint64_t reserved_bytes() const override { return 16_MiB; }
  std::uint64_t peak_reserved_bytes() const override { return 16_MiB; }

 private:
  driver::Driver& driver_;
  std::vector<std::uint64_t> offsets_;
  std::size_t next_ = 0;
  Segment segment_;
};

class Verify : public testing::Test {
 protected:
  void SetUp() override {
    auto made = driver::HostDriver::make();
    if (!made) GTEST_SKIP() << describe(made.error());
    host_ = std::move(*made);
    record_ = std::make_unique<driver::RecordDriver>(*host_);
    options_.verify = true;
  }
  ReplayReport replay_on(Target& target, const DeviceTrace& trace) {
    const auto report = replay(trace, target, *record_, &host_->streams(), options_);
    EXPECT_TRUE(report.ok()) << describe(report.error());
    return report ? *report : ReplayReport{};
  }
  ReplayReport replay_careless(std::vector<std::uint64_t> offsets, const DeviceTrace& trace) {
    Careless target(*record_, std::move(offsets));
    return replay_on(target, trace);
  }

  std::unique_ptr<driver::HostDriver> host_;
  std::unique_ptr<driver::RecordDriver> record_;
  ReplayOptions options_;
};

TEST_F(Verify, FindsBlocksThatOverlap) {
  TraceBuilder t;
  const auto a = t.alloc(4_MiB);
  const auto b = t.alloc(4_MiB);
  t.free(a);
  t.free(b);
  EXPECT_EQ(replay_careless({0, 4_MiB}, t.trace()).wrong_bytes, 0u);
  EXPECT_GT(replay_careless({0, 0}, t.trace()).wrong_bytes, 0u);
  EXPECT_GT(replay_careless({0, 4_MiB - 8}, t.trace()).wrong_bytes, 0u);  // by the last bytes of one
  EXPECT_GT(replay_careless({4_MiB, 512}, t.trace()).wrong_bytes, 0u);
}

TEST_F(Verify, FindsOverlapOfBlocksThatLiveToTheEnd) {
  TraceBuilder t;
  t.alloc(4_MiB);
  t.alloc(4_MiB);
  EXPECT_EQ(replay_careless({0, 4_MiB}, t.trace()).wrong_bytes, 0u);
  EXPECT_GT(replay_careless({0, 2_MiB}, t.trace()).wrong_bytes, 0u);
}

TEST_F(Verify, FindsSmallBlocksInsideLargeOnesByTheStride) {
  TraceBuilder t;
  t.alloc(8_MiB);
  t.alloc(16);
  EXPECT_GT(replay_careless({0, 2_MiB}, t.trace()).wrong_bytes, 0u);  // at a granule
  EXPECT_EQ(replay_careless({0, 512}, t.trace()).wrong_bytes, 0u);    // between two stamps
  options_.verify_stride_bytes = 512;
  EXPECT_GT(replay_careless({0, 512}, t.trace()).wrong_bytes, 0u);
}

TEST_F(Verify, FindsMemoryThatIsReusedWhileAnotherStreamHasIt) {
  TraceBuilder t;
  const auto held = t.add_held_stream();
  const auto a = t.alloc(4_MiB);
  t.use(a, held);
  t.free(a);
  t.alloc(4_MiB);
  t.advance(held, 1);
  EXPECT_EQ(replay_careless({0, 4_MiB}, t.trace()).wrong_bytes, 0u);
  EXPECT_GT(replay_careless({0, 0}, t.trace()).wrong_bytes, 0u);
}

TEST_F(Verify, AllowsReuseAfterTheOtherStreamIsDone) {
  TraceBuilder t;
  const auto held = t.add_held_stream();
  const auto a = t.alloc(4_MiB);
  t.use(a, held);
  t.free(a);
  t.advance(held, 1);
  t.alloc(4_MiB);
  const ReplayReport report = replay_careless({0, 0}, t.trace());
  EXPECT_EQ(report.wrong_bytes, 0u);
  EXPECT_EQ(report.verified_bytes, 2 * 3 * 8u);
}

TEST_F(Verify, CountsTheStampsThatItChecked) {
  TraceBuilder t;
  for (const std::uint64_t bytes : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{15}, std::uint64_t{16}}) {
    t.alloc(bytes);
  }
  t.alloc(2_MiB + 16);
  // 0, 1, 8 (of 15), 8 + 8, and 8 at 0, at 2 MiB and at the end.
  EXPECT_EQ(replay_careless({0, 1_MiB, 2_MiB, 3_MiB, 4_MiB}, t.trace()).verified_bytes, 0u + 1 + 8 + 16 + 24);
}

TEST_F(Verify, PassesTheModelsOfOtherAllocators) {
  TraceBuilder t;
  const auto held = t.add_held_stream();
  const auto side = t.add_stream(7);
  std::vector<std::uint32_t> live;
  std::uint64_t uses = 0;
  for (std::uint64_t i = 0; i < 600; ++i) {
    const std::uint64_t bytes = (i * 7919) % 23 == 0 ? 3_MiB + i * 4096 : 512 + (i * 104729) % 200'000;
    live.push_back(t.alloc(bytes, i % 5 == 0 ? side : std::uint16_t{0}));
    if (i % 3 != 0) continue;
    const std::size_t victim = (i * 31) % live.size();
    if (i % 2 == 0) {
      t.use(live[victim], held);
      ++uses;
    }
    t.free(live[victim]);
    live.erase(live.begin() + static_cast<std::ptrdiff_t>(victim));
    if (uses > 4) {
      t.advance(held, 3);
      uses -= 3;
    }
    if (i % 99 == 0) t.trim();
  }
  ASSERT_EQ(validate(t.trace()), std::nullopt);
  for (const std::uint64_t capacity : {std::uint64_t{0}, 120_MiB}) {
    for (const char* name : {"torch-native", "torch-expandable", "direct"}) {
      TargetOptions options;
      options.capacity_bytes = capacity;
      const auto target = make_target(name, *record_, options);
      ASSERT_TRUE(target.ok());
      const ReplayReport report = replay_on(**target, t.trace());
      EXPECT_GT(report.verified_bytes, 2000u) << name;
      EXPECT_EQ(report.wrong_bytes, 0u) << name;
    }
    EXPECT_EQ(host_->usage(), driver::Usage{});
    EXPECT_TRUE(host_->streams().violations().empty());
  }
}

TEST(VerifyOnTheModel, IsRefused) {
  TraceBuilder t;
  t.alloc(1);
  ReplayOptions options;
  options.verify = true;
  ModelRig rig("direct");
  const auto report = replay(t.trace(), rig.target(), rig.record(), &rig.streams(), options);
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.error().code, ErrorCode::not_supported);
}

}  // namespace
}  // namespace gmlake::replay
