// From the address of a live VirBlock to its books: open addressing with linear probing, no tombstones.
// 24 to 64 bytes a live block. Not thread-safe: the lock of the shard whose blocks it holds covers it.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <memory>
#include <utility>

#include "base/check.hpp"
#include "stitch/block.hpp"

namespace gmlake::stitch {

class AddressMap {
 public:
  struct Entry {
    Address address = 0;
    Block* block = nullptr;
  };

  // Whether the next insert touches no heap; and makes sure of it, and of several. Throws std::bad_alloc with nothing
  // changed.
  bool has_room() const { return count_ < limit_; }
  void reserve_one() { reserve(1); }
  void reserve(std::size_t more) {
    while (count_ + more > limit_) grow();
  }

  void insert(Block* block) {
    reserve_one();
    insert_reserved(block);
  }
  void insert_reserved(Block* block) {  // where has_room()
    place({block->address, block});
    ++count_;
  }

  // Where an address stands; null for one that is not here. Good until the next insert or erase.
  Entry* locate(Address address) {
    for (std::size_t i = slot_of(address);; i = next(i)) {
      Entry& entry = entries_[i];
      if (entry.address == address) return entry.block == nullptr ? nullptr : &entry;
      if (entry.block == nullptr) return nullptr;
    }
  }

  Block* find(Address address) const {
    const Entry* entry = const_cast<AddressMap*>(this)->locate(address);
    return entry == nullptr ? nullptr : entry->block;
  }

  void erase(Entry* entry) {
    std::size_t hole = static_cast<std::size_t>(entry - entries_.get());
    // Backward shift: pull later entries of the same probe run into the hole, so that no probe ever breaks off early.
    for (std::size_t i = next(hole); entries_[i].block != nullptr; i = next(i)) {
      const std::size_t home = slot_of(entries_[i].address);
      if (((i - home) & mask_) >= ((i - hole) & mask_)) {
        entries_[hole] = entries_[i];
        hole = i;
      }
    }
    entries_[hole] = {};
    --count_;
  }

  // Removes and returns what find() would return.
  Block* take(Address address) {
    Entry* entry = locate(address);
    if (entry == nullptr) return nullptr;
    Block* block = entry->block;
    erase(entry);
    return block;
  }

  std::size_t size() const { return count_; }
  std::size_t metadata_bytes() const { return (mask_ + 1) * sizeof(Entry); }

 private:
  std::size_t slot_of(Address address) const {
    return static_cast<std::size_t>(((address / kAlignment) * 0x9E3779B97F4A7C15u) >> shift_);
  }
  std::size_t next(std::size_t i) const { return (i + 1) & mask_; }

  void place(const Entry& entry) {
    std::size_t i = slot_of(entry.address);
    while (entries_[i].block != nullptr) i = next(i);
    entries_[i] = entry;
  }

  void grow() {
    const std::size_t old_size = mask_ + 1;
    const std::size_t size = std::max<std::size_t>(old_size * 2, 64);
    const auto old = std::exchange(entries_, std::make_unique<Entry[]>(size));
    mask_ = size - 1;
    shift_ = static_cast<std::uint32_t>(64 - std::countr_zero(size));
    limit_ = size / 4 * 3;
    for (std::size_t i = 0; i < old_size; ++i) {
      if (old[i].block != nullptr) place(old[i]);
    }
  }

  // One entry that stays empty stands for a table until there is one: lookups need no special case.
  std::unique_ptr<Entry[]> entries_ = std::make_unique<Entry[]>(2);
  std::size_t count_ = 0;
  std::size_t limit_ = 0;  // a table three quarters full grows
  std::size_t mask_ = 1;
  std::uint32_t shift_ = 63;
};

}  // namespace gmlake::stitch
