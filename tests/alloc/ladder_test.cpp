// The rungs that a request climbs when no cached run fits it: each is reached by a scenario made for it, and counted.
#include <gtest/gtest.h>

#include <vector>

#include "support/machine.hpp"

namespace gmlake::test {
namespace {

constexpr std::uint64_t kLimit = 40;  // granules

class Ladder : public testing::Test {
 protected:
  explicit Ladder(Options options = {}) : machine_(small_model(kLimit), options) {}

  struct Rungs {
    std::uint64_t own = 0, passed = 0, stream_wait = 0, release = 0, wait = 0, ooms = 0;
    friend bool operator==(const Rungs&, const Rungs&) = default;
    friend void PrintTo(const Rungs& rungs, std::ostream* out) {
      *out << "own " << rungs.own << ", passed " << rungs.passed << ", stream_wait " << rungs.stream_wait
           << ", release " << rungs.release << ", wait " << rungs.wait << ", ooms " << rungs.ooms;
    }
  };
  Rungs rungs() const {
    const DeviceStats stats = machine_.stats();
    return {stats.rung_own_stream,     stats.rung_passed_streams, stats.rung_stream_wait,
            stats.rung_release_cached, stats.rung_wait,           stats.num_ooms};
  }

  // A kernel of the block's owner, pending for as long as the stream is on hold.
  void use(void* pointer, std::uint64_t bytes, std::uint64_t stream) {
    EXPECT_TRUE(machine_.device().launch({0, stream}, {{address_of(pointer), bytes, true}}).ok());
  }

  Machine machine_;
};

class LadderWithoutStreamWaits : public Ladder {
 protected:
  static Options options() {
    Options options;
    options.stream_wait = false;
    return options;
  }
  LadderWithoutStreamWaits() : Ladder(options()) {}
};

TEST_F(Ladder, IsNotClimbedByAHit) {
  machine_.deallocate(machine_.allocate(10 * kGranule));
  const Rungs before = rungs();
  machine_.deallocate(machine_.allocate(9 * kGranule));
  EXPECT_EQ(rungs(), before);
}

TEST_F(Ladder, BeginsWithTheStreamsOwnMemory) {
  std::vector<void*> blocks;
  for (int i = 0; i < 4; ++i) blocks.push_back(machine_.allocate(10 * kGranule));
  EXPECT_EQ(rungs(), (Rungs{.own = 4}));
  machine_.deallocate(blocks[0]);
  machine_.deallocate(blocks[2]);
  void* stitched = machine_.allocate(20 * kGranule);
  EXPECT_EQ(rungs(), (Rungs{.own = 5}));
  EXPECT_GE(machine_.stats().moved_bytes, 10 * kGranule);
  EXPECT_EQ(machine_.stats().all.reserved_bytes.current, 40 * kGranule);
  for (void* block : {blocks[1], blocks[3], stitched}) machine_.deallocate(block);
}

// What a stitch leaves behind is stale until the device has come past it: only then may its place be mapped again.
TEST_F(Ladder, FillsTheHolesOfAnEarlierStitchOnceTheDeviceHasPassedIt) {
  for (const bool passed : {true, false}) {
    if (!passed) machine_.streams().hold({0, 0});
    std::vector<void*> blocks;
    for (int i = 0; i < 4; ++i) blocks.push_back(machine_.allocate(10 * kGranule));
    for (void* block : {blocks[0], blocks[2]}) machine_.deallocate(block);
    use(blocks[1], 10 * kGranule, 0);
    void* stitched = machine_.allocate(20 * kGranule);  // out of the two: 20 granules move, and leave two holes
    EXPECT_EQ(machine_.stats().moved_bytes, 20 * kGranule);
    for (void* block : {blocks[1], blocks[3]}) machine_.deallocate(block);
    void* beside = machine_.allocate(20 * kGranule);  // a run and the hole beside it are cheaper than 20 more moves
    EXPECT_EQ(machine_.stats().moved_bytes, (passed ? 30 : 40) * kGranule);
    EXPECT_EQ(machine_.stats().mappings_retired, passed ? 10u : 0u);
    for (void* block : {stitched, beside}) machine_.deallocate(block);
    machine_.streams().advance_all();
    machine_.restart();
  }
}

TEST_F(Ladder, GoesOnToWhatOtherStreamsAreDoneWith) {
  machine_.deallocate(machine_.allocate(30 * kGranule, 1), 1);
  void* block = machine_.allocate(30 * kGranule, 2);
  EXPECT_EQ(rungs(), (Rungs{.own = 1, .passed = 1}));
  EXPECT_EQ(machine_.calls().stream_wait, 0u);
  machine_.deallocate(block, 2);
}

TEST_F(Ladder, ThenPlacesAWaitOnTheDevice) {
  machine_.streams().hold({0, 1});
  void* first = machine_.allocate(30 * kGranule, 1);
  use(first, 30 * kGranule, 1);
  machine_.deallocate(first, 1);
  void* block = machine_.allocate(30 * kGranule, 2);
  EXPECT_EQ(rungs(), (Rungs{.own = 1, .stream_wait = 1}));
  EXPECT_EQ(machine_.streams().synchronizations(), 0u);
  machine_.streams().advance_all();
  machine_.deallocate(block, 2);
}

TEST_F(LadderWithoutStreamWaits, WaitsForTheDeviceLast) {
  machine_.streams().hold({0, 1});
  void* first = machine_.allocate(30 * kGranule, 1);
  use(first, 30 * kGranule, 1);
  machine_.deallocate(first, 1);
  void* block = machine_.allocate(30 * kGranule, 2);
  EXPECT_EQ(rungs(), (Rungs{.own = 1, .wait = 1}));
  EXPECT_EQ(machine_.calls().stream_wait, 0u);
  EXPECT_GE(machine_.streams().synchronizations(), 1u);
  machine_.deallocate(block, 2);
}

TEST_F(Ladder, WaitsForWhatStreamsStillUseAfterAFree) {
  machine_.streams().hold({0, 1});
  void* first = machine_.allocate(30 * kGranule);
  use(first, 30 * kGranule, 1);
  ASSERT_TRUE(machine_.allocator().try_record_stream(first, stream_handle(1)).ok());
  machine_.deallocate(first);
  void* block = machine_.allocate(30 * kGranule);
  EXPECT_EQ(block, first);
  EXPECT_EQ(rungs(), (Rungs{.own = 1, .wait = 1}));
  EXPECT_GE(machine_.streams().synchronizations(), 1u);
  machine_.deallocate(block);
}

TEST_F(Ladder, EndsInAnErrorThatLeavesLiveMemoryAlone) {
  void* first = machine_.allocate(25 * kGranule);
  use(first, 25 * kGranule, 0);
  const Error error = machine_.refused(20 * kGranule);
  EXPECT_EQ(error, (Error{ErrorCode::out_of_memory, Step::allocate, 20 * kGranule}));
  EXPECT_EQ(rungs().ooms, 1u);
  use(first, 25 * kGranule, 0);
  EXPECT_EQ(machine_.allocator().size_of(first), 25 * kGranule);
  void* second = machine_.allocate(15 * kGranule);
  machine_.deallocate(first);
  machine_.deallocate(second);
  machine_.deallocate(machine_.allocate(40 * kGranule));
  EXPECT_EQ(rungs().ooms, 1u);
}

// Blocks of 8 granules are cached, and what lacks are 7: they go back to the driver and come again in sizes that do.
TEST(LadderOfLargePhyBlocks, ReleasesCachedOnesThatDoNotFit) {
  driver::ModelOptions device = small_model();
  device.granularity = 4096;
  device.capacity_bytes = 65536 * 4096ull;
  Options options;
  options.slack = 0;
  Machine machine(device, options);
  std::vector<void*> blocks;
  for (int i = 0; i < 16; ++i) blocks.push_back(machine.allocate(4000 * 4096ull + 4096 * static_cast<unsigned>(i)));
  for (std::size_t i = 0; i < blocks.size(); i += 2) machine.deallocate(blocks[i]);
  const std::uint64_t held = machine.stats().all.reserved_bytes.current;
  void* all = machine.allocate(65536 * 4096ull - held + 8 * 4000 * 4096ull - 64 * 4096ull);
  EXPECT_LE(machine.stats().all.reserved_bytes.current, 65536 * 4096ull);
  EXPECT_EQ(machine.streams().synchronizations(), 0u);
  machine.deallocate(all);
}

// Freed blocks that begin and end inside PhyBlocks: what lies whole in them can move or go, and nothing else is needed.
TEST_F(Ladder, TakesSmallBlocksMemoryForLargeOnes) {
  std::vector<void*> blocks;
  for (int i = 0; i < 79; ++i) blocks.push_back(machine_.allocate(1 << 20));
  EXPECT_EQ(machine_.stats().all.reserved_bytes.current, 40 * kGranule);
  for (void* block : blocks) machine_.deallocate(block);
  void* all = machine_.allocate(40 * kGranule);
  EXPECT_EQ(machine_.stats().all.reserved_bytes.current, 40 * kGranule);
  machine_.deallocate(all);
  for (void*& block : blocks) block = machine_.allocate(1 << 20);
  for (void* block : blocks) machine_.deallocate(block);
  EXPECT_EQ(rungs().ooms, 0u);
}

TEST_F(Ladder, NeverWaitsBelowTheLimit) {
  for (std::uint64_t stream = 1; stream < 5; ++stream) machine_.streams().hold({0, stream});
  for (int round = 0; round < 20; ++round) {
    for (std::uint64_t stream = 1; stream < 5; ++stream) {
      void* block = machine_.allocate(4 * kGranule, stream);
      use(block, 4 * kGranule, stream);
      ASSERT_TRUE(machine_.allocator().try_record_stream(block, stream_handle(stream % 4 + 1)).ok());
      machine_.deallocate(block, stream);
      machine_.streams().advance({0, stream}, 20);
    }
    for (std::uint64_t stream = 1; stream < 5; ++stream) machine_.streams().advance({0, stream}, 20);
  }
  EXPECT_EQ(machine_.streams().synchronizations(), 0u);
  EXPECT_EQ(rungs().wait, 0u);
}

}  // namespace
}  // namespace gmlake::test
