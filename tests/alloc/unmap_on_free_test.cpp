// The option unmap_on_free: after a free there is no memory at the addresses, so that what uses them faults.
#include <gtest/gtest.h>

#include <sys/wait.h>

#include <csignal>

#include "driver/host.hpp"
#include "support/machine.hpp"

namespace gmlake::test {
namespace {

Options unmapping() {
  Options options;
  options.unmap_on_free = true;
  return options;
}

class UnmapOnFree : public testing::Test {
 protected:
  UnmapOnFree() : machine_(small_model(64), unmapping()) {}

  bool is_mapped(const void* pointer, std::uint64_t offset = 0) {
    return machine_.device().has_access(address_of(pointer) + offset, 0);
  }

  Machine machine_;
};

TEST_F(UnmapOnFree, LeavesNothingAtTheAddresses) {
  void* pointer = machine_.allocate(5 * kGranule, 1);
  void* small = machine_.allocate(512, 1);
  EXPECT_TRUE(is_mapped(pointer) && is_mapped(small));
  machine_.deallocate(pointer, 1);
  for (std::uint64_t at = 0; at < 5; ++at) EXPECT_FALSE(is_mapped(pointer, at * kGranule));
  EXPECT_TRUE(is_mapped(small));
  machine_.deallocate(small, 1);
  EXPECT_FALSE(is_mapped(small));
  EXPECT_EQ(machine_.stats().all.reserved_bytes.current, 0u);
}

TEST_F(UnmapOnFree, WaitsForTheWorkThatUsesIt) {
  machine_.streams().hold({0, 1});
  machine_.streams().hold({0, 2});
  void* pointer = machine_.allocate(4 * kGranule, 1);
  for (const std::uint64_t stream : {1, 2}) {
    EXPECT_TRUE(machine_.device().launch({0, stream}, {{address_of(pointer), 4 * kGranule, true}}).ok());
  }
  EXPECT_TRUE(machine_.allocator().try_record_stream(pointer, stream_handle(2)).ok());
  machine_.deallocate(pointer, 1);  // the simulated driver refuses to unmap what pending work touches
  EXPECT_EQ(machine_.streams().pending({0, 1}) + machine_.streams().pending({0, 2}), 0u);
  EXPECT_FALSE(is_mapped(pointer));
}

// A PhyBlock goes as a whole: what is freed beside a live neighbour in it stays until that is freed too.
TEST_F(UnmapOnFree, KeepsWhatSharesAPhyBlockWithALiveBlock) {
  void* first = machine_.allocate(512, 1);
  void* second = machine_.allocate(512, 1);
  machine_.deallocate(first, 1);
  EXPECT_TRUE(is_mapped(first));
  machine_.deallocate(second, 1);
  EXPECT_FALSE(is_mapped(first));
}

TEST_F(UnmapOnFree, BreaksNoCaptureAndCatchesUpAfterIt) {
  void* pointer = machine_.allocate(4 * kGranule, 1);
  void* other = machine_.allocate(4 * kGranule, 1);
  machine_.streams().set_capture({0, 1}, driver::CaptureState::active);
  machine_.deallocate(pointer, 1);
  EXPECT_EQ(machine_.streams().capture_state({0, 1}).value(), driver::CaptureState::active);
  EXPECT_TRUE(is_mapped(pointer));
  machine_.streams().set_capture({0, 1}, driver::CaptureState::none);
  machine_.deallocate(other, 1);
  EXPECT_FALSE(is_mapped(pointer) || is_mapped(other));
}

TEST_F(UnmapOnFree, LeavesAPrivatePoolToItsGraph) {
  ASSERT_TRUE(machine_.allocator().begin_pool({1, 0}, 0, [](StreamHandle) { return true; }).ok());
  void* pointer = machine_.allocate(4 * kGranule, 1);
  machine_.deallocate(pointer, 1);
  EXPECT_TRUE(is_mapped(pointer));
  EXPECT_EQ(machine_.allocate(4 * kGranule, 1), pointer);
  machine_.deallocate(pointer, 1);
  EXPECT_TRUE(machine_.allocator().end_pool({1, 0}, 0).ok());
  EXPECT_TRUE(machine_.allocator().release_pool({1, 0}, 0).ok());
}

TEST_F(UnmapOnFree, StillSaysWhatIsNoBlock) {
  void* pointer = machine_.allocate(4 * kGranule, 1);
  machine_.deallocate(pointer, 1);
  EXPECT_EQ(machine_.allocator().try_deallocate(pointer, stream_handle(1)).error().code, ErrorCode::invalid_pointer);
  EXPECT_EQ(machine_.allocator().try_deallocate(pointer).error().code, ErrorCode::invalid_pointer);
}

TEST(UnmapOnFreePlaced, GivesItBackAtOnce) {
  driver::ModelOptions two = small_model(64);
  two.devices = 2;
  Machine machine(two, unmapping());
  machine.streams().hold({0, 1});
  const Result<void*> pointer =
      machine.allocator().try_allocate(16 * kGranule, Placement::stripe({0, 1}), 0, stream_handle(1));
  ASSERT_TRUE(pointer.ok());
  EXPECT_TRUE(machine.device().launch({0, 1}, {{address_of(*pointer), 16 * kGranule, true}}).ok());
  machine.deallocate(*pointer, 1);
  EXPECT_FALSE(machine.device().has_access(address_of(*pointer), 0));
  EXPECT_EQ(machine.device().usage().physical_bytes, 0u);
}

TEST(UnmapOnFreeDeathTest, AUseAfterTheFreeFaults) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto device = std::move(driver::HostDriver::make()).value();
  Options options = unmapping();
  options.background_worker = false;
  const auto allocator = std::move(Allocator::create(*device, options)).value();
  auto* words = static_cast<volatile std::uint64_t*>(allocator->allocate(4 * kGranule));
  words[0] = 1;
  allocator->deallocate(const_cast<std::uint64_t*>(words));
  // The sanitizers take faults for themselves and exit with a code of their own.
  EXPECT_EXIT(
      words[0] = 2, [](int status) { return WIFSIGNALED(status) ? WTERMSIG(status) == SIGSEGV : status != 0; }, "");
}

}  // namespace
}  // namespace gmlake::test
