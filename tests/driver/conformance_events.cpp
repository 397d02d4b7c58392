// The contract of events and streams, and of mapping while work is pending.
#include <optional>
#include <thread>

#include "driver/conformance.hpp"
#include "driver/per_thread_stream.hpp"

namespace gmlake::driver::testing {
namespace {

TEST_P(DriverConformance, AnEventNeverRecordedHasPassed) {
  const Event event = driver().event_create(0).value();
  EXPECT_NE(event, Event::none);
  EXPECT_TRUE(driver().event_query(event).value());
  EXPECT_THAT(driver().event_synchronize(event), Succeeds());
  EXPECT_THAT(driver().stream_wait({0, 0}, event), Succeeds());
  EXPECT_THAT(driver().event_destroy(event), Succeeds());
}

TEST_P(DriverConformance, AnEventPassesWhenTheWorkBeforeItIsComplete) {
  const Stream stream = backend_->make_stream(0);
  const Event event = driver().event_create(0).value();
  if (!backend_->block(stream)) GTEST_SKIP() << "cannot hold a stream";
  ASSERT_THAT(driver().event_record(event, stream), Succeeds());
  EXPECT_FALSE(driver().event_query(event).value());
  backend_->unblock(stream);
  EXPECT_THAT(driver().event_synchronize(event), Succeeds());
  EXPECT_TRUE(driver().event_query(event).value());
}

TEST_P(DriverConformance, TheLastRecordCounts) {
  const Stream held = backend_->make_stream(0), free = backend_->make_stream(0);
  const Event event = driver().event_create(0).value();
  if (!backend_->block(held)) GTEST_SKIP() << "cannot hold a stream";
  ASSERT_THAT(driver().event_record(event, held), Succeeds());
  EXPECT_FALSE(driver().event_query(event).value());
  ASSERT_THAT(driver().event_record(event, free), Succeeds());
  EXPECT_THAT(driver().event_synchronize(event), Succeeds());
  EXPECT_TRUE(driver().event_query(event).value());
  ASSERT_THAT(driver().event_record(event, held), Succeeds());
  EXPECT_FALSE(driver().event_query(event).value());
  backend_->unblock(held);
}

TEST_P(DriverConformance, AStreamWaitsForAnother) {
  const Stream held = backend_->make_stream(0), behind = backend_->make_stream(0);
  const Event first = driver().event_create(0).value(), second = driver().event_create(0).value();
  if (!backend_->block(held)) GTEST_SKIP() << "cannot hold a stream";
  ASSERT_THAT(driver().event_record(first, held), Succeeds());
  ASSERT_THAT(driver().stream_wait(behind, first), Succeeds());
  ASSERT_THAT(driver().event_record(second, behind), Succeeds());
  EXPECT_FALSE(driver().event_query(second).value());
  backend_->unblock(held);
  EXPECT_THAT(driver().event_synchronize(second), Succeeds());
  EXPECT_TRUE(driver().event_query(first).value());
  EXPECT_TRUE(driver().event_query(second).value());
}

TEST_P(DriverConformance, AWaitIsForTheRecordThatWasLastThen) {
  const Stream first = backend_->make_stream(0), held = backend_->make_stream(0), behind = backend_->make_stream(0);
  const Event event = driver().event_create(0).value(), end = driver().event_create(0).value();
  if (!backend_->block(held)) GTEST_SKIP() << "cannot hold a stream";
  ASSERT_THAT(driver().event_record(event, first), Succeeds());
  ASSERT_THAT(driver().stream_wait(behind, event), Succeeds());
  ASSERT_THAT(driver().event_record(event, held), Succeeds());  // later: the wait does not see it
  ASSERT_THAT(driver().event_record(end, behind), Succeeds());
  EXPECT_THAT(driver().event_synchronize(end), Succeeds());
  EXPECT_FALSE(driver().event_query(event).value());
  backend_->unblock(held);
}

TEST_P(DriverConformance, AWaitOutlivesItsEvent) {
  const Stream held = backend_->make_stream(0), behind = backend_->make_stream(0);
  const Event event = driver().event_create(0).value(), end = driver().event_create(0).value();
  if (!backend_->block(held)) GTEST_SKIP() << "cannot hold a stream";
  ASSERT_THAT(driver().event_record(event, held), Succeeds());
  ASSERT_THAT(driver().stream_wait(behind, event), Succeeds());
  ASSERT_THAT(driver().event_destroy(event), Succeeds());
  ASSERT_THAT(driver().event_record(end, behind), Succeeds());
  EXPECT_FALSE(driver().event_query(end).value());
  backend_->unblock(held);
  EXPECT_THAT(driver().event_synchronize(end), Succeeds());
}

TEST_P(DriverConformance, EventsCrossDevicesByWaitsAlone) {
  if (!start({.devices = 2})) return;
  const Stream held = backend_->make_stream(0), behind = backend_->make_stream(1);
  const Event first = driver().event_create(0).value(), second = driver().event_create(1).value();
  expect_refused(ErrorCode::invalid_value, Step::event_record, [&] { return driver().event_record(first, behind); });
  if (!backend_->block(held)) GTEST_SKIP() << "cannot hold a stream";
  ASSERT_THAT(driver().event_record(first, held), Succeeds());
  ASSERT_THAT(driver().stream_wait(behind, first), Succeeds());
  ASSERT_THAT(driver().event_record(second, behind), Succeeds());
  EXPECT_FALSE(driver().event_query(second).value());
  backend_->unblock(held);
  EXPECT_THAT(driver().event_synchronize(second), Succeeds());
}

TEST_P(DriverConformance, StreamsOfDifferentDevicesAreDifferent) {
  if (!start({.devices = 2})) return;
  const Stream first{0, 0}, second{1, 0};  // the default stream of each
  const Event event = driver().event_create(1).value();
  if (!backend_->block(first)) GTEST_SKIP() << "cannot hold a stream";
  ASSERT_THAT(driver().event_record(event, second), Succeeds());
  EXPECT_THAT(driver().event_synchronize(event), Succeeds());
  EXPECT_TRUE(driver().event_query(event).value());
  backend_->unblock(first);
}

TEST_P(DriverConformance, AStreamIsIdleOnceItsWorkIsComplete) {
  const Stream stream = backend_->make_stream(0), other = backend_->make_stream(0);
  EXPECT_TRUE(driver().stream_query(stream).value());
  if (!backend_->block(stream)) GTEST_SKIP() << "cannot hold a stream";
  const Event event = driver().event_create(0).value();
  ASSERT_THAT(driver().event_record(event, stream), Succeeds());
  EXPECT_FALSE(driver().stream_query(stream).value());
  EXPECT_TRUE(driver().stream_query(other).value());
  ASSERT_THAT(driver().stream_wait(other, event), Succeeds());
  EXPECT_FALSE(driver().stream_query(other).value());  // a wait is work too
  backend_->unblock(stream);
  ASSERT_THAT(driver().event_record(event, other), Succeeds());
  EXPECT_THAT(driver().event_synchronize(event), Succeeds());
  EXPECT_TRUE(driver().stream_query(stream).value());
  EXPECT_TRUE(driver().stream_query(other).value());
}

TEST_P(DriverConformance, RefusesEventsThatAreNone) {
  if (!backend_->refuses_misuse()) GTEST_SKIP() << "undefined";
  const Event event = driver().event_create(0).value();
  ASSERT_THAT(driver().event_destroy(event), Succeeds());
  const Event next = driver().event_create(0).value();  // which may well take the place of the old one
  EXPECT_NE(next, event);
  const auto code = ErrorCode::invalid_value;
  for (const Event bad : {event, Event::none, static_cast<Event>(~std::uint64_t{0})}) {
    expect_refused(code, Step::event_record, [&] { return driver().event_record(bad, {0, 0}); });
    expect_refused(code, Step::event_query, [&] { return driver().event_query(bad); });
    expect_refused(code, Step::event_synchronize, [&] { return driver().event_synchronize(bad); });
    expect_refused(code, Step::stream_wait, [&] { return driver().stream_wait({0, 0}, bad); });
    expect_refused(code, Step::event_destroy, [&] { return driver().event_destroy(bad); });
  }
  EXPECT_THAT(driver().event_destroy(next), Succeeds());
}

// Through whatever mappings there are, and nothing beside it.
TEST_P(DriverConformance, ClearsWhatItIsToldInTheOrderOfTheStream) {
  const Address address = reserve(4);
  map_new(address, 1);
  map_new(address + granule(), 2);
  map_new(address + 3 * granule(), 1);
  const Stream stream = backend_->make_stream(0);
  const std::uint64_t half = granule() / 2;
  const bool has_memory = write(address + half - 8, 41) && write(address + half, 42) &&
                          write(address + 3 * granule() + half - 8, 43) && write(address + 3 * granule() + half, 44);
  const bool blocked = backend_->block(stream);
  ASSERT_THAT(driver().clear(stream, address + half, 3 * granule()), Succeeds());
  const Event event = driver().event_create(0).value();
  ASSERT_THAT(driver().event_record(event, stream), Succeeds());
  if (blocked) {
    EXPECT_FALSE(driver().event_query(event).value());
    backend_->unblock(stream);
  }
  ASSERT_THAT(driver().event_synchronize(event), Succeeds());
  EXPECT_THAT(driver().event_destroy(event), Succeeds());
  if (!has_memory) GTEST_SKIP() << "no memory to look at";
  EXPECT_EQ(read(address + half - 8), 41u);
  EXPECT_EQ(read(address + half), 0u);
  EXPECT_EQ(read(address + 3 * granule() + half - 8), 0u);
  EXPECT_EQ(read(address + 3 * granule() + half), 44u);
}

TEST_P(DriverConformance, RefusesToClearWhatTheStreamMayNotTouch) {
  const Address address = reserve(3);
  map_new(address, 1);
  ASSERT_THAT(map(address + granule(), 1, create(1)), Succeeds());
  const auto code = ErrorCode::invalid_value;
  expect_refused(code, Step::clear, [&] { return driver().clear({0, 0}, address, 0); });
  if (!backend_->refuses_misuse()) GTEST_SKIP() << "a GPU finds out when it gets there";
  expect_refused(code, Step::clear, [&] { return driver().clear({0, 0}, address, granule() + 1); });
  expect_refused(code, Step::clear, [&] { return driver().clear({0, 0}, address + 2 * granule(), 1); });
  expect_refused(code, Step::clear, [&] { return driver().clear({0, 0}, 0, granule()); });
  expect_refused(code, Step::clear, [&] { return driver().clear({0, 0}, address, UINT64_MAX); });
  expect_refused(ErrorCode::invalid_device, Step::clear, [&] { return driver().clear({64, 0}, address, 1); });
}

TEST_P(DriverConformance, NoStreamIsCapturedAtFirst) {
  EXPECT_EQ(driver().capture_state(backend_->make_stream(0)).value(), CaptureState::none);
  EXPECT_EQ(driver().capture_state({0, 0}).value(), CaptureState::none);
}

// No handle names the per-thread default stream of another thread. That of a thread that has ended still has its work.
TEST_P(DriverConformance, AnEventOnAnotherThreadsStreamPassesAfterItsWork) {
  std::optional<ThreadStream> other(std::in_place);
  const Stream others{0, other->number()};
  const Event event = driver().event_create(0).value();
  EXPECT_EQ(driver().capture_state(others).value(), CaptureState::none);
  EXPECT_THAT(driver().stream_wait(others, event), FailsWith(ErrorCode::not_supported, Step::stream_wait));
  EXPECT_THAT(driver().stream_query(others), FailsWith(ErrorCode::not_supported, Step::stream_query));
  bool blocked = false;
  std::uint64_t number = 0;
  std::thread([&] {
    number = thread_stream();
    blocked = backend_->block({0, number});
  }).join();
  if (!blocked) GTEST_SKIP() << "cannot hold a stream";
  ASSERT_THAT(driver().event_record(event, {0, number}), Succeeds());
  EXPECT_FALSE(driver().event_query(event).value());
  backend_->unblock({0, number});
  EXPECT_THAT(driver().event_synchronize(event), Succeeds());
}

TEST_P(DriverConformance, NoMemoryCallWaitsForWork) {
  const Stream stream = backend_->make_stream(0);
  const Address address = reserve(4);
  const Handle used = map_new(address, 1);
  if (!backend_->block(stream)) GTEST_SKIP() << "cannot hold a stream";
  const Event event = driver().event_create(0).value();
  if (simulated() != nullptr) {
    ASSERT_THAT(simulated()->launch(stream, {{address, granule(), true}}), Succeeds());
  }
  ASSERT_THAT(driver().event_record(event, stream), Succeeds());
  const Handle other = map_new(address + granule(), 1);
  ASSERT_THAT(unmap(address + granule(), 1), Succeeds());
  ASSERT_THAT(driver().release(other), Succeeds());
  ASSERT_THAT(map(address + 2 * granule(), 1, used), Succeeds());  // an alias of memory in use
  ASSERT_THAT(set_access(address + 2 * granule(), 1), Succeeds());
  EXPECT_FALSE(driver().event_query(event).value());
  if (simulated() != nullptr) {
    EXPECT_EQ(simulated()->streams().synchronizations(), 0u);
  }
  backend_->unblock(stream);
  ASSERT_THAT(driver().event_synchronize(event), Succeeds());
  EXPECT_THAT(unmap(address, 1), Succeeds());
}

TEST_P(DriverConformance, RefusesToUnmapWhatPendingWorkTouches) {
  if (simulated() == nullptr) GTEST_SKIP() << "only a simulation notices";
  const Stream stream = backend_->make_stream(0);
  const Address address = reserve(4);
  for (const std::uint64_t at : {0u, 1u, 2u}) map_new(address + at * granule(), 1);
  ASSERT_TRUE(backend_->block(stream));
  ASSERT_THAT(simulated()->launch(stream, {{address + granule() + 8, 8, false}}), Succeeds());
  expect_refused(ErrorCode::invalid_value, Step::unmap, [&] { return unmap(address, 3); });
  expect_refused(ErrorCode::invalid_value, Step::unmap, [&] { return unmap(address + granule(), 1); });
  EXPECT_EQ(simulated()->streams().violations().size(), 2u);
  EXPECT_THAT(unmap(address, 1), Succeeds());
  EXPECT_THAT(unmap(address + 2 * granule(), 1), Succeeds());
  backend_->unblock(stream);
  EXPECT_THAT(unmap(address + granule(), 1), Succeeds());
  EXPECT_EQ(simulated()->streams().violations().size(), 2u);
}

TEST_P(DriverConformance, RefusesWorkWithoutAccess) {
  if (simulated() == nullptr) GTEST_SKIP() << "only a simulation notices";
  if (!start({.devices = 2})) return;
  const Address address = reserve(3);
  map_new(address, 1);
  ASSERT_THAT(map(address + granule(), 1, create(1)), Succeeds());
  EXPECT_THAT(simulated()->launch({0, 0}, {{address, granule(), true}}), Succeeds());
  const auto refused = [&](Stream stream, Access access) {
    expect_refused(ErrorCode::invalid_value, Step::none, [&] { return simulated()->launch(stream, {access}); });
    EXPECT_EQ(simulated()->streams().violations().back(),
              (Violation{Violation::Kind::no_access, stream, access.address, access.bytes}));
  };
  refused({0, 0}, {address + granule() - 1, 2, true});   // runs into memory without access
  refused({0, 0}, {address + 2 * granule(), 1, false});  // nothing mapped
  refused({0, 0}, {0, 8, false});
  refused({0, 0}, {address, 4 * granule(), false});  // past the reservation
  refused({1, 0}, {address, 8, false});              // the other device has no access
}

}  // namespace
}  // namespace gmlake::driver::testing
