// The contract of properties, reserve and address_free, create and release.
#include <algorithm>
#include <bit>
#include <utility>

#include "driver/conformance.hpp"

namespace gmlake::driver::testing {
namespace {

constexpr Location kHostNode{Location::Kind::host_numa, 0};

TEST_P(DriverConformance, NumbersItsDevicesFromZero) {
  if (!start({.devices = 2})) return;
  ASSERT_EQ(driver().device_count().value(), 2);
  for (const int device : {0, 1}) {
    const DeviceProperties properties = driver().device_properties(device).value();
    EXPECT_FALSE(properties.name.empty());
    EXPECT_TRUE(properties.vmm_supported);
    const MemoryInfo info = driver().memory_info(device).value();
    EXPECT_EQ(info.total_bytes, properties.total_bytes);
    EXPECT_GT(info.free_bytes, 0u);
    EXPECT_LE(info.free_bytes, info.total_bytes);
  }
  EXPECT_FALSE(driver().name().empty());
}

TEST_P(DriverConformance, RefusesDevicesThatDoNotExist) {
  const int count = driver().device_count().value();
  const Address address = reserve(1);
  map_new(address, 1);
  const Event event = driver().event_create(0).value();
  for (const int device : {-1, count, 1 << 20}) {
    const MemoryProperties properties{.location = {Location::Kind::device, device}};
    const Stream stream{device, 0};
    const auto code = ErrorCode::invalid_device;
    expect_refused(code, Step::properties, [&] { return driver().device_properties(device); });
    expect_refused(code, Step::memory_info, [&] { return driver().memory_info(device); });
    expect_refused(code, Step::properties, [&] { return driver().granularity(properties); });
    expect_refused(code, Step::create, [&] { return driver().create(granule(), properties); });
    expect_refused(code, Step::set_access, [&] { return set_access(address, 1, {0, device}); });
    expect_refused(code, Step::event_create, [&] { return driver().event_create(device); });
    expect_refused(code, Step::event_record, [&] { return driver().event_record(event, stream); });
    expect_refused(code, Step::stream_wait, [&] { return driver().stream_wait(stream, event); });
    expect_refused(code, Step::stream_query, [&] { return driver().stream_query(stream); });
    expect_refused(code, Step::properties, [&] { return driver().capture_state(stream); });
  }
}

TEST_P(DriverConformance, GranularityIsAPowerOfTwo) {
  EXPECT_TRUE(std::has_single_bit(granule()));
  EXPECT_GE(granule(), 4096u);
}

TEST_P(DriverConformance, ClockDoesNotGoBack) {
  std::uint64_t last = driver().clock_ns();
  for (int step = 0; step < 100; ++step) {
    const Address address = reserve(1);
    ASSERT_THAT(driver().address_free(address, granule()), Succeeds());
    const std::uint64_t now = driver().clock_ns();
    ASSERT_GE(now, last);
    last = now;
  }
}

TEST_P(DriverConformance, ReservesAlignedRangesThatDoNotOverlap) {
  std::vector<std::pair<Address, std::uint64_t>> ranges;
  for (const std::uint64_t granules : {1u, 3u, 16u, 1u, 700u, 2u}) {
    ranges.emplace_back(reserve(granules), granules * granule());
  }
  std::sort(ranges.begin(), ranges.end());
  for (std::size_t index = 0; index < ranges.size(); ++index) {
    EXPECT_NE(ranges[index].first, 0u);
    EXPECT_EQ(ranges[index].first % granule(), 0u);
    if (index > 0) {
      EXPECT_LE(ranges[index - 1].first + ranges[index - 1].second, ranges[index].first);
    }
    EXPECT_THAT(driver().address_free(ranges[index].first, ranges[index].second), Succeeds());
  }
}

TEST_P(DriverConformance, ReservesAtTheAlignmentAskedFor) {
  for (std::uint64_t alignment = 1; alignment <= 64 * granule(); alignment *= 4) {
    const Result<Address> address = driver().reserve(3 * granule(), alignment);
    ASSERT_THAT(address, Succeeds());
    EXPECT_EQ(*address % std::max(alignment, granule()), 0u);
    EXPECT_THAT(driver().address_free(*address, 3 * granule()), Succeeds());
  }
}

TEST_P(DriverConformance, RefusesToReserveBadSizesAndAlignments) {
  for (const std::uint64_t bytes : {std::uint64_t{0}, granule() - 1, granule() + 1, granule() / 2, ~std::uint64_t{0}}) {
    expect_refused(ErrorCode::invalid_value, Step::reserve, [&] { return driver().reserve(bytes, 0); });
  }
  for (const std::uint64_t alignment : {std::uint64_t{3}, granule() + 1, ~std::uint64_t{0}}) {
    expect_refused(ErrorCode::invalid_value, Step::reserve, [&] { return driver().reserve(granule(), alignment); });
  }
}

TEST_P(DriverConformance, RefusesToReserveMoreThanThereIs) {
  for (const std::uint64_t bytes : {std::uint64_t{1} << 62, std::uint64_t{1} << 63, ~(granule() - 1)}) {
    expect_refused(ErrorCode::address_space, Step::reserve, [&] { return driver().reserve(bytes, 0); });
  }
  expect_refused(ErrorCode::address_space, Step::reserve,
                 [&] { return driver().reserve(granule(), std::uint64_t{1} << 63); });
}

TEST_P(DriverConformance, ReservationsTakeNoPhysicalMemory) {
  const std::uint64_t before = driver().memory_info(0).value().free_bytes;
  const Address address = reserve(1000);
  EXPECT_EQ(driver().memory_info(0).value().free_bytes, before);
  EXPECT_THAT(driver().address_free(address, 1000 * granule()), Succeeds());
}

TEST_P(DriverConformance, FreesExactlyAReservation) {
  const Address address = reserve(4);
  const auto refused = [&](Address at, std::uint64_t bytes) {
    expect_refused(ErrorCode::invalid_value, Step::address_free, [&] { return driver().address_free(at, bytes); });
  };
  refused(address, 3 * granule());
  refused(address, 5 * granule());
  refused(address, 0);
  refused(address + granule(), 3 * granule());
  refused(address + 1, 4 * granule());
  refused(0, 4 * granule());
  EXPECT_THAT(driver().address_free(address, 4 * granule()), Succeeds());
  refused(address, 4 * granule());
}

TEST_P(DriverConformance, KeepsAReservationWithMappings) {
  const Address address = reserve(4);
  map_new(address + 2 * granule(), 1);
  expect_refused(ErrorCode::invalid_value, Step::address_free,
                 [&] { return driver().address_free(address, 4 * granule()); });
  EXPECT_THAT(unmap(address + 2 * granule(), 1), Succeeds());
  EXPECT_THAT(driver().address_free(address, 4 * granule()), Succeeds());
}

TEST_P(DriverConformance, CreatesDistinctHandles) {
  std::vector<Handle> handles;
  for (int index = 0; index < 10; ++index) handles.push_back(create(1));
  std::sort(handles.begin(), handles.end());
  EXPECT_EQ(std::adjacent_find(handles.begin(), handles.end()), handles.end());
  EXPECT_EQ(std::count(handles.begin(), handles.end(), Handle::none), 0);
  for (const Handle handle : handles) EXPECT_THAT(driver().release(handle), Succeeds());
}

TEST_P(DriverConformance, RefusesToCreateBadSizes) {
  for (const std::uint64_t bytes : {std::uint64_t{0}, granule() - 1, granule() + 4096 / 2, ~std::uint64_t{0}}) {
    expect_refused(ErrorCode::invalid_value, Step::create, [&] { return driver().create(bytes, {}); });
  }
}

TEST_P(DriverConformance, CreatesUpToTheCapacityOfEachLocation) {
  if (!start({.devices = 2, .capacity_granules = 10})) return;
  const MemoryProperties second{.location = {Location::Kind::device, 1}};
  const MemoryProperties host{.location = kHostNode};
  const Handle most = create(8);
  expect_refused(ErrorCode::out_of_memory, Step::create, [&] { return driver().create(3 * granule(), {}); });
  EXPECT_EQ(driver().create(3 * granule(), {}).error().value, 3 * granule());
  create(2);
  expect_refused(ErrorCode::out_of_memory, Step::create, [&] { return driver().create(granule(), {}); });
  EXPECT_EQ(driver().memory_info(0).value().free_bytes, 0u);
  create(10, second);
  expect_refused(ErrorCode::out_of_memory, Step::create, [&] { return driver().create(granule(), second); });
  create(10, host);
  expect_refused(ErrorCode::out_of_memory, Step::create, [&] { return driver().create(granule(), host); });
  EXPECT_THAT(driver().release(most), Succeeds());
  create(8);
}

TEST_P(DriverConformance, RefusesLocationsThatDoNotExist) {
  for (const int node : {-1, 1000}) {
    const MemoryProperties properties{.location = {Location::Kind::host_numa, node}};
    expect_refused(ErrorCode::invalid_device, Step::create, [&] { return driver().create(granule(), properties); });
    expect_refused(ErrorCode::invalid_device, Step::properties, [&] { return driver().granularity(properties); });
  }
}

TEST_P(DriverConformance, RefusesFlagsThatTheDeviceLacks) {
  if (!start({.devices = 2, .flags = {{.rdma = false, .posix_fd = false, .fabric = false}}})) return;
  const DeviceProperties bare = driver().device_properties(0).value();
  EXPECT_FALSE(bare.rdma_supported || bare.posix_fd_supported || bare.fabric_supported);
  const DeviceProperties full = driver().device_properties(1).value();
  EXPECT_TRUE(full.rdma_supported && full.posix_fd_supported && full.fabric_supported);
  MemoryProperties rdma, posix_fd, fabric;
  rdma.rdma_capable = true;
  posix_fd.posix_fd_handle = true;
  fabric.fabric_handle = true;
  for (MemoryProperties properties : {rdma, posix_fd, fabric}) {
    expect_refused(ErrorCode::not_supported, Step::properties, [&] { return driver().granularity(properties); });
    expect_refused(ErrorCode::not_supported, Step::create, [&] { return driver().create(granule(), properties); });
    properties.location.id = 1;
    EXPECT_THAT(driver().granularity(properties), Succeeds());
    EXPECT_THAT(driver().create(granule(), properties), Succeeds());
  }
  EXPECT_THAT(driver().create(granule(), {}), Succeeds());
}

TEST_P(DriverConformance, RefusesMemoryOnADeviceWithoutVirtualMemory) {
  if (!start({.devices = 1, .flags = {{.vmm = false}}})) return;
  EXPECT_FALSE(driver().device_properties(0).value().vmm_supported);
  expect_refused(ErrorCode::not_supported, Step::properties, [&] { return driver().granularity({}); });
  expect_refused(ErrorCode::not_supported, Step::create, [&] { return driver().create(1 << 21, {}); });
}

TEST_P(DriverConformance, ReleasesAHandleOnce) {
  const std::uint64_t before = driver().memory_info(0).value().free_bytes;
  const Handle handle = create(2);
  EXPECT_LT(driver().memory_info(0).value().free_bytes, before);
  EXPECT_THAT(driver().release(handle), Succeeds());
  EXPECT_EQ(driver().memory_info(0).value().free_bytes, before);
  if (!backend_->refuses_misuse()) return;
  const auto refused = [&](Handle bad) {
    expect_refused(ErrorCode::invalid_value, Step::release, [&] { return driver().release(bad); });
  };
  refused(handle);
  const Handle next = create(2);  // which may well take the place of the old one
  EXPECT_NE(next, handle);
  refused(handle);
  refused(Handle::none);
  refused(static_cast<Handle>(~std::uint64_t{0}));
  EXPECT_THAT(driver().release(next), Succeeds());
}

}  // namespace
}  // namespace gmlake::driver::testing
