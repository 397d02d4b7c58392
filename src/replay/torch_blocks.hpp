// The books that both models of PyTorch's allocator keep: blocks in doubly linked segments, one index of free blocks
// for each (stream, size class), and the rules that native and expandable segments share: rounding, best fit by
// (size, address), split, merge with free neighbours. No driver call is made here.
// Source of the rules: c10/cuda/CUDACachingAllocator.cpp, PyTorch 2.11, default settings.
// Not thread-safe: one thread replays.
#pragma once

#include <cstdint>
#include <set>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "driver/driver.hpp"
#include "gmlake/bytes.hpp"
#include "gmlake/result.hpp"
#include "replay/address_map.hpp"

namespace gmlake::replay {

using BlockIndex = std::uint32_t;
constexpr BlockIndex kNoBlock = ~BlockIndex{0};

namespace torch {
using namespace gmlake::literals;
constexpr std::uint64_t kMinBlock = 512;          // every size is a multiple of it
constexpr std::uint64_t kSmallSize = 1_MiB;       // the largest request of the small pool
constexpr std::uint64_t kSmallSegment = 2_MiB;    // what the small pool gets from the driver at a time
constexpr std::uint64_t kLargeSegment = 20_MiB;   // the same for the large pool, below kMinLargeAlloc
constexpr std::uint64_t kMinLargeAlloc = 10_MiB;  // from here on a request gets a segment of its own size
constexpr std::uint64_t kRoundLarge = 2_MiB;      // rounded up to a multiple of this

// A request as a block size. The caller has checked kMaxRequest.
constexpr std::uint64_t round_size(std::uint64_t bytes) {
  return bytes < kMinBlock ? kMinBlock : round_up(bytes, kMinBlock);
}
// What is asked of the driver (and held against the limit) for a block of `size`.
constexpr std::uint64_t segment_size(std::uint64_t size) {
  if (size <= kSmallSize) return kSmallSegment;
  return size < kMinLargeAlloc ? kLargeSegment : round_up(size, kRoundLarge);
}
constexpr std::uint64_t kMaxRequest = std::uint64_t{1} << 62;  // larger ones overflow when they are rounded
}  // namespace torch

enum class BlockState : std::uint8_t {
  live,      // a caller owns it, or it waits for streams that still use it
  free,      // in the free index of its pool
  unmapped,  // addresses without memory (expandable segments)
};

struct TorchBlock {
  driver::Address address = 0;
  driver::Address order =
      0;  // what orders blocks of equal size: the address, or the one that was recorded in its place
  std::uint64_t bytes = 0;
  BlockIndex previous = kNoBlock;  // its neighbours in the segment, by address
  BlockIndex next = kNoBlock;
  std::uint32_t pool = 0;
  std::uint32_t segment = 0;  // the owner's number of the segment
  BlockState state = BlockState::live;
  bool used_elsewhere = false;  // record_stream was called on it
};

// A free block as its pool orders it.
struct FreeKey {
  std::uint64_t bytes = 0;
  driver::Address order = 0;
  BlockIndex block = 0;
  friend bool operator<(const FreeKey& a, const FreeKey& b) {
    return std::tie(a.bytes, a.order, a.block) < std::tie(b.bytes, b.order, b.block);
  }
};
using FreeIndex = std::set<FreeKey>;

// Blocks of one stream and one size class.
struct TorchPool {
  driver::Stream stream;
  bool small = false;
  FreeIndex free;
};

class TorchBlocks {
 public:
  TorchBlock& operator[](BlockIndex block) { return blocks_[block]; }
  const TorchBlock& operator[](BlockIndex block) const { return blocks_[block]; }

  // The pool of requests of `size` on `stream`, made where it is new. A pool keeps its number.
  std::uint32_t pool_of(driver::Stream stream, std::uint64_t size);
  TorchPool& pool(std::uint32_t number) { return pools_[number]; }
  std::size_t pool_count() const { return pools_.size(); }

  // A new block that is the whole of a segment, live. References to blocks do not survive it, here or in split().
  BlockIndex add_segment(const TorchBlock& whole);
  // Forgets a block that is the whole of its segment and in no index.
  void drop_segment(BlockIndex block) { recycle(block); }
  bool is_whole_segment(BlockIndex block) const {
    return blocks_[block].previous == kNoBlock && blocks_[block].next == kNoBlock;
  }

  // Cuts `block` to its first `bytes`; the rest becomes a block of its own, in the same state and in no index.
  BlockIndex split(BlockIndex block, std::uint64_t bytes);
  // Joins `block`, which is in no index, with the free blocks beside it, which leave the free index. It keeps its
  // number.
  void merge_free_neighbours(BlockIndex block);
  // The same for one neighbour, whatever its state; it is in no index any more.
  void swallow_previous(BlockIndex block);
  void swallow_next(BlockIndex block);

  void insert_free(BlockIndex block);
  void erase_free(BlockIndex block);

  // Live blocks by address. hand_out() makes `block` live; take() takes it out of the table and gives its number, or
  // kNoBlock; put_back() undoes take().
  driver::Address hand_out(BlockIndex block);
  BlockIndex take(driver::Address address);
  void put_back(BlockIndex block) { live_.insert(blocks_[block].address, block); }

  // Uses on other streams, noted until the block is freed. A use on the block's own stream is none.
  Status record_use(driver::Address address, driver::Stream stream);
  const std::vector<driver::Stream>& uses_of(BlockIndex block) { return uses_[block]; }
  void forget_uses(BlockIndex block);

  // Counts everything anew and compares; aborts where the books disagree.
  void check() const;

 private:
  static constexpr std::uint32_t kNoPool = ~std::uint32_t{0};

  BlockIndex make(const TorchBlock& block);
  void recycle(BlockIndex block) { idle_.push_back(block); }

  std::vector<TorchBlock> blocks_;
  std::vector<BlockIndex> idle_;  // numbers to use again
  std::vector<TorchPool> pools_;
  std::uint32_t last_pool_[2] = {kNoPool, kNoPool};  // large, small: most requests come from the last one's stream
  AddressMap live_;
  std::unordered_map<BlockIndex, std::vector<driver::Stream>> uses_;
};

}  // namespace gmlake::replay
