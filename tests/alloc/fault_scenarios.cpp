#include "fault_scenarios.hpp"

#include <array>

namespace gmlake::test {

void Stage::work(int block, std::uint64_t stream, bool first) {
  const Block on = blocks_.at(block);
  std::function<void()> kernel;
  if (contents_) {
    kernel = [on, block, first] {
      const auto seed = static_cast<std::uint64_t>(block);
      if (first) {
        write_stamps(on.address, on.bytes, seed);
      } else {
        EXPECT_EQ(wrong_stamps(on.address, on.bytes, seed), 0u) << "in block " << block;
      }
    };
  }
  EXPECT_TRUE(machine_.device().launch({0, stream}, {{on.address, on.bytes, first}}, std::move(kernel)).ok());
}

// An error is clean where it says what failed, and changed nothing for anyone else.
void Stage::clean(const Error& error) {
  ++failures;
  EXPECT_NE(error.step, Step::none) << describe(error);
}

// Whatever the driver does.
void Stage::expect_done(const Status& status) {
  if (status.ok()) return;
  clean(status.error());
  EXPECT_TRUE(host_memory_fails && status.error().code == ErrorCode::out_of_memory) << describe(status.error());
}

void Stage::allocate(int block, std::uint64_t tenths, std::uint64_t stream) {
  const std::uint64_t bytes = granule_ * tenths / 10;
  const Result<void*> pointer = call([&] { return allocator().try_allocate(bytes, 0, stream_handle(stream)); });
  if (pointer) {
    EXPECT_EQ(blocks_.count(block), 0u);
    blocks_[block] = {address_of(*pointer), bytes, stream};
    work(block, stream, true);
  } else {
    clean(pointer.error());
  }
  after_step();
}

void Stage::expect_no_room_for(std::uint64_t granules) {
  std::uint64_t live_bytes = 0;
  for (const auto& [id, block] : blocks_) live_bytes += block.bytes;
  const Result<void*> pointer = call([&] { return allocator().try_allocate(granules * granule_, 0, nullptr); });
  if (pointer) {  // where earlier steps failed there may be room
    EXPECT_LE(live_bytes + granules * granule_, kGranules * granule_);
    EXPECT_TRUE(allocator().try_deallocate(*pointer).ok());
  } else {
    EXPECT_NE(pointer.error().step, Step::none);
  }
  after_step();
}

void Stage::free(int block, std::uint64_t stream) {
  const auto found = blocks_.find(block);
  if (found == blocks_.end()) return;
  work(block, found->second.stream, false);
  void* pointer = std::bit_cast<void*>(found->second.address);
  const Status freed = call([&] { return allocator().try_deallocate(pointer, stream_handle(stream)); });
  expect_done(freed);
  if (freed.ok()) blocks_.erase(found);
  after_step();
}

void Stage::free_all() {
  std::size_t tries = 2 * blocks_.size() + 1;  // one of them may fail for want of host memory
  while (!blocks_.empty() && tries-- > 0) free(blocks_.begin()->first, blocks_.begin()->second.stream);
  EXPECT_TRUE(blocks_.empty());
}

void Stage::use_on(int block, std::uint64_t stream) {
  const auto found = blocks_.find(block);
  if (found == blocks_.end()) return;
  work(block, stream, false);
  void* pointer = std::bit_cast<void*>(found->second.address);
  Status recorded = call([&] { return allocator().try_record_stream(pointer, stream_handle(stream)); });
  expect_done(recorded);
  if (!recorded.ok()) {  // the work is there: the allocator has to know, or nobody can wait for it
    recorded = call([&] { return allocator().try_record_stream(pointer, stream_handle(stream)); });
    EXPECT_TRUE(recorded.ok()) << describe(recorded.error());
  }
  after_step();
}

void Stage::trim() {
  if (Status trimmed = call([&] { return allocator().trim(0); }); !trimmed.ok()) clean(trimmed.error());
  after_step();
}

namespace {

void cold(Stage& stage) { stage.allocate(0, 100); }

void hit(Stage& stage) {
  stage.allocate(0, 100);
  stage.free(0);
  stage.allocate(1, 100);
}

void split(Stage& stage) {
  stage.allocate(0, 100);
  stage.free(0);
  for (int block = 1; block <= 10; ++block) stage.allocate(block, 7);
}

// Three gaps of 10 granules between live blocks, and a request for 24: blocks move, and a few are created.
void stitch(Stage& stage) {
  for (int block = 0; block < 6; ++block) stage.allocate(block, 100);
  for (int block = 0; block < 6; block += 2) stage.free(block);
  stage.allocate(6, 240);
  stage.free(6);
  stage.allocate(7, 100);
  stage.allocate(8, 100);
}

void grow_partly(Stage& stage) {
  stage.allocate(0, 200);
  stage.allocate(1, 10);
  stage.free(0);
  stage.allocate(2, 450);
}

// Requests of rising size take each other's memory apart, until stale mappings have to go.
void retire(Stage& stage) {
  for (std::uint64_t tenths = 110; tenths < 400; tenths += 50) {
    stage.allocate(0, tenths);
    stage.allocate(1, tenths / 2);
    stage.allocate(2, tenths);
    stage.free(0);
    stage.free(2);
    stage.allocate(3, tenths * 2);
    stage.free(1);
    stage.free(3);
  }
}

void trim(Stage& stage) {
  stage.allocate(0, 100);
  stage.allocate(1, 3);
  stage.allocate(2, 100, 1);
  stage.allocate(3, 5, 1);
  stage.free(0);
  stage.free(2, 1);
  stage.trim();
  stage.allocate(4, 300);
}

void out_of_memory(Stage& stage) {
  for (int block = 0; block < 9; ++block) stage.allocate(block, 100);
  stage.expect_no_room_for(20);
  for (int block = 0; block < 9; block += 2) stage.free(block);
  stage.allocate(9, 400);
}

void cross_stream(Stage& stage) {
  stage.hold(1);
  for (int block = 0; block < 4; ++block) stage.allocate(block, 200, 1);
  for (int block = 0; block < 4; block += 2) stage.free(block, 1);
  stage.allocate(4, 300, 2);  // behind a wait of stream 2 for stream 1
  stage.free(4, 2);
  stage.streams().advance_all({0, 1});
  stage.free(1, 1);
  stage.allocate(5, 300, 3);
}

void recorded(Stage& stage) {
  stage.hold(1);
  stage.hold(2);
  for (int block = 0; block < 8; ++block) stage.allocate(block, 100);
  for (int block = 0; block < 8; ++block) stage.use_on(block, 1 + static_cast<std::uint64_t>(block % 2));
  for (int block = 0; block < 8; ++block) stage.free(block);
  stage.streams().advance({0, 1}, 6);
  stage.allocate(8, 200);
  stage.allocate(9, 500);  // has to wait
}

void freed_elsewhere(Stage& stage) {
  for (int block = 0; block < 4; ++block) stage.allocate(block, 150);
  for (int block = 0; block < 4; ++block) stage.free(block, 1 + static_cast<std::uint64_t>(block));
  stage.allocate(4, 600);
}

void small_and_large(Stage& stage) {
  for (int block = 0; block < 40; ++block) stage.allocate(block, 4);
  for (int block = 0; block < 40; block += 3) stage.free(block);
  stage.allocate(40, 700);
  stage.free(40);
  for (int block = 41; block < 80; ++block) stage.allocate(block, 5);
}

using Stats = DeviceStats;

const std::array kScenarios = {
    Scenario{"Cold", cold, [](const Stats& stats) { return stats.phy_blocks_created > 0; }},
    Scenario{"Hit", hit, [](const Stats& stats) { return stats.stitches == 1 && stats.all.allocation.allocated == 2; }},
    Scenario{"Split", split, [](const Stats& stats) { return stats.stitches == 1; }},
    Scenario{"Stitch", stitch, [](const Stats& stats) { return stats.moved_bytes > 0; }},
    Scenario{"GrowPartly", grow_partly, [](const Stats& stats) { return stats.stitches > 2; }},
    Scenario{"Retire", retire, [](const Stats& stats) { return stats.moved_bytes > 0 && stats.mappings_retired > 0; }},
    Scenario{"Trim", trim, [](const Stats& stats) { return stats.phy_blocks_released > 0; }},
    Scenario{"OutOfMemory", out_of_memory, [](const Stats& stats) { return stats.num_ooms == 1; }},
    Scenario{"CrossStream", cross_stream, [](const Stats& stats) { return stats.rung_stream_wait > 0; }},
    Scenario{"RecordStream", recorded,
             [](const Stats& stats) { return stats.events_pending > 0 || stats.rung_wait > 0; }},
    Scenario{"FreedElsewhere", freed_elsewhere, [](const Stats& stats) { return stats.stitches > 3; }},
    Scenario{"SmallAndLarge", small_and_large, [](const Stats& stats) { return stats.moved_bytes > 0; }},
};

}  // namespace

std::span<const Scenario> fault_scenarios() { return kScenarios; }

}  // namespace gmlake::test
