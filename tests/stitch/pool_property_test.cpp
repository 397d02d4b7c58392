// Random programs of take, give_back, claim, changed mappings and publish, against a reference that knows one letter
// for each 512 B. What fails is shrunk to a short program.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cstdlib>
#include <tuple>
#include <vector>

#include "stitch/rig.hpp"

namespace gmlake::stitch::testing {
namespace {

// Fixed, unless the environment says otherwise. Read by RapidCheck at its first use.
const int kSeeded = ::setenv("RC_PARAMS", "seed=20240607 max_success=300 max_size=150", 0);

using Step3 = std::tuple<std::uint8_t, std::uint16_t, std::uint16_t>;

constexpr std::uint32_t kPoolShift = 12;  // 8 letters a granule
constexpr std::size_t kUnits = 8;

class Reference {
 public:
  Reference(Rig& rig, memory::VmmSegment* segment)
      : rig_(rig), segment_(segment), letters_(segment->slot_count * kUnits, 'H') {}

  void step(const Step3& step) {
    const auto [kind, x, y] = step;
    switch (kind % 5) {
      case 0:
        return take(1 + x % 40);
      case 1:
        return give_back(x);
      case 2:
        return claim(x, y);
      case 3:
        return change(x, y);
      default:
        return publish(x);
    }
  }

  void publish_all() {
    while (!claimed_.empty()) publish(0);
  }

  void compare() const {
    rig_.a.check();
    rig_.table.check();
    rig_.phy.check();
    // Maximal runs of equal letters; live blocks and claimed ones each by themselves.
    std::size_t at = 0;
    for (const Block* block = rig_.a.first_block(segment_); block != nullptr; block = block->next) {
      RC_ASSERT(unit(block->address) == at);
      const std::size_t units = block->bytes / kAlignment;
      const char letter = "FLPHC"[static_cast<int>(block->state)];
      for (std::size_t i = at; i < at + units; ++i) RC_ASSERT(letters_[i] == letter);
      at += units;
      // Free runs too are joined, but for what was given back last: check() has looked at that.
      RC_ASSERT(!(letter == 'H' && at < letters_.size() && letters_[at] == letter));
    }
    RC_ASSERT(at == letters_.size());
  }

 private:
  std::size_t unit(Address address) const { return (address - segment_->base) / kAlignment; }
  Address address(std::size_t unit) const { return segment_->base + unit * kAlignment; }
  void fill(std::size_t begin, std::size_t end, char letter) {
    for (std::size_t i = begin; i < end; ++i) letters_[i] = letter;
  }
  Block* block_at(std::size_t unit) const {
    Block* block = rig_.a.first_block(segment_);
    while (block->end() <= address(unit)) block = block->next;
    return block;
  }

  // The shortest free run with that many letters; 0: none.
  std::size_t best_fit(std::size_t units) const {
    std::size_t best = 0;
    for (std::size_t i = 0, run = 0; i <= letters_.size(); ++i) {
      if (i < letters_.size() && letters_[i] == 'F') {
        ++run;
        continue;
      }
      if (run >= units && (best == 0 || run < best)) best = run;
      run = 0;
    }
    return best;
  }

  void take(std::size_t units) {
    Block* run = rig_.a.find(units * kAlignment);
    const std::size_t best = best_fit(units);
    RC_ASSERT((run == nullptr) == (best == 0));
    if (run == nullptr) return;
    // What was given back last may be taken as it is, before it is joined to a run.
    RC_ASSERT(run->bytes == best * kAlignment || run->bytes == units * kAlignment);
    Block* block = rig_.a.take(run, units * kAlignment, 1);
    fill(unit(block->address), unit(block->end()), 'L');
    live_.push_back(block);
  }

  void give_back(std::size_t which) {
    if (live_.empty()) return;
    const auto chosen = live_.begin() + static_cast<std::ptrdiff_t>(which % live_.size());
    fill(unit((*chosen)->address), unit((*chosen)->end()), 'F');
    rig_.a.give_back(*chosen, 0);
    live_.erase(chosen);
  }

  void claim(std::size_t from, std::size_t length) {
    std::size_t begin = from % letters_.size();
    if (letters_[begin] == 'H') begin -= begin % kUnits;  // holes are cut at slots alone
    if (letters_[begin] != 'H' && letters_[begin] != 'F') return;
    std::size_t end = begin;
    const std::size_t goal = std::min(letters_.size(), begin + 1 + length % 60);
    while (end < goal && (letters_[end] == 'H' || letters_[end] == 'F')) ++end;
    while (letters_[end - 1] == 'H' && end % kUnits != 0) ++end;
    rig_.a.settle();
    claimed_.push_back(rig_.a.claim(block_at(begin), address(begin), address(end)));
    fill(begin, end, 'C');
  }

  // What the slow path does to the slots of a claimed range: a home comes, or goes stale, or comes back.
  void change(std::size_t which, std::size_t bits) {
    if (claimed_.empty()) return;
    const Block* block = claimed_[which % claimed_.size()];
    for (std::uint32_t slot = segment_->slot_at_or_after(block->address);
         segment_->address_of(slot + 1) <= block->end(); ++slot, bits = bits >> 1 | (bits & 1) << 15) {
      memory::Mapping* mapping = segment_->at(slot);
      if ((bits & 1) == 0) continue;
      if (mapping != nullptr && !mapping->stale()) {
        rig_.table.leave_home(mapping->block, {});
        continue;
      }
      if (mapping == nullptr) mapping = rig_.table.map(segment_, slot, rig_.phy.create(1).value()).value();
      rig_.table.settle(mapping);
    }
  }

  void publish(std::size_t which) {
    if (claimed_.empty()) return;
    const auto chosen = claimed_.begin() + static_cast<std::ptrdiff_t>(which % claimed_.size());
    const std::size_t begin = unit((*chosen)->address);
    const std::size_t end = unit((*chosen)->end());
    for (std::size_t i = begin; i < end; ++i) {
      const memory::Mapping* mapping = segment_->at(static_cast<std::uint32_t>(i / kUnits));
      letters_[i] = mapping != nullptr && !mapping->stale() ? 'F' : 'H';
    }
    const Block* first = rig_.a.publish(*chosen, 0);
    claimed_.erase(chosen);
    RC_ASSERT(unit(first->address) <= begin && unit(first->end()) > begin);
  }

  Rig& rig_;
  memory::VmmSegment* segment_;
  std::vector<char> letters_;
  std::vector<Block*> live_;
  std::vector<Block*> claimed_;
};

TEST(PoolProperty, AgreesWithAReferenceUnderRandomPrograms) {
  EXPECT_TRUE(rc::check([](const std::vector<Step3>& program) {
    driver::ModelDriver model({.granularity = std::uint64_t{1} << kPoolShift});
    Rig rig(model, kPoolShift);
    memory::VmmSegment* segment = rig.lay(rig.a, "H24");
    Reference reference(rig, segment);
    reference.step({std::uint8_t{2}, std::uint16_t{0}, std::uint16_t{59}});  // some memory to begin with
    reference.step({std::uint8_t{3}, std::uint16_t{0}, std::uint16_t{0x7fff}});
    for (const Step3& step : program) {
      reference.step(step);
      reference.compare();
    }
    reference.publish_all();
    reference.compare();
    rig.check();
  }));
  EXPECT_EQ(kSeeded, 0);
}

}  // namespace
}  // namespace gmlake::stitch::testing
