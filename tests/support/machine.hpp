// A simulated machine with one allocator on it: the driver at the bottom, faults over it, a recorder on top, and over
// that what a test may want there. Its end is part of every test that uses it: the allocator goes first, and then the
// driver must be empty and nothing violated.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <memory>
#include <utility>

#include "driver/fault.hpp"
#include "driver/host.hpp"
#include "driver/model.hpp"
#include "driver/record.hpp"
#include "gmlake/gmlake.hpp"

namespace gmlake::test {

using namespace gmlake::literals;  // NOLINT: sizes are what these tests are about

inline StreamHandle stream_handle(std::uint64_t number) {
  return std::bit_cast<StreamHandle>(static_cast<std::uintptr_t>(number));
}
inline driver::Address address_of(const void* pointer) { return std::bit_cast<std::uintptr_t>(pointer); }

inline constexpr std::uint64_t kGranule = std::uint64_t{2} << 20;

inline driver::ModelOptions small_model(std::uint64_t granules = 512) {
  driver::ModelOptions options;
  options.capacity_bytes = granules * kGranule;
  return options;
}

// Who does the background worker's steps: the test where it asks for one, or a thread, which makes its outcome depend
// on how threads run.
enum class Worker { by_hand, thread };

class Machine {
 public:
  explicit Machine(const driver::ModelOptions& device = small_model(), const Options& options = {},
                   Worker worker = Worker::by_hand)
      : Machine(std::make_unique<driver::ModelDriver>(device), options, nullptr, worker) {}

  using Wrap = std::unique_ptr<driver::Driver>(driver::Driver& inner);
  Machine(std::unique_ptr<driver::SimulatedDriver> device, const Options& options, Wrap* wrap = nullptr,
          Worker worker = Worker::by_hand)
      : device_(std::move(device)), fault_(*device_), record_(fault_), options_(options) {
    options_.background_worker = worker == Worker::thread;
    if (wrap != nullptr) wrapper_ = wrap(record_);
    restart();
  }

  ~Machine() {
    fault_.heal();
    device_->streams().advance_all();
    allocator_.reset();
    EXPECT_EQ(device_->usage(), foreign_);
    EXPECT_EQ(device_->streams().live_events(), 0u);
    EXPECT_TRUE(device_->streams().violations().empty());
  }
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  void restart() {
    driver::Driver& top = wrapper_ ? *wrapper_ : record_;
    Result<std::unique_ptr<Allocator>> made = Allocator::create(top, options_);
    ASSERT_TRUE(made.ok()) << describe(made.error());
    allocator_ = std::move(*made);
  }

  void destroy_allocator() { allocator_.reset(); }

  Allocator& allocator() { return *allocator_; }
  driver::SimulatedDriver& device() { return *device_; }
  driver::FaultDriver& fault() { return fault_; }
  driver::Driver& wrapper() { return *wrapper_; }
  driver::StreamSimulator& streams() { return device_->streams(); }
  driver::CallCounts calls() const { return record_.counts(); }
  DeviceStats stats(int device = 0) const { return allocator_->stats(device); }

  // These expect success, and recount everything.
  void* allocate(std::uint64_t bytes, std::uint64_t stream = 0, int device = 0) {
    const Result<void*> pointer = allocator_->try_allocate(bytes, device, stream_handle(stream));
    EXPECT_TRUE(pointer.ok()) << describe(pointer.error());
    allocator_->check();
    return pointer.ok() ? *pointer : nullptr;
  }
  void deallocate(void* pointer, std::uint64_t stream = 0) {
    const Status freed = allocator_->try_deallocate(pointer, stream_handle(stream));
    EXPECT_TRUE(freed.ok()) << describe(freed.error());
    allocator_->check();
  }
  // And this one failure.
  Error refused(std::uint64_t bytes, std::uint64_t stream = 0, int device = 0) {
    const Result<void*> pointer = allocator_->try_allocate(bytes, device, stream_handle(stream));
    EXPECT_FALSE(pointer.ok());
    allocator_->check();
    return pointer.ok() ? Error{} : pointer.error();
  }

  // Another process takes memory of the device, and gives it back.
  driver::Handle take_memory(std::uint64_t bytes, int device = 0) {
    Result<driver::Handle> taken = device_->create(bytes, {.location = {driver::Location::Kind::device, device}});
    EXPECT_TRUE(taken.ok());
    foreign_.handles += 1;
    foreign_.physical_bytes += bytes;
    return taken.ok() ? *taken : driver::Handle::none;
  }
  void return_memory(driver::Handle handle, std::uint64_t bytes) {
    EXPECT_TRUE(device_->release(handle).ok());
    foreign_.handles -= 1;
    foreign_.physical_bytes -= bytes;
  }

 private:
  std::unique_ptr<driver::SimulatedDriver> device_;
  driver::FaultDriver fault_;
  driver::RecordDriver record_;
  std::unique_ptr<driver::Driver> wrapper_;
  Options options_;
  driver::Usage foreign_;
  std::unique_ptr<Allocator> allocator_;
};

}  // namespace gmlake::test
