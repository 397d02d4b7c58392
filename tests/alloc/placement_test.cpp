// Blocks that lie on several GPUs, or on the host: by a placement, or because the device has no memory left.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "driver/host.hpp"
#include "support/machine.hpp"

namespace gmlake::test {
namespace {

constexpr std::uint64_t kHostPart = 40;

driver::ModelOptions three_devices_and_host() {
  driver::ModelOptions options = small_model(64);
  options.devices = 3;
  options.host_bytes = kHostPart * kGranule;
  return options;
}

std::unique_ptr<driver::SimulatedDriver> three_devices_on_host() {
  driver::HostOptions options;
  options.devices = 3;
  options.capacity_bytes = 64 * kGranule;
  options.host_bytes = kHostPart * kGranule;
  return std::move(driver::HostDriver::make(options)).value();
}

Options at_most(std::uint64_t granules, SpillTo spill = SpillTo::nowhere) {
  Options options;
  options.limit_bytes = granules * kGranule;
  options.spill = spill;
  return options;
}

// Granules on devices 0, 1 and 2 and, last, on the host.
std::vector<std::uint64_t> granules_by_place(const Allocator& allocator, const void* pointer) {
  std::vector<std::uint64_t> granules(4);
  for (const PhyBlockInfo& block : allocator.phy_blocks(pointer)) {
    granules[block.device >= 0 ? static_cast<std::size_t>(block.device) : 3] += block.bytes / kGranule;
  }
  return granules;
}

void* place(Machine& machine, std::uint64_t granules, const Placement& placement, std::uint64_t stream = 0) {
  const Result<void*> pointer =
      machine.allocator().try_allocate(granules * kGranule, placement, 0, stream_handle(stream));
  EXPECT_TRUE(pointer.ok()) << describe(pointer.error());
  machine.allocator().check();
  return pointer.ok() ? *pointer : nullptr;
}

TEST(Placement, StripesGoRoundTheGpusListed) {
  Machine machine(three_devices_and_host());
  void* pointer = place(machine, 48, Placement::stripe({0, 2}));
  EXPECT_THAT(granules_by_place(machine.allocator(), pointer), testing::ElementsAre(24, 0, 24, 0));
  const std::vector<PhyBlockInfo> blocks = machine.allocator().phy_blocks(pointer);
  for (std::size_t i = 0; i < blocks.size(); ++i) EXPECT_EQ(blocks[i].device, i % 2 == 0 ? 0 : 2);
  EXPECT_GT(blocks.size(), 4u);
  EXPECT_EQ(machine.allocator().device_of(pointer), 0);
  EXPECT_EQ(machine.allocator().size_of(pointer), 48 * kGranule);
  EXPECT_TRUE(machine.device().has_access(address_of(pointer), 48 * kGranule, 0));
  EXPECT_FALSE(machine.device().has_access(address_of(pointer), 48 * kGranule, 2)) << "nobody asked for that";
  EXPECT_EQ(machine.stats().placed_device_bytes, 24 * kGranule);
  EXPECT_EQ(machine.stats().placed_peer_bytes, 24 * kGranule);
  machine.deallocate(pointer);
  EXPECT_EQ(machine.stats().placed_blocks, 0u);
  EXPECT_EQ(machine.device().usage().physical_bytes, 0u);
  EXPECT_FALSE(machine.allocator().try_deallocate(pointer).ok());
}

TEST(Placement, SpillsToPeersAndThenToTheHostInTheOrderGiven) {
  Machine machine(three_devices_and_host(), at_most(10));
  void* local = machine.allocate(4 * kGranule);
  void* pointer = place(machine, 40, Placement::spill({2, 1}));
  EXPECT_THAT(granules_by_place(machine.allocator(), pointer), testing::ElementsAre(6, 10, 10, 14));
  EXPECT_EQ(machine.allocator().phy_blocks(pointer).front().device, 0);
  EXPECT_EQ(machine.allocator().phy_blocks(pointer).back().numa_node, 0);
  EXPECT_EQ(machine.stats().placed_host_bytes, 14 * kGranule);
  EXPECT_EQ(machine.refused(3 * kGranule).code, ErrorCode::out_of_memory) << "what is placed counts against the limit";
  EXPECT_EQ(machine.refused(kGranule, 0, 1).code, ErrorCode::out_of_memory);
  machine.deallocate(pointer);
  machine.deallocate(machine.allocate(6 * kGranule));
  machine.deallocate(local);
}

TEST(Placement, GivesCachedMemoryBackBeforeItSpills) {
  Machine machine(three_devices_and_host(), at_most(10));
  machine.deallocate(machine.allocate(10 * kGranule));
  void* pointer = place(machine, 8, Placement::spill({1}));
  EXPECT_THAT(granules_by_place(machine.allocator(), pointer), testing::ElementsAre(8, 0, 0, 0));
  machine.deallocate(pointer);
}

// Of two streams' cached memory, that of the one whose work is complete: the other's is neither unmapped nor counted
// on.
TEST(Placement, GivesCachedMemoryBackThatNoStreamStillUses) {
  Machine machine(three_devices_and_host(), at_most(20));
  machine.streams().hold({0, 1});
  void* in_use = machine.allocate(10 * kGranule, 1);
  void* passed = machine.allocate(10 * kGranule, 2);
  ASSERT_TRUE(machine.device().launch({0, 1}, {{address_of(in_use), 10 * kGranule, true}}).ok());
  machine.deallocate(in_use, 1);
  machine.deallocate(passed, 2);
  void* pointer = place(machine, 8, Placement::spill({1}));
  EXPECT_THAT(granules_by_place(machine.allocator(), pointer), testing::ElementsAre(8, 0, 0, 0));
  EXPECT_EQ(machine.allocate(10 * kGranule, 1), in_use);
  EXPECT_EQ(machine.streams().synchronizations(), 0u);
}

TEST(Placement, ShowsTheSameBytesEverywhere) {
  Machine machine(three_devices_on_host(), at_most(10));
  const std::unique_ptr<VirBlock> striped =
      create_vir_block(30 * kGranule, {.allocator = &machine.allocator(), .placement = Placement::stripe({0, 1, 2})});
  const std::unique_ptr<VirBlock> spilled =
      create_vir_block(30 * kGranule, {.allocator = &machine.allocator(), .placement = Placement::spill({1})});
  std::uint64_t seed = 0;
  for (const VirBlock* block : {striped.get(), spilled.get()}) {
    auto* words = static_cast<std::uint64_t*>(block->get_block());
    for (std::size_t i = 0; i < block->size() / 8; i += 64) words[i] = ++seed;
  }
  seed = 0;
  for (const VirBlock* block : {striped.get(), spilled.get()}) {
    const auto* words = static_cast<const std::uint64_t*>(block->get_block());
    for (std::size_t i = 0; i < block->size() / 8; i += 64) ASSERT_EQ(words[i], ++seed);
  }
  EXPECT_TRUE(striped->release().ok());
  EXPECT_TRUE(spilled->release().ok());
  EXPECT_EQ(machine.device().usage().physical_bytes, 0u);
}

TEST(Placement, RefusesWhatMakesNoSense) {
  Machine machine(three_devices_and_host());
  const auto code = [&](std::size_t bytes, const Placement& placement) {
    const Result<void*> pointer = machine.allocator().try_allocate(bytes, placement);
    return pointer.ok() ? ErrorCode::unknown : pointer.error().code;
  };
  EXPECT_EQ(code(kGranule, Placement::stripe({})), ErrorCode::invalid_value);
  EXPECT_EQ(code(kGranule, Placement::stripe({0, 7})), ErrorCode::invalid_device);
  EXPECT_EQ(code(kGranule, Placement::spill({-1})), ErrorCode::invalid_device);
  EXPECT_EQ(code(SIZE_MAX, Placement::stripe({0})), ErrorCode::invalid_size);
  EXPECT_EQ(code(65 * kGranule, Placement::stripe({1})), ErrorCode::out_of_memory);
  EXPECT_EQ(code(64 * 2 * kGranule + kHostPart * kGranule, Placement::spill({}, true)), ErrorCode::out_of_memory);
  EXPECT_EQ(machine.device().usage().physical_bytes, 0u);
  EXPECT_EQ(*machine.allocator().try_allocate(0, Placement::stripe({0})), nullptr);
}

TEST(Placement, PassesOverPlacesThatTheDeviceCannotUse) {
  driver::ModelOptions options = three_devices_and_host();
  options.host_numa_nodes = 0;
  Machine machine(options, at_most(10));
  EXPECT_EQ(machine.allocator().try_allocate(21 * kGranule, Placement::spill({1})).error().code,
            ErrorCode::out_of_memory);
  machine.deallocate(place(machine, 20, Placement::spill({1})));
}

TEST(Placement, GivesBackWhenTheStreamsHavePassed) {
  Machine machine(three_devices_and_host());
  machine.streams().hold({0, 5});
  void* pointer = place(machine, 8, Placement::stripe({1}), 5);
  ASSERT_TRUE(machine.device().launch({0, 5}, {{address_of(pointer), 8 * kGranule}}, [] {}).ok());
  machine.deallocate(pointer, 5);
  EXPECT_EQ(machine.stats().placed_peer_bytes, 8 * kGranule) << "work is still to come";
  machine.deallocate(place(machine, 1, Placement::stripe({2})));
  EXPECT_EQ(machine.stats().placed_peer_bytes, 8 * kGranule);
  machine.streams().advance_all({0, 5});
  machine.deallocate(place(machine, 1, Placement::stripe({2})));
  EXPECT_EQ(machine.stats().placed_blocks, 0u);
}

TEST(Placement, WaitsForEveryStreamThatUsesTheBlock) {
  Machine machine(three_devices_and_host());
  for (const int device : {0, 1}) {
    machine.streams().hold({device, 7});
    void* pointer = place(machine, 4, Placement::stripe({0, 1}));
    ASSERT_TRUE(machine.allocator().enable_peer_access(0, 1).ok());
    ASSERT_TRUE(machine.device().launch({device, 7}, {{address_of(pointer), kGranule}}, [] {}).ok());
    ASSERT_TRUE(machine.allocator().try_record_stream(pointer, stream_handle(7), device).ok());
    machine.deallocate(pointer);
    EXPECT_EQ(machine.stats().placed_blocks, 1u);
    EXPECT_TRUE(machine.allocator().trim().ok()) << "which waits";
    EXPECT_EQ(machine.stats().placed_blocks, 0u);
  }
}

TEST(Placement, OutlivesItsStreams) {
  Machine machine(three_devices_and_host());
  void* pointer = place(machine, 4, Placement::stripe({1}), 9);
  ASSERT_TRUE(machine.allocator().try_record_stream(pointer, stream_handle(11)).ok());
  for (const std::uint64_t stream : {9, 11}) {
    ASSERT_TRUE(machine.allocator().forget_stream(stream_handle(stream)).ok());
    ASSERT_TRUE(machine.streams().destroy_stream({0, stream}).ok());
  }
  EXPECT_TRUE(machine.allocator().try_deallocate(pointer).ok());
  EXPECT_TRUE(machine.allocator().trim().ok());
  EXPECT_EQ(machine.stats().placed_blocks, 0u);
}

TEST(Placement, PeersGetAccessToWhatIsMappedAndToWhatWillBe) {
  Machine machine(three_devices_and_host());
  void* before = machine.allocate(3 * kGranule);
  void* placed = place(machine, 4, Placement::stripe({1}));
  EXPECT_FALSE(machine.device().has_access(address_of(before), kGranule, 2));
  ASSERT_TRUE(machine.allocator().enable_peer_access(0, 2).ok());
  void* after = machine.allocate(40 * kGranule);
  void* placed_after = place(machine, 4, Placement::stripe({1}));
  for (void* pointer : {before, placed, after, placed_after}) {
    EXPECT_TRUE(machine.device().has_access(address_of(pointer), kGranule, 2));
    EXPECT_FALSE(machine.device().has_access(address_of(pointer), kGranule, 1));
    machine.deallocate(pointer);
  }
  EXPECT_FALSE(machine.allocator().enable_peer_access(0, 3).ok());
  EXPECT_FALSE(machine.allocator().enable_peer_access(-1, 0).ok());
}

TEST(Spill, ComesBeforeAnOutOfMemoryError) {
  Machine machine(three_devices_and_host(), at_most(10, SpillTo::peers_then_host));
  int told = 0;
  (void)machine.allocator().add_out_of_memory_observer([&told](const OutOfMemoryReport&) { ++told; });
  void* local = machine.allocate(9 * kGranule);
  EXPECT_EQ(machine.stats().spills, 0u);
  void* spilled = machine.allocate(26 * kGranule);
  EXPECT_THAT(granules_by_place(machine.allocator(), spilled), testing::ElementsAre(1, 10, 10, 5));
  EXPECT_EQ(machine.stats().spills, 1u);
  EXPECT_EQ(machine.stats().num_ooms, 0u);
  EXPECT_EQ(told, 0);
  machine.deallocate(spilled);
  machine.deallocate(local);
  void* again = machine.allocate(10 * kGranule);
  EXPECT_THAT(granules_by_place(machine.allocator(), again), testing::ElementsAre(10, 0, 0, 0))
      << "what was spilled is not cached";
  EXPECT_EQ(machine.stats().spills, 1u);
  EXPECT_EQ(machine.refused(63 * kGranule).code, ErrorCode::out_of_memory);
  EXPECT_EQ(told, 1);
  machine.deallocate(again);
}

TEST(Spill, GoesWhereTheOptionSays) {
  {
    Machine machine(three_devices_and_host(), at_most(10, SpillTo::host));
    void* spilled = machine.allocate(20 * kGranule);
    EXPECT_THAT(granules_by_place(machine.allocator(), spilled), testing::ElementsAre(10, 0, 0, 10));
    machine.deallocate(spilled);
  }
  Machine machine(three_devices_and_host(), at_most(10, SpillTo::peers));
  void* spilled = machine.allocate(30 * kGranule);
  EXPECT_THAT(granules_by_place(machine.allocator(), spilled), testing::ElementsAre(10, 10, 10, 0));
  EXPECT_EQ(machine.refused(kGranule).code, ErrorCode::out_of_memory);
  machine.deallocate(spilled);
}

TEST(Spill, LeavesPrivatePoolsAlone) {
  Machine machine(three_devices_and_host(), at_most(10, SpillTo::host));
  const PoolId id{1, 2};
  ASSERT_TRUE(machine.allocator().begin_pool(id, 0, [](StreamHandle) { return true; }).ok());
  EXPECT_EQ(machine.refused(20 * kGranule).code, ErrorCode::out_of_memory);
  ASSERT_TRUE(machine.allocator().end_pool(id, 0).ok());
  ASSERT_TRUE(machine.allocator().release_pool(id, 0).ok());
}

// Requests of all sizes against little memory, on streams that lag: every block keeps its bytes, wherever it lies.
TEST(Spill, KeepsContentsInRandomPrograms) {
  struct Live {
    std::uint64_t* words = nullptr;
    std::size_t count = 0;
    std::uint64_t seed = 0;
    std::uint64_t stream = 0;
  };
  std::uint64_t spills = 0;
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    Machine machine(three_devices_on_host(), at_most(12, SpillTo::peers_then_host));
    machine.streams().hold({0, 3});
    std::mt19937_64 random(seed);
    std::vector<Live> live;
    std::uint64_t value = 0;
    for (int step = 0; step < 400; ++step) {
      const std::uint64_t choice = random() % 100;
      if (choice < 55) {
        const std::size_t bytes = choice < 10 ? 1 + random() % 4096 : kGranule / 2 + random() % (6 * kGranule);
        const std::uint64_t stream = random() % 4;
        const auto placement = choice < 50 ? Placement{} : Placement::stripe({0, 1, 2});
        const Result<void*> pointer = machine.allocator().try_allocate(bytes, placement, 0, stream_handle(stream));
        if (!pointer) {
          ASSERT_EQ(pointer.error().code, ErrorCode::out_of_memory) << "seed " << seed;
          continue;
        }
        live.push_back({static_cast<std::uint64_t*>(*pointer), bytes / 8, ++value, stream});
        for (std::size_t i = 0; i < live.back().count; i += 97) live.back().words[i] = value * 1000 + i % 1000;
      } else if (choice < 95 && !live.empty()) {
        std::swap(live[random() % live.size()], live.back());
        const Live gone = live.back();
        live.pop_back();
        for (std::size_t i = 0; i < gone.count; i += 97) ASSERT_EQ(gone.words[i], gone.seed * 1000 + i % 1000);
        if (choice < 75) {
          ASSERT_TRUE(machine.allocator().try_record_stream(gone.words, stream_handle(random() % 4)).ok());
        }
        ASSERT_TRUE(machine.allocator().try_deallocate(gone.words, stream_handle(gone.stream)).ok());
      } else if (choice < 98) {
        (void)machine.streams().advance({0, 3}, 1 + random() % 3);
      } else {
        ASSERT_TRUE(machine.allocator().trim().ok());
      }
      if (step % 16 == 0) machine.allocator().check();
    }
    spills += machine.stats().spills;
    for (const Live& block : live) machine.allocator().deallocate(block.words, stream_handle(block.stream));
    ASSERT_TRUE(machine.allocator().trim().ok());
    EXPECT_EQ(machine.stats().placed_blocks, 0u);
    EXPECT_EQ(machine.device().usage().physical_bytes, 0u);
  }
  EXPECT_GT(spills, 50u);
}

// Each driver call of a little life fails once, or from then on: a clean error or success, and in the end nothing is
// left that the driver would take back.
TEST(Placement, UndoesWhateverCallFails) {
  const auto live = [](Machine& machine) {
    const auto placed = [&](std::uint64_t granules, const Placement& placement, std::uint64_t stream) -> void* {
      const Result<void*> pointer =
          machine.allocator().try_allocate(granules * kGranule, placement, 0, stream_handle(stream));
      machine.allocator().check();
      return pointer.ok() ? *pointer : nullptr;
    };
    void* striped = placed(24, Placement::stripe({0, 1, 2}), 0);
    void* spilled = placed(30, Placement::spill({1}), 4);
    void* by_option = placed(11, Placement{}, 0);
    if (spilled != nullptr) (void)machine.allocator().try_record_stream(spilled, stream_handle(6)).ok();
    (void)machine.allocator().enable_peer_access(0, 1).ok();
    for (void* pointer : {striped, spilled, by_option}) {
      EXPECT_TRUE(machine.allocator().try_deallocate(pointer).ok());  // null is nothing to do
      machine.allocator().check();
    }
    (void)machine.allocator().trim().ok();
    machine.allocator().check();
  };
  std::uint64_t calls = 0;
  {
    Machine machine(three_devices_and_host(), at_most(10, SpillTo::host));
    machine.fault().arm({.nth = ~std::uint64_t{0}});
    live(machine);
    calls = machine.fault().calls();
    EXPECT_EQ(machine.stats().placed_blocks, 0u);
  }
  ASSERT_GT(calls, 60u);
  for (std::uint64_t nth = 1; nth <= calls; ++nth) {
    for (const bool sticky : {false, true}) {
      for (const ErrorCode code : {ErrorCode::out_of_memory, ErrorCode::invalid_value, ErrorCode::unknown}) {
        Machine machine(three_devices_and_host(), at_most(10, SpillTo::host));
        machine.fault().arm({.nth = nth, .sticky = sticky, .code = code});
        live(machine);
        EXPECT_TRUE(machine.fault().reached()) << nth;
        machine.fault().heal();
        live(machine);
        EXPECT_EQ(machine.stats().placed_blocks, 0u) << "call " << nth << (sticky ? " and on" : "");
      }
    }
  }
}

}  // namespace
}  // namespace gmlake::test
