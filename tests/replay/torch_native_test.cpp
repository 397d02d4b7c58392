// Every rule of the model of PyTorch's native allocator, on traces small enough to follow by hand.
#include "replay/torch_native.hpp"

#include <gtest/gtest.h>

#include "gmlake/bytes.hpp"
#include "replay/trace_builder.hpp"

namespace gmlake::replay {
namespace {

using namespace gmlake::literals;

class NativeRig : public ModelRig {
 public:
  explicit NativeRig(const TargetOptions& options = {}, const driver::ModelOptions& device = {})
      : ModelRig("torch-native", options, device) {}
  void check() { static_cast<TorchNative&>(target()).check(); }
};

TargetOptions limited_to(std::uint64_t bytes) {
  TargetOptions options;
  options.capacity_bytes = bytes;
  return options;
}

struct SegmentRow {
  std::uint64_t request;
  std::uint64_t segment;
};

class TorchNativeSegments : public testing::TestWithParam<SegmentRow> {};

TEST_P(TorchNativeSegments, HaveTheSizeOfTheirClass) {
  NativeRig rig;
  EXPECT_NE(rig.alloc(GetParam().request), 0u);
  EXPECT_EQ(rig.reserved(), GetParam().segment);
}

INSTANTIATE_TEST_SUITE_P(Sizes, TorchNativeSegments,
                         testing::Values(SegmentRow{0, 2_MiB}, SegmentRow{1, 2_MiB}, SegmentRow{1_MiB, 2_MiB},
                                         SegmentRow{1_MiB + 1, 20_MiB}, SegmentRow{10_MiB - 512, 20_MiB},
                                         SegmentRow{10_MiB - 1, 10_MiB}, SegmentRow{10_MiB, 10_MiB},
                                         SegmentRow{11_MiB, 12_MiB}, SegmentRow{1_GiB + 1, 1_GiB + 2_MiB}));

TEST(TorchNative, SplitsSmallBlocksDownTo512Bytes) {
  NativeRig rig;
  const driver::Address first = rig.alloc(1);
  EXPECT_EQ(rig.alloc(513), first + 512);
  EXPECT_EQ(rig.alloc(1), first + 512 + 1024);
  EXPECT_EQ(rig.reserved(), 2_MiB);
  rig.check();
}

TEST(TorchNative, SplitsLargeBlocksOnlyWhereMoreThanOneMebibyteIsLeft) {
  NativeRig rig;
  const driver::Address whole = rig.alloc(12_MiB);
  rig.free(whole);
  EXPECT_EQ(rig.alloc(11_MiB), whole);  // the rest of 1 MiB stays with it
  EXPECT_NE(rig.alloc(1_MiB + 512), whole + 11_MiB);
  EXPECT_EQ(rig.reserved(), 32_MiB);
  rig.free(whole);
  EXPECT_EQ(rig.alloc(11_MiB - 512), whole);
  EXPECT_EQ(rig.alloc(1_MiB + 512), whole + 11_MiB - 512);
  EXPECT_EQ(rig.reserved(), 32_MiB);
  rig.check();
}

TEST(TorchNative, TakesTheSmallestBlockThatFitsAndTheLowestOfEquals) {
  NativeRig rig;
  const driver::Address wide = rig.alloc(30_MiB);
  const driver::Address low = rig.alloc(12_MiB);
  const driver::Address high = rig.alloc(12_MiB);
  rig.free(wide);
  rig.free(high);
  rig.free(low);
  EXPECT_EQ(rig.alloc(12_MiB), std::min(low, high));
  EXPECT_EQ(rig.alloc(12_MiB), std::max(low, high));
  EXPECT_EQ(rig.alloc(12_MiB), wide);
}

TEST(TorchNative, MergesAFreedBlockWithBothNeighbours) {
  NativeRig rig;
  const driver::Address a = rig.alloc(4_MiB);
  const driver::Address b = rig.alloc(4_MiB);
  const driver::Address c = rig.alloc(4_MiB);
  EXPECT_EQ(c, a + 8_MiB);
  rig.free(a);
  rig.free(c);
  rig.check();
  rig.free(b);
  rig.check();
  EXPECT_EQ(rig.alloc(20_MiB), a);
  EXPECT_EQ(rig.reserved(), 20_MiB);
}

TEST(TorchNative, KeepsStreamsAndSizeClassesApart) {
  NativeRig rig;
  rig.free(rig.alloc(20_MiB));
  EXPECT_NE(rig.alloc(20_MiB, kSideStream), 0u);
  EXPECT_EQ(rig.reserved(), 40_MiB);
  EXPECT_NE(rig.alloc(512), 0u);  // no small block comes from a free large one
  EXPECT_EQ(rig.reserved(), 42_MiB);
}

TEST(TorchNative, ReusesABlockOnlyAfterTheOtherStreamIsDone) {
  NativeRig rig;
  rig.streams().hold({0, kSideStream});
  const driver::Address block = rig.alloc(12_MiB);
  rig.use(block, kSideStream);
  rig.use(block, kSideStream);  // noted once
  rig.free(block);
  EXPECT_EQ(rig.streams().pending({0, kSideStream}), 1u);
  EXPECT_NE(rig.alloc(12_MiB), block);
  rig.streams().advance({0, kSideStream}, 1);
  EXPECT_EQ(rig.alloc(12_MiB), block);
}

TEST(TorchNative, WaitsForEveryStreamThatUsesABlock) {
  NativeRig rig;
  rig.streams().hold({0, 7});
  rig.streams().hold({0, 8});
  const driver::Address block = rig.alloc(12_MiB);
  rig.use(block, 7);
  rig.use(block, 8);
  rig.free(block);
  rig.streams().advance({0, 8}, 1);
  const driver::Address other = rig.alloc(12_MiB);
  EXPECT_NE(other, block);
  rig.streams().advance({0, 7}, 1);
  EXPECT_EQ(rig.alloc(12_MiB), block);
}

TEST(TorchNative, TakesAUseOnItsOwnStreamForNone) {
  NativeRig rig;
  const driver::Address block = rig.alloc(12_MiB);
  rig.use(block, 0);
  rig.free(block);
  EXPECT_EQ(rig.record().counts().event_record, 0u);
  EXPECT_EQ(rig.alloc(12_MiB), block);
}

TEST(TorchNative, ReleasesWhollyFreeSegmentsAtTheLimitAndTriesAgain) {
  NativeRig rig(limited_to(40_MiB));
  const driver::Address pinned = rig.alloc(4_MiB);  // 20 MiB, of which 16 stay free
  rig.free(rig.alloc(20_MiB));
  EXPECT_EQ(rig.reserved(), 40_MiB);
  EXPECT_NE(rig.alloc(12_MiB, kSideStream), 0u);
  EXPECT_EQ(rig.reserved(), 32_MiB);
  EXPECT_EQ(rig.target().peak_reserved_bytes(), 40_MiB);
  EXPECT_EQ(rig.alloc(12_MiB, kSideStream), 0u);  // a split segment stays
  rig.free(pinned);
  EXPECT_NE(rig.alloc(12_MiB, kSideStream), 0u);
  rig.check();
}

TEST(TorchNative, ReleasesWhollyFreeSegmentsWhenTheDriverRefuses) {
  driver::ModelOptions device;
  device.capacity_bytes = 40_MiB;
  NativeRig rig({}, device);
  rig.free(rig.alloc(40_MiB));
  EXPECT_NE(rig.alloc(20_MiB, kSideStream), 0u);
  EXPECT_EQ(rig.reserved(), 20_MiB);
  EXPECT_EQ(rig.alloc(22_MiB), 0u);
}

TEST(TorchNative, WaitsForPendingBlocksBeforeItReleasesSegments) {
  NativeRig rig(limited_to(20_MiB));
  rig.streams().hold({0, kSideStream});
  const driver::Address block = rig.alloc(20_MiB);
  rig.use(block, kSideStream);
  rig.free(block);
  EXPECT_NE(rig.alloc(18_MiB), 0u);
  EXPECT_EQ(rig.streams().synchronizations(), 1u);
  EXPECT_EQ(rig.reserved(), 18_MiB);
}

TEST(TorchNative, OrdersSegmentsOfEqualSizeByTheirRecordedAddresses) {
  DeviceTrace recording;
  recording.recorded_segments = {{0, 0, 64_GiB, 12_MiB}, {1, 0, 32_GiB, 12_MiB}};
  for (const bool recorded : {false, true}) {
    TargetOptions options;
    options.recorded_segments = recorded ? &recording : nullptr;
    NativeRig rig(options);
    const driver::Address first = rig.alloc(12_MiB);
    const driver::Address second = rig.alloc(12_MiB);
    ASSERT_LT(first, second);  // as the model driver reserves
    rig.free(first);
    rig.free(second);
    EXPECT_EQ(rig.alloc(12_MiB), recorded ? second : first);
    rig.check();
  }
}

TEST(TorchNative, GoesOnWhereTheRecordingHasNoSuchSegment) {
  DeviceTrace recording;
  recording.recorded_segments = {{0, 0, 64_GiB, 12_MiB}};
  TargetOptions options;
  options.recorded_segments = &recording;
  NativeRig rig(options);
  EXPECT_NE(rig.alloc(12_MiB), 0u);
  EXPECT_NE(rig.alloc(12_MiB), 0u);
  EXPECT_NE(rig.alloc(12_MiB, kSideStream), 0u);
  EXPECT_EQ(rig.reserved(), 36_MiB);
}

TEST(TorchNative, KeepsBlocksFromMaxSplitSizeOnWhole) {
  TargetOptions options = limited_to(96_MiB);
  options.settings["max_split_size_mb"] = "32";
  NativeRig rig(options);
  const driver::Address large = rig.alloc(64_MiB);
  rig.free(large);
  EXPECT_NE(rig.alloc(12_MiB), large);           // not out of an oversize block
  EXPECT_EQ(rig.alloc(64_MiB - 19_MiB), large);  // whole, 20 MiB too large at most
  rig.free(large);
  EXPECT_NE(rig.alloc(40_MiB), 0u);  // too small for it: it is released to make room
  EXPECT_EQ(rig.reserved(), 52_MiB);
}

TEST(TorchNative, ReleasesSeveralOversizeBlocksFromTheLargestDown) {
  TargetOptions options = limited_to(120_MiB);
  options.settings["max_split_size_mb"] = "32";
  NativeRig rig(options);
  const driver::Address a = rig.alloc(32_MiB);
  const driver::Address b = rig.alloc(40_MiB);
  const driver::Address c = rig.alloc(48_MiB);
  for (const driver::Address block : {a, b, c}) rig.free(block);
  EXPECT_NE(rig.alloc(80_MiB), 0u);
  EXPECT_EQ(rig.reserved(), 112_MiB);  // the two largest went
}

TEST(TorchNative, TrimsEveryWhollyFreeSegment) {
  NativeRig rig;
  const driver::Address block = rig.alloc(4_MiB);
  rig.free(rig.alloc(12_MiB));
  rig.free(rig.alloc(512));
  rig.free(rig.alloc(40_MiB, kSideStream));
  EXPECT_TRUE(rig.target().trim().ok());
  EXPECT_EQ(rig.reserved(), 20_MiB);
  rig.free(block);
  EXPECT_TRUE(rig.target().trim().ok());
  EXPECT_EQ(rig.reserved(), 0u);
}

TEST(TorchNative, RefusesForeignPointersAndUnknownSettings) {
  NativeRig rig;
  const driver::Address block = rig.alloc(4_MiB);
  EXPECT_EQ(rig.target().deallocate(block + 512, {}).error().code, ErrorCode::invalid_pointer);
  EXPECT_EQ(rig.target().deallocate(0, {}).error().code, ErrorCode::invalid_pointer);
  EXPECT_EQ(rig.target().record_stream(block + 512, {}).error().code, ErrorCode::invalid_pointer);
  rig.free(block);
  EXPECT_EQ(rig.target().deallocate(block, {}).error().code, ErrorCode::invalid_pointer);
  EXPECT_EQ(rig.target().allocate(~std::uint64_t{0}, {}).error().code, ErrorCode::invalid_size);
  const std::pair<const char*, const char*> bad[] = {{"max_split_size_mb", "20"},
                                                     {"max_split_size_mb", "-1"},
                                                     {"max_split_size_mb", "64MB"},
                                                     {"max_split_size_mb", ""},
                                                     {"max_split_size_mb", "99999999999999999999"},
                                                     {"expandable_segments", "True"}};
  for (const auto& [key, value] : bad) {
    TargetOptions options;
    options.settings[key] = value;
    const auto made = make_target("torch-native", rig.record(), options);
    ASSERT_FALSE(made.ok()) << key << "=" << value;
    EXPECT_EQ(made.error().code, ErrorCode::invalid_option);
  }
}

}  // namespace
}  // namespace gmlake::replay
