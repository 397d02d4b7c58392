// The public interface: what each call gives, and what it says to arguments that make no sense.
#include <gtest/gtest.h>

#include <limits>
#include <set>

#include "support/machine.hpp"

namespace gmlake::test {
namespace {

constexpr std::size_t kTooMuch = std::numeric_limits<std::size_t>::max();

TEST(Allocator, HandsOutMultiplesOf512BytesAlignedTo512) {
  Machine machine;
  std::set<void*> pointers;
  for (const std::size_t bytes : {1u, 511u, 512u, 513u, 1u << 20, (1u << 20) + 1, 7u << 20}) {
    void* pointer = machine.allocate(bytes);
    EXPECT_EQ(address_of(pointer) % 512, 0u);
    EXPECT_EQ(machine.allocator().size_of(pointer), round_up(bytes, 512));
    EXPECT_EQ(machine.allocator().device_of(pointer), 0);
    pointers.insert(pointer);
  }
  EXPECT_EQ(pointers.size(), 7u);
  for (void* pointer : pointers) machine.deallocate(pointer);
  EXPECT_EQ(machine.stats().all.allocation.current, 0u);
}

TEST(Allocator, AnswersZeroBytesWithANullPointerAndTakesThatBack) {
  Machine machine;
  EXPECT_EQ(machine.allocate(0), nullptr);
  EXPECT_EQ(machine.allocator().allocate(0), nullptr);
  machine.deallocate(nullptr);
  machine.allocator().deallocate(nullptr);
  EXPECT_EQ(machine.stats().invalid_frees, 0u);
  EXPECT_EQ(machine.stats().all.allocation.allocated, 0u);
}

TEST(Allocator, RefusesSizesBeyondTheDeviceBeforeAnyDriverCall) {
  Machine machine;
  for (const std::size_t bytes : {kTooMuch, kTooMuch - 511, kTooMuch / 2, 512 * kGranule + 1}) {
    const Error error = machine.refused(bytes);
    EXPECT_EQ(error.code, ErrorCode::invalid_size);
    EXPECT_EQ(error.step, Step::allocate);
    EXPECT_EQ(error.value, bytes);
  }
  EXPECT_EQ(machine.calls().total(), 0u);
  EXPECT_THROW(machine.allocator().allocate(kTooMuch), AllocationError);
}

TEST(Allocator, HandsOutTheWholeDeviceInOnePiece) {
  Machine machine;
  void* all = machine.allocate(512 * kGranule);
  EXPECT_EQ(machine.stats().all.reserved_bytes.current, 512 * kGranule);
  EXPECT_EQ(machine.refused(512).code, ErrorCode::out_of_memory);
  machine.deallocate(all);
  EXPECT_EQ(machine.allocate(512 * kGranule), all);
  machine.deallocate(all);
}

TEST(Allocator, ThrowsWhatItsResultsName) {
  Machine machine;
  void* all = machine.allocate(512 * kGranule);
  try {
    (void)machine.allocator().allocate(kGranule);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const OutOfMemoryError& error) {
    EXPECT_EQ(error.error().code, ErrorCode::out_of_memory);
    EXPECT_EQ(error.error().value, kGranule);
    EXPECT_EQ(describe(error.report()), error.what());
  }
  EXPECT_THROW(machine.allocator().allocate(kGranule), std::bad_alloc);  // as containers expect
  try {
    (void)machine.allocator().allocate(512, 1);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const AllocationError& error) {
    EXPECT_EQ(error.error().code, ErrorCode::invalid_device);
    EXPECT_EQ(describe(error.error()), error.what());
  }
  EXPECT_THROW(machine.allocator().record_stream(&machine, nullptr), AllocationError);
  machine.deallocate(all);
}

TEST(Allocator, RefusesDevicesThatThereAreNot) {
  Machine machine;
  for (const int device : {-1, 1, 64, std::numeric_limits<int>::min(), std::numeric_limits<int>::max()}) {
    EXPECT_EQ(machine.refused(512, 0, device).code, ErrorCode::invalid_device);
    EXPECT_EQ(machine.refused(0, 0, device).code, ErrorCode::invalid_device);
    EXPECT_EQ(machine.stats(device).all.reserved_bytes.current, 0u);
    machine.allocator().reset_peaks(device);
  }
}

TEST(Allocator, RefusesADeviceWithoutVirtualMemoryManagement) {
  driver::ModelOptions device = small_model();
  device.flags.resize(1);
  device.flags[0].vmm = false;
  Machine machine(device);
  EXPECT_EQ(machine.refused(512).code, ErrorCode::not_supported);
}

TEST(Allocator, CountsWhatIsLiveAndWhatItsPeakWas) {
  Machine machine;
  void* first = machine.allocate(1000);
  void* second = machine.allocate(3 * kGranule);
  machine.deallocate(first);
  DeviceStats stats = machine.stats();
  EXPECT_EQ(stats.all.allocation.current, 1u);
  EXPECT_EQ(stats.all.allocation.peak, 2u);
  EXPECT_EQ(stats.all.allocated_bytes.current, 3 * kGranule);
  EXPECT_EQ(stats.all.allocated_bytes.peak, 3 * kGranule + 1024);
  EXPECT_EQ(stats.all.requested_bytes.peak, 3 * kGranule + 1000);
  EXPECT_EQ(stats.all.active_bytes.current, 3 * kGranule);
  EXPECT_EQ(stats.all.reserved_bytes.current, 4 * kGranule);
  EXPECT_EQ(stats.mappings, 4u);
  machine.deallocate(second);
  EXPECT_EQ(machine.allocator().trim().ok(), true);
  EXPECT_EQ(machine.stats().all.reserved_bytes.peak, 4 * kGranule);
  machine.allocator().reset_peaks();
  stats = machine.stats();
  EXPECT_EQ(stats.all.allocation.peak, 0u);
  EXPECT_EQ(stats.all.allocated_bytes.peak, 0u);
  EXPECT_EQ(stats.all.reserved_bytes.peak, 0u);
  EXPECT_EQ(stats.all.allocated_bytes.allocated, 3 * kGranule + 1024);
  EXPECT_EQ(stats.all.allocated_bytes.freed, 3 * kGranule + 1024);
}

TEST(Allocator, TrimsDownToWhatIsToBeKept) {
  Machine machine;
  void* kept = machine.allocate(10 * kGranule);
  void* freed = machine.allocate(50 * kGranule);
  machine.deallocate(freed);
  ASSERT_TRUE(machine.allocator().trim(40 * kGranule).ok());
  EXPECT_EQ(machine.stats().all.reserved_bytes.current, 40 * kGranule);
  ASSERT_TRUE(machine.allocator().trim(39 * kGranule + 1).ok());
  EXPECT_EQ(machine.stats().all.reserved_bytes.current, 39 * kGranule);
  ASSERT_TRUE(machine.allocator().trim().ok());
  EXPECT_EQ(machine.stats().all.reserved_bytes.current, 10 * kGranule);
  EXPECT_EQ(machine.stats().spare_bytes, 0u);
  machine.allocator().check();
  machine.deallocate(kept);
  ASSERT_TRUE(machine.allocator().trim().ok());
  EXPECT_EQ(machine.device().usage(), driver::Usage{});  // addresses too
}

TEST(Allocator, NamesThePhyBlocksUnderABlockInOrder) {
  Machine machine;
  void* pointer = machine.allocate(5 * kGranule);
  std::uint64_t expected = address_of(pointer);
  for (const PhyBlockInfo& block : machine.allocator().phy_blocks(pointer)) {
    EXPECT_EQ(block.home, expected);
    EXPECT_EQ(block.device, 0);
    expected += block.bytes;
  }
  EXPECT_EQ(expected, address_of(pointer) + 5 * kGranule);
  machine.deallocate(pointer);
  EXPECT_TRUE(machine.allocator().phy_blocks(pointer).empty());
}

TEST(Allocator, ShowsEverySegmentWithoutGapsInASnapshot) {
  Machine machine;
  EXPECT_TRUE(machine.allocator().snapshot().devices.empty());
  void* live = machine.allocate(5 * kGranule, 7);
  void* freed = machine.allocate(1000, 7);
  machine.deallocate(freed, 7);
  const Snapshot snapshot = machine.allocator().snapshot();
  ASSERT_EQ(snapshot.devices.size(), 1u);
  ASSERT_EQ(snapshot.devices[0].segments.size(), 2u);
  EXPECT_EQ(snapshot.devices[0].phy_blocks.size(), 6u);
  int live_blocks = 0;
  for (const SegmentInfo& segment : snapshot.devices[0].segments) {
    EXPECT_EQ(segment.stream, 7u);
    std::uint64_t at = segment.address;
    for (const BlockInfo& block : segment.blocks) {
      EXPECT_EQ(block.address, at);
      at += block.bytes;
      if (block.state != BlockInfo::State::live) continue;
      ++live_blocks;
      EXPECT_EQ(block.address, address_of(live));
      EXPECT_EQ(block.requested_bytes, 5 * kGranule);
      EXPECT_FALSE(segment.small);
    }
    EXPECT_EQ(at, segment.address + segment.bytes);
  }
  EXPECT_EQ(live_blocks, 1);
  machine.deallocate(live, 7);
}

TEST(Allocator, GivesEverythingBackAtItsEndLiveBlocksIncluded) {
  Machine machine;
  for (std::uint64_t stream = 0; stream < 3; ++stream) {
    (void)machine.allocate(100, stream);
    (void)machine.allocate(9 * kGranule, stream);
  }
  machine.restart();  // Machine looks for what the first one left
}

}  // namespace
}  // namespace gmlake::test
