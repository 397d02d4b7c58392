// Pointers that are no live block: freed twice, from elsewhere, or into the middle of one. They are always told, and
// change nothing.
#include <gtest/gtest.h>

#include "support/machine.hpp"

namespace gmlake::test {
namespace {

// What must not change.
struct Books {
  std::uint64_t allocations;
  std::uint64_t bytes;
  std::uint64_t reserved;
  std::uint64_t calls;
  std::size_t segments;
  friend bool operator==(const Books&, const Books&) = default;
};

Books books(Machine& machine) {
  const DeviceStats stats = machine.stats();
  std::size_t segments = 0;
  for (const DeviceSnapshot& device : machine.allocator().snapshot().devices) segments += device.segments.size();
  return {stats.all.allocation.current, stats.all.allocated_bytes.current, stats.all.reserved_bytes.current,
          machine.calls().total(), segments};
}

void expect_refused(Machine& machine, void* pointer, std::uint64_t stream = 0) {
  const Books before = books(machine);
  const std::uint64_t counted = machine.stats().invalid_frees;
  const Status freed = machine.allocator().try_deallocate(pointer, stream_handle(stream));
  ASSERT_FALSE(freed.ok());
  EXPECT_EQ(freed.error(), (Error{ErrorCode::invalid_pointer, Step::deallocate, address_of(pointer)}));
  const Status recorded = machine.allocator().try_record_stream(pointer, stream_handle(stream + 1));
  ASSERT_FALSE(recorded.ok());
  EXPECT_EQ(recorded.error(), (Error{ErrorCode::invalid_pointer, Step::record_stream, address_of(pointer)}));
  machine.allocator().deallocate(pointer, stream_handle(stream));
  EXPECT_EQ(machine.stats().invalid_frees, counted + 1);
  EXPECT_EQ(machine.allocator().device_of(pointer), -1);
  EXPECT_EQ(machine.allocator().size_of(pointer), 0u);
  EXPECT_TRUE(machine.allocator().phy_blocks(pointer).empty());
  machine.allocator().check();
  EXPECT_EQ(books(machine), before);
}

void* offset(void* pointer, std::uint64_t bytes) { return static_cast<char*>(pointer) + bytes; }

TEST(Pointers, FreedTwiceAreTold) {
  Machine machine;
  void* large = machine.allocate(5 * kGranule);
  void* small = machine.allocate(100);
  machine.deallocate(large);
  machine.deallocate(small);
  expect_refused(machine, large);
  expect_refused(machine, small);
}

TEST(Pointers, FreedTwiceWhileOtherStreamsStillUseThemAreTold) {
  Machine machine;
  machine.streams().hold({0, 1});
  void* pointer = machine.allocate(5 * kGranule);
  ASSERT_TRUE(machine.allocator().try_record_stream(pointer, stream_handle(1)).ok());
  machine.deallocate(pointer);
  expect_refused(machine, pointer);
  machine.streams().advance_all({0, 1});
}

TEST(Pointers, FromElsewhereAreTold) {
  Machine machine;
  void* live = machine.allocate(5 * kGranule);
  int local = 0;
  expect_refused(machine, &local);
  expect_refused(machine, std::bit_cast<void*>(std::uintptr_t{512}));
  expect_refused(machine, std::bit_cast<void*>(~std::uintptr_t{0}));
  machine.deallocate(live);
}

TEST(Pointers, IntoTheMiddleOfABlockAreTold) {
  Machine machine;
  void* live = machine.allocate(5 * kGranule);
  for (const std::uint64_t bytes : {std::uint64_t{1}, std::uint64_t{512}, kGranule, 5 * kGranule - 1, 5 * kGranule}) {
    expect_refused(machine, offset(live, bytes));
  }
  EXPECT_EQ(machine.allocator().size_of(live), 5 * kGranule);
  machine.deallocate(live);
}

TEST(Pointers, OfAnotherAllocatorAreTold) {
  Machine one;
  driver::HostOptions options;
  options.capacity_bytes = 64 * kGranule;
  Machine other(std::move(driver::HostDriver::make(options)).value(), {});
  void* pointer = one.allocate(kGranule);
  void* of_other = other.allocate(kGranule);
  expect_refused(other, pointer);
  expect_refused(one, of_other);
  one.deallocate(pointer);
  other.deallocate(of_other);
}

TEST(Pointers, ThatAreNoneDoNotMakeTheirStreamKnown) {
  Machine machine;
  void* live = machine.allocate(5 * kGranule);
  for (std::uint64_t stream = 1; stream < 50; ++stream) {
    int local = 0;
    EXPECT_FALSE(machine.allocator().try_deallocate(&local, stream_handle(stream)).ok());
  }
  ASSERT_TRUE(machine.streams().destroy_stream({0, 7}).ok());
  EXPECT_EQ(machine.calls().event_record, 0u);
  ASSERT_TRUE(machine.allocator().trim().ok());  // records a point on every stream that it knows
  EXPECT_LE(machine.calls().event_record, 1u);
  machine.deallocate(live);
}

TEST(Pointers, AreCountedByDeallocateWhicheverDeviceIsUsed) {
  driver::ModelOptions options = small_model();
  options.devices = 3;
  Machine machine(options);
  void* live = machine.allocate(kGranule, 0, 2);
  int local = 0;
  machine.allocator().deallocate(&local);
  std::uint64_t counted = 0;
  for (int device = 0; device < 3; ++device) counted += machine.stats(device).invalid_frees;
  EXPECT_EQ(counted, 1u);
  machine.deallocate(live);
}

}  // namespace
}  // namespace gmlake::test
