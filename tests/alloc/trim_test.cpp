// trim(): to the byte where the sizes of PhyBlocks allow it, never more than it must, and nothing that is in use.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <bitset>
#include <cstdio>
#include <random>
#include <vector>

#include "support/machine.hpp"

namespace gmlake::test {
namespace {

// The sizes of PhyBlocks that are held, by what is under a live block and what is not.
struct Held {
  std::vector<std::uint64_t> cached;
  std::uint64_t bytes = 0;
};

Held held(const Allocator& allocator, const std::vector<void*>& live) {
  Held result;
  std::vector<std::uint64_t> used;
  for (const void* pointer : live) {
    for (const PhyBlockInfo& block : allocator.phy_blocks(pointer)) used.push_back(block.home);
  }
  const Snapshot snapshot = allocator.snapshot();
  for (const PhyBlockInfo& block : snapshot.devices.at(0).phy_blocks) {
    result.bytes += block.bytes;
    if (std::find(used.begin(), used.end(), block.home) == used.end()) result.cached.push_back(block.bytes);
  }
  return result;
}

constexpr std::size_t kDeviceGranules = 65536;

// The least sum of a subset that is at least `bytes`: of all sums that can be reached, a bit each.
std::uint64_t least_sum(const std::vector<std::uint64_t>& sizes, std::uint64_t bytes, std::uint64_t granule) {
  std::uint64_t total = 0;
  for (const std::uint64_t size : sizes) total += size / granule;
  std::bitset<kDeviceGranules + 1> reached;
  reached.set(0);
  for (const std::uint64_t size : sizes) reached |= reached << (size / granule);
  for (std::uint64_t sum = (bytes + granule - 1) / granule; sum <= total; ++sum) {
    if (reached[sum]) return sum * granule;
  }
  return total * granule;
}

TEST(Trim, GivesBackTheLeastThatReachesItsTarget) {
  constexpr std::uint64_t kSeed = 11;
  std::printf("seed %llu\n", static_cast<unsigned long long>(kSeed));
  std::mt19937_64 random(kSeed);
  driver::ModelOptions device = small_model();
  device.granularity = 4096;
  device.capacity_bytes = kDeviceGranules * 4096ull;
  std::uint64_t sizes_seen = 0;
  for (int round = 0; round < 10; ++round) {
    Machine machine(device);
    std::vector<void*> blocks;
    for (int i = 0; i < 24; ++i) blocks.push_back(machine.allocate((1 + random() % 2000) * 4096ull + (2 << 20)));
    std::vector<void*> live;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      if (random() % 3 == 0) {
        live.push_back(blocks[i]);
      } else {
        machine.deallocate(blocks[i]);
      }
    }
    for (int step = 0; step < 4; ++step) {
      const Held before = held(machine.allocator(), live);
      for (const std::uint64_t size : before.cached) sizes_seen |= size;
      const std::uint64_t keep = random() % (before.bytes + 1);
      ASSERT_TRUE(machine.allocator().trim(keep).ok());
      machine.allocator().check();
      const std::uint64_t wanted = before.bytes - keep;
      EXPECT_EQ(before.bytes - machine.stats().all.reserved_bytes.current, least_sum(before.cached, wanted, 4096));
    }
    for (void* pointer : live) machine.deallocate(pointer);
  }
  EXPECT_GE(std::popcount(sizes_seen), 4) << "blocks of several sizes are what this is about";
}

TEST(Trim, AboveWhatIsHeldGivesNothingBack) {
  Machine machine(small_model(100));
  machine.deallocate(machine.allocate(30 * kGranule));
  ASSERT_TRUE(machine.allocator().trim(30 * kGranule).ok());
  EXPECT_EQ(machine.stats().all.reserved_bytes.current, 30 * kGranule);
  EXPECT_EQ(machine.calls().release, 0u);
}

TEST(Trim, LeavesLiveMemoryAlone) {
  Machine machine(small_model(100));
  void* live = machine.allocate(30 * kGranule);
  machine.deallocate(machine.allocate(20 * kGranule));
  ASSERT_TRUE(machine.allocator().trim(10 * kGranule).ok());
  EXPECT_EQ(machine.stats().all.reserved_bytes.current, 30 * kGranule);
  EXPECT_TRUE(machine.device().launch({0, 0}, {{address_of(live), 30 * kGranule, true}}).ok());
  machine.deallocate(live);
}

TEST(Trim, WaitsForWorkOnWhatItGivesBack) {
  Machine machine(small_model(100));
  machine.streams().hold({0, 1});
  void* block = machine.allocate(30 * kGranule, 1);
  ASSERT_TRUE(machine.device().launch({0, 1}, {{address_of(block), 30 * kGranule, true}}).ok());
  machine.deallocate(block, 1);
  ASSERT_TRUE(machine.allocator().trim(12 * kGranule).ok());
  EXPECT_EQ(machine.stats().all.reserved_bytes.current, 12 * kGranule);
  EXPECT_GE(machine.streams().synchronizations(), 1u);
}

TEST(Trim, MendsALimitThatWasLowered) {
  Machine machine(small_model(100));
  machine.deallocate(machine.allocate(80 * kGranule));
  ASSERT_TRUE(machine.allocator().set_limit(50 * kGranule).ok());
  ASSERT_TRUE(machine.allocator().trim(50 * kGranule).ok());
  EXPECT_EQ(machine.stats().all.reserved_bytes.current, 50 * kGranule);
  machine.deallocate(machine.allocate(50 * kGranule));
}

}  // namespace
}  // namespace gmlake::test
