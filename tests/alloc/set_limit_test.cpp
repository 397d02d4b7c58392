// The limit while the job runs: in force at once for new memory, never against memory that is held, and no end to
// requests that it refused once it is raised.
#include <gtest/gtest.h>

#include <atomic>
#include <limits>
#include <thread>
#include <vector>

#include "support/machine.hpp"

namespace gmlake::test {
namespace {

TEST(SetLimit, IsWhatTheOptionsSaidAtFirst) {
  Options options;
  options.limit_bytes = 40 * kGranule;
  options.limit_fraction = 0.25;
  Machine machine(small_model(100), options);
  EXPECT_EQ(machine.allocator().limit().value(), 25 * kGranule);
  EXPECT_EQ(machine.allocator().limit_fraction().value(), 0.25);
}

TEST(SetLimit, InBytesAndAsAShareHoldAtTheLowerOfBoth) {
  Machine machine(small_model(100));
  EXPECT_EQ(machine.allocator().limit().value(), 100 * kGranule);
  ASSERT_TRUE(machine.allocator().set_limit(30 * kGranule).ok());
  EXPECT_EQ(machine.allocator().limit().value(), 30 * kGranule);
  ASSERT_TRUE(machine.allocator().set_limit_fraction(0.5).ok());
  EXPECT_EQ(machine.allocator().limit().value(), 30 * kGranule);
  ASSERT_TRUE(machine.allocator().set_limit(0).ok());
  EXPECT_EQ(machine.allocator().limit().value(), 50 * kGranule);
  ASSERT_TRUE(machine.allocator().set_limit_fraction(1).ok());
  EXPECT_EQ(machine.allocator().limit().value(), 100 * kGranule);
}

TEST(SetLimit, RefusesWhatIsNoShareAndWhatIsNoDevice) {
  Machine machine(small_model(100));
  ASSERT_TRUE(machine.allocator().set_limit_fraction(0.5).ok());
  for (const double wrong : {-0.1, 1.5, std::numeric_limits<double>::quiet_NaN()}) {
    const Status status = machine.allocator().set_limit_fraction(wrong);
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, ErrorCode::invalid_option);
    EXPECT_EQ(machine.allocator().limit().value(), 50 * kGranule);
  }
  EXPECT_EQ(machine.allocator().set_limit(1, 7).error().code, ErrorCode::invalid_device);
  EXPECT_EQ(machine.allocator().set_limit_fraction(1, -1).error().code, ErrorCode::invalid_device);
  EXPECT_EQ(machine.allocator().limit(7).error().code, ErrorCode::invalid_device);
  EXPECT_EQ(machine.allocator().limit_fraction(7).error().code, ErrorCode::invalid_device);
}

TEST(SetLimit, IsOneDevicesOwn) {
  driver::ModelOptions options = small_model(100);
  options.devices = 2;
  Machine machine(options);
  ASSERT_TRUE(machine.allocator().set_limit(10 * kGranule, 1).ok());
  EXPECT_EQ(machine.refused(11 * kGranule, 0, 1).code, ErrorCode::out_of_memory);
  machine.deallocate(machine.allocate(100 * kGranule));
}

TEST(SetLimit, RaisedLetsTheRefusedRequestSucceed) {
  Options options;
  options.limit_bytes = 10 * kGranule;
  Machine machine(small_model(100), options);
  void* live = machine.allocate(8 * kGranule);
  EXPECT_EQ(machine.refused(5 * kGranule).code, ErrorCode::out_of_memory);
  ASSERT_TRUE(machine.allocator().set_limit(12 * kGranule).ok());
  EXPECT_EQ(machine.refused(5 * kGranule).code, ErrorCode::out_of_memory);
  ASSERT_TRUE(machine.allocator().set_limit(13 * kGranule).ok());
  void* block = machine.allocate(5 * kGranule);
  EXPECT_EQ(machine.stats().all.reserved_bytes.current, 13 * kGranule);
  machine.deallocate(live);
  machine.deallocate(block);
}

TEST(SetLimit, LoweredBelowWhatIsHeldStopsGrowthAlone) {
  Machine machine(small_model(100));
  std::vector<void*> blocks;
  for (int i = 0; i < 6; ++i) blocks.push_back(machine.allocate(10 * kGranule));
  ASSERT_TRUE(machine.allocator().set_limit(20 * kGranule).ok());
  EXPECT_EQ(machine.stats().all.reserved_bytes.current, 60 * kGranule);
  EXPECT_EQ(machine.refused(kGranule).code, ErrorCode::out_of_memory);
  machine.deallocate(blocks[0]);
  machine.deallocate(blocks[2]);
  void* stitched = machine.allocate(20 * kGranule);  // of cached memory: nothing new
  EXPECT_EQ(machine.stats().all.reserved_bytes.current, 60 * kGranule);
  for (const int i : {1, 3, 4, 5}) machine.deallocate(blocks[static_cast<std::size_t>(i)]);
  EXPECT_EQ(machine.refused(50 * kGranule).code, ErrorCode::out_of_memory);
  ASSERT_TRUE(machine.allocator().trim(machine.allocator().limit().value()).ok());
  EXPECT_EQ(machine.stats().all.reserved_bytes.current, 20 * kGranule);
  machine.deallocate(stitched);
  machine.deallocate(machine.allocate(20 * kGranule));
}

TEST(SetLimit, MayChangeWhileOthersAllocate) {
  Machine machine(small_model(100));
  std::atomic<bool> stop = false;
  std::thread changer([&] {
    for (std::uint64_t i = 0; !stop; ++i) {
      if (!machine.allocator().set_limit((10 + i % 90) * kGranule).ok()) ADD_FAILURE();
      if (!machine.allocator().set_limit_fraction(1.0 / static_cast<double>(1 + i % 4)).ok()) ADD_FAILURE();
      if (machine.allocator().limit().value() > 100 * kGranule) ADD_FAILURE();
    }
  });
  for (std::uint64_t i = 0; i < 300; ++i) {
    const Result<void*> pointer = machine.allocator().try_allocate((1 + i * 7 % 60) * kGranule);
    if (pointer) machine.deallocate(*pointer);
    EXPECT_LE(machine.stats().all.reserved_bytes.current, 100 * kGranule);
  }
  stop = true;
  changer.join();
  ASSERT_TRUE(machine.allocator().set_limit(0).ok());
  ASSERT_TRUE(machine.allocator().set_limit_fraction(1).ok());
  machine.deallocate(machine.allocate(100 * kGranule));
}

}  // namespace
}  // namespace gmlake::test
