// What DeviceAllocator holds, as plain values for people and tools.
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

SegmentInfo describe_segment(const stitch::Pool& pool, const VmmSegment& segment, std::uint64_t stream) {
  SegmentInfo info{.address = segment.base,
                   .bytes = segment.bytes(),
                   .mapped_bytes = std::uint64_t{segment.mapped_slots} << segment.granule_shift,
                   .stream = stream,
                   .small = pool.size_class() == stitch::SizeClass::small,
                   .blocks = {}};
  for (const Block* block = pool.first_block(&segment); block != nullptr; block = block->next) {
    info.blocks.push_back({.address = block->address,
                           .bytes = block->bytes,
                           .requested_bytes = block->state == State::live ? block->tick_or_requested : 0,
                           .state = shown(block->state)});
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
  const Block* block = live_.find(address);
  if (block == nullptr) return blocks;
  const VmmSegment* segment = block->segment;
  for (std::uint32_t slot = segment->slot_of(block->address); segment->address_of(slot) < block->end();) {
    const Mapping* mapping = segment->at(slot);
    blocks.push_back(describe(*mapping->block));
    slot = mapping->slot + mapping->block->granules;
  }
  return blocks;
}

DeviceSnapshot DeviceAllocator::snapshot() const {
  const MutexLock grow(grow_);
  const MutexLock lock(state_);
  DeviceSnapshot snapshot{.device = device_, .segments = {}, .phy_blocks = {}};
  for (const auto& stream : streams_) {
    for (const stitch::Pool* pool : {stream->small.get(), stream->large.get()}) {
      for (std::size_t i = 0; i < pool->segment_count(); ++i) {
        snapshot.segments.push_back(describe_segment(*pool, *pool->segment(i), stream->stream.handle));
      }
    }
  }
  for (const auto* list : {&phy_pool_.in_use(), &phy_pool_.spare()}) {
    for (const PhyBlock* block = list->front(); block != nullptr; block = memory::PhyPool::BlockList::next(block)) {
      snapshot.phy_blocks.push_back(describe(*block));
    }
  }
  return snapshot;
}

}  // namespace gmlake::alloc
