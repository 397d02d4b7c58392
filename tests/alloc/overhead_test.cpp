// What is pinned, against its meaning, and what bookkeeping takes of the host's memory.
#include <algorithm>
#include <random>
#include <vector>

#include "support/machine.hpp"

namespace gmlake::test {
namespace {

// Of every PhyBlock that is not free as a whole, the bytes that are free, from the snapshot alone.
std::uint64_t recount_pinned(const DeviceSnapshot& snapshot) {
  std::uint64_t pinned = 0;
  for (const PhyBlockInfo& phy : snapshot.phy_blocks) {
    if (phy.home == 0) continue;
    std::uint64_t free = 0;
    for (const SegmentInfo& segment : snapshot.segments) {
      if (phy.home < segment.address || phy.home >= segment.address + segment.bytes) continue;
      for (const BlockInfo& block : segment.blocks) {
        const std::uint64_t begin = std::max(block.address, phy.home);
        const std::uint64_t end = std::min(block.address + block.bytes, phy.home + phy.bytes);
        if (begin < end && block.state == BlockInfo::State::free) free += end - begin;
      }
    }
    if (free < phy.bytes) pinned += free;
  }
  return pinned;
}

TEST(Overhead, OfADeviceThatWasNeverUsedIsNothing) {
  Machine machine;
  const Overhead overhead = machine.allocator().overhead();
  EXPECT_EQ(overhead.pinned_bytes, 0u);
  EXPECT_EQ(overhead.block_metadata_bytes, 0u);
  EXPECT_EQ(overhead.phy_metadata_bytes, 0u);
}

TEST(Overhead, PinnedAreTheFreeBytesThatShareAPhyBlockWithLiveOnes) {
  Machine machine;
  const auto pinned = [&machine] { return machine.allocator().overhead().pinned_bytes; };
  void* small = machine.allocate(512);
  EXPECT_EQ(pinned(), kGranule - 512);
  void* large = machine.allocate(3_MiB);  // in PhyBlocks of 2 MiB
  EXPECT_EQ(pinned(), kGranule - 512 + 1_MiB);
  machine.deallocate(small);
  EXPECT_EQ(pinned(), 1_MiB);
  machine.deallocate(large);
  EXPECT_EQ(pinned(), 0u);
}

TEST(Overhead, WhatOtherStreamsStillUsePinsAsLiveMemoryDoes) {
  Machine machine;
  machine.streams().hold({0, 7});
  void* first = machine.allocate(1_MiB);
  void* second = machine.allocate(1_MiB);
  machine.allocator().record_stream(first, stream_handle(7));
  machine.deallocate(first);
  machine.deallocate(second);
  EXPECT_EQ(machine.allocator().overhead().pinned_bytes, 1_MiB);
}

TEST(Overhead, PinnedBytesEqualARecountInRandomPrograms) {
  for (const std::uint64_t seed : {1, 2, 3}) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    Machine machine(small_model(256));
    std::vector<void*> live;
    std::uint64_t most = 0;
    for (int i = 0; i < 600; ++i) {
      const std::uint64_t bytes = std::uint64_t{512} << random() % 16;
      const Result<void*> made = machine.allocator().try_allocate(bytes + random() % bytes);
      if (made) live.push_back(*made);
      if (!made || random() % 3 == 0) {
        std::swap(live[random() % live.size()], live.back());
        machine.deallocate(live.back());
        live.pop_back();
      }
      const std::uint64_t pinned = machine.allocator().overhead().pinned_bytes;
      ASSERT_EQ(pinned, recount_pinned(machine.allocator().snapshot().devices.at(0))) << "operation " << i;
      ASSERT_LE(pinned, machine.stats().all.inactive_split_bytes.current);
      most = std::max(most, pinned);
    }
    EXPECT_GT(most, 4_MiB);
    for (void* pointer : live) machine.allocator().deallocate(pointer);
  }
}

TEST(Overhead, MetadataIsOfLiveBlocksAndOfPhyBlocks) {
  Machine machine(small_model(256));
  (void)machine.allocate(512);
  const Overhead one = machine.allocator().overhead();
  EXPECT_GT(one.block_metadata_bytes, 0u);
  EXPECT_GT(one.phy_metadata_bytes, 0u);
  for (int i = 0; i < 4000; ++i) (void)machine.allocator().allocate(512);
  const Overhead many = machine.allocator().overhead();
  EXPECT_GE(many.block_metadata_bytes, 4000u * 96);
  EXPECT_LE(many.block_metadata_bytes, 4000u * 160);
  EXPECT_LE(many.phy_metadata_bytes, 2 * one.phy_metadata_bytes);  // in the same PhyBlock
}

}  // namespace
}  // namespace gmlake::test
