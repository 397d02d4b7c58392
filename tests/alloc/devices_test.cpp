// Several devices in one allocator: each has memory, streams and figures of its own.
#include <gtest/gtest.h>

#include <vector>

#include "support/machine.hpp"

namespace gmlake::test {
namespace {

driver::ModelOptions three_devices() {
  driver::ModelOptions options = small_model();
  options.devices = 3;
  return options;
}

TEST(Devices, AreServedEachByItself) {
  Machine machine(three_devices());
  EXPECT_EQ(machine.allocator().device_count(), 3);
  std::vector<void*> pointers;
  for (int device = 2; device >= 0; --device) {
    pointers.push_back(machine.allocate(static_cast<std::uint64_t>(device + 1) * kGranule, 0, device));
  }
  for (int device = 0; device < 3; ++device) {
    void* pointer = pointers[static_cast<std::size_t>(2 - device)];
    EXPECT_EQ(machine.allocator().device_of(pointer), device);
    EXPECT_EQ(machine.stats(device).all.reserved_bytes.current, static_cast<std::uint64_t>(device + 1) * kGranule);
    EXPECT_TRUE(machine.device().has_access(address_of(pointer), device));
    EXPECT_EQ(machine.allocator().phy_blocks(pointer).at(0).device, device);
    machine.deallocate(pointer);
    EXPECT_EQ(machine.stats(device).all.allocation.current, 0u);
  }
  EXPECT_EQ(machine.allocator().snapshot().devices.size(), 3u);
}

TEST(Devices, AreNotTouchedBeforeTheyAreUsed) {
  Machine machine(three_devices());
  void* pointer = machine.allocate(kGranule, 0, 1);
  EXPECT_EQ(machine.allocator().snapshot().devices.size(), 1u);
  EXPECT_EQ(machine.stats(0).address_bytes, 0u);
  machine.deallocate(pointer);
}

TEST(Devices, HaveALimitOfTheirOwn) {
  Options options;
  options.limit_bytes = 10 * kGranule;
  Machine machine(three_devices(), options);
  std::vector<void*> pointers;
  for (int device = 0; device < 3; ++device) pointers.push_back(machine.allocate(10 * kGranule, 0, device));
  EXPECT_EQ(machine.refused(512, 0, 1).code, ErrorCode::out_of_memory);
  for (void* pointer : pointers) machine.deallocate(pointer);
}

TEST(Devices, RecordStreamsOfEachOtherOrSayWhyNot) {
  Machine machine(three_devices());
  void* pointer = machine.allocate(kGranule, 0, 0);
  machine.allocator().record_stream(pointer, stream_handle(7), 1);
  for (const int device : {-1, 3}) {
    const Status refused = machine.allocator().try_record_stream(pointer, stream_handle(7), device);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code, ErrorCode::invalid_device);
    EXPECT_THROW(machine.allocator().record_stream(pointer, stream_handle(7), device), AllocationError);
  }
  machine.deallocate(pointer);
}

// A pointer is looked for on one device after the other. The stream it is freed on belongs to its own device: the
// others must not get to know it, or they would record events of theirs on it, which CUDA refuses.
TEST(Devices, DoNotLearnTheStreamsOfEachOther) {
  Machine machine(three_devices());
  void* on_first = machine.allocate(kGranule, 0, 0);
  void* on_last = machine.allocate(kGranule, 77, 2);
  ASSERT_TRUE(machine.streams().destroy_stream({0, 77}).ok());
  ASSERT_TRUE(machine.streams().destroy_stream({1, 77}).ok());
  ASSERT_TRUE(machine.allocator().try_record_stream(on_last, stream_handle(78)).ok());
  machine.deallocate(on_last, 77);
  machine.deallocate(on_first, 0);
  EXPECT_TRUE(machine.allocator().trim().ok());  // marks every stream of every device
}

TEST(Devices, ArePartOfEveryTrim) {
  Machine machine(three_devices());
  for (int device = 0; device < 3; ++device) machine.deallocate(machine.allocate(kGranule, 0, device));
  EXPECT_TRUE(machine.allocator().trim().ok());
  EXPECT_EQ(machine.device().usage(), driver::Usage{});
}

}  // namespace
}  // namespace gmlake::test
