#include "stitch/pool.hpp"

#include <algorithm>

#include "base/check.hpp"

namespace gmlake::stitch {
namespace {

using memory::Mapping;
using memory::VmmSegment;

bool is_home(const VmmSegment* segment, std::uint32_t slot) {
  const Mapping* mapping = segment->at(slot);
  return mapping != nullptr && !mapping->stale();
}

}  // namespace

void Pool::adopt(VmmSegment* segment) {
  spaces_.reserve(spaces_.size() + 1);
  Block* hole = blocks_.take();  // the last thing that can throw
  hole->address = segment->base;
  hole->bytes = segment->bytes();
  hole->segment = segment;
  hole->pool = this;
  hole->state = State::hole;
  segment->index = static_cast<std::uint32_t>(spaces_.size());
  segment->owner = this;
  spaces_.push_back({segment, hole});
  holes_.push_back(hole);
}

bool Pool::is_vacant(const VmmSegment* segment) const {
  const Block* first = spaces_[segment->index].first;
  return first->state == State::hole && first->next == nullptr && segment->mapped_slots == 0;
}

bool Pool::holds_nothing() const {
  return std::all_of(spaces_.begin(), spaces_.end(), [](const Space& space) {
    return space.first->state == State::hole && space.first->next == nullptr;
  });
}

void Pool::abandon(VmmSegment* segment) {
  GMLAKE_CHECK(is_vacant(segment));
  Space& space = spaces_[segment->index];
  holes_.erase(space.first);
  blocks_.put(space.first);
  if (&space != &spaces_.back()) {
    space = spaces_.back();
    space.segment->index = segment->index;
  }
  spaces_.pop_back();
  segment->owner = nullptr;
}

void Pool::inherit(Pool& other) {
  GMLAKE_CHECK(other.class_ == class_ && &other != this);
  spaces_.reserve(spaces_.size() + other.spaces_.size());
  other.settle();
  other.cut_version_ = UINT64_MAX;
  std::size_t blocks = 0;
  for (const Space& space : other.spaces_) {
    for (Block* block = space.first; block != nullptr; block = block->next, ++blocks) {
      GMLAKE_CHECK(block->state != State::claimed);
      const bool indexed = block->state == State::free || block->state == State::hole;
      if (indexed) other.unindex(block);
      block->pool = this;
      if (block->state == State::free && other.stream_ != stream_) block->tick_or_requested = 0;  // passed
      if (indexed) index(block);
    }
    space.segment->index = static_cast<std::uint32_t>(spaces_.size());
    space.segment->owner = this;
    spaces_.push_back(space);
  }
  other.spaces_.clear();
  other.blocks_.hand_over(blocks_, blocks);
}

void Pool::index(Block* block) {
  if (block->state == State::hole) {
    holes_.push_back(block);
    return;
  }
  free_bytes_ += block->bytes;
  free_.insert(block);
}

void Pool::unindex(Block* block) {
  if (block->state == State::hole) {
    holes_.erase(block);
    return;
  }
  free_bytes_ -= block->bytes;
  unindex_free(block);
}

Block* Pool::split(Block* block, std::uint64_t bytes) {
  Block* rest = blocks_.take();
  rest->address = block->address + bytes;
  rest->bytes = block->bytes - bytes;
  rest->prev = block;
  rest->next = block->next;
  rest->segment = block->segment;
  rest->pool = this;
  rest->tick_or_requested = block->tick_or_requested;
  rest->state = block->state;
  if (block->next != nullptr) block->next->prev = rest;
  block->next = rest;
  block->bytes = bytes;
  return rest;
}

void Pool::absorb_next(Block* block) {
  Block* next = block->next;
  block->bytes += next->bytes;
  block->next = next->next;
  if (next->next != nullptr) next->next->prev = block;
  blocks_.put(next);
}

void Pool::replace_before(Block* block, Block* with) {
  if (block->prev != nullptr) {
    block->prev->next = with;
  } else {
    spaces_[block->segment->index].first = with;
  }
}

Block* Pool::cut_front(Block* run, std::uint64_t bytes) {
  Block* block = blocks_.take();
  block->address = run->address;
  block->bytes = bytes;
  block->prev = run->prev;
  block->next = run;
  block->segment = run->segment;
  block->pool = this;
  replace_before(run, block);
  run->prev = block;
  run->address += bytes;
  run->bytes -= bytes;
  free_.update(run);
  cut_from_ = run;
  cut_version_ = free_.version();
  return block;
}

// What was freed last is taken again as it is only where the rule of the index would come to the same: where, joined
// with a free run behind it, it would be the run to cut this from.
Block* Pool::find_beside_recent(std::uint64_t bytes) {
  const Block* prev = recent_->prev;
  if (prev != nullptr && prev->state == State::free) {
    settle();
    return free_.find(bytes);
  }
  const Block* next = recent_->next;
  const bool joins = next != nullptr && next->state == State::free;
  const bool by_address = FreeIndex::goes_by_address(bytes);
  if (!joins && !by_address) return recent_;  // nothing fits better
  Block* other = free_.find(bytes);
  if (other == nullptr || other == next) return recent_;
  if (by_address ? other->address > recent_->address : other->bytes >= bytes + next->bytes) return recent_;
  settle();
  return other;
}

// A free neighbour keeps its record, and mostly its bin.
void Pool::settle() {
  Block* block = recent_;
  if (block == nullptr) return;
  recent_ = nullptr;
  Block* prev = block->prev;
  Block* next = block->next;
  const bool joins_prev = prev != nullptr && prev->state == State::free;
  const bool joins_next = next != nullptr && next->state == State::free;
  if (joins_prev) {
    prev->tick_or_requested = std::max(prev->tick_or_requested, block->tick_or_requested);
    absorb_next(prev);
    if (joins_next) {
      prev->tick_or_requested = std::max(prev->tick_or_requested, next->tick_or_requested);
      free_.erase(next);
      absorb_next(prev);
    }
    free_.update(prev);
  } else if (joins_next) {
    next->tick_or_requested = std::max(next->tick_or_requested, block->tick_or_requested);
    next->address = block->address;
    next->bytes += block->bytes;
    next->prev = prev;
    replace_before(block, next);
    blocks_.put(block);
    free_.update(next);
  } else {
    free_.insert(block);
  }
}

// `block` is out of every index, its neighbours are in theirs. The merged block keeps the left one's record.
Block* Pool::merge_and_index(Block* block) {
  if (Block* next = block->next; next != nullptr && next->state == block->state) {
    unindex(next);
    if (block->state == State::free) {
      block->tick_or_requested = std::max(block->tick_or_requested, next->tick_or_requested);
    }
    absorb_next(block);
  }
  if (Block* prev = block->prev; prev != nullptr && prev->state == block->state) {
    unindex(prev);
    if (block->state == State::free) {
      prev->tick_or_requested = std::max(prev->tick_or_requested, block->tick_or_requested);
    }
    absorb_next(prev);
    block = prev;
  }
  index(block);
  return block;
}

Block* Pool::claim(Block* first, Address begin, Address end) {
  GMLAKE_CHECK(recent_ == nullptr);
  GMLAKE_CHECK(first->address <= begin && begin < first->end());
  Block* block = first;
  GMLAKE_CHECK(block->state == State::free || block->state == State::hole);
  unindex(block);
  if (block->address < begin) {
    Block* right = split(block, begin - block->address);
    index(block);
    block = right;
  }
  while (block->end() < end) {
    GMLAKE_CHECK(block->next != nullptr);
    GMLAKE_CHECK(block->next->state == State::free || block->next->state == State::hole);
    unindex(block->next);
    block->state = block->next->state;  // of the part that may have to be cut off again
    block->tick_or_requested = block->next->tick_or_requested;
    absorb_next(block);
  }
  if (block->end() > end) index(split(block, end - block->address));
  block->state = State::claimed;
  return block;
}

Block* Pool::publish(Block* claimed, std::uint64_t tick) {
  GMLAKE_CHECK(claimed->state == State::claimed);
  settle();
  const VmmSegment* segment = claimed->segment;
  Block* begin = nullptr;
  for (Block* block = claimed;;) {
    const bool home = is_home(segment, segment->slot_of(block->address));
    Address cut = block->end();
    for (std::uint32_t slot = segment->slot_of(block->address) + 1; segment->address_of(slot) < block->end(); ++slot) {
      if (is_home(segment, slot) != home) {
        cut = segment->address_of(slot);
        break;
      }
      if (!home && slot >= segment->slots.size()) break;  // nothing was ever mapped from here on
    }
    Block* rest = cut < block->end() ? split(block, cut - block->address) : nullptr;
    block->state = home ? State::free : State::hole;
    block->tick_or_requested = home ? tick : 0;
    block = merge_and_index(block);  // `rest` is claimed: it does not merge with it
    if (begin == nullptr) begin = block;
    if (rest == nullptr) return begin;
    block = rest;
  }
}

void Pool::set_aside(Stash& stash, std::size_t kept, std::size_t now) {
  stash.reserve(kept);
  blocks_.reserve(kept + now);
  while (stash.size() < kept) stash.push_back(blocks_.take());
}

void Pool::return_stash(Stash& stash) {
  for (Block* block : stash) blocks_.put(block);
  stash.clear();
}

// A PhyBlock at either end of a run may lie in it in part; all between lie in it whole.
std::uint64_t Pool::pinned_bytes() {
  std::uint64_t bytes = 0;
  for_each_free(kAlignment, [&bytes](const Block* run) {
    const VmmSegment* segment = run->segment;
    const Mapping* first = segment->at(segment->slot_of(run->address));
    const Mapping* last = segment->at(segment->slot_of(run->end() - 1));
    const auto end_of = [segment](const Mapping* mapping) {
      return segment->address_of(std::uint64_t{mapping->slot} + mapping->block->granules);
    };
    const bool whole_first = segment->address_of(first->slot) >= run->address;
    const Address begin = whole_first ? run->address : std::min(end_of(first), run->end());
    const Address end = end_of(last) <= run->end() ? run->end() : std::max(segment->address_of(last->slot), begin);
    bytes += run->bytes - (end - begin);
  });
  return bytes;
}

void Pool::check() const {
  std::uint64_t free_bytes = 0;
  std::size_t holes = 0;
  std::size_t free_runs = 0;
  for (const Space& space : spaces_) {
    Address expected = space.segment->base;
    const Block* prev = nullptr;
    for (const Block* block = space.first; block != nullptr; prev = block, block = block->next) {
      GMLAKE_CHECK_EQ(block->address, expected);
      GMLAKE_CHECK(block->bytes > 0 && block->bytes % kAlignment == 0);
      GMLAKE_CHECK(block->prev == prev && block->pool == this && block->segment == space.segment);
      expected = block->end();
      const bool mergeable = block->state == State::free || block->state == State::hole;
      const bool unsettled = recent_ != nullptr && (block == recent_ || prev == recent_);
      GMLAKE_CHECK(unsettled || !(mergeable && prev != nullptr && prev->state == block->state));
      if (block->state == State::claimed) continue;
      const std::uint32_t last = space.segment->slot_of(block->end() - 1);
      for (std::uint32_t slot = space.segment->slot_of(block->address); slot <= last; ++slot) {
        if (block->state == State::hole && slot >= space.segment->slots.size()) break;
        GMLAKE_CHECK_EQ(is_home(space.segment, slot), block->state != State::hole);
      }
      free_bytes += block->state == State::free ? block->bytes : 0;
      free_runs += block->state == State::free;
      holes += block->state == State::hole;
    }
    GMLAKE_CHECK_EQ(expected, space.segment->end());
  }
  std::size_t indexed = 0;
  free_.for_each(kAlignment, [&](const Block* run) {
    GMLAKE_CHECK(run->state == State::free && run->pool == this && run != recent_);
    ++indexed;
  });
  GMLAKE_CHECK(recent_ == nullptr || (recent_->state == State::free && recent_->pool == this));
  GMLAKE_CHECK_EQ(indexed, free_.count());
  GMLAKE_CHECK_EQ(this->free_runs(), free_runs);
  GMLAKE_CHECK_EQ(holes, holes_.size());
  GMLAKE_CHECK_EQ(free_bytes, free_bytes_);
}

}  // namespace gmlake::stitch
