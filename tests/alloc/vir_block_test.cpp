// VirBlock: one address over whatever PhyBlocks are free.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <vector>

#include "support/host_default.hpp"
#include "support/machine.hpp"

namespace gmlake::test {
namespace {

// The example of gmlake.hpp.
TEST(VirBlock, WorksAsItsHeaderShows) {
  using namespace gmlake::literals;
  auto block = gmlake::create_vir_block(1024_MiB);
  void* p = block->get_block();
  EXPECT_NE(p, nullptr);
  EXPECT_EQ(block->size(), 1024_MiB);
  EXPECT_EQ(block->device_id(), 0);
  EXPECT_TRUE(block->status().ok());
  EXPECT_FALSE(block->released());
  std::uint64_t bytes = 0;
  for (const PhyBlockInfo& phy : block->phy_blocks()) bytes += phy.bytes;
  EXPECT_GE(bytes, 1024_MiB);
  EXPECT_TRUE(block->release().ok());
  EXPECT_TRUE(default_allocator().trim().ok());
}

TEST(VirBlock, IsStitchedFromWhatIsFreeElsewhere) {
  Options options;
  options.limit_bytes = 40 * kGranule;
  Machine machine(small_model(), options);
  const VirBlockOptions here{.device = 0, .stream = nullptr, .allocator = &machine.allocator()};
  std::vector<std::unique_ptr<VirBlock>> blocks;
  for (int i = 0; i < 4; ++i) blocks.push_back(create_vir_block(10 * kGranule, here));
  blocks[0].reset();
  blocks[2].reset();
  const auto stitched = create_vir_block(20 * kGranule, here);
  EXPECT_EQ(machine.stats().all.reserved_bytes.current, 40 * kGranule);
  EXPECT_GT(machine.stats().moved_bytes, 0u);
  EXPECT_EQ(stitched->phy_blocks().size(), 20u);
  std::uint64_t at = address_of(stitched->get_block());
  for (const PhyBlockInfo& phy : stitched->phy_blocks()) {
    EXPECT_EQ(phy.home, at);
    at += phy.bytes;
  }
}

TEST(VirBlock, IsReleasedOnce) {
  Machine machine;
  const auto block = create_vir_block(kGranule, {.allocator = &machine.allocator()});
  EXPECT_TRUE(block->release().ok());
  EXPECT_TRUE(block->released());
  EXPECT_EQ(block->get_block(), nullptr);
  EXPECT_TRUE(block->phy_blocks().empty());
  EXPECT_EQ(block->size(), kGranule);
  EXPECT_TRUE(block->release().ok());
  EXPECT_EQ(machine.stats().all.allocation.current, 0u);
  EXPECT_EQ(machine.stats().invalid_frees, 0u);
}

TEST(VirBlock, TellsWhenTheAllocatorDidNotKnowItAnyMore) {
  Machine machine;
  const auto block = create_vir_block(kGranule, {.allocator = &machine.allocator()});
  machine.deallocate(block->get_block());
  const Status released = block->release();
  ASSERT_FALSE(released.ok());
  EXPECT_EQ(released.error().code, ErrorCode::invalid_pointer);
  EXPECT_FALSE(block->status().ok());
  EXPECT_FALSE(block->release().ok());
}

TEST(VirBlock, IsRefusedWithTheErrorOfItsAllocation) {
  Machine machine;
  const VirBlockOptions here{.allocator = &machine.allocator()};
  EXPECT_EQ(try_create_vir_block(0, here).error().code, ErrorCode::invalid_size);
  EXPECT_EQ(try_create_vir_block(513 * kGranule, here).error().code, ErrorCode::invalid_size);
  EXPECT_EQ(try_create_vir_block(1, {.device = 3, .allocator = &machine.allocator()}).error().code,
            ErrorCode::invalid_device);
  EXPECT_THROW(create_vir_block(0, here), AllocationError);
  const auto all = create_vir_block(512 * kGranule, here);
  EXPECT_THROW(create_vir_block(1, here), OutOfMemoryError);
}

TEST(DefaultAllocator, IsOneAndItsMemoryCanBeUsed) {
  Allocator& allocator = default_allocator();
  EXPECT_EQ(&allocator, &default_allocator());
  EXPECT_GE(allocator.device_count(), 1);
  void* pointer = allocator.allocate(1 << 20);
  ASSERT_NE(pointer, nullptr);
  std::memset(pointer, 7, 1 << 20);
  EXPECT_EQ(static_cast<const char*>(pointer)[(1 << 20) - 1], 7);
  allocator.deallocate(pointer);
}

// On a machine with a GPU, memory of that; without one, an error that says what to set.
TEST(DefaultDriver, IsTheGpuOrSaysWhatElseThereIs) {
  const Result<std::unique_ptr<Allocator>> made = Allocator::create();
  if (made) {
    EXPECT_GE((*made)->device_count(), 1);
    return;
  }
  EXPECT_THAT(made.error().code, testing::AnyOf(ErrorCode::no_driver, ErrorCode::not_supported));
  EXPECT_THAT(describe(Error{ErrorCode::no_driver, Step::properties}), testing::HasSubstr("driver:host"));
}

TEST(DefaultDriver, IsTheOneThatTheOptionsName) {
  const std::unique_ptr<Allocator> model = Allocator::create({.driver = DriverKind::model}).value();
  EXPECT_GT(model->limit().value(), std::uint64_t{100} << 30);  // books of an H200
  const std::unique_ptr<Allocator> host = Allocator::create({.driver = DriverKind::host}).value();
  *static_cast<int*>(host->allocate(4)) = 7;
}

void* left_to_exit = nullptr;

// Frees at exit find it alive, whatever was destroyed before.
TEST(DefaultAllocator, OutlivesEveryFreeAtExit) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // not a fork, in which the default allocator is of no use
  EXPECT_EXIT(
      {
        left_to_exit = default_allocator().allocate(4096);
        std::atexit([] { default_allocator().deallocate(left_to_exit); });
        std::exit(0);
      },
      testing::ExitedWithCode(0), "");
}

TEST(DefaultAllocator, ReadsItsOptionsFromTheEnvironment) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // a process of its own, where it was not made yet
  EXPECT_EXIT(
      {
        setenv("GMLAKE_CONF", "driver:host,limit:64MiB", 1);
        const bool within = default_allocator().try_allocate(32 << 20).ok();
        const auto beyond = default_allocator().try_allocate(64 << 20);
        std::_Exit(within && !beyond.ok() && beyond.error().code == ErrorCode::out_of_memory ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace gmlake::test
