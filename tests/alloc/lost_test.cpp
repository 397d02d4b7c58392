// A device that is lost: the driver says so in one call, and from then on no call can do any good.
#include <gtest/gtest.h>

#include <vector>

#include "support/machine.hpp"

namespace gmlake::test {
namespace {

// What the machine of the other tests asks at its end, that the driver is empty, cannot be had here: nothing goes back.
class LostDevice : public testing::Test {
 protected:
  void lose(Step kind) { fault_.arm({.kind = kind, .sticky = false, .code = ErrorCode::device_lost}); }
  ErrorCode refused(std::uint64_t bytes, int device = 0) {
    const Result<void*> pointer = allocator_->try_allocate(bytes, device);
    allocator_->check();
    return pointer.ok() ? ErrorCode::unknown : pointer.error().code;
  }

  static driver::ModelOptions two_devices() {
    driver::ModelOptions options = small_model(64);
    options.devices = 2;
    return options;
  }

  driver::ModelDriver model_{two_devices()};
  driver::FaultDriver fault_{model_};
  std::unique_ptr<Allocator> allocator_ = Allocator::create(fault_, {.background_worker = false}).value();
};

TEST_F(LostDevice, IsToldToEveryRequestAndNeverCalledAgain) {
  for (const Step found_by : {Step::reserve, Step::create, Step::map, Step::set_access}) {
    allocator_ = Allocator::create(fault_, {.background_worker = false}).value();
    void* cached = allocator_->allocate(512);
    void* live = allocator_->allocate(512);
    allocator_->deallocate(cached);
    lose(found_by);
    // Of the large requests, the first reserves, creates, maps and opens.
    EXPECT_EQ(refused(4 * kGranule), ErrorCode::device_lost) << to_string(found_by);
    EXPECT_TRUE(fault_.reached());
    const std::uint64_t calls = fault_.calls();
    EXPECT_EQ(allocator_->try_allocate(kGranule).error().step, found_by) << "it says which call found it";
    EXPECT_EQ(refused(512), ErrorCode::device_lost) << "though it is cached";
    EXPECT_EQ(refused(4 * kGranule), ErrorCode::device_lost);
    EXPECT_EQ(allocator_->trim().error().code, ErrorCode::device_lost);
    EXPECT_TRUE(allocator_->try_deallocate(live).ok());
    EXPECT_EQ(allocator_->try_deallocate(live).error().code, ErrorCode::invalid_pointer);
    EXPECT_EQ(allocator_->stats().all.allocation.current, 0u);
    EXPECT_FALSE(allocator_->snapshot().devices.empty());
    allocator_->check();
    allocator_.reset();
    EXPECT_EQ(fault_.calls(), calls);
  }
}

// The events of a broken context never pass: what waits for one stays where it is.
TEST_F(LostDevice, FoundByAnEventNeverHandsOutWhatItStoodFor) {
  for (const Step found_by : {Step::event_create, Step::event_record, Step::event_query}) {
    allocator_ = Allocator::create(fault_, {.background_worker = false}).value();
    model_.streams().hold({0, 1});
    void* shared = allocator_->allocate(8 * kGranule);
    ASSERT_TRUE(allocator_->try_record_stream(shared, stream_handle(1)).ok());
    lose(found_by);
    allocator_->deallocate(shared);
    if (found_by == Step::event_query) {
      EXPECT_EQ(refused(60 * kGranule), ErrorCode::device_lost);
    }
    ASSERT_TRUE(fault_.reached());
    const std::uint64_t calls = fault_.calls();
    model_.streams().advance_all();
    EXPECT_EQ(refused(8 * kGranule), ErrorCode::device_lost);
    EXPECT_EQ(allocator_->stats().all.active_bytes.current, 8 * kGranule);
    allocator_->check();
    allocator_.reset();
    EXPECT_EQ(fault_.calls(), calls);
    model_.streams().resume({0, 1});
  }
}

TEST_F(LostDevice, TakesFreesOnEveryStream) {
  std::vector<void*> blocks;
  for (std::uint64_t i = 0; i < 20; ++i) blocks.push_back(allocator_->allocate(kGranule, 0, stream_handle(i % 4)));
  lose(Step::reserve);
  EXPECT_EQ(refused(512), ErrorCode::device_lost);
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    EXPECT_TRUE(allocator_->try_deallocate(blocks[i], stream_handle(i % 3)).ok());
    allocator_->check();
  }
  EXPECT_EQ(allocator_->stats().all.allocation.current, 0u);
}

// With zero_on_free: nobody gets the memory any more, so it need not be cleared to be back in the books.
TEST_F(LostDevice, ClearsNothing) {
  allocator_ = Allocator::create(fault_, {.background_worker = false, .zero_on_free = true}).value();
  void* first = allocator_->allocate(4 * kGranule);
  void* second = allocator_->allocate(4 * kGranule);
  lose(Step::clear);
  EXPECT_TRUE(allocator_->try_deallocate(first).ok());
  allocator_->check();
  EXPECT_EQ(allocator_->stats().all.active_bytes.current, 8 * kGranule);
  const std::uint64_t calls = fault_.calls();
  EXPECT_TRUE(allocator_->try_deallocate(second).ok());
  allocator_->check();
  EXPECT_EQ(allocator_->stats().all.active_bytes.current, 0u);
  EXPECT_EQ(refused(512), ErrorCode::device_lost);
  EXPECT_EQ(fault_.calls(), calls);
}

TEST_F(LostDevice, LeavesTheOtherDevicesToWorkOn) {
  void* first = allocator_->allocate(kGranule, 0);
  void* second = allocator_->allocate(kGranule, 1);
  lose(Step::create);
  EXPECT_EQ(refused(2 * kGranule, 0), ErrorCode::device_lost);
  EXPECT_EQ(refused(512, 0), ErrorCode::device_lost);
  void* more = allocator_->allocate(9 * kGranule, 1);
  for (void* pointer : {first, second, more}) EXPECT_TRUE(allocator_->try_deallocate(pointer).ok());
  EXPECT_EQ(allocator_->trim().error().code, ErrorCode::device_lost);
  EXPECT_EQ(allocator_->stats(1).all.reserved_bytes.current, 0u) << "the other was trimmed";
}

}  // namespace
}  // namespace gmlake::test
