// From the address of a live VirBlock to its books: open addressing with linear probing, no tombstones.
// 24 to 64 bytes a live block. Not thread-safe: the device's `state` lock covers it.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include "base/check.hpp"
#include "stitch/block.hpp"

namespace gmlake::stitch {

class AddressMap {
 public:
  // Makes sure that the next insert touches no heap. Throws std::bad_alloc with nothing changed.
  void reserve_one() {
    if ((count_ + 1) * 4 > entries_.size() * 3) grow();
  }

  void insert(Block* block) {
    reserve_one();
    place(entries_, shift_, {block->address, block});
    ++count_;
  }

  Block* find(Address address) const {
    if (entries_.empty()) return nullptr;
    for (std::size_t i = slot_of(address, shift_);; i = next(i)) {
      if (entries_[i].address == address) return entries_[i].block;
      if (entries_[i].block == nullptr) return nullptr;
    }
  }

  // Removes and returns what find() would return.
  Block* take(Address address) {
    if (entries_.empty()) return nullptr;
    std::size_t hole = slot_of(address, shift_);
    for (;; hole = next(hole)) {
      if (entries_[hole].block == nullptr) return nullptr;
      if (entries_[hole].address == address) break;
    }
    Block* const block = entries_[hole].block;
    // Backward shift: pull later entries of the same probe run into the hole, so that no probe ever breaks off early.
    for (std::size_t i = next(hole); entries_[i].block != nullptr; i = next(i)) {
      const std::size_t home = slot_of(entries_[i].address, shift_);
      if (((i - home) & (entries_.size() - 1)) >= ((i - hole) & (entries_.size() - 1))) {
        entries_[hole] = entries_[i];
        hole = i;
      }
    }
    entries_[hole] = {};
    --count_;
    return block;
  }

  std::size_t size() const { return count_; }
  std::size_t metadata_bytes() const { return entries_.size() * sizeof(Entry); }

 private:
  struct Entry {
    Address address = 0;
    Block* block = nullptr;
  };

  static std::size_t slot_of(Address address, std::uint32_t shift) {
    return static_cast<std::size_t>(((address / kAlignment) * 0x9E3779B97F4A7C15u) >> shift);
  }
  std::size_t next(std::size_t i) const { return (i + 1) & (entries_.size() - 1); }

  static void place(std::vector<Entry>& entries, std::uint32_t shift, Entry entry) {
    std::size_t i = slot_of(entry.address, shift);
    while (entries[i].block != nullptr) i = (i + 1) & (entries.size() - 1);
    entries[i] = entry;
  }

  void grow() {
    const std::size_t size = entries_.empty() ? 64 : entries_.size() * 2;
    std::vector<Entry> entries(size);
    const auto shift = static_cast<std::uint32_t>(64 - std::countr_zero(size));
    for (const Entry& entry : entries_) {
      if (entry.block != nullptr) place(entries, shift, entry);
    }
    entries_ = std::move(entries);
    shift_ = shift;
  }

  std::vector<Entry> entries_;
  std::size_t count_ = 0;
  std::uint32_t shift_ = 64;
};

}  // namespace gmlake::stitch
