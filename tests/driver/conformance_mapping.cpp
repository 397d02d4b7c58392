// The contract of map, unmap and set_access: aliases, boundaries, access, life of memory, several devices.
#include <algorithm>
#include <atomic>
#include <thread>

#include "driver/conformance.hpp"

namespace gmlake::driver::testing {
namespace {

constexpr MemoryProperties kHostMemory{.location = {Location::Kind::host_numa, 0}};

TEST_P(DriverConformance, MapsAWholeHandleOnly) {
  const Address address = reserve(8);
  const Handle handle = create(4);
  for (const std::uint64_t prefix : {1u, 2u, 3u}) {
    expect_refused(ErrorCode::not_supported, Step::map, [&] { return map(address, prefix, handle); });
  }
  if (backend_->refuses_misuse()) {
    expect_refused(ErrorCode::invalid_value, Step::map, [&] { return map(address, 5, handle); });
    expect_refused(ErrorCode::invalid_value, Step::map, [&] { return map(address, 0, handle); });
    expect_refused(ErrorCode::invalid_value, Step::map,
                   [&] { return driver().map(address, 4 * granule() - 1, handle); });
  } else {  // the real driver refuses them all, with one code or the other
    EXPECT_FALSE(map(address, 5, handle).ok());
    EXPECT_FALSE(map(address, 0, handle).ok());
    EXPECT_FALSE(driver().map(address, 4 * granule() - 1, handle).ok());
  }
  EXPECT_THAT(map(address, 4, handle), Succeeds());
}

TEST_P(DriverConformance, MapsAtMultiplesOfTheGranularity) {
  const Address address = reserve(4);
  const Handle handle = create(1);
  for (const std::uint64_t offset : {std::uint64_t{1}, granule() / 2, granule() + 1}) {
    expect_refused(ErrorCode::invalid_value, Step::map, [&] { return map(address + offset, 1, handle); });
  }
  EXPECT_THAT(map(address + 3 * granule(), 1, handle), Succeeds());
}

TEST_P(DriverConformance, MapsInsideOneReservation) {
  if (!backend_->refuses_misuse()) GTEST_SKIP() << "undefined";
  const Address address = reserve(4);
  const Handle handle = create(2);
  const auto refused = [&](Address at) {
    expect_refused(ErrorCode::invalid_value, Step::map, [&] { return map(at, 2, handle); });
  };
  refused(address + 3 * granule());
  refused(address + 4 * granule());
  refused(address - granule());
  refused(0);
  refused(~(granule() - 1));
  ASSERT_THAT(driver().address_free(address, 4 * granule()), Succeeds());
  refused(address);
}

TEST_P(DriverConformance, MapsOverNothing) {
  if (!backend_->refuses_misuse()) GTEST_SKIP() << "undefined";
  const Address address = reserve(8);
  const Handle first = create(3), second = create(2);
  ASSERT_THAT(map(address + 2 * granule(), 3, first), Succeeds());
  for (const std::uint64_t at : {1u, 2u, 3u, 4u}) {
    expect_refused(ErrorCode::invalid_value, Step::map, [&] { return map(address + at * granule(), 2, second); });
  }
  EXPECT_THAT(map(address, 2, second), Succeeds());
  EXPECT_THAT(map(address + 5 * granule(), 2, second), Succeeds());
}

TEST_P(DriverConformance, MapsOnlyHandlesThatAreHeld) {
  if (!backend_->refuses_misuse()) GTEST_SKIP() << "undefined";
  const Address address = reserve(2);
  const Handle handle = create(1);
  ASSERT_THAT(map(address, 1, handle), Succeeds());
  ASSERT_THAT(driver().release(handle), Succeeds());
  for (const Handle bad : {handle, Handle::none, static_cast<Handle>(~std::uint64_t{0})}) {
    expect_refused(ErrorCode::invalid_value, Step::map, [&] { return map(address + granule(), 1, bad); });
  }
}

TEST_P(DriverConformance, AliasesAreTheSameMemory) {
  const Address address = reserve(8);
  const Handle handle = create(2);
  for (const std::uint64_t at : {0u, 3u, 6u}) ASSERT_THAT(map(address + at * granule(), 2, handle), Succeeds());
  for (const std::uint64_t at : {0u, 3u, 6u}) ASSERT_THAT(set_access(address + at * granule(), 2), Succeeds());
  if (!write(address + granule(), 11)) return;
  EXPECT_EQ(read(address + 4 * granule()), 11u);
  ASSERT_TRUE(write(address + 6 * granule() + 8, 12));
  EXPECT_EQ(read(address + 8), 12u);
  EXPECT_EQ(read(address + 3 * granule() + 8), 12u);
  ASSERT_THAT(unmap(address, 2), Succeeds());
  ASSERT_TRUE(write(address + 6 * granule() + 8, 13));
  EXPECT_EQ(read(address + 3 * granule() + 8), 13u);
}

TEST_P(DriverConformance, HandlesAreDistinctMemory) {
  const Address address = reserve(16);
  std::vector<Handle> handles;
  for (std::uint64_t at = 0; at < 16; ++at) handles.push_back(map_new(address + at * granule(), 1));
  for (std::uint64_t at = 0; at < 16; ++at) {
    if (!write(address + at * granule(), 100 + at)) return;
  }
  for (std::uint64_t at = 0; at < 16; ++at) EXPECT_EQ(read(address + at * granule()), 100 + at);
  // The same, stitched in another order at another address.
  const Address stitched = reserve(16);
  for (std::uint64_t at = 0; at < 16; ++at) {
    ASSERT_THAT(map(stitched + at * granule(), 1, handles[at * 7 % 16]), Succeeds());
  }
  ASSERT_THAT(set_access(stitched, 16), Succeeds());
  for (std::uint64_t at = 0; at < 16; ++at) EXPECT_EQ(read(stitched + at * granule()), 100 + at * 7 % 16);
}

TEST_P(DriverConformance, ContentsMoveWithTheMemory) {
  const Address address = reserve(4);
  const Handle handle = map_new(address, 2);
  if (!write(address + granule(), 5)) return;
  ASSERT_THAT(unmap(address, 2), Succeeds());
  ASSERT_THAT(map(address + 2 * granule(), 2, handle), Succeeds());
  ASSERT_THAT(set_access(address + 2 * granule(), 2), Succeeds());
  EXPECT_EQ(read(address + 3 * granule()), 5u);
}

TEST_P(DriverConformance, MemoryLivesUntilItsLastMapping) {
  const std::uint64_t before = driver().memory_info(0).value().free_bytes;
  const Address address = reserve(4);
  const Handle handle = map_new(address, 2);
  ASSERT_THAT(map(address + 2 * granule(), 2, handle), Succeeds());
  ASSERT_THAT(set_access(address + 2 * granule(), 2), Succeeds());
  ASSERT_THAT(driver().release(handle), Succeeds());
  EXPECT_LT(driver().memory_info(0).value().free_bytes, before);
  ASSERT_THAT(unmap(address, 2), Succeeds());
  EXPECT_LT(driver().memory_info(0).value().free_bytes, before);
  if (write(address + 2 * granule(), 77)) {
    EXPECT_EQ(read(address + 2 * granule()), 77u);
  }
  ASSERT_THAT(unmap(address + 2 * granule(), 2), Succeeds());
  EXPECT_EQ(driver().memory_info(0).value().free_bytes, before);
  EXPECT_THAT(driver().address_free(address, 4 * granule()), Succeeds());
}

TEST_P(DriverConformance, UnmapsManyMappingsAtOnce) {
  const Address address = reserve(2000);
  std::uint64_t at = 0;
  std::vector<Handle> handles;
  for (std::uint64_t granules = 1; at + granules <= 1800; at += granules, granules = granules % 600 * 2 + 1) {
    handles.push_back(map_new(address + at * granule(), granules));
  }
  EXPECT_THAT(unmap(address, at), Succeeds());
  if (backend_->refuses_misuse()) {
    expect_refused(ErrorCode::invalid_value, Step::unmap, [&] { return unmap(address, 1); });
  }
  for (const Handle handle : handles) EXPECT_THAT(driver().release(handle), Succeeds());
  EXPECT_THAT(driver().address_free(address, 2000 * granule()), Succeeds());
}

TEST_P(DriverConformance, UnmapsOnMappingBoundariesOnly) {
  if (!backend_->refuses_misuse()) GTEST_SKIP() << "undefined";
  const Address address = reserve(12);
  map_new(address + 1 * granule(), 4);
  map_new(address + 5 * granule(), 2);
  map_new(address + 8 * granule(), 2);
  const auto refused = [&](std::uint64_t from, std::uint64_t granules) {
    expect_refused(ErrorCode::invalid_value, Step::unmap, [&] { return unmap(address + from * granule(), granules); });
  };
  refused(1, 3);  // ends inside a mapping
  refused(2, 3);  // starts inside one
  refused(2, 1);  // lies inside one
  refused(2, 4);  // as long as the mapping, and inside it where it starts
  refused(2, 5);  // starts inside one, ends on a boundary
  refused(1, 5);  // ends inside the second
  refused(0, 5);  // starts in a hole
  refused(5, 3);  // ends in a hole
  refused(5, 5);  // spans a hole
  refused(8, 3);  // ends behind the last
  refused(8, 5);  // ends outside the reservation
  refused(1, 0);
  expect_refused(ErrorCode::invalid_value, Step::unmap, [&] { return unmap(address + granule() + 1, 4); });
  expect_refused(ErrorCode::invalid_value, Step::unmap,
                 [&] { return driver().unmap(address + granule(), ~(granule() - 1)); });  // the end overflows
  expect_refused(ErrorCode::invalid_value, Step::unmap,
                 [&] { return driver().unmap(address + granule(), 4 * granule() - 1); });
  EXPECT_THAT(unmap(address + granule(), 6), Succeeds());
  EXPECT_THAT(unmap(address + 8 * granule(), 2), Succeeds());
}

TEST_P(DriverConformance, ExchangesOneHandleInTheMiddleOfARange) {
  const Address address = reserve(6);
  for (const std::uint64_t at : {0u, 2u, 4u}) map_new(address + at * granule(), 2);
  const Address window = reserve(2);
  const Handle other = map_new(window, 2);
  const bool bytes = write(address + granule(), 1) && write(address + 4 * granule(), 2) && write(window, 3);
  ASSERT_THAT(unmap(address + 2 * granule(), 2), Succeeds());
  ASSERT_THAT(map(address + 2 * granule(), 2, other), Succeeds());
  ASSERT_THAT(set_access(address, 6), Succeeds());
  if (!bytes) return;
  EXPECT_EQ(read(address + granule()), 1u);
  EXPECT_EQ(read(address + 2 * granule()), 3u);
  EXPECT_EQ(read(address + 4 * granule()), 2u);
}

TEST_P(DriverConformance, SetsAccessOfAFullyMappedRange) {
  if (!backend_->refuses_misuse()) GTEST_SKIP() << "undefined";
  const Address address = reserve(12);
  for (const std::uint64_t at : {1u, 3u, 6u}) ASSERT_THAT(map(address + at * granule(), 2, create(2)), Succeeds());
  const auto refused = [&](std::uint64_t from, std::uint64_t granules) {
    expect_refused(ErrorCode::invalid_value, Step::set_access,
                   [&] { return set_access(address + from * granule(), granules); });
  };
  refused(0, 1);
  refused(0, 3);
  refused(1, 5);  // ends in a hole
  refused(1, 7);  // spans one
  refused(6, 7);  // ends outside the reservation
  refused(2, 1);  // inside a mapping
  refused(1, 3);
  refused(1, 0);
  const int devices[] = {0};
  expect_refused(ErrorCode::invalid_value, Step::set_access,  // the end overflows
                 [&] { return driver().set_access(address + granule(), ~(granule() - 1), devices); });
  expect_refused(ErrorCode::invalid_value, Step::set_access, [&] { return set_access(address + granule(), 2, {}); });
  expect_refused(ErrorCode::invalid_value, Step::set_access, [&] { return set_access(address + granule() + 1, 2); });
  EXPECT_THAT(set_access(address + granule(), 4), Succeeds());
  EXPECT_THAT(set_access(address + granule(), 4), Succeeds());
  EXPECT_THAT(set_access(address + 6 * granule(), 2), Succeeds());
}

TEST_P(DriverConformance, NewMappingsHaveNoAccess) {
  if (simulated() == nullptr) GTEST_SKIP() << "only a simulation can be asked";
  const Address address = reserve(4);
  EXPECT_FALSE(simulated()->has_access(address, 0));
  const Handle handle = create(2);
  ASSERT_THAT(map(address, 2, handle), Succeeds());
  EXPECT_FALSE(simulated()->has_access(address, 0));
  ASSERT_THAT(set_access(address, 2), Succeeds());
  EXPECT_TRUE(simulated()->has_access(address, 0));
  EXPECT_TRUE(simulated()->has_access(address + 2 * granule() - 1, 0));
  EXPECT_FALSE(simulated()->has_access(address + granule(), 2 * granule(), 0));
  ASSERT_THAT(map(address + 2 * granule(), 2, handle), Succeeds());  // an alias has none of its own
  EXPECT_FALSE(simulated()->has_access(address + 2 * granule(), 0));
  ASSERT_THAT(unmap(address, 2), Succeeds());
  EXPECT_FALSE(simulated()->has_access(address, 0));
  ASSERT_THAT(map(address, 2, handle), Succeeds());  // nor does a new mapping at an old address
  EXPECT_FALSE(simulated()->has_access(address, 0));
}

TEST_P(DriverConformance, GrantsEachDeviceByItself) {
  if (!start({.devices = 3})) return;
  const Address address = reserve(4);
  ASSERT_THAT(map(address, 2, create(2)), Succeeds());
  ASSERT_THAT(map(address + 2 * granule(), 2, create(2, {.location = {Location::Kind::device, 1}})), Succeeds());
  EXPECT_THAT(set_access(address, 4, {0}), Succeeds());
  EXPECT_THAT(set_access(address + 2 * granule(), 2, {1, 2}), Succeeds());
  EXPECT_THAT(set_access(address + 2 * granule(), 2, {1, 1}), Succeeds());
  if (simulated() == nullptr) return;
  const auto access = [&](std::uint64_t at) {
    std::string devices;
    for (const int device : {0, 1, 2}) {
      if (simulated()->has_access(address + at * granule(), device)) devices += std::to_string(device);
    }
    return devices;
  };
  EXPECT_EQ(access(0), "0");
  EXPECT_EQ(access(1), "0");
  EXPECT_EQ(access(2), "012");
  EXPECT_FALSE(simulated()->has_access(address, 3));
  EXPECT_FALSE(simulated()->has_access(address, -1));
}

TEST_P(DriverConformance, MixesLocationsInOneRange) {
  if (!start({.devices = 2})) return;
  if (!driver().device_properties(0).value().host_numa_supported) GTEST_SKIP() << "no host memory";
  const Address address = reserve(3);
  ASSERT_THAT(map(address, 1, create(1)), Succeeds());
  ASSERT_THAT(map(address + granule(), 1, create(1, {.location = {Location::Kind::device, 1}})), Succeeds());
  ASSERT_THAT(map(address + 2 * granule(), 1, create(1, kHostMemory)), Succeeds());
  ASSERT_THAT(set_access(address, 3, {0, 1}), Succeeds());
  for (std::uint64_t at = 0; at < 3; ++at) {
    if (!write(address + at * granule(), at + 1)) return;
  }
  for (std::uint64_t at = 0; at < 3; ++at) EXPECT_EQ(read(address + at * granule()), at + 1);
}

TEST_P(DriverConformance, BoundsTheMappingsThatHaveAccess) {
  if (!start({.max_mappings = 4})) return;
  const Address address = reserve(8);
  const Handle handle = create(1);
  for (std::uint64_t at = 0; at < 8; ++at) ASSERT_THAT(map(address + at * granule(), 1, handle), Succeeds());
  ASSERT_THAT(set_access(address, 3), Succeeds());
  expect_refused(ErrorCode::out_of_memory, Step::set_access, [&] { return set_access(address + 3 * granule(), 2); });
  EXPECT_THAT(set_access(address, 4), Succeeds());
  expect_refused(ErrorCode::out_of_memory, Step::set_access, [&] { return set_access(address, 5); });
  ASSERT_THAT(unmap(address + granule(), 1), Succeeds());
  EXPECT_THAT(set_access(address + 7 * granule(), 1), Succeeds());
}

TEST_P(DriverConformance, TakesCallsFromManyThreads) {
  const std::uint64_t before = driver().memory_info(0).value().free_bytes;
  constexpr int kThreads = 4;
  std::atomic<int> failures = 0;
  const Address shared = reserve(kThreads * 8);
  std::vector<std::thread> threads;
  for (std::uint64_t thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      const auto expect = [&](bool ok) { failures += ok ? 0 : 1; };
      const std::vector<int> devices = {0};
      const Address mine = shared + thread * 8 * granule();
      for (int round = 0; round < 50; ++round) {
        const Handle handle = driver().create(2 * granule(), {}).value();
        const Address range = driver().reserve(4 * granule(), 0).value();
        expect(driver().map(mine, 2 * granule(), handle).ok());
        expect(driver().map(range, 2 * granule(), handle).ok());
        expect(driver().set_access(mine, 2 * granule(), devices).ok());
        expect(driver().set_access(range, 2 * granule(), devices).ok());
        const std::uint64_t stamp = thread * 1000 + static_cast<std::uint64_t>(round);
        std::uint64_t seen = stamp;
        backend_->write(mine, std::as_bytes(std::span(&stamp, 1)));
        backend_->read(range, std::as_writable_bytes(std::span(&seen, 1)));
        expect(seen == stamp);
        expect(driver().unmap(mine, 2 * granule()).ok());
        expect(driver().release(handle).ok());
        expect(driver().unmap(range, 2 * granule()).ok());
        expect(driver().address_free(range, 4 * granule()).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(driver().memory_info(0).value().free_bytes, before);
}

TEST_P(DriverConformance, LeavesNothingBehind) {
  if (simulated() == nullptr) GTEST_SKIP() << "only a simulation can be asked";
  const Address address = reserve(4);
  const Handle handle = map_new(address, 2);
  const Event event = driver().event_create(0).value();
  const Usage usage = simulated()->usage();
  EXPECT_EQ(usage, (Usage{1, 4 * granule(), 1, 2 * granule(), 1, 2 * granule(), 1}));
  ASSERT_THAT(driver().event_destroy(event), Succeeds());
  ASSERT_THAT(driver().release(handle), Succeeds());
  ASSERT_THAT(unmap(address, 2), Succeeds());
  ASSERT_THAT(driver().address_free(address, 4 * granule()), Succeeds());
  EXPECT_EQ(simulated()->usage(), Usage{});
  EXPECT_EQ(simulated()->streams().live_events(), 0u);
}

}  // namespace
}  // namespace gmlake::driver::testing
