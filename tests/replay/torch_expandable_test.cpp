// Every rule of the model of PyTorch's expandable segments, on traces small enough to follow by hand.
#include "replay/torch_expandable.hpp"

#include <gtest/gtest.h>

#include "gmlake/bytes.hpp"
#include "replay/trace_builder.hpp"

namespace gmlake::replay {
namespace {

using namespace gmlake::literals;

class ExpandableRig : public ModelRig {
 public:
  explicit ExpandableRig(std::uint64_t capacity_bytes = 0, const driver::ModelOptions& device = {})
      : ModelRig("torch-expandable", options(capacity_bytes), device) {}
  void check() { static_cast<TorchExpandable&>(target()).check(); }

 private:
  static TargetOptions options(std::uint64_t capacity_bytes) {
    TargetOptions result;
    result.capacity_bytes = capacity_bytes;
    return result;
  }
};

TEST(TorchExpandable, MapsWholePagesOfItsClass) {
  ExpandableRig rig;
  EXPECT_NE(rig.alloc(1), 0u);
  EXPECT_EQ(rig.reserved(), 2_MiB);
  EXPECT_NE(rig.alloc(1_MiB + 1), 0u);
  EXPECT_EQ(rig.reserved(), 22_MiB);
  EXPECT_NE(rig.alloc(41_MiB), 0u);  // 18.99 MiB are left of the page: 22.01 more make two pages
  EXPECT_EQ(rig.reserved(), 62_MiB);
  const driver::CallCounts calls = rig.record().counts();
  EXPECT_EQ(calls.reserve, 2u);  // one range a class
  EXPECT_EQ(calls.create, 4u);   // one handle a page
  EXPECT_EQ(calls.map, 4u);
  EXPECT_EQ(calls.set_access, 3u);  // one a run of pages
  rig.check();
}

TEST(TorchExpandable, ReservesAnEighthMoreThanTheDeviceHolds) {
  driver::ModelOptions device;
  device.capacity_bytes = 1_GiB;
  ExpandableRig rig(0, device);
  rig.alloc(512);
  EXPECT_EQ(rig.model().usage().reserved_bytes, 1_GiB + 128_MiB);
}

TEST(TorchExpandable, GrowsAtTheEndOfTheRangeFromItsFreeTail) {
  ExpandableRig rig;
  const driver::Address first = rig.alloc(15_MiB);
  EXPECT_EQ(rig.alloc(25_MiB), first + 15_MiB);
  EXPECT_EQ(rig.reserved(), 40_MiB);
}

TEST(TorchExpandable, SplitsDownTo512Bytes) {
  ExpandableRig rig;
  const driver::Address first = rig.alloc(20_MiB - 512);
  rig.alloc(2_MiB);
  rig.free(first);
  EXPECT_EQ(rig.alloc(18_MiB), first);
  EXPECT_EQ(rig.alloc(1_MiB + 512), first + 18_MiB);
  EXPECT_EQ(rig.reserved(), 40_MiB);
  rig.check();
}

TEST(TorchExpandable, LeavesTheGrowingEndAloneWhereAnotherBlockFits) {
  ExpandableRig rig;
  const driver::Address hole = rig.alloc(18_MiB);
  rig.alloc(10_MiB);  // up to 28 MiB of 40: a tail of 12 MiB stays free
  rig.free(hole);
  EXPECT_EQ(rig.alloc(11_MiB), hole);  // though the tail is smaller
}

TEST(TorchExpandable, KeepsStreamsAndSizeClassesApart) {
  ExpandableRig rig;
  rig.free(rig.alloc(20_MiB));
  EXPECT_NE(rig.alloc(20_MiB, kSideStream), 0u);
  EXPECT_NE(rig.alloc(512), 0u);
  EXPECT_EQ(rig.reserved(), 42_MiB);
  EXPECT_EQ(rig.record().counts().reserve, 3u);
}

TEST(TorchExpandable, UnmapsThePagesInsideFreeBlocksAtTheLimit) {
  ExpandableRig rig(80_MiB);
  const driver::Address a = rig.alloc(30_MiB);
  const driver::Address pin = rig.alloc(4_MiB);  // in the middle of the second page
  const driver::Address b = rig.alloc(26_MiB);   // up to 60 MiB
  rig.free(a);
  rig.free(b);
  EXPECT_EQ(rig.reserved(), 60_MiB);
  EXPECT_NE(rig.alloc(40_MiB, kSideStream), 0u);
  EXPECT_EQ(rig.reserved(), 60_MiB);  // the first and the third page went, the second stays for the pin
  EXPECT_EQ(rig.record().counts().unmap, 2u);
  rig.check();
  rig.free(pin);
  rig.check();
}

TEST(TorchExpandable, MapsAtTheLowestAddressesThatHaveRoom) {
  ExpandableRig rig(80_MiB);
  const driver::Address a = rig.alloc(40_MiB);
  const driver::Address pin = rig.alloc(20_MiB);
  rig.free(a);
  EXPECT_TRUE(rig.target().trim().ok());
  EXPECT_EQ(rig.reserved(), 20_MiB);
  EXPECT_EQ(rig.alloc(35_MiB), a);  // in the hole before the pin
  EXPECT_EQ(rig.alloc(5_MiB), a + 35_MiB);
  EXPECT_EQ(rig.alloc(20_MiB), pin + 20_MiB);
  EXPECT_EQ(rig.reserved(), 80_MiB);
  rig.check();
}

TEST(TorchExpandable, SkipsHolesThatAreTooShort) {
  ExpandableRig rig;
  const driver::Address a = rig.alloc(20_MiB);
  const driver::Address pin = rig.alloc(20_MiB);
  rig.free(a);
  EXPECT_TRUE(rig.target().trim().ok());
  EXPECT_EQ(rig.alloc(40_MiB), pin + 20_MiB);
  EXPECT_EQ(rig.alloc(20_MiB), a);
}

TEST(TorchExpandable, JoinsAFreeBlockBehindTheHole) {
  ExpandableRig rig;
  const driver::Address a = rig.alloc(20_MiB);
  const driver::Address b = rig.alloc(10_MiB);
  const driver::Address pin = rig.alloc(10_MiB);
  EXPECT_EQ(pin, a + 30_MiB);
  rig.free(a);
  EXPECT_TRUE(rig.target().trim().ok());  // the first page is a hole
  rig.free(b);                            // 10 MiB free behind it, on the pin's page
  EXPECT_EQ(rig.alloc(30_MiB), a);
  EXPECT_EQ(rig.reserved(), 40_MiB);
  rig.check();
}

TEST(TorchExpandable, HoldsTheWholeSegmentSizeAgainstTheLimit) {
  // Of 12 MiB only 2 are missing, one page; but 12 MiB more than 40 is past the limit, as in the real one.
  ExpandableRig rig(50_MiB);
  rig.alloc(30_MiB);
  EXPECT_EQ(rig.reserved(), 40_MiB);
  EXPECT_EQ(rig.alloc(12_MiB), 0u);
  EXPECT_EQ(rig.reserved(), 40_MiB);
}

TEST(TorchExpandable, UnmapsAndTriesAgainWhenTheDriverRefuses) {
  driver::ModelOptions device;
  device.capacity_bytes = 60_MiB;
  ExpandableRig rig(0, device);
  rig.free(rig.alloc(40_MiB));
  EXPECT_NE(rig.alloc(60_MiB, kSideStream), 0u);
  EXPECT_EQ(rig.reserved(), 60_MiB);
  EXPECT_EQ(rig.alloc(2_MiB), 0u);
  rig.check();
}

TEST(TorchExpandable, WaitsForItsStreamBeforeItUnmaps) {
  ExpandableRig rig;
  const driver::Address block = rig.alloc(20_MiB);
  rig.streams().hold({0, 0});
  EXPECT_TRUE(rig.model().launch({0, 0}, {{block, 20_MiB, true}}).ok());
  rig.free(block);
  EXPECT_TRUE(rig.target().trim().ok());
  EXPECT_EQ(rig.streams().synchronizations(), 1u);
  EXPECT_EQ(rig.reserved(), 0u);
}

TEST(TorchExpandable, GivesARangeBackWhenNothingIsMappedInIt) {
  ExpandableRig rig;
  rig.free(rig.alloc(20_MiB));
  rig.free(rig.alloc(512));
  EXPECT_TRUE(rig.target().trim().ok());
  EXPECT_EQ(rig.model().usage(), driver::Usage{});
  EXPECT_NE(rig.alloc(20_MiB), 0u);
  rig.check();
}

TEST(TorchExpandable, ReusesABlockOnlyAfterTheOtherStreamIsDone) {
  ExpandableRig rig;
  rig.streams().hold({0, kSideStream});
  const driver::Address block = rig.alloc(20_MiB);
  rig.use(block, kSideStream);
  rig.free(block);
  EXPECT_NE(rig.alloc(20_MiB), block);
  rig.streams().advance({0, kSideStream}, 1);
  EXPECT_EQ(rig.alloc(20_MiB), block);
}

TEST(TorchExpandable, RefusesForeignPointersAndUnknownSettings) {
  ExpandableRig rig;
  const driver::Address block = rig.alloc(4_MiB);
  EXPECT_EQ(rig.target().deallocate(block + 512, {}).error().code, ErrorCode::invalid_pointer);
  EXPECT_EQ(rig.target().record_stream(block + 512, {}).error().code, ErrorCode::invalid_pointer);
  rig.free(block);
  EXPECT_EQ(rig.target().deallocate(block, {}).error().code, ErrorCode::invalid_pointer);
  EXPECT_EQ(rig.target().allocate(~std::uint64_t{0}, {}).error().code, ErrorCode::invalid_size);
  TargetOptions options;
  options.settings["max_split_size_mb"] = "64";
  EXPECT_EQ(make_target("torch-expandable", rig.record(), options).error().code, ErrorCode::invalid_option);
}

}  // namespace
}  // namespace gmlake::replay
