// The fault wrapper: which calls fail, that they do not reach the driver inside, and that a sweep reaches every call.
#include "driver/fault.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "driver/model.hpp"
#include "driver/one_device.hpp"

namespace gmlake::driver {
namespace {

class FaultTest : public ::testing::Test {
 protected:
  ModelDriver model_;
  FaultDriver driver_{model_};
};

TEST_F(FaultTest, PassesEverythingUnarmed) {
  EXPECT_TRUE(driver_.create(kGranule, {}).ok());
  EXPECT_FALSE(driver_.create(1, {}).ok());
  EXPECT_EQ(driver_.calls(), 2u);
  EXPECT_EQ(driver_.calls(Step::create), 2u);
  EXPECT_EQ(driver_.calls(Step::map), 0u);
  EXPECT_FALSE(driver_.reached());
  EXPECT_EQ(driver_.name(), "model");
}

TEST_F(FaultTest, FailsTheNthCallOnce) {
  driver_.arm({.nth = 2, .code = ErrorCode::unknown});
  EXPECT_TRUE(driver_.create(kGranule, {}).ok());
  EXPECT_FALSE(driver_.reached());
  const Result<Address> reserved = driver_.reserve(kGranule, 0);
  ASSERT_FALSE(reserved.ok());
  EXPECT_EQ(reserved.error(), (Error{ErrorCode::unknown, Step::reserve, kGranule}));
  EXPECT_TRUE(driver_.reached());
  EXPECT_TRUE(driver_.reserve(kGranule, 0).ok());
  EXPECT_EQ(model_.usage().reservations, 1u);  // the failed call did not reach it
}

TEST_F(FaultTest, FailsOneKindOnly) {
  driver_.arm({.kind = Step::create, .nth = 2});
  EXPECT_TRUE(driver_.create(kGranule, {}).ok());
  EXPECT_TRUE(driver_.reserve(kGranule, 0).ok());
  EXPECT_EQ(driver_.create(kGranule, {}).error(), (Error{ErrorCode::out_of_memory, Step::create, kGranule}));
  EXPECT_TRUE(driver_.create(kGranule, {}).ok());
  EXPECT_EQ(driver_.calls(Step::create), 3u);
}

TEST_F(FaultTest, FailsFromThenOnUntilHealed) {
  driver_.arm({.kind = Step::create, .nth = 2, .sticky = true});
  EXPECT_TRUE(driver_.create(kGranule, {}).ok());
  for (int call = 0; call < 5; ++call) EXPECT_FALSE(driver_.create(kGranule, {}).ok());
  EXPECT_TRUE(driver_.reserve(kGranule, 0).ok());
  driver_.heal();
  EXPECT_TRUE(driver_.create(kGranule, {}).ok());
  EXPECT_TRUE(driver_.reached());
  driver_.arm({.nth = 1, .sticky = true});
  EXPECT_FALSE(driver_.reached());
  EXPECT_FALSE(driver_.device_count().ok());
  EXPECT_FALSE(driver_.memory_info(0).ok());
}

TEST_F(FaultTest, FailsTwoCallsOfOneRun) {
  driver_.arm({.nth = 2});
  driver_.arm_also({.kind = Step::create, .nth = 3, .sticky = true, .code = ErrorCode::unknown});
  EXPECT_TRUE(driver_.create(kGranule, {}).ok());
  EXPECT_EQ(driver_.create(kGranule, {}).error().code, ErrorCode::out_of_memory);
  EXPECT_FALSE(driver_.reached());  // the second has not come
  EXPECT_TRUE(driver_.reserve(kGranule, 0).ok());
  EXPECT_EQ(driver_.create(kGranule, {}).error().code, ErrorCode::unknown);
  EXPECT_TRUE(driver_.reached());
  EXPECT_FALSE(driver_.create(kGranule, {}).ok());
  driver_.heal();
  EXPECT_TRUE(driver_.create(kGranule, {}).ok());
  EXPECT_TRUE(driver_.reached());
  driver_.arm({.nth = 1});  // in place of both
  EXPECT_FALSE(driver_.create(kGranule, {}).ok());
  EXPECT_TRUE(driver_.reached());
  EXPECT_TRUE(driver_.create(kGranule, {}).ok());
}

TEST_F(FaultTest, TellsThatAFaultWasNeverReached) {
  driver_.arm({.nth = 2});
  EXPECT_TRUE(driver_.create(kGranule, {}).ok());
  driver_.heal();
  EXPECT_TRUE(driver_.create(kGranule, {}).ok());
  EXPECT_FALSE(driver_.reached());
}

TEST_F(FaultTest, EveryCallCanFail) {
  const auto calls = [&] {
    std::vector<Step> failed;
    const auto note = [&](const auto& result) {
      if (!result.ok()) failed.push_back(result.error().step);
    };
    note(driver_.device_count());
    note(driver_.device_properties(0));
    note(driver_.memory_info(0));
    note(driver_.granularity({}));
    note(driver_.reserve(kGranule, 0));
    note(driver_.address_free(0, kGranule));
    note(driver_.create(kGranule, {}));
    note(driver_.release(Handle::none));
    note(driver_.map(0, kGranule, Handle::none));
    note(driver_.unmap(0, kGranule));
    note(driver_.set_access(0, kGranule, kDevices));
    note(driver_.event_create(0));
    note(driver_.event_record(Event::none, {0, 0}));
    note(driver_.event_query(Event::none));
    note(driver_.event_synchronize(Event::none));
    note(driver_.stream_wait({0, 0}, Event::none));
    note(driver_.stream_query({0, 0}));
    note(driver_.event_destroy(Event::none));
    note(driver_.clear({0, 0}, 0, kGranule));
    note(driver_.capture_state({0, 0}));
    return failed;
  };
  driver_.arm({.nth = 1, .sticky = true, .code = ErrorCode::device_lost});
  EXPECT_EQ(calls(),
            (std::vector<Step>{
                Step::properties,   Step::properties,   Step::memory_info,   Step::properties,  Step::reserve,
                Step::address_free, Step::create,       Step::release,       Step::map,         Step::unmap,
                Step::set_access,   Step::event_create, Step::event_record,  Step::event_query, Step::event_synchronize,
                Step::stream_wait,  Step::stream_query, Step::event_destroy, Step::clear,       Step::properties}));
  EXPECT_EQ(driver_.calls(), 20u);
  EXPECT_EQ(driver_.calls(Step::properties), 4u);
}

// The pattern of every sweep: count, then fail each call in turn, and look at the books.
TEST_F(FaultTest, ASweepReachesEveryCallAndLeavesNothing) {
  // Makes a mapped range and takes it down; undoes what it did where a call fails.
  const auto scenario = [&]() -> bool {
    const Result<Address> address = driver_.reserve(kGranule, 0);
    if (!address.ok()) return false;
    const Result<Handle> handle = driver_.create(kGranule, {});
    const bool mapped = handle.ok() && driver_.map(*address, kGranule, *handle).ok();
    const bool done = mapped && driver_.set_access(*address, kGranule, kDevices).ok();
    driver_.heal();  // the way down is another sweep's subject
    EXPECT_TRUE(!mapped || driver_.unmap(*address, kGranule).ok());
    EXPECT_TRUE(!handle.ok() || driver_.release(*handle).ok());
    EXPECT_TRUE(driver_.address_free(*address, kGranule).ok());
    return done;
  };
  driver_.reset_counts();
  ASSERT_TRUE(scenario());
  EXPECT_EQ(driver_.calls(), 7u);
  for (std::uint64_t nth = 1; nth <= 4; ++nth) {
    driver_.arm({.nth = nth});
    EXPECT_FALSE(scenario()) << nth;
    EXPECT_TRUE(driver_.reached()) << nth;
    EXPECT_EQ(model_.usage(), Usage{}) << nth;
  }
}

}  // namespace
}  // namespace gmlake::driver
