// Blocks of DeviceAllocator that are freed while other streams still use them, as record_stream or the free itself
// said.
//
// Such a block waits for one fence of each of these streams. Every stream keeps a queue of what waits for it, in the
// order of its ticks, and every block counts the fences that it still waits for: so what has passed is found without a
// look at what has not, and a stream that stands still keeps no other back. `state` is held for a few of them at a
// time. Where memory is short, the owner of a block that one stream alone still uses is made to wait for that one, and
// has the block back at once.
#include <algorithm>
#include <cstdint>
#include <optional>

#include "alloc/device_allocator.hpp"
#include "base/check.hpp"
#include "base/room.hpp"

namespace gmlake::alloc {

using stitch::Block;
using stitch::Pool;

namespace {

constexpr int kFencesPerStep = 32;  // a few microseconds at the worst
constexpr std::size_t kPendingToRecall = 256;

}  // namespace

memory::StreamIndex DeviceAllocator::allocated_for(const Block& block) const {
  if (!block.used_elsewhere) return block.pool->stream();
  const Uses& uses = uses_.at(&block);
  return uses.borrowed ? uses.streams.front() : block.pool->stream();
}

// The streams whose work a block freed on `freed_on` has to outlive; the one whose pool it lies in not among them,
// whose order does, unless the block was borrowed.
std::vector<memory::StreamIndex> DeviceAllocator::uses_of(const Block& block, memory::StreamIndex freed_on) const {
  std::vector<memory::StreamIndex> uses;
  if (const auto found = uses_.find(&block); found != uses_.end()) uses = found->second.streams;
  if (allocated_for(block) != freed_on && std::find(uses.begin(), uses.end(), freed_on) == uses.end()) {
    uses.push_back(freed_on);
  }
  return uses;
}

void DeviceAllocator::drop_uses(const Block& block) {
  const auto found = uses_.find(&block);
  if (found == uses_.end()) return;
  for (const memory::StreamIndex use : found->second.streams) --streams_[use]->uses;
  uses_.erase(found);
}

// Those of streams that were forgotten and have come to their end. Whom a borrowed block was allocated for stays.
void DeviceAllocator::drop_passed_uses(Uses& uses) {
  const auto first = uses.streams.begin() + (uses.borrowed ? 1 : 0);
  const auto passed = std::remove_if(first, uses.streams.end(), [&](memory::StreamIndex use) GMLAKE_REQUIRES(state_) {
    if (!fences_.passed({use, UINT64_MAX})) return false;
    --streams_[use]->uses;
    return true;
  });
  uses.streams.erase(passed, uses.streams.end());
}

DeviceAllocator::Deferred* DeviceAllocator::defer(Block* block, memory::StreamIndex freed_on,
                                                  std::vector<memory::Fence>& fences) {
  const std::vector<memory::StreamIndex> uses = uses_of(*block, freed_on);
  fences.reserve(uses.size());
  make_room(awaited_, awaited_.size() + uses.size());
  Deferred* const deferred = deferred_.take();
  try {
    for (const memory::StreamIndex use : uses) {
      streams_[use]->awaited.push_back({streams_[use]->tick + 1, deferred});
      fences.push_back({use, streams_[use]->tick + 1});
    }
  } catch (...) {
    for (const memory::Fence& fence : fences) streams_[fence.stream]->awaited.pop_back();
    deferred_.put(deferred);
    throw;
  }
  for (const memory::StreamIndex use : uses) {
    ++streams_[use]->tick;
    if (streams_[use]->awaited.size() == 1) awaited_.push_back(streams_[use].get());
  }
  const memory::StreamIndex own = allocated_for(*block);
  // A borrowed block has an entry of each stream that used it, and comes back behind the fences of all of them.
  const bool borrowed = own != block->pool->stream();
  *deferred = {block, borrowed ? 0 : ++streams_[own]->tick, own, static_cast<std::uint32_t>(uses.size()), borrowed};
  pending_loans_ += borrowed ? 1 : 0;
  drop_uses(*block);
  return deferred;
}

std::uint64_t DeviceAllocator::reclaim_deferred() {
  (void)fences_.poll().ok();  // an event that cannot be queried has not passed
  std::uint64_t returned = 0;
  std::size_t left = SIZE_MAX;
  for (bool more = true; more;) {
    const MutexLock lock(state_);
    more = reclaim_some(left, returned);
  }
  return returned;
}

// From the last stream to the first: others may take streams off the list between two steps, and the last then takes
// the place of the one that went. Going down, none that has not been looked at is missed by that.
bool DeviceAllocator::reclaim_some(std::size_t& left, std::uint64_t& returned) {
  left = std::min(left, awaited_.size());
  for (int fences = kFencesPerStep; left > 0; --left, --fences) {
    StreamState& stream = *awaited_[left - 1];
    for (; !stream.awaited.empty() && fences_.passed({stream.index, stream.awaited.front().tick}); --fences) {
      if (fences <= 0) return true;
      Deferred* const deferred = stream.awaited.front().deferred;
      stream.awaited.pop_front();
      if (--deferred->fences_left != 0) continue;
      returned += let_go(deferred) ? 1 : 0;
    }
    if (stream.awaited.empty()) {
      awaited_[left - 1] = awaited_.back();
      awaited_.pop_back();
    }
    if (fences <= 0) {
      --left;
      return left > 0;
    }
  }
  return false;
}

// Its last fence has passed. True: the block is back in its pool.
bool DeviceAllocator::let_go(Deferred* deferred) {
  const bool waits = deferred->block != nullptr;
  if (waits && options_.zero_on_free && !deferred->block->pool->pinned()) {
    uncleared_.push_front(deferred);
    return false;
  }
  if (waits) complete(*deferred, tick_after(*deferred));
  deferred_.put(deferred);
  return waits;
}

// Not the tick of now, whose fence nobody has waited for. Where the block was inherited, all ticks of its first stream
// have passed; and where it was borrowed, its pool's stream has not used it, or a fence of that has passed.
std::uint64_t DeviceAllocator::tick_after(const Deferred& deferred) {
  return !deferred.borrowed && deferred.own_stream == deferred.block->pool->stream() ? deferred.own_tick : 0;
}

void DeviceAllocator::complete(const Deferred& deferred, std::uint64_t tick) {
  Block* const block = deferred.block;
  Pool& pool = *block->pool;
  const driver::Address address = block->address;
  const std::uint64_t bytes = block->bytes;
  const std::size_t runs_before = pool.settled_runs();
  pending_loans_ -= deferred.borrowed ? 1 : 0;
  pool.give_back(block, tick);
  if (history_.on()) note_completed(address, bytes, deferred.borrowed ? deferred.own_stream : pool.stream());
  usage_.complete(pool.size_class(), bytes, runs_before, pool.settled_runs());
}

bool DeviceAllocator::recall(const Request& request, Recall what) {
  if (options_.zero_on_free) return false;  // such a block is cleared before it is anyone's: device_clear.cpp
  std::vector<const StreamState*> users;
  {
    const MutexLock lock(state_);
    if (what == Recall::loans && pending_loans_ == 0) return false;
    for (const StreamState* stream : awaited_) users.push_back(stream);
  }
  bool recalled = false;
  for (const StreamState* user : users) recalled |= recall_from(*user, request, what);
  return recalled;
}

// Makes owners wait for `user`, on the device, and gives them back what it alone still uses, the oldest first and no
// more than the request takes: their own order does then. Who has no part in the request does not wait while idle.
bool DeviceAllocator::recall_from(const StreamState& user, const Request& request, Recall what) {
  const auto is_meant = [&](const Deferred& deferred) GMLAKE_REQUIRES(state_) {
    if (deferred.block == nullptr || deferred.fences_left != 1) return false;
    const Pool& pool = *deferred.block->pool;
    const bool owns = pool.stream() == request.stream.index;
    return deferred.borrowed || (what == Recall::all && owns && !pool.pinned());
  };
  const auto for_each_block = [&](auto&& visit) GMLAKE_REQUIRES(state_) {
    const std::size_t count = std::min(user.awaited.size(), kPendingToRecall);
    std::uint64_t left = what == Recall::loans ? request.bytes : UINT64_MAX;
    for (std::size_t i = 0; i < count && left > 0; ++i) {
      Deferred& deferred = *user.awaited[i].deferred;
      if (!is_meant(deferred)) continue;
      left -= std::min(left, deferred.block->bytes);
      visit(deferred, memory::Fence{deferred.block->pool->stream(), user.awaited[i].tick});
    }
  };
  std::vector<memory::Fence> waits;  // an owner, and the tick of `user` that it waits for
  {
    const MutexLock lock(state_);
    for_each_block([&](const Deferred&, const memory::Fence& wait) GMLAKE_REQUIRES(state_) {
      const auto same = std::find_if(waits.begin(), waits.end(),
                                     [&](const memory::Fence& each) { return each.stream == wait.stream; });
      if (same != waits.end()) {
        same->tick = wait.tick;  // they ascend
      } else {
        waits.push_back(wait);
      }
    });
    std::erase_if(waits, [&](const memory::Fence& wait) GMLAKE_REQUIRES(state_) {  // it makes no wait any more
      const StreamState* owner = streams_[wait.stream].get();
      return std::find(forgotten_.begin(), forgotten_.end(), owner) != forgotten_.end();
    });
  }
  const auto has_part = [&](const memory::Fence& wait) {
    return wait.stream == request.stream.index || user.index == request.stream.index;
  };
  std::erase_if(waits, [&](const memory::Fence& wait) {
    if (wait.stream == user.index) return false;
    if (what == Recall::loans && !has_part(wait) && !fences_.behind(wait.stream)) return true;
    return !fences_.make_stream_wait(wait.stream, {user.index, wait.tick}).ok();
  });
  if (waits.empty()) return false;
  bool recalled = false;
  const MutexLock lock(state_);
  for_each_block([&](Deferred& deferred, const memory::Fence& used) GMLAKE_REQUIRES(state_) {
    const bool waited = std::any_of(waits.begin(), waits.end(), [&](const memory::Fence& wait) {
      return wait.stream == used.stream && used.tick <= wait.tick;
    });
    if (!waited) return;
    complete(deferred, ++streams_[used.stream]->tick);  // a later point of the owner than any event stands for so far
    deferred.block = nullptr;
    recalled = true;
  });
  return recalled;
}

// What memory waits for: the streams that have some, and those that still use what was freed on others.
std::vector<memory::Fence> DeviceAllocator::stream_ticks() const {
  const MutexLock lock(state_);
  std::vector<memory::Fence> ticks;
  for (const StreamState* stream : allocating_) ticks.push_back({stream->index, stream->tick});
  for (const StreamState* stream : awaited_) {
    if (stream->small == nullptr) ticks.push_back({stream->index, stream->awaited.back().tick});
  }
  return ticks;
}

void DeviceAllocator::check_deferred(std::uint64_t pending_blocks) const {
  std::uint64_t fences = 0;
  std::size_t awaited = 0;
  std::unordered_map<const Deferred*, std::uint32_t> fences_of;
  std::uint64_t taken_again = 0;
  std::uint64_t loans = 0;
  for (const auto& stream : streams_) {
    awaited += !stream->awaited.empty();
    std::uint64_t last = 0;
    for (const Awaited& waits : stream->awaited) {
      GMLAKE_CHECK(last < waits.tick && waits.tick <= stream->tick);
      const Block* block = waits.deferred->block;
      GMLAKE_CHECK(block == nullptr || block->state == stitch::State::pending);
      last = waits.tick;
      ++fences_of[waits.deferred];
      ++fences;
    }
  }
  for (const auto& [deferred, count] : fences_of) {
    GMLAKE_CHECK_EQ(count, deferred->fences_left);
    taken_again += deferred->block == nullptr;
    loans += deferred->block != nullptr && deferred->borrowed;
  }
  std::uint64_t uncleared = uncleared_.size() + spoiled_;
  for (const auto& stream : streams_) uncleared += stream->clearing;
  for (const Deferred* each = uncleared_.front(); each != nullptr; each = uncleared_.next(each)) {
    GMLAKE_CHECK(each->fences_left == 0 && each->block->state == stitch::State::pending);
  }
  GMLAKE_CHECK_EQ(awaited, awaited_.size());
  GMLAKE_CHECK_EQ(loans, pending_loans_);
  GMLAKE_CHECK_EQ(fences_of.size() + uncleared, deferred_.live_count());
  GMLAKE_CHECK_EQ(pending_blocks + taken_again, deferred_.live_count());
}

}  // namespace gmlake::alloc
