// What can run out: the limit, the driver's memory, addresses, mappings. Each ends in an error that names what refused,
// with live memory intact, and each is over when there is room again.
#include <gtest/gtest.h>

#include <vector>

#include "support/machine.hpp"

namespace gmlake::test {
namespace {

TEST(Limits, InBytesHoldToTheGranule) {
  Options options;
  options.limit_bytes = 20 * kGranule + kGranule / 2;  // half a granule is none
  Machine machine(small_model(), options);
  void* block = machine.allocate(20 * kGranule);
  EXPECT_EQ(machine.refused(512), (Error{ErrorCode::out_of_memory, Step::allocate, 512}));
  machine.deallocate(block);
  EXPECT_EQ(machine.refused(21 * kGranule).code, ErrorCode::out_of_memory);
  EXPECT_EQ(machine.stats().all.reserved_bytes.peak, 20 * kGranule);
  machine.deallocate(machine.allocate(20 * kGranule));
}

TEST(Limits, AsAShareHoldToTheGranule) {
  Options options;
  options.limit_fraction = 0.25;
  Machine machine(small_model(), options);
  void* block = machine.allocate(128 * kGranule);
  EXPECT_EQ(machine.refused(512).code, ErrorCode::out_of_memory);
  machine.deallocate(block);
  EXPECT_EQ(machine.stats().all.reserved_bytes.peak, 128 * kGranule);
}

TEST(Limits, HoldAtTheLowerOfBoth) {
  Options options;
  options.limit_fraction = 0.25;
  options.limit_bytes = 64 * kGranule;
  Machine machine(small_model(), options);
  void* block = machine.allocate(64 * kGranule);
  EXPECT_EQ(machine.refused(512).code, ErrorCode::out_of_memory);
  machine.deallocate(block);
}

TEST(Limits, OfNothingRefuseEverything) {
  Options options;
  options.limit_fraction = 0;
  Machine machine(small_model(), options);
  EXPECT_EQ(machine.refused(1).code, ErrorCode::out_of_memory);
  EXPECT_EQ(machine.stats().all.reserved_bytes.current, 0u);
  EXPECT_EQ(machine.stats().num_ooms, 1u);
}

TEST(Limits, LeaveNoSlack) {
  Options options;
  options.limit_bytes = 100 * kGranule;
  options.slack = 1;
  Machine machine(small_model(), options);
  std::vector<void*> blocks;
  for (int i = 0; i < 10; ++i) blocks.push_back(machine.allocate(10 * kGranule));
  for (std::size_t i = 0; i < blocks.size(); i += 2) machine.deallocate(blocks[i]);
  void* stitched = machine.allocate(50 * kGranule);
  EXPECT_EQ(machine.stats().all.reserved_bytes.current, 100 * kGranule);
  machine.deallocate(stitched);
}

TEST(OtherProcesses, ThatTakeMemoryMakeTheDriverRefuseBelowTheLimit) {
  Machine machine(small_model(100));
  const driver::Handle taken = machine.take_memory(60 * kGranule);
  void* block = machine.allocate(40 * kGranule);
  const Error error = machine.refused(kGranule);
  EXPECT_EQ(error, (Error{ErrorCode::out_of_memory, Step::create, kGranule}));  // the driver's refusal, not the limit's
  machine.return_memory(taken, 60 * kGranule);
  void* more = machine.allocate(60 * kGranule);
  machine.deallocate(block);
  machine.deallocate(more);
}

TEST(OtherProcesses, ThatTakeMemoryLeaveWhatIsCachedToBeStitched) {
  Machine machine(small_model(100));
  std::vector<void*> blocks;
  for (int i = 0; i < 8; ++i) blocks.push_back(machine.allocate(10 * kGranule));
  for (std::size_t i = 0; i < blocks.size(); i += 2) machine.deallocate(blocks[i]);
  const driver::Handle taken = machine.take_memory(19 * kGranule);
  void* stitched = machine.allocate(41 * kGranule);  // all that is cached, and the one granule that is left
  EXPECT_EQ(machine.stats().all.reserved_bytes.current, 81 * kGranule);
  EXPECT_EQ(machine.stats().num_ooms, 0u);
  EXPECT_EQ(machine.refused(kGranule).step, Step::create);
  machine.deallocate(stitched);
  machine.return_memory(taken, 19 * kGranule);
}

TEST(OtherProcesses, ThatTakeAllMemoryAreSurvivedUntilTheyGiveItBack) {
  Machine machine(small_model(100));
  const driver::Handle taken = machine.take_memory(100 * kGranule);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(machine.refused(kGranule).code, ErrorCode::out_of_memory);
  EXPECT_EQ(machine.stats().num_ooms, 5u);
  EXPECT_EQ(machine.stats().all.reserved_bytes.current, 0u);
  machine.return_memory(taken, 100 * kGranule);
  machine.deallocate(machine.allocate(100 * kGranule));
}

TEST(Refusals, OfEachStepAreNamed) {
  for (const Step step : {Step::reserve, Step::create, Step::map, Step::set_access}) {
    for (const ErrorCode code : {ErrorCode::invalid_value, ErrorCode::unknown}) {
      Machine machine;
      void* live = machine.allocate(100);
      machine.fault().arm({.kind = step, .nth = 1, .sticky = true, .code = code});
      const Error error = machine.refused(10 * kGranule);
      EXPECT_EQ(error.code, code);
      EXPECT_EQ(error.step, step);
      EXPECT_EQ(machine.stats().num_ooms, 0u) << "that was no want of memory";
      machine.fault().heal();
      machine.deallocate(machine.allocate(10 * kGranule));
      machine.deallocate(live);
    }
  }
}

TEST(Refusals, ThatPassAreMetByTryingOnceMore) {
  for (const Step step : {Step::create, Step::map, Step::set_access}) {
    Machine machine;
    machine.fault().arm({.kind = step, .nth = 1, .sticky = false, .code = ErrorCode::out_of_memory});
    void* block = machine.allocate(10 * kGranule);
    EXPECT_TRUE(machine.fault().reached());
    EXPECT_EQ(machine.stats().num_ooms, 0u);
    machine.deallocate(block);
  }
}

TEST(Addresses, ThatRunOutAreNamedAndComeBack) {
  driver::ModelOptions device = small_model(100);
  device.max_address_bytes = 130 * kGranule;
  Machine machine(device);
  void* block = machine.allocate(40 * kGranule);
  const Error error = machine.refused(40 * kGranule, 1);  // another stream wants a segment of its own
  EXPECT_EQ(error.code, ErrorCode::address_space);
  EXPECT_EQ(error.step, Step::reserve);
  EXPECT_EQ(machine.stats().num_ooms, 0u);
  machine.deallocate(block);
  ASSERT_TRUE(machine.allocator().trim().ok());
  machine.deallocate(machine.allocate(40 * kGranule, 1), 1);
}

TEST(Addresses, TooFewForTheWholeDeviceServeWhatFits) {
  driver::ModelOptions device = small_model(100);
  device.max_address_bytes = 50 * kGranule;
  Machine machine(device);
  machine.deallocate(machine.allocate(30 * kGranule));
}

TEST(Addresses, ThatTheDriverHasNoMoreOfAreNamed) {
  driver::ModelOptions device = small_model(100);
  device.max_address_bytes = 50 * kGranule;
  Machine machine(device);
  const Error error = machine.refused(60 * kGranule);
  EXPECT_EQ(error.code, ErrorCode::address_space);
  EXPECT_EQ(error.step, Step::reserve);
  EXPECT_EQ(machine.stats().num_ooms, 0u);
}

TEST(Addresses, StayBoundedUnderRequestsOfEverySize) {
  Options options;
  options.max_address_space = 3;
  Machine machine(small_model(100), options);
  std::vector<void*> blocks;
  for (std::uint64_t round = 0; round < 200; ++round) {
    for (std::uint64_t i = 0; i < 5; ++i)
      blocks.push_back(machine.allocate((1 + (round * 7 + i * 13) % 19) * kGranule));
    for (std::size_t i = 0; i < blocks.size(); i += 2) machine.deallocate(blocks[i]);
    for (std::size_t i = 1; i < blocks.size(); i += 2) machine.deallocate(blocks[i]);
    blocks.clear();
    EXPECT_LE(machine.stats().address_bytes, 300 * kGranule);
  }
}

// As the real driver has it: past its bound set_access says out of memory. Stale mappings are what can go.
TEST(Mappings, ThatTheDriverHasNoMoreOfAreTakenFromStaleOnes) {
  driver::ModelOptions device = small_model(100);
  device.max_mappings = 120;
  Options options;
  options.slack = 0;
  Machine machine(device, options);
  std::vector<void*> blocks;
  for (std::uint64_t round = 0; round < 30; ++round) {
    for (std::uint64_t i = 0; i < 9; ++i) blocks.push_back(machine.allocate((3 + (round + i) % 7) * kGranule));
    for (std::size_t i = 0; i < blocks.size(); i += 2) machine.deallocate(blocks[i]);
    void* stitched = machine.allocate(35 * kGranule);
    for (std::size_t i = 1; i < blocks.size(); i += 2) machine.deallocate(blocks[i]);
    machine.deallocate(stitched);
    blocks.clear();
    EXPECT_LE(machine.stats().mappings, 120u);
  }
  EXPECT_EQ(machine.stats().num_ooms, 0u);
  EXPECT_GT(machine.stats().mappings_retired, 0u);
}

TEST(Mappings, ThatTheDriverHasNoMoreOfAtAllEndInAnErrorAndComeBack) {
  driver::ModelOptions device = small_model(100);
  device.max_mappings = 50;
  Machine machine(device);
  void* block = machine.allocate(50 * kGranule);
  const Error error = machine.refused(10 * kGranule);
  EXPECT_EQ(error.step, Step::set_access);
  machine.deallocate(block);
  machine.deallocate(machine.allocate(50 * kGranule));
}

TEST(Mappings, KeepToTheBoundOfTheOptions) {
  driver::ModelOptions device = small_model();
  device.granularity = 64 << 10;
  device.capacity_bytes = 900 * device.granularity;
  Options options;
  options.max_mappings = 1024;
  options.slack = 0;
  options.max_stale = 64;
  Machine machine(device, options);
  std::vector<void*> blocks;
  for (std::uint64_t round = 0; round < 50; ++round) {
    for (std::uint64_t i = 0; i < 9; ++i) {
      blocks.push_back(machine.allocate((20 + (round * 31 + i * 17) % 60) * device.granularity));
    }
    for (std::size_t i = 0; i < blocks.size(); i += 2) machine.deallocate(blocks[i]);
    void* stitched = machine.allocate(300 * device.granularity);
    for (std::size_t i = 1; i < blocks.size(); i += 2) machine.deallocate(blocks[i]);
    machine.deallocate(stitched);
    blocks.clear();
    EXPECT_LE(machine.stats().mappings, 1024u);
  }
  EXPECT_EQ(machine.stats().num_ooms, 0u);
}

}  // namespace
}  // namespace gmlake::test
