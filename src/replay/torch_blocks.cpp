// The bookkeeping of TorchBlocks. Callable from the replaying thread.
#include "replay/torch_blocks.hpp"

#include <algorithm>

#include "base/check.hpp"

namespace gmlake::replay {

std::uint32_t TorchBlocks::pool_of(driver::Stream stream, std::uint64_t size) {
  const bool small = size <= torch::kSmallSize;
  std::uint32_t& last = last_pool_[small];
  if (last != kNoPool && pools_[last].stream == stream) return last;
  const auto found = std::find_if(pools_.begin(), pools_.end(),
                                  [&](const TorchPool& p) { return p.small == small && p.stream == stream; });
  last = static_cast<std::uint32_t>(found - pools_.begin());
  if (found == pools_.end()) pools_.push_back({stream, small, {}});
  return last;
}

BlockIndex TorchBlocks::make(const TorchBlock& block) {
  if (idle_.empty()) {
    blocks_.push_back(block);
    return static_cast<BlockIndex>(blocks_.size() - 1);
  }
  const BlockIndex index = idle_.back();
  idle_.pop_back();
  blocks_[index] = block;
  return index;
}

BlockIndex TorchBlocks::add_segment(const TorchBlock& whole) { return make(whole); }

BlockIndex TorchBlocks::split(BlockIndex block, std::uint64_t bytes) {
  TorchBlock rest = blocks_[block];
  rest.address += bytes;
  rest.order += bytes;
  rest.bytes -= bytes;
  rest.previous = block;
  rest.used_elsewhere = false;
  const BlockIndex index = make(rest);
  blocks_[block].bytes = bytes;
  blocks_[block].next = index;
  if (rest.next != kNoBlock) blocks_[rest.next].previous = index;
  return index;
}

void TorchBlocks::merge_free_neighbours(BlockIndex block) {
  const BlockIndex previous = blocks_[block].previous;
  if (previous != kNoBlock && blocks_[previous].state == BlockState::free) {
    erase_free(previous);
    swallow_previous(block);
  }
  const BlockIndex next = blocks_[block].next;
  if (next != kNoBlock && blocks_[next].state == BlockState::free) {
    erase_free(next);
    swallow_next(block);
  }
}

void TorchBlocks::swallow_previous(BlockIndex block) {
  TorchBlock& b = blocks_[block];
  const BlockIndex gone = b.previous;
  const TorchBlock& p = blocks_[gone];
  b.address = p.address;
  b.order = p.order;
  b.bytes += p.bytes;
  b.previous = p.previous;
  if (b.previous != kNoBlock) blocks_[b.previous].next = block;
  recycle(gone);
}

void TorchBlocks::swallow_next(BlockIndex block) {
  TorchBlock& b = blocks_[block];
  const BlockIndex gone = b.next;
  const TorchBlock& n = blocks_[gone];
  b.bytes += n.bytes;
  b.next = n.next;
  if (b.next != kNoBlock) blocks_[b.next].previous = block;
  recycle(gone);
}

void TorchBlocks::insert_free(BlockIndex block) {
  TorchBlock& b = blocks_[block];
  b.state = BlockState::free;
  pools_[b.pool].free.insert({b.bytes, b.order, block});
}

void TorchBlocks::erase_free(BlockIndex block) {
  const TorchBlock& b = blocks_[block];
  pools_[b.pool].free.erase({b.bytes, b.order, block});
}

driver::Address TorchBlocks::hand_out(BlockIndex block) {
  TorchBlock& b = blocks_[block];
  b.state = BlockState::live;
  b.used_elsewhere = false;
  live_.insert(b.address, block);
  return b.address;
}

BlockIndex TorchBlocks::take(driver::Address address) {
  static_assert(AddressMap::kNone == kNoBlock);
  return address == 0 ? kNoBlock : live_.take(address);
}

Status TorchBlocks::record_use(driver::Address address, driver::Stream stream) {
  const BlockIndex block = address == 0 ? kNoBlock : live_.find(address);
  if (block == kNoBlock) return Error{ErrorCode::invalid_pointer, Step::record_stream, address};
  TorchBlock& b = blocks_[block];
  if (pools_[b.pool].stream == stream) return {};
  std::vector<driver::Stream>& uses = uses_[block];
  if (std::find(uses.begin(), uses.end(), stream) == uses.end()) uses.push_back(stream);
  b.used_elsewhere = true;
  return {};
}

void TorchBlocks::forget_uses(BlockIndex block) {
  blocks_[block].used_elsewhere = false;
  uses_.erase(block);
}

void TorchBlocks::check() const {
  std::vector<bool> idle(blocks_.size());
  for (const BlockIndex block : idle_) idle[block] = true;
  std::size_t free_blocks = 0;
  for (BlockIndex block = 0; block < blocks_.size(); ++block) {
    if (idle[block]) continue;
    const TorchBlock& b = blocks_[block];
    if (b.state == BlockState::free) ++free_blocks;
    if (b.next == kNoBlock) continue;
    const TorchBlock& next = blocks_[b.next];
    GMLAKE_CHECK_EQ(next.previous, block);
    GMLAKE_CHECK_EQ(b.address + b.bytes, next.address);
    GMLAKE_CHECK_EQ(b.segment, next.segment);
    // Blocks that could merge have merged.
    GMLAKE_CHECK(b.state == BlockState::live || b.state != next.state);
  }
  for (std::uint32_t number = 0; number < pools_.size(); ++number) {
    for (const FreeKey& key : pools_[number].free) {
      const TorchBlock& b = blocks_[key.block];
      GMLAKE_CHECK(!idle[key.block] && b.state == BlockState::free);
      GMLAKE_CHECK_EQ(b.pool, number);
      GMLAKE_CHECK_EQ(b.bytes, key.bytes);
      GMLAKE_CHECK_EQ(b.order, key.order);
      --free_blocks;
    }
  }
  GMLAKE_CHECK_EQ(free_blocks, std::size_t{0});
}

}  // namespace gmlake::replay
