// The policy of PyTorch's expandable segments. Callable from the replaying thread.
#include "replay/torch_expandable.hpp"

#include <algorithm>

#include "base/check.hpp"
#include "replay/settings.hpp"

namespace gmlake::replay {

Result<std::unique_ptr<Target>> TorchExpandable::make(driver::Driver& driver, const TargetOptions& options) {
  if (Status known = SettingsReader(options.settings).all_known(); !known) return known.error();
  driver::MemoryProperties properties;
  properties.location = {driver::Location::Kind::device, options.device};
  const Result<std::uint64_t> granularity = driver.granularity(properties);
  if (!granularity) return granularity.error();
  const Result<driver::MemoryInfo> memory = driver.memory_info(options.device);
  if (!memory) return memory.error();
  // An eighth more than the device holds, so that pages unmapped in the middle can be mapped at the end.
  const std::uint64_t range_bytes = memory->total_bytes + memory->total_bytes / 8;
  return std::unique_ptr<Target>(new TorchExpandable(driver, options, *granularity, range_bytes));
}

TorchExpandable::TorchExpandable(driver::Driver& driver, const TargetOptions& options, std::uint64_t granularity,
                                 std::uint64_t range_bytes)
    : driver_(driver),
      device_(options.device),
      granularity_(granularity),
      range_bytes_(range_bytes),
      held_(options.capacity_bytes),
      pending_(driver, options.device) {}

Result<driver::Address> TorchExpandable::allocate(std::uint64_t bytes, driver::Stream stream) {
  if (bytes > torch::kMaxRequest) return Error{ErrorCode::invalid_size, Step::allocate, bytes};
  if (!pending_.empty()) {
    const Status processed = pending_.process(done_);
    free_done();
    if (!processed) return processed.error();
  }
  const std::uint64_t size = torch::round_size(bytes);
  const std::uint32_t pool = blocks_.pool_of(stream, size);
  BlockIndex block = take_best_fit(pool, size);
  if (block == kNoBlock) {
    const Result<BlockIndex> made = expand_or_reclaim(pool, size);
    if (!made) return made.error();
    block = *made;
  }
  if (blocks_[block].bytes - size >= torch::kMinBlock) blocks_.insert_free(blocks_.split(block, size));
  return blocks_.hand_out(block);
}

Status TorchExpandable::deallocate(driver::Address address, driver::Stream) {
  const BlockIndex block = blocks_.take(address);
  if (block == kNoBlock) return Error{ErrorCode::invalid_pointer, Step::deallocate, address};
  if (!blocks_[block].used_elsewhere) {
    free_block(block);
    return {};
  }
  Status pending = pending_.add(block, blocks_.uses_of(block));
  if (pending) {
    blocks_.forget_uses(block);
  } else {
    blocks_.put_back(block);
  }
  return pending;
}

Status TorchExpandable::record_stream(driver::Address address, driver::Stream stream) {
  return blocks_.record_use(address, stream);
}

Status TorchExpandable::trim() { return release_cached(); }

void TorchExpandable::check() const {
  blocks_.check();
  for (const Unmapped& index : unmapped_) {
    for (const auto& [address, block] : index) {
      GMLAKE_CHECK_EQ(blocks_[block].address, address);
      GMLAKE_CHECK(blocks_[block].state == BlockState::unmapped);
    }
  }
}

// The smallest free block that holds `size`. The last block before unmapped room counts as large as it could become, so
// that the growing end of a range is left alone where another block will do.
BlockIndex TorchExpandable::take_best_fit(std::uint32_t pool, std::uint64_t size) {
  FreeIndex& free = blocks_.pool(pool).free;
  auto found = free.lower_bound({size, 0, 0});
  if (found == free.end()) return kNoBlock;
  std::uint64_t found_size = size_with_room_behind(found->block);
  for (auto next = std::next(found); next != free.end(); ++next) {
    const std::uint64_t next_size = size_with_room_behind(next->block);
    if (next_size >= found_size) break;
    found = next;
    found_size = next_size;
  }
  const BlockIndex block = found->block;
  free.erase(found);
  return block;
}

std::uint64_t TorchExpandable::size_with_room_behind(BlockIndex block) const {
  const TorchBlock& b = blocks_[block];
  const bool room = b.next != kNoBlock && blocks_[b.next].state == BlockState::unmapped;
  return b.bytes + (room ? blocks_[b.next].bytes : 0);
}

Result<BlockIndex> TorchExpandable::expand_or_reclaim(std::uint32_t pool, std::uint64_t size) {
  const Result<BlockIndex> made = expand(pool, size);
  if (made) return made;
  if (Status released = release_cached(); !released) return released.error();
  return expand(pool, size);
}

// Maps what is missing of `size` bytes at the lowest addresses that have room. Like the real one, it holds the whole
// size of a native segment against the limit, however little is missing. The block is in no index.
Result<BlockIndex> TorchExpandable::expand(std::uint32_t pool, std::uint64_t size) {
  const std::uint64_t asked = torch::segment_size(size);
  if (!held_.fits(asked)) return Error{ErrorCode::out_of_memory, Step::allocate, asked};
  BlockIndex block = find_room(pool, size);
  if (block == kNoBlock) {
    const Result<BlockIndex> added = add_range(pool);
    if (!added) return added.error();
    block = *added;
  }
  if (blocks_[block].state == BlockState::unmapped) {
    if (Status mapped = map_block(block, std::min(blocks_[block].bytes, size)); !mapped) return mapped.error();
  }
  while (blocks_[block].bytes < size) {
    // Behind a free block that is too small lies an unmapped one: mapped, it swallows its free neighbours.
    const BlockIndex next = blocks_[block].next;
    const std::uint64_t missing = size - blocks_[block].bytes;
    if (Status mapped = map_block(next, std::min(missing, blocks_[next].bytes)); !mapped) return mapped.error();
    block = next;
  }
  blocks_.erase_free(block);
  return block;
}

// The lowest unmapped block, or the free block before it, from which free and unmapped bytes reach far enough.
BlockIndex TorchExpandable::find_room(std::uint32_t pool, std::uint64_t size) const {
  if (pool >= unmapped_.size()) return kNoBlock;
  for (const auto& [address, block] : unmapped_[pool]) {
    const BlockIndex previous = blocks_[block].previous;
    const bool from_previous = previous != kNoBlock && blocks_[previous].state != BlockState::live;
    const BlockIndex first = from_previous ? previous : block;
    if (has_room(first, size)) return first;
  }
  return kNoBlock;
}

bool TorchExpandable::has_room(BlockIndex block, std::uint64_t size) const {
  std::uint64_t bytes = 0;
  while (bytes < size && block != kNoBlock && blocks_[block].state != BlockState::live) {
    bytes += blocks_[block].bytes;
    block = blocks_[block].next;
  }
  return bytes >= size;
}

Result<BlockIndex> TorchExpandable::add_range(std::uint32_t pool) {
  const TorchPool& owner = blocks_.pool(pool);
  const std::uint64_t page = round_up(owner.small ? torch::kSmallSegment : torch::kLargeSegment, granularity_);
  const driver::Stream stream{device_, owner.stream.handle};
  Result<std::unique_ptr<PageRange>> range = PageRange::make(driver_, stream, range_bytes_, page);
  if (!range) return range.error();
  TorchBlock whole;
  whole.address = (*range)->address();
  whole.order = whole.address;
  whole.bytes = (*range)->bytes();
  whole.pool = pool;
  whole.segment = static_cast<std::uint32_t>(ranges_.size());
  ranges_.push_back(std::move(*range));
  const BlockIndex block = blocks_.add_segment(whole);
  insert_unmapped(block);
  return block;
}

// Maps the first `bytes` of an unmapped block, rounded up to pages, and puts them with their free neighbours into the
// free index under the same number.
Status TorchExpandable::map_block(BlockIndex block, std::uint64_t bytes) {
  const TorchBlock before = blocks_[block];
  const Result<std::uint64_t> mapped = ranges_[before.segment]->map({before.address, bytes});
  if (!mapped) return mapped.error();
  unmapped(before.pool).erase(before.address);
  if (*mapped < before.bytes) insert_unmapped(blocks_.split(block, *mapped));
  free_block(block);
  held_.add(*mapped);
  return {};
}

void TorchExpandable::free_block(BlockIndex block) {
  blocks_.merge_free_neighbours(block);
  blocks_.insert_free(block);
}

void TorchExpandable::free_done() {
  for (const BlockIndex block : done_) free_block(block);
  done_.clear();
}

Status TorchExpandable::release_cached() {
  const Status drained = pending_.drain(done_);
  free_done();
  if (!drained) return drained;
  for (const bool small : {false, true}) {
    for (std::uint32_t number = 0; number < blocks_.pool_count(); ++number) {
      if (blocks_.pool(number).small != small) continue;
      // Unmapping changes the index: it splits blocks and puts the parts back.
      std::vector<BlockIndex> free;
      for (const FreeKey& key : blocks_.pool(number).free) free.push_back(key.block);
      for (const BlockIndex block : free) {
        if (Status unmapped = unmap_block(block); !unmapped) return unmapped;
        if (blocks_[block].state == BlockState::unmapped && blocks_.is_whole_segment(block)) drop_range(block);
      }
    }
  }
  return {};
}

// Unmaps the whole pages inside a free block; what is left of it before and behind them stays free.
Status TorchExpandable::unmap_block(BlockIndex block) {
  const TorchBlock before = blocks_[block];
  AddressSpan gone;
  const Status status = ranges_[before.segment]->unmap({before.address, before.bytes}, gone);
  if (gone.bytes == 0) return status;
  held_.remove(gone.bytes);
  blocks_.erase_free(block);
  BlockIndex middle = block;
  if (gone.address != before.address) {
    middle = blocks_.split(block, gone.address - before.address);
    blocks_.insert_free(block);
  }
  if (blocks_[middle].bytes != gone.bytes) blocks_.insert_free(blocks_.split(middle, gone.bytes));
  merge_unmapped_neighbours(middle);
  insert_unmapped(middle);
  return status;
}

// Gives back a range in which nothing is mapped any more.
void TorchExpandable::drop_range(BlockIndex block) {
  const TorchBlock gone = blocks_[block];
  unmapped(gone.pool).erase(gone.address);
  blocks_.drop_segment(block);
  ranges_[gone.segment].reset();
}

void TorchExpandable::insert_unmapped(BlockIndex block) {
  TorchBlock& b = blocks_[block];
  b.state = BlockState::unmapped;
  unmapped(b.pool).emplace(b.address, block);
}

void TorchExpandable::merge_unmapped_neighbours(BlockIndex block) {
  const BlockIndex previous = blocks_[block].previous;
  if (previous != kNoBlock && blocks_[previous].state == BlockState::unmapped) {
    unmapped(blocks_[previous].pool).erase(blocks_[previous].address);
    blocks_.swallow_previous(block);
  }
  const BlockIndex next = blocks_[block].next;
  if (next != kNoBlock && blocks_[next].state == BlockState::unmapped) {
    unmapped(blocks_[next].pool).erase(blocks_[next].address);
    blocks_.swallow_next(block);
  }
}

TorchExpandable::Unmapped& TorchExpandable::unmapped(std::uint32_t pool) {
  if (pool >= unmapped_.size()) unmapped_.resize(pool + 1);
  return unmapped_[pool];
}

}  // namespace gmlake::replay
