// What DeviceAllocator holds, as plain values for people and tools.
#include <algorithm>
#include <bit>
#include <unordered_map>
#include <utility>

#include "alloc/device_allocator.hpp"

namespace gmlake::alloc {
namespace {

using memory::Mapping;
using memory::PhyBlock;
using memory::VmmSegment;
using stitch::Block;
using stitch::State;

BlockInfo::State shown(State state) {
  switch (state) {
    case State::free:
      return BlockInfo::State::free;
    case State::live:
      return BlockInfo::State::live;
    case State::pending:
      return BlockInfo::State::pending;
    case State::hole:
      return BlockInfo::State::hole;
    case State::claimed:
      return BlockInfo::State::claimed;
  }
  return BlockInfo::State::claimed;
}

using Borrowers = std::unordered_map<const Block*, std::uint64_t>;  // the streams' handles

SegmentInfo describe_segment(const stitch::Pool& pool, const VmmSegment& segment, std::uint64_t stream, PoolId id,
                             const Borrowers& borrowers) {
  SegmentInfo info{.address = segment.base,
                   .bytes = segment.bytes(),
                   .mapped_bytes = std::uint64_t{segment.mapped_slots} << segment.granule_shift,
                   .stream = stream,
                   .small = pool.size_class() == stitch::SizeClass::small,
                   .pool = id,
                   .blocks = {}};
  for (const Block* block = pool.first_block(&segment); block != nullptr; block = block->next) {
    const auto borrower = borrowers.find(block);
    info.blocks.push_back({.address = block->address,
                           .bytes = block->bytes,
                           .requested_bytes = block->state == State::live ? block->tick_or_requested : 0,
                           .state = shown(block->state),
                           .stream = borrower == borrowers.end() ? stream : borrower->second});
  }
  return info;
}

}  // namespace

PhyBlockInfo DeviceAllocator::describe(const PhyBlock& block) const {
  PhyBlockInfo info{
      .bytes = std::uint64_t{block.granules} << granule_shift_, .device = device_, .home = 0, .stale = {}};
  for (const Mapping* mapping = block.mappings; mapping != nullptr; mapping = mapping->next_of_block) {
    const Address address = mapping->segment->address_of(mapping->slot);
    if (mapping == block.home) {
      info.home = address;
    } else {
      info.stale.push_back(address);
    }
  }
  return info;
}

std::vector<PhyBlockInfo> DeviceAllocator::phy_blocks(Address address) const {
  const MutexLock grow(grow_);
  const MutexLock lock(state_);
  std::vector<PhyBlockInfo> blocks;
  const Block* block = find_live(address);
  if (block == nullptr) return blocks;
  const VmmSegment* segment = block->segment;
  for (std::uint32_t slot = segment->slot_of(block->address); segment->address_of(slot) < block->end();) {
    const Mapping* mapping = segment->at(slot);
    blocks.push_back(describe(*mapping->block));
    slot = mapping->slot + mapping->block->granules;
  }
  return blocks;
}

// Nothing under a live block moves, and what is freed meanwhile is not released while this holds `grow`.
Result<SharedLayout> DeviceAllocator::share(Address address, std::vector<int>& fds) {
  const MutexLock grow(grow_);
  SharedLayout layout;
  std::vector<driver::Handle> handles;
  {
    const MutexLock lock(state_);
    const Block* block = find_live(address);
    if (block == nullptr) return Error{ErrorCode::invalid_pointer, Step::share, address};
    const VmmSegment* segment = block->segment;
    layout.bytes = block->bytes;
    std::uint32_t slot = segment->slot_of(block->address);
    layout.offset = block->address - segment->address_of(segment->at(slot)->slot);
    while (segment->address_of(slot) < block->end()) {
      const Mapping* mapping = segment->at(slot);
      layout.phy_block_bytes.push_back(std::uint64_t{mapping->block->granules} << granule_shift_);
      handles.push_back(mapping->block->handle);
      slot = mapping->slot + mapping->block->granules;
    }
  }
  fds.reserve(handles.size());
  for (const driver::Handle handle : handles) {
    const Result<int> fd = driver_.export_fd(handle);
    if (!fd) return fd.error();
    fds.push_back(*fd);
  }
  return layout;
}

DeviceSnapshot DeviceAllocator::snapshot() const {
  const MutexLock grow(grow_);
  const MutexLock lock(state_);
  DeviceSnapshot snapshot{
      .device = device_, .history_end = history_.next(), .stats = stats_locked(), .segments = {}, .phy_blocks = {}};
  struct Owned {
    const stitch::Pool* pool;
    PoolId id;
  };
  std::vector<Owned> pools;
  for (const StreamState* stream : allocating_) {
    pools.push_back({stream->small.get(), {}});
    pools.push_back({stream->large.get(), {}});
  }
  private_pools_.for_each([&pools](const PrivatePools::PrivatePool& owner, const stitch::Pool& pool) {
    pools.push_back({&pool, owner.id});
  });
  Borrowers borrowers;
  for (const auto& [block, uses] : uses_) {
    if (uses.borrowed) borrowers.emplace(block, streams_[uses.streams.front()]->stream.handle);
  }
  for (const auto& [pool, id] : pools) {
    const std::uint64_t stream = streams_[pool->stream()]->stream.handle;
    for (std::size_t i = 0; i < pool->segment_count(); ++i) {
      snapshot.segments.push_back(describe_segment(*pool, *pool->segment(i), stream, id, borrowers));
    }
  }
  for (const auto* list : {&phy_pool_.in_use(), &phy_pool_.spare()}) {
    for (const PhyBlock* block = list->front(); block != nullptr; block = memory::PhyPool::BlockList::next(block)) {
      snapshot.phy_blocks.push_back(describe(*block));
    }
  }
  return snapshot;
}

Overhead DeviceAllocator::overhead() const {
  const MutexLock grow(grow_);
  const MutexLock lock(state_);
  settle_pools();
  Overhead overhead{.pinned_bytes = 0,
                    .block_metadata_bytes = 0,
                    .block_records = 0,
                    .phy_metadata_bytes = phy_pool_.metadata_bytes() + mappings_.metadata_bytes()};
  for (const auto& shard : shards_) {
    shard->assert_held();
    overhead.block_metadata_bytes += shard->blocks.bytes() + shard->live.metadata_bytes();
    overhead.block_records += shard->blocks.live_count();
  }
  for (const auto& [block, uses] : uses_) {
    overhead.block_metadata_bytes += sizeof uses + uses.streams.capacity() * sizeof uses.streams.front();
  }
  for_each_pool([&overhead](stitch::Pool& pool) { overhead.pinned_bytes += pool.pinned_bytes(); });
  return overhead;
}

void DeviceAllocator::keep_history(std::size_t events) {
  std::vector<HistoryEvent> ring(events == 0 ? 0 : std::bit_ceil(events));  // before the lock, and freed after it
  const MutexLock lock(state_);
  history_.keep(ring);
}

HistoryPart DeviceAllocator::history(std::uint64_t from, std::size_t most) const {
  std::vector<HistoryEvent> storage;
  storage.reserve(std::min(most, History::kMostAtOnce));
  const MutexLock lock(state_);
  return history_.read(from, std::move(storage));
}

void DeviceAllocator::note_alloc(const Block& block) {
  history_.add(History::Action::alloc, block.address, block.tick_or_requested,
               static_cast<const StreamState*>(block.pool->owner)->stream.handle);
}

void DeviceAllocator::note_free(const Block& block) {
  const std::uint64_t stream = static_cast<const StreamState*>(block.pool->owner)->stream.handle;
  history_.add(History::Action::free_requested, block.address, block.bytes, stream);
  history_.add(History::Action::free_completed, block.address, block.bytes, stream);
}

void DeviceAllocator::note_completed(Address address, std::uint64_t bytes, memory::StreamIndex stream) {
  history_.add(History::Action::free_completed, address, bytes, streams_[stream]->stream.handle);
}

std::uint64_t DeviceAllocator::stream_of(const memory::VmmSegment& segment) {
  const auto* pool = static_cast<const stitch::Pool*>(segment.owner);
  return pool == nullptr ? 0 : static_cast<const StreamState*>(pool->owner)->stream.handle;
}

void DeviceAllocator::note_moves(const stitch::Plan& plan) {
  const auto note = [](History& history, History::Action action, const VmmSegment& segment, std::uint32_t slot,
                       std::uint32_t granules, std::uint64_t stream) {
    history.add(action, segment.address_of(slot), std::uint64_t{granules} << segment.granule_shift, stream);
  };
  const std::uint64_t stream = streams_[plan.pool->stream()]->stream.handle;
  for (const stitch::Donor& donor : plan.moves) {  // stale by now
    const auto* pool = static_cast<const stitch::Pool*>(donor.mapping->segment->owner);
    note(history_, History::Action::segment_unmap, *donor.mapping->segment, donor.mapping->slot,
         donor.mapping->block->granules, streams_[pool->stream()]->stream.handle);
  }
  for (const Mapping* mapping : plan.revive) {
    note(history_, History::Action::segment_map, *mapping->segment, mapping->slot, mapping->block->granules, stream);
  }
  for (const stitch::Plan::Fill& fill : plan.fills) {
    note(history_, History::Action::segment_map, *plan.segment, fill.slot, fill.granules, stream);
  }
}

}  // namespace gmlake::alloc
