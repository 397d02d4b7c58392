// Random programs of fits, frees, stitches and retirements on real memory mapped many times over, with calls failing
// now and then. Every 512 B of a live block holds its owner's number: no two blocks ever share memory, whatever moved.
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "driver/host.hpp"
#include "stitch/rig.hpp"

namespace gmlake::stitch::testing {
namespace {

constexpr std::uint32_t kSmallShift = 12;

class RandomProgram {
 public:
  RandomProgram(std::uint64_t seed, std::uint64_t fault_percent)
      : random_(seed),
        fault_percent_(fault_percent),
        host_(driver::HostDriver::make({.granularity = std::uint64_t{1} << kSmallShift}).value()),
        rig_(*host_, kSmallShift) {
    for (Pool* pool : {&rig_.a, &rig_.a, &rig_.b}) (void)rig_.lay(*pool, "H64");
  }

  void step() {
    if (pick(100) < fault_percent_) {
      rig_.driver.arm({.nth = 1 + pick(8), .sticky = pick(3) == 0, .code = ErrorCode::out_of_memory});
    }
    switch (pick(8)) {
      case 0:
      case 1:
      case 2:
        allocate(pick(3) == 0 ? rig_.b : rig_.a);
        break;
      case 3:
        retire();
        break;
      default:
        free_one();
        if (live_.size() < 12) allocate(rig_.a);
    }
    rig_.driver.heal();
    rig_.check();
    for (const Live& live : live_) expect_own(live);
  }

  std::uint64_t moved() const { return moved_; }
  std::uint64_t revived() const { return revived_; }
  std::uint64_t refused() const { return refused_; }

 private:
  struct Live {
    Block* block;
    std::uint64_t number;
  };

  std::uint64_t pick(std::uint64_t bound) { return random_() % bound; }
  static std::uint64_t& word(Address address) { return *reinterpret_cast<std::uint64_t*>(address); }
  static void expect_own(const Live& live) {
    for (Address at = live.block->address; at < live.block->end(); at += 512) ASSERT_EQ(word(at), live.number);
  }

  void allocate(Pool& pool) {
    const std::uint64_t bytes = 512 * (1 + pick(pick(2) == 0 ? 12 : 120));
    Block* run = pool.find(bytes);
    if (run == nullptr) run = stitch(pool, bytes);
    if (run == nullptr) return;
    live_.push_back({pool.take(run, bytes, bytes), ++numbers_});
    for (Address at = live_.back().block->address; at < live_.back().block->end(); at += 512) word(at) = numbers_;
  }

  Block* stitch(Pool& pool, std::uint64_t bytes) {
    Pool* other = &pool == &rig_.a ? &rig_.b : &rig_.a;
    const std::vector<Pool*> donors{&pool, other};
    const std::uint64_t held = rig_.phy.held_bytes() >> kSmallShift;
    const bool wait = pick(2) == 0;
    const auto plan = rig_.planner.make({.pool = &pool,
                                         .bytes = bytes,
                                         .donors = donors,
                                         .stream_wait = wait,
                                         .block_granules = 1u << pick(4),
                                         .slack_granules = pick(8),
                                         .headroom_granules = held < 48 ? 48 - held : 0},
                                        rig_.steps);
    if (!plan) return nullptr;
    rig_.tick = ++tick_;
    Block* run = rig_.carry_out(*plan);
    refused_ += run == nullptr ? 1 : 0;
    if (run == nullptr) return nullptr;
    moved_ += plan->moved_granules;
    revived_ += plan->revived_granules;
    EXPECT_GE(run->bytes, bytes);
    return run;
  }

  void free_one() {
    if (live_.empty()) return;
    const auto chosen = live_.begin() + static_cast<std::ptrdiff_t>(pick(live_.size()));
    chosen->block->pool->give_back(chosen->block, ++tick_);
    live_.erase(chosen);
  }

  void retire() {
    for (const memory::StreamIndex stream : {0u, 1u}) (void)rig_.fences.mark(stream, tick_).ok();
    (void)rig_.fences.poll().ok();
    (void)rig_.table.retire(rig_.fences, pick(16));
  }

  std::mt19937_64 random_;
  const std::uint64_t fault_percent_;
  std::unique_ptr<driver::HostDriver> host_;
  Rig rig_;
  std::vector<Live> live_;
  std::uint64_t numbers_ = 0;
  std::uint64_t tick_ = 0;
  std::uint64_t moved_ = 0;
  std::uint64_t revived_ = 0;
  std::uint64_t refused_ = 0;
};

TEST(StitcherRandom, NeverSharesMemoryBetweenLiveBlocks) {
  for (const std::uint64_t seed : {1, 2, 3, 4, 5, 6}) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RandomProgram program(seed, 0);
    for (int step = 0; step < 500 && !::testing::Test::HasFatalFailure(); ++step) program.step();
    EXPECT_GT(program.moved(), 20u);
    EXPECT_GT(program.revived(), 0u);
    EXPECT_EQ(program.refused(), 0u);
  }
}

TEST(StitcherRandom, KeepsTheBooksWhateverFails) {
  for (const std::uint64_t seed : {7, 8, 9, 10, 11, 12}) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RandomProgram program(seed, 40);
    for (int step = 0; step < 500 && !::testing::Test::HasFatalFailure(); ++step) program.step();
    EXPECT_GT(program.refused(), 3u);
  }
}

}  // namespace
}  // namespace gmlake::stitch::testing
