// From the address of a live VirBlock to its books: a hash table of chunks of a cache line each, which hold up to seven
// blocks and, in one word, seven bits of the hash of each. A search compares all seven at once and looks at a block
// only where they agree; so it follows no chain, and the processor mispredicts next to nothing. With linear probes in
// its place a third of all mispredicted branches of a hit were here.
//
// A block whose chunk is full goes into the next one that is not, and every chunk that it passed counts it: a search
// goes on only where that count is not 0. No tombstones. The form is that of F14 (Bronson and Shi, "Open-sourcing F14
// for faster, more memory-efficient hash tables", 2019).
// 13 to 26 bytes a live block. Not thread-safe: the lock of the shard whose blocks it holds covers it.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <memory>
#include <utility>

#include "base/check.hpp"
#include "stitch/block.hpp"

namespace gmlake::stitch {

class AddressMap {
  struct Chunk;

 public:
  // Where a block stands. Good until the next insert or erase.
  struct Place {
    Block* block = nullptr;  // null: nowhere

   private:
    friend class AddressMap;
    std::size_t home_ = 0;   // the chunk where it wants to be
    std::size_t chunk_ = 0;  // and the one where it is
    unsigned shift_ = 0;     // of its tag there
  };

  // Whether the next insert touches no heap; and makes sure of it, and of several. Throws std::bad_alloc with nothing
  // changed.
  bool has_room() const { return room_ != 0; }
  void reserve_one() { reserve(1); }
  void reserve(std::size_t more) {
    while (room_ < more) grow();
  }

  void insert(Block* block) {
    reserve_one();
    insert_reserved(block);
  }
  void insert_reserved(Block* block) {  // where has_room()
    put(block);
    --room_;
  }

  // Where the block that begins at an address stands.
  Place locate(Address address) const {
    const std::uint64_t hash = hash_of(address);
    Place place;
    for (place.chunk_ = place.home_ = home_of(hash);;) {
      const Chunk& chunk = chunks_[place.chunk_];
      for (std::uint64_t matches = matches_of(chunk, tag_of(hash)); matches != 0; matches &= matches - 1) {
        place.shift_ = shift_of(matches);
        place.block = chunk.blocks[place.shift_ / 8];
        if (place.block->address == address) [[likely]]
          return place;
      }
      if (chunk.passed_by() == 0) [[likely]]
        return {};
      place.chunk_ = next(place.chunk_);
      if (place.chunk_ == place.home_) return {};  // counts that were full once may lead all round
    }
  }

  Block* find(Address address) const { return locate(address).block; }

  void erase(const Place& place) {
    chunks_[place.chunk_].tags &= std::rotl(~kByte, static_cast<int>(place.shift_));
    ++room_;
    for (std::size_t i = place.home_; i != place.chunk_; i = next(i)) chunks_[i].uncount();
  }

  // Removes and returns what find() would return.
  Block* take(Address address) {
    const Place place = locate(address);
    if (place.block != nullptr) erase(place);
    return place.block;
  }

  std::size_t size() const { return limit_ - room_; }
  std::size_t metadata_bytes() const { return (mask_ + 1) * sizeof(Chunk); }

 private:
  static constexpr std::size_t kSlots = 7;
  static constexpr std::size_t kUsualLoad = 5;  // blocks a chunk, on average, at which the table grows
  static constexpr std::uint64_t kByte = 0xff;
  static constexpr std::uint64_t kOfEach = 0x0001010101010101;  // one in each tag
  static constexpr std::uint64_t kUsed = 0x80;                  // in every tag; a free slot's is 0
  static constexpr unsigned kTagShift = 32;

  struct alignas(64) Chunk {
    // By slot from the low byte up; the highest byte counts the blocks that found no place here.
    std::uint64_t tags = 0;
    std::array<Block*, kSlots> blocks{};  // a slot that is free is not read

    std::uint64_t passed_by() const { return tags >> 8 * kSlots; }
    void count() {
      if (passed_by() != kByte) tags += std::uint64_t{1} << 8 * kSlots;
    }
    void uncount() {  // a count that was full once stays: it may have missed some
      if (passed_by() != kByte) tags -= std::uint64_t{1} << 8 * kSlots;
    }
  };
  static_assert(sizeof(Chunk) == 64);

  // The last bits of an address, which are 0, take nothing from it but as many of the first bits.
  static std::uint64_t hash_of(Address address) { return address * 0x9E3779B97F4A7C15u; }
  std::size_t home_of(std::uint64_t hash) const { return static_cast<std::size_t>(hash >> shift_); }
  // Of bits that say nothing about the chunk, and that depend on all bits of the address up to 512 GiB.
  static std::uint64_t tag_of(std::uint64_t hash) { return static_cast<std::uint8_t>(hash >> kTagShift) | kUsed; }
  std::size_t next(std::size_t i) const { return (i + 1) & mask_; }

  // The slots whose tag is this one, as the high bit of each; now and then one more, above one that is.
  static std::uint64_t matches_of(const Chunk& chunk, std::uint64_t tag) {
    const std::uint64_t differs = chunk.tags ^ tag * kOfEach;
    return (differs - kOfEach) & ~differs & kUsed * kOfEach;
  }
  // Of the first of these slots: what a tag is shifted by there, 8 times its number.
  static unsigned shift_of(std::uint64_t slots) { return static_cast<unsigned>(std::countr_zero(slots)) ^ 7; }

  void put(Block* block) {
    const std::uint64_t hash = hash_of(block->address);
    for (std::size_t i = home_of(hash);; i = next(i)) {
      Chunk& chunk = chunks_[i];
      const std::uint64_t free = ~chunk.tags & kUsed * kOfEach;
      if (free != 0) [[likely]] {
        const unsigned shift = shift_of(free);
        chunk.tags |= tag_of(hash) << shift;
        chunk.blocks[shift / 8] = block;
        return;
      }
      chunk.count();
    }
  }

  void grow() {
    const std::size_t old_size = mask_ + 1;
    const std::size_t size = limit_ == 0 ? kFirstSize : old_size * 2;
    const auto old = std::exchange(chunks_, std::make_unique<Chunk[]>(size));
    mask_ = size - 1;
    shift_ = static_cast<std::uint32_t>(64 - std::countr_zero(size));
    room_ += size * kUsualLoad - limit_;
    limit_ = size * kUsualLoad;
    for (std::size_t i = 0; i < old_size; ++i) {
      const std::uint64_t used = old[i].tags & kUsed * kOfEach;
      for (std::uint64_t left = used; left != 0; left &= left - 1) put(old[i].blocks[shift_of(left) / 8]);
    }
  }

  static constexpr std::size_t kFirstSize = 16;
  // Two chunks that stay empty stand for a table until there is one: lookups need no special case.
  std::unique_ptr<Chunk[]> chunks_ = std::make_unique<Chunk[]>(2);
  std::size_t limit_ = 0;  // of blocks
  std::size_t room_ = 0;   // for so many more of them
  std::size_t mask_ = 1;
  std::uint32_t shift_ = 63;
};

}  // namespace gmlake::stitch
