// The recording wrapper: counts by kind, time on the inner clock, and nothing else.
#include "driver/record.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "driver/model.hpp"
#include "driver/one_device.hpp"

namespace gmlake::driver {
namespace {

// One call of each kind.
void call_all(Driver& driver) {
  const Address address = driver.reserve(kGranule, 0).value();
  const Handle handle = driver.create(kGranule, {}).value();
  EXPECT_TRUE(driver.map(address, kGranule, handle).ok());
  EXPECT_TRUE(driver.set_access(address, kGranule, kDevices).ok());
  const Event event = driver.event_create(0).value();
  EXPECT_TRUE(driver.event_record(event, {0, 1}).ok());
  EXPECT_TRUE(driver.event_query(event).value());
  EXPECT_TRUE(driver.event_synchronize(event).ok());
  EXPECT_TRUE(driver.stream_wait({0, 2}, event).ok());
  EXPECT_TRUE(driver.stream_query({0, 2}).ok());
  EXPECT_TRUE(driver.event_destroy(event).ok());
  EXPECT_TRUE(driver.clear({0, 1}, address, kGranule).ok());
  EXPECT_TRUE(driver.unmap(address, kGranule).ok());
  EXPECT_TRUE(driver.release(handle).ok());
  EXPECT_TRUE(driver.address_free(address, kGranule).ok());
}

TEST(RecordDriver, CountsEachKindOfCall) {
  ModelDriver model;
  RecordDriver record(model);
  EXPECT_EQ(record.counts(), CallCounts{});
  call_all(record);
  const CallCounts counts = record.counts();
  EXPECT_EQ(counts, (CallCounts{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}));
  EXPECT_EQ(counts.total(), 15u);
  call_all(record);
  EXPECT_EQ(record.counts() - counts, counts);
}

TEST(RecordDriver, CountsCallsThatFail) {
  ModelDriver model;
  RecordDriver record(model);
  EXPECT_EQ(record.create(1, {}).error().code, ErrorCode::invalid_value);
  EXPECT_EQ(record.release(Handle::none).error().code, ErrorCode::invalid_value);
  EXPECT_EQ(record.counts().total(), 2u);
  EXPECT_EQ(record.seconds(), 0);
}

TEST(RecordDriver, SumsTimeOnTheInnerClock) {
  ModelDriver model;
  RecordDriver record(model);
  call_all(record);
  EXPECT_DOUBLE_EQ(record.vmm_seconds(), 1e-9 * (700 + 10'000 + 1'600 + 25'700 + 22'400 + 11'000 + 700));
  EXPECT_DOUBLE_EQ(record.event_seconds(), 1e-9 * (7 * 360 + 5'400));
  EXPECT_DOUBLE_EQ(record.seconds(), 1e-9 * static_cast<double>(model.clock_ns()));
  EXPECT_DOUBLE_EQ(record.max_call_seconds(), 25.7e-6);
  EXPECT_EQ(record.clock_ns(), model.clock_ns());
  record.reset();
  EXPECT_EQ(record.counts(), CallCounts{});
  EXPECT_EQ(record.seconds(), 0);
  EXPECT_EQ(record.max_call_seconds(), 0);
}

TEST(RecordDriver, AnswersAsTheDriverInside) {
  ModelDriver model;
  RecordDriver record(model);
  EXPECT_EQ(record.name(), "model");
  EXPECT_EQ(record.device_count().value(), 1);
  EXPECT_EQ(record.device_properties(0).value().name, model.device_properties(0).value().name);
  EXPECT_EQ(record.memory_info(0).value().total_bytes, model.memory_info(0).value().total_bytes);
  EXPECT_EQ(record.granularity({}).value(), kGranule);
  EXPECT_EQ(record.capture_state({0, 0}).value(), CaptureState::none);
  EXPECT_EQ(record.counts().total(), 0u);
}

TEST(RecordDriver, CountsExactlyFromManyThreads) {
  ModelDriver model;
  RecordDriver record(model);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&] {
      for (int round = 0; round < 100; ++round) call_all(record);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(record.counts().total(), 4u * 100 * 15);
  EXPECT_EQ(record.counts().set_access, 400u);
}

}  // namespace
}  // namespace gmlake::driver
