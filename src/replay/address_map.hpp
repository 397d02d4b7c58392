// A hash table from the address of a live block to its number, for the models of allocators: a replay looks up each
// block once, when it is freed, and std::unordered_map would cost more there than the whole policy. Open addressing
// with linear probes at a load of one half at most; a removal shifts its successors back, so there are no tombstones.
// Not thread-safe: one thread replays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "driver/driver.hpp"

namespace gmlake::replay {

class AddressMap {
 public:
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};

  AddressMap() : slots_(kFirstSlots), mask_(kFirstSlots - 1) {}

  // `address` is not 0 and not in the table.
  void insert(driver::Address address, std::uint32_t value) {
    if (2 * (count_ + 1) > slots_.size()) grow();
    std::size_t slot = home(address);
    while (slots_[slot].address != 0) slot = (slot + 1) & mask_;
    slots_[slot] = {address, value};
    ++count_;
  }

  // The value of `address`, or kNone.
  std::uint32_t find(driver::Address address) const {
    for (std::size_t slot = home(address); slots_[slot].address != 0; slot = (slot + 1) & mask_) {
      if (slots_[slot].address == address) return slots_[slot].value;
    }
    return kNone;
  }

  // Removes `address` and returns its value, or kNone where it is not in the table.
  std::uint32_t take(driver::Address address) {
    std::size_t slot = home(address);
    while (slots_[slot].address != address) {
      if (slots_[slot].address == 0) return kNone;
      slot = (slot + 1) & mask_;
    }
    const std::uint32_t value = slots_[slot].value;
    close_gap(slot);
    --count_;
    return value;
  }

  std::size_t size() const { return count_; }

 private:
  struct Slot {
    driver::Address address = 0;
    std::uint32_t value = kNone;
  };
  static constexpr std::size_t kFirstSlots = 1024;

  // Fibonacci hashing; blocks are 512 bytes apart at least, so the low bits carry nothing.
  std::size_t home(driver::Address address) const {
    return static_cast<std::size_t>(((address >> 9) * 0x9E3779B97F4A7C15u) >> 32) & mask_;
  }

  // Moves back each follower whose home does not lie behind the gap, cyclically.
  void close_gap(std::size_t gap) {
    for (std::size_t slot = (gap + 1) & mask_; slots_[slot].address != 0; slot = (slot + 1) & mask_) {
      if (((slot - home(slots_[slot].address)) & mask_) < ((slot - gap) & mask_)) continue;
      slots_[gap] = slots_[slot];
      gap = slot;
    }
    slots_[gap] = {};
  }

  void grow() {
    std::vector<Slot> old(2 * slots_.size());
    old.swap(slots_);
    mask_ = slots_.size() - 1;
    count_ = 0;
    for (const Slot& slot : old) {
      if (slot.address != 0) insert(slot.address, slot.value);
    }
  }

  std::vector<Slot> slots_;
  std::size_t mask_;
  std::size_t count_ = 0;
};

}  // namespace gmlake::replay
