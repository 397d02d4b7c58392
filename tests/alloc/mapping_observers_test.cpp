// Mapping observers: that what they are told of is what the driver has, at every moment.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <stdexcept>
#include <vector>

#include "support/forwarding_driver.hpp"
#include "support/machine.hpp"

namespace gmlake::test {
namespace {

// The ranges that an observer knows of, in granules, and what each change was.
class Watched {
 public:
  void operator()(const MappingChange& change) {
    changes.push_back(change);
    for (std::uint64_t at = change.address; at < change.address + change.bytes; at += kGranule) {
      if (change.kind == MappingChange::Kind::mapped) {
        EXPECT_TRUE(granules.emplace(at, change).second) << "mapped twice";
      } else {
        EXPECT_EQ(granules.erase(at), 1u) << "unmapped without having been mapped";
      }
    }
  }
  bool covers(const void* block, std::uint64_t bytes) const {
    const std::uint64_t begin = address_of(block) / kGranule * kGranule;
    for (std::uint64_t at = begin; at < address_of(block) + bytes; at += kGranule) {
      if (!granules.contains(at)) return false;
    }
    return true;
  }

  std::map<std::uint64_t, MappingChange> granules;
  std::vector<MappingChange> changes;
};

TEST(MappingObservers, KnowWhatEveryLiveBlockLiesOn) {
  Machine machine(small_model(64));
  const auto watched = std::make_shared<Watched>();
  machine.allocator().add_mapping_observer([watched](const MappingChange& change) { (*watched)(change); });
  std::vector<void*> blocks;
  for (int i = 0; i < 16; ++i) blocks.push_back(machine.allocate(2 * kGranule, 7));
  for (int i = 0; i < 16; i += 2) machine.deallocate(blocks[static_cast<std::size_t>(i)], 7);
  void* whole = machine.allocate(16 * kGranule, 7);  // stitched of the eight that were freed
  EXPECT_GT(machine.stats().stitches, 0u);
  EXPECT_TRUE(watched->covers(whole, 16 * kGranule));
  for (std::size_t i = 1; i < 16; i += 2) EXPECT_TRUE(watched->covers(blocks[i], 2 * kGranule));
  EXPECT_EQ(watched->granules.size() * kGranule, machine.device().usage().mapped_bytes);
  for (const MappingChange& change : watched->changes) {
    EXPECT_EQ(change.device, 0);
    EXPECT_EQ(change.stream, 7u);
  }
  machine.deallocate(whole, 7);
  machine.streams().advance_all();
  ASSERT_TRUE(machine.allocator().trim().ok());
  EXPECT_EQ(watched->granules.size() * kGranule, machine.device().usage().mapped_bytes);
  for (std::size_t i = 1; i < 16; i += 2) machine.deallocate(blocks[i], 7);
  machine.streams().advance_all();
  ASSERT_TRUE(machine.allocator().trim().ok());
  machine.destroy_allocator();
  EXPECT_TRUE(watched->granules.empty());
}

// Looks, at each call of the driver, at what the observer has been told by then.
class InOrder final : public ForwardingDriver {
 public:
  using ForwardingDriver::ForwardingDriver;
  Status set_access(driver::Address address, std::uint64_t bytes, std::span<const int> devices) override {
    EXPECT_FALSE(watched->granules.contains(address)) << "told before it could be used";
    return ForwardingDriver::set_access(address, bytes, devices);
  }
  Status unmap(driver::Address address, std::uint64_t bytes) override {
    EXPECT_FALSE(watched->granules.contains(address)) << "not told before it goes";
    return ForwardingDriver::unmap(address, bytes);
  }
  static inline std::shared_ptr<Watched> watched;
};

TEST(MappingObservers, AreToldAfterAMappingAndBeforeAnUnmapping) {
  InOrder::watched = std::make_shared<Watched>();
  {
    Machine machine(
        std::make_unique<driver::ModelDriver>(small_model(64)), {},
        +[](driver::Driver& inner) -> std::unique_ptr<driver::Driver> { return std::make_unique<InOrder>(inner); });
    machine.allocator().add_mapping_observer([](const MappingChange& change) { (*InOrder::watched)(change); });
    std::vector<void*> blocks;
    for (int i = 0; i < 12; ++i) blocks.push_back(machine.allocate(3 * kGranule));
    for (std::size_t i = 0; i < 12; i += 2) machine.deallocate(blocks[i]);
    machine.deallocate(machine.allocate(18 * kGranule));
    for (std::size_t i = 1; i < 12; i += 2) machine.deallocate(blocks[i]);
    machine.streams().advance_all();
    ASSERT_TRUE(machine.allocator().trim().ok());
  }
  EXPECT_TRUE(InOrder::watched->granules.empty());
  EXPECT_FALSE(InOrder::watched->changes.empty());
  InOrder::watched.reset();
}

TEST(MappingObservers, AreAllTold) {
  Machine machine;
  int first = 0;
  int second = 0;
  machine.allocator().add_mapping_observer(nullptr);
  machine.allocator().add_mapping_observer([&](const MappingChange&) { ++first; });
  machine.allocator().add_mapping_observer([](const MappingChange&) { throw std::runtime_error("dropped"); });
  machine.allocator().add_mapping_observer([&](const MappingChange&) { ++second; });
  machine.deallocate(machine.allocate(8 * kGranule));
  EXPECT_GT(first, 0);
  EXPECT_EQ(first, second);
  machine.destroy_allocator();  // which unmaps, with the counters still there
  EXPECT_GT(first, 1);
}

TEST(MappingObservers, KnowTheDevice) {
  driver::ModelOptions two = small_model(64);
  two.devices = 2;
  Machine machine(two);
  std::vector<int> devices;
  machine.allocator().add_mapping_observer([&](const MappingChange& change) { devices.push_back(change.device); });
  machine.deallocate(machine.allocate(4 * kGranule, 0, 1));
  ASSERT_FALSE(devices.empty());
  for (const int device : devices) EXPECT_EQ(device, 1);
  machine.destroy_allocator();
}

}  // namespace
}  // namespace gmlake::test
