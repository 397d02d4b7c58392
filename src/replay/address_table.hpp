// What a recording's addresses stand for at one point of it: an open-addressing hash table from address to block.
// Entries stay when their block is freed: the recorded allocators give out the same addresses again and again. One
// thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace gmlake::replay {

enum class AddressState : std::uint8_t { unseen, live, pending, freed };

class AddressTable {
 public:
  struct Entry {
    std::uint64_t address = 0;
    std::uint32_t block = 0;
    std::uint32_t event = 0;  // of the alloc, or of the request to free while pending
    AddressState state = AddressState::unseen;
  };

  AddressTable() : entries_(kFirstCapacity) {}

  // The entry of an address, made as `unseen` where it is new: the caller gives it another state at once. The reference
  // holds until the next call.
  Entry& at(std::uint64_t address) {
    if (used_ * 2 >= entries_.size()) grow();
    Entry& entry = slot(entries_, address);
    if (entry.state == AddressState::unseen) {
      entry.address = address;
      ++used_;
    }
    return entry;
  }

  // unseen where the address never came.
  AddressState state_of(std::uint64_t address) { return slot(entries_, address).state; }

 private:
  static constexpr std::size_t kFirstCapacity = 64;  // a power of two

  // Addresses are multiples of 512 in a few gigabytes: mixed well, or they would share their low bits.
  static std::uint64_t mix(std::uint64_t value) {
    value = (value ^ value >> 33) * 0xff51afd7ed558ccdULL;
    value = (value ^ value >> 33) * 0xc4ceb9fe1a85ec53ULL;
    return value ^ value >> 33;
  }

  static Entry& slot(std::vector<Entry>& entries, std::uint64_t address) {
    const std::size_t mask = entries.size() - 1;
    std::size_t i = mix(address) & mask;
    while (entries[i].state != AddressState::unseen && entries[i].address != address) i = (i + 1) & mask;
    return entries[i];
  }

  void grow() {
    std::vector<Entry> larger(entries_.size() * 2);
    for (const Entry& entry : entries_) {
      if (entry.state != AddressState::unseen) slot(larger, entry.address) = entry;
    }
    entries_.swap(larger);
  }

  std::vector<Entry> entries_;
  std::size_t used_ = 0;
};

}  // namespace gmlake::replay
