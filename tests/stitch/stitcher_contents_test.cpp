// Moving memory for real, on ordinary memory mapped twice: what was written through the old address is read through the
// new one, and work that is still under way may go on using the old one.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "driver/host.hpp"
#include "stitch/rig.hpp"

namespace gmlake::stitch::testing {
namespace {

class StitcherContents : public ::testing::Test {
 protected:
  static constexpr std::uint32_t kHostShift = 16;

  static std::uint64_t* words(Address address) { return reinterpret_cast<std::uint64_t*>(address); }
  // Every 4 KiB of a PhyBlock holds its own number and place.
  void fill(const memory::Mapping* mapping, std::uint64_t number) {
    const Address begin = mapping->segment->address_of(mapping->slot);
    for (std::uint64_t at = 0; at < mapping->block->granules * rig_.granule(); at += 4096) {
      *words(begin + at) = number << 32 | at;
    }
  }
  void expect_filled(const memory::Mapping* mapping, std::uint64_t number) {
    const Address begin = mapping->segment->address_of(mapping->slot);
    for (std::uint64_t at = 0; at < mapping->block->granules * rig_.granule(); at += 4096) {
      ASSERT_EQ(*words(begin + at), number << 32 | at);
    }
  }

  std::unique_ptr<driver::HostDriver> host_ =
      driver::HostDriver::make({.granularity = std::uint64_t{1} << kHostShift}).value();
  Rig rig_{*host_, kHostShift};
};

TEST_F(StitcherContents, ComeAlongWithEachBlockThatMoves) {
  (void)rig_.lay(rig_.a, "F4a+2b+1c L1 F2d L1 H2 F1e H12");
  std::uint64_t number = 1;
  for (const auto& [name, block] : rig_.named) fill(block->home, number++);
  const auto plan = rig_.plan(rig_.a, 11, {.headroom = 4});
  ASSERT_TRUE(plan.has_value());
  Block* run = rig_.carry_out(*plan);
  ASSERT_NE(run, nullptr);
  rig_.check();
  number = 1;
  std::size_t moved = 0;
  for (const auto& [name, block] : rig_.named) {
    SCOPED_TRACE(name);
    const Address home = block->home->segment->address_of(block->home->slot);
    moved += home >= run->address && home < run->end() ? 1 : 0;
    expect_filled(block->home, number++);
  }
  EXPECT_GE(moved, 4u);
  // All of it is one range to write: the last byte too.
  std::memset(words(run->address), 0x5a, run->bytes);
  EXPECT_EQ(*reinterpret_cast<const unsigned char*>(run->end() - 1), 0x5a);
}

TEST_F(StitcherContents, ComeBackWithABlockThatIsRevived) {
  (void)rig_.lay(rig_.a, "F2a L1 S2a H2");
  fill(rig_.named["a"]->home, 7);
  const auto plan = rig_.plan(rig_.a, 3, {.headroom = 1});
  ASSERT_EQ(rig_.describe(plan), "3..6 revive a@3 create 1@5");
  ASSERT_NE(rig_.carry_out(*plan), nullptr);
  EXPECT_EQ(rig_.named["a"]->home->slot, 3u);
  expect_filled(rig_.named["a"]->home, 7);
  rig_.check();
}

TEST_F(StitcherContents, OfLiveBlocksAreLeftAlone) {
  (void)rig_.lay(rig_.a, "F2a L2x F1b L2y H9");
  fill(rig_.named["x"]->home, 1);
  fill(rig_.named["y"]->home, 2);
  const Address x = rig_.live[0]->address;
  const auto plan = rig_.plan(rig_.a, 5, {.headroom = 2});
  ASSERT_TRUE(plan.has_value());
  Block* run = rig_.carry_out(*plan);
  ASSERT_NE(run, nullptr);
  std::memset(words(run->address), 0, run->bytes);
  EXPECT_EQ(rig_.live[0]->address, x);
  expect_filled(rig_.named["x"]->home, 1);
  expect_filled(rig_.named["y"]->home, 2);
  rig_.check();
}

TEST_F(StitcherContents, MayStillBeReachedThroughTheOldAddressByWorkUnderWay) {
  const driver::Stream stream{0, 0};
  const memory::VmmSegment* segment = rig_.lay(rig_.a, "F2a L1 H8");
  const Address old = segment->base;
  host_->streams().hold(stream);
  // A kernel on memory that is freed behind it, in the order of its stream.
  ASSERT_TRUE(host_->launch(stream, {{old, rig_.bytes(2), true}}, [&] { *words(old) = 41; }).ok());
  rig_.a.give_back(rig_.a.take(rig_.a.find(rig_.bytes(2)), rig_.bytes(2), 1), 1);
  rig_.tick = 1;
  const auto plan = rig_.plan(rig_.a, 3, {.headroom = 1});
  ASSERT_EQ(rig_.describe(plan), "3..6 move a@3 create 1@5");
  Block* run = rig_.carry_out(*plan);
  ASSERT_NE(run, nullptr);
  const Address fresh = run->address;
  ASSERT_TRUE(host_->launch(stream, {{fresh, rig_.bytes(3), true}}, [&] { *words(fresh) += 1; }).ok());
  // The old mapping is not retired before the stream is past the free.
  ASSERT_TRUE(rig_.fences.mark(0, 1).ok());
  ASSERT_TRUE(rig_.fences.poll().ok());
  EXPECT_EQ(rig_.table.retire(rig_.fences, 0), 0u);
  host_->streams().resume(stream);
  EXPECT_EQ(*words(fresh), 42u);
  ASSERT_TRUE(rig_.fences.poll().ok());
  EXPECT_EQ(rig_.table.retire(rig_.fences, 0), 2u);
  EXPECT_EQ(*words(fresh), 42u);
  EXPECT_TRUE(host_->streams().violations().empty());
  rig_.check();
}

TEST_F(StitcherContents, OfAnotherStreamAreReachedInOrderBehindAStreamWait) {
  const driver::Stream first{0, 0};
  const driver::Stream second{0, 1};
  (void)rig_.lay(rig_.a, "L1 H8");
  const memory::VmmSegment* other = rig_.lay(rig_.b, "f2x");
  const Address old = other->base;
  host_->streams().hold(second);
  ASSERT_TRUE(host_->launch(second, {{old, rig_.bytes(2), true}}, [&] { *words(old) = 7; }).ok());
  const auto plan = rig_.plan(rig_.a, 2, {.stream_wait = true, .donors = {&rig_.a, &rig_.b}});
  ASSERT_EQ(rig_.describe(plan), "1..3 move x@1");
  Block* run = rig_.carry_out(*plan);
  ASSERT_NE(run, nullptr);
  const Address fresh = run->address;
  ASSERT_TRUE(host_->launch(first, {{fresh, rig_.bytes(2), true}}, [&] { *words(fresh) += 1; }).ok());
  EXPECT_EQ(host_->streams().pending(first), 2u);  // the wait, and the kernel behind it
  host_->streams().resume(second);
  EXPECT_EQ(host_->streams().pending(first), 0u);
  EXPECT_EQ(*words(fresh), 8u);
  rig_.check();
}

}  // namespace
}  // namespace gmlake::stitch::testing
