// The model: each cost of its table, its defaults, and its addresses. Its rules are in the conformance suite.
#include "driver/model.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "driver/one_device.hpp"

namespace gmlake::driver {
namespace {

constexpr MemoryProperties kSecondDevice{.location = {Location::Kind::device, 1}};
constexpr MemoryProperties kHostMemory{.location = {Location::Kind::host_numa, 0}};

class ModelTest : public ::testing::Test {
 protected:
  // What the clock was charged since the last call.
  std::uint64_t charged() {
    const std::uint64_t now = model_.clock_ns();
    return now - std::exchange(last_, now);
  }
  Address reserve(std::uint64_t bytes) {
    const Address address = model_.reserve(bytes, 0).value();
    charged();
    return address;
  }
  Handle create(std::uint64_t bytes, const MemoryProperties& properties = {}) {
    const Handle handle = model_.create(bytes, properties).value();
    charged();
    return handle;
  }
  void map(Address address, std::uint64_t bytes, const MemoryProperties& properties = {}) {
    ASSERT_TRUE(model_.map(address, bytes, create(bytes, properties)).ok());
    charged();
  }
  void set_access(Address address, std::uint64_t bytes, std::vector<int> devices) {
    ASSERT_TRUE(model_.set_access(address, bytes, devices).ok());
  }

  ModelDriver model_{ModelOptions{.devices = 3, .capacity_bytes = 256 * kGiB}};
  std::uint64_t last_ = 0;
};

TEST(CostCurve, IsALineThroughItsPoints) {
  constexpr CostCurve curve{CostPoint{100, 10}, CostPoint{200, 30}, CostPoint{400, 130}};
  EXPECT_EQ(curve.at(0), 10);
  EXPECT_EQ(curve.at(100), 10);
  EXPECT_EQ(curve.at(150), 20);
  EXPECT_EQ(curve.at(200), 30);
  EXPECT_EQ(curve.at(300), 80);
  EXPECT_EQ(curve.at(400), 130);
  EXPECT_EQ(curve.at(600), 230);
  EXPECT_EQ((CostCurve{CostPoint{100, 7}}.at(1000)), 7);
}

TEST_F(ModelTest, ChargesReservations) {
  const Address small = model_.reserve(kGranule, 0).value();
  EXPECT_EQ(charged(), 700u);
  const Address large = model_.reserve(8 * kGiB, 0).value();
  EXPECT_EQ(charged(), 17'000u);
  ASSERT_TRUE(model_.address_free(small, kGranule).ok());
  EXPECT_EQ(charged(), 700u);
  ASSERT_TRUE(model_.address_free(large, 8 * kGiB).ok());
  EXPECT_EQ(charged(), 17'000u);
  ASSERT_TRUE(model_.reserve(16 * kGiB, 0).ok());
  EXPECT_NEAR(static_cast<double>(charged()), 33'304, 1);
}

TEST_F(ModelTest, ChargesCreatesAndReleases) {
  struct Row {
    std::uint64_t bytes, create, release;
  };
  for (const Row& row :
       {Row{2 * kMiB, 10'000, 11'000}, Row{64 * kMiB, 10'000, 39'000}, Row{256 * kMiB, 30'000, 122'200},
        Row{kGiB, 85'000, 455'000}, Row{4 * kGiB, 250'000, 1'786'200}}) {
    const Handle handle = model_.create(row.bytes, {}).value();
    EXPECT_EQ(charged(), row.create);
    ASSERT_TRUE(model_.release(handle).ok());
    EXPECT_EQ(charged(), row.release);
  }
}

TEST_F(ModelTest, ChargesMappingsByTheHandle) {
  const Address address = reserve(64 * kGranule);
  ASSERT_TRUE(model_.map(address, 32 * kGranule, model_.create(32 * kGranule, {}).value()).ok());
  EXPECT_EQ(charged(), 11'600u);
  map(address + 32 * kGranule, kGranule);
  map(address + 33 * kGranule, kGranule);
  ASSERT_TRUE(model_.unmap(address, 34 * kGranule).ok());
  EXPECT_EQ(charged(), 3 * 22'400u);
}

TEST_F(ModelTest, ChargesMoreForTheFirstMappingOfMemoryForRdma) {
  const Address address = reserve(2 * kGranule);
  const Handle handle = model_.create(kGranule, {.rdma_capable = true}).value();
  (void)charged();
  ASSERT_TRUE(model_.map(address, kGranule, handle).ok());
  EXPECT_EQ(charged(), 1'600u + 4'200u);
  ASSERT_TRUE(model_.map(address + kGranule, kGranule, handle).ok());
  EXPECT_EQ(charged(), 1'600u);
}

TEST_F(ModelTest, ChargesAccessByTheHandle) {
  const Address address = reserve(4 * kGiB);
  for (std::uint64_t at = 0; at < 4; ++at) map(address + at * kGranule, kGranule);
  set_access(address, 4 * kGranule, {0});
  EXPECT_EQ(charged(), 4 * 25'700u);
  set_access(address, 4 * kGranule, {0});
  EXPECT_EQ(charged(), 4 * 650u);
  set_access(address, 4 * kGranule, {0, 1, 2});
  EXPECT_EQ(charged(), 4 * 2 * 42'000u);
  map(address + kGiB, kGiB);
  set_access(address + kGiB, kGiB, {0});
  EXPECT_EQ(charged(), 78'000u);
  map(address + 2 * kGiB, 64 * kMiB, kSecondDevice);
  set_access(address + 2 * kGiB, 64 * kMiB, {0, 1});
  EXPECT_EQ(charged(), 25'700u + 42'000u);
}

TEST_F(ModelTest, ChargesAccessToHostMemory) {
  const Address address = reserve(kGiB);
  map(address, 2 * kMiB, kHostMemory);
  set_access(address, 2 * kMiB, {0, 1});
  EXPECT_EQ(charged(), 118'000u);
  map(address + 512 * kMiB, 32 * kMiB, kHostMemory);
  set_access(address + 512 * kMiB, 32 * kMiB, {0, 1});
  EXPECT_EQ(charged(), 614'000u);
}

TEST_F(ModelTest, ChargesEvents) {
  const Event event = model_.event_create(0).value();
  charged();
  ASSERT_TRUE(model_.event_record(event, {0, 1}).ok());
  EXPECT_EQ(charged(), 360u);
  ASSERT_TRUE(model_.event_query(event).ok());
  EXPECT_EQ(charged(), 360u);
  ASSERT_TRUE(model_.stream_wait({0, 2}, event).ok());
  ASSERT_TRUE(model_.event_synchronize(event).ok());
  ASSERT_TRUE(model_.event_destroy(event).ok());
  EXPECT_EQ(charged(), 3 * 360u);
}

TEST_F(ModelTest, ChargesClearingByTheCall) {
  const Address address = model_.reserve(64 * kMiB, 0).value();
  map(address, 64 * kMiB);
  set_access(address, 64 * kMiB, {0});
  charged();
  ASSERT_TRUE(model_.clear({0, 1}, address, 512).ok());
  ASSERT_TRUE(model_.clear({0, 1}, address, 64 * kMiB).ok());
  EXPECT_EQ(charged(), 2 * 5'400u);
}

TEST_F(ModelTest, ChargesNothingForCallsThatFail) {
  EXPECT_FALSE(model_.reserve(1, 0).ok());
  EXPECT_FALSE(model_.create(kGiB << 20, {}).ok());
  EXPECT_FALSE(model_.release(Handle::none).ok());
  EXPECT_FALSE(model_.event_query(Event::none).ok());
  EXPECT_EQ(charged(), 0u);
}

TEST(Model, IsAnH200ByDefault) {
  ModelDriver model;
  EXPECT_EQ(model.name(), "model");
  EXPECT_EQ(model.device_count().value(), 1);
  EXPECT_EQ(model.granularity({}).value(), kGranule);
  EXPECT_EQ(model.memory_info(0).value().total_bytes, 143'770 * kMiB);  // 143,771 MiB in whole granules
  EXPECT_EQ(model.clock_ns(), 0u);
}

TEST(Model, GivesTheSameAddressesForTheSameCalls) {
  const auto run = [] {
    ModelDriver model;
    std::vector<std::uint64_t> seen;
    for (std::uint64_t step = 1; step < 50; ++step) {
      const Address address = model.reserve(step * kGranule, 0).value();
      seen.push_back(address);
      seen.push_back(static_cast<std::uint64_t>(model.create(kGranule, {}).value()));
      if (step % 3 != 0) continue;
      EXPECT_TRUE(model.address_free(address, step * kGranule).ok());
    }
    return seen;
  };
  EXPECT_EQ(run(), run());
}

TEST(Model, AddressesAreNoneOfThisProcess) {
  ModelDriver model;
  EXPECT_GE(model.reserve(kGranule, 0).value(), Address{1} << 47);
}

TEST(Model, BoundsTheAddressSpace) {
  ModelDriver model;
  EXPECT_TRUE(model.reserve(std::uint64_t{64} << 40, 0).ok());
  EXPECT_EQ(model.reserve(std::uint64_t{128} << 40, 0).error().code, ErrorCode::address_space);
  EXPECT_EQ(model.reserve((std::uint64_t{64} << 40) + kGranule, 0).error().code, ErrorCode::address_space);
}

TEST(Model, UsesAddressesAgainWhenThereAreNoOthers) {
  ModelDriver model(ModelOptions{.max_address_bytes = 100 * kGranule});
  const Address first = model.reserve(40 * kGranule, 0).value();
  const Address second = model.reserve(40 * kGranule, 0).value();
  EXPECT_FALSE(model.reserve(40 * kGranule, 0).ok());
  ASSERT_TRUE(model.address_free(first, 40 * kGranule).ok());
  EXPECT_NE(model.reserve(10 * kGranule, 0).value(), first);  // there still was a fresh range
  EXPECT_EQ(model.reserve(40 * kGranule, 0).value(), first);
  ASSERT_TRUE(model.address_free(second, 40 * kGranule).ok());
  for (int round = 0; round < 1000; ++round) {
    const Result<Address> address = model.reserve(40 * kGranule, 0);
    ASSERT_TRUE(address.ok());
    ASSERT_TRUE(model.address_free(*address, 40 * kGranule).ok());
  }
  model.check();
}

TEST(Model, AHugeReservationCostsWhatIsMappedInIt) {
  ModelDriver model;
  const Address address = model.reserve(std::uint64_t{64} << 40, 0).value();
  const Handle handle = model.create(kGranule, {}).value();
  for (std::uint64_t at = 0; at < 64; ++at) {
    ASSERT_TRUE(model.map(address + (at << 40), kGranule, handle).ok());
  }
  EXPECT_EQ(model.usage().mappings, 64u);
  model.check();
  for (std::uint64_t at = 0; at < 64; ++at) ASSERT_TRUE(model.unmap(address + (at << 40), kGranule).ok());
  EXPECT_TRUE(model.address_free(address, std::uint64_t{64} << 40).ok());
}

}  // namespace
}  // namespace gmlake::driver
