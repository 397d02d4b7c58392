// garbage_collection_threshold: what has been cached longest goes back to the driver before more is created, down to
// the threshold, without waiting, and never what the request itself will use.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "support/machine.hpp"

namespace gmlake::test {
namespace {

// With a slack of one, new memory is created up to twice the peak of live memory, whatever is cached.
Options collecting(double threshold, double slack = 1) {
  Options options;
  options.garbage_collection_threshold = threshold;
  options.slack = slack;
  return options;
}

std::uint64_t held(const Machine& machine) { return machine.stats().all.reserved_bytes.current / kGranule; }
std::uint64_t collected(const Machine& machine) { return machine.stats().collected_bytes / kGranule; }

// How many granules of [pointer, pointer + bytes) are still cached.
std::uint64_t cached_in(Machine& machine, const void* pointer, std::uint64_t bytes) {
  const std::uint64_t begin = address_of(pointer);
  std::uint64_t sum = 0;
  const Snapshot snapshot = machine.allocator().snapshot();
  for (const SegmentInfo& segment : snapshot.devices.at(0).segments) {
    for (const BlockInfo& block : segment.blocks) {
      if (block.state != BlockInfo::State::free) continue;
      const std::uint64_t from = std::max(begin, block.address);
      const std::uint64_t to = std::min(begin + bytes, block.address + block.bytes);
      if (from < to) sum += to - from;
    }
  }
  return sum / kGranule;
}

// Six blocks of eight granules; every other one may be freed without neighbours to merge with.
std::vector<void*> six(Machine& machine) {
  std::vector<void*> blocks;
  for (int i = 0; i < 6; ++i) blocks.push_back(machine.allocate(8 * kGranule));
  return blocks;
}

TEST(Garbage, IsKeptWhereTheOptionIsOff) {
  Machine machine(small_model(100), collecting(0));
  std::vector<void*> blocks = six(machine);
  for (std::size_t i = 0; i < 6; i += 2) machine.deallocate(blocks[i]);
  void* grown = machine.allocate(20 * kGranule);
  EXPECT_EQ(held(machine), 68u) << "the scene has to grow for the other tests to mean anything";
  EXPECT_EQ(machine.stats().collections, 0u);
  for (std::size_t i = 1; i < 6; i += 2) machine.deallocate(blocks[i]);
  machine.deallocate(grown);
}

TEST(Garbage, GoesOldestFirstDownToTheThreshold) {
  for (const bool backwards : {false, true}) {
    Machine machine(small_model(100), collecting(0.5));
    std::vector<void*> blocks = six(machine);
    std::vector<std::size_t> order{0, 2, 4};
    if (backwards) order = {4, 2, 0};
    for (const std::size_t i : order) machine.deallocate(blocks[i]);
    void* grown = machine.allocate(20 * kGranule);
    EXPECT_EQ(held(machine), 50u);
    EXPECT_EQ(machine.stats().collections, 1u);
    EXPECT_EQ(collected(machine), 18u);
    EXPECT_EQ(cached_in(machine, blocks[order[0]], 8 * kGranule), 0u);
    EXPECT_EQ(cached_in(machine, blocks[order[1]], 8 * kGranule), 0u);
    EXPECT_EQ(cached_in(machine, blocks[order[2]], 8 * kGranule), 6u);
    for (std::size_t i = 1; i < 6; i += 2) machine.deallocate(blocks[i]);
    machine.deallocate(grown);
  }
}

TEST(Garbage, StaysBelowTheThreshold) {
  Machine machine(small_model(100), collecting(0.7));
  std::vector<void*> blocks = six(machine);
  for (std::size_t i = 0; i < 6; i += 2) machine.deallocate(blocks[i]);
  void* grown = machine.allocate(20 * kGranule);
  EXPECT_EQ(held(machine), 68u);
  EXPECT_EQ(machine.stats().collections, 0u);
  for (std::size_t i = 1; i < 6; i += 2) machine.deallocate(blocks[i]);
  machine.deallocate(grown);
}

TEST(Garbage, FollowsTheLimitAsItChanges) {
  Machine machine(small_model(200), collecting(0.5));
  std::vector<void*> blocks = six(machine);
  for (std::size_t i = 0; i < 6; i += 2) machine.deallocate(blocks[i]);
  ASSERT_TRUE(machine.allocator().set_limit(120 * kGranule).ok());
  void* grown = machine.allocate(20 * kGranule);
  EXPECT_EQ(held(machine), 60u);
  for (std::size_t i = 1; i < 6; i += 2) machine.deallocate(blocks[i]);
  machine.deallocate(grown);
}

TEST(Garbage, IsNotWhatTheRequestWillUse) {
  Machine machine(small_model(100), collecting(0.1, 0));
  std::vector<void*> blocks = six(machine);
  for (std::size_t i = 0; i < 6; i += 2) machine.deallocate(blocks[i]);
  void* stitched = machine.allocate(30 * kGranule);  // the 24 that are cached, and six more
  EXPECT_EQ(held(machine), 54u);
  EXPECT_EQ(collected(machine), 0u);
  EXPECT_EQ(machine.calls().release, 0u);
  for (std::size_t i = 1; i < 6; i += 2) machine.deallocate(blocks[i]);
  machine.deallocate(stitched);
}

TEST(Garbage, ThatStreamsStillUseStaysAndNobodyWaits) {
  Machine machine(small_model(100), collecting(0.5));
  std::vector<void*> blocks = six(machine);
  machine.streams().hold({0, 0});
  for (std::size_t i = 0; i < 6; i += 2) {
    ASSERT_TRUE(machine.device().launch({0, 0}, {{address_of(blocks[i]), 8 * kGranule, true}}).ok());
    machine.deallocate(blocks[i]);
  }
  void* grown = machine.allocate(20 * kGranule);
  EXPECT_EQ(held(machine), 68u);
  EXPECT_EQ(collected(machine), 0u);
  EXPECT_EQ(machine.streams().synchronizations(), 0u);
  machine.streams().advance_all();
  void* more = machine.allocate(25 * kGranule);
  EXPECT_GT(collected(machine), 0u);
  EXPECT_EQ(machine.streams().synchronizations(), 0u);
  for (std::size_t i = 1; i < 6; i += 2) machine.deallocate(blocks[i]);
  machine.deallocate(grown);
  machine.deallocate(more);
}

// One stream fell idle long ago; another has gone on freeing since, so its clock is far ahead or far behind.
TEST(Garbage, ComparesStreamsByWhenTheyFreed) {
  for (const int frees_of_the_idle_one : {1, 500}) {
    Options options = collecting(0.5);
    options.max_address_space = 1024;  // long segments: no run here lies at the end of one, and can grow
    Machine machine(small_model(100), options);
    void* old = nullptr;
    for (int i = 0; i < frees_of_the_idle_one; ++i) {
      old = machine.allocate(8 * kGranule, 1);
      machine.deallocate(old, 1);
    }
    std::vector<void*> blocks;
    for (int i = 0; i < 4; ++i) {
      blocks.push_back(machine.allocate(9 * kGranule, 2));
      void* passing = machine.allocate(512, 2);
      machine.deallocate(passing, 2);
    }
    ASSERT_EQ(cached_in(machine, old, 8 * kGranule), 8u);
    machine.deallocate(blocks[1], 2);
    void* grown = machine.allocate(12 * kGranule, 2);
    EXPECT_GT(collected(machine), 0u);
    EXPECT_LT(cached_in(machine, old, 8 * kGranule), 8u);
    EXPECT_EQ(cached_in(machine, blocks[1], 9 * kGranule), 9u);
    for (const std::size_t i : {0, 2, 3}) machine.deallocate(blocks[i], 2);
    machine.deallocate(grown, 2);
  }
}

TEST(Garbage, IsNothingButACost) {
  Machine machine(small_model(60), collecting(0.3));
  std::vector<void*> blocks;
  for (std::uint64_t round = 0; round < 200; ++round) {
    blocks.push_back(machine.allocate((1 + round * 7 % 13) * kGranule, round % 3));
    if (blocks.size() > 4) {
      ASSERT_TRUE(machine.allocator().try_deallocate(blocks[round % 4]).ok());
      blocks.erase(blocks.begin() + static_cast<std::ptrdiff_t>(round % 4));
    }
  }
  EXPECT_EQ(machine.stats().num_ooms, 0u);
  for (void* block : blocks) EXPECT_TRUE(machine.allocator().try_deallocate(block).ok());
}

}  // namespace
}  // namespace gmlake::test
