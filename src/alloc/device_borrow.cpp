// What one stream of DeviceAllocator borrows of another: part of a free run of the other's pool, used where it lies.
//
// To move memory from stream to stream takes driver calls, and leaves behind what cannot move: the ends of the run,
// where a PhyBlock lies partly under live memory. So a large request that its own stream has no run for first takes one
// of another stream as it is, once a fence says that its owner's work there is over, or behind a wait for that fence.
// The block stays in its owner's pool, with the stream that borrowed it as a use (device_deferred.cpp): once it is
// freed and a fence of that stream has passed, it is its owner's again. No mapping changes, and no driver call is made
// but for that fence. Until it has passed, the stream that borrowed the block may have it again: its own order does.
#include <algorithm>
#include <utility>

#include "alloc/device_allocator.hpp"
#include "alloc/hot_path.hpp"

namespace gmlake::alloc {

using stitch::Block;
using stitch::Pool;
using stitch::SizeClass;

namespace {

// A microsecond or two under `state` each: free runs of a pool, the shorter ones first; and what a stream freed last.
constexpr int kRunsToLookAt = 32;
constexpr std::size_t kOwnersPerStep = 4;
constexpr std::size_t kPendingToLookAt = 32;

Block* shorter(Block* best, Block* run) { return best == nullptr || run->bytes < best->bytes ? run : best; }

}  // namespace

// The shortest of some runs that hold `bytes` and have been free since a fence that has passed, or one no later than
// `waited`.
Block* DeviceAllocator::find_lendable(const Pool& pool, std::uint64_t bytes, std::uint64_t waited) const {
  Block* best = nullptr;
  Block* run = pool.first_free(bytes);
  for (int left = kRunsToLookAt; run != nullptr && left > 0; run = pool.free_after(run), --left) {
    if (run->bytes < bytes) continue;
    const memory::Fence freed{pool.stream(), run->tick_or_requested};
    if (freed.tick <= waited || fences_.passed(freed)) best = shorter(best, run);
  }
  return best;
}

DeviceAllocator::Found DeviceAllocator::borrow(const Request& request, Reach reach) {
  if (request.pool.pinned()) return std::nullopt;  // a graph is launched where nobody looks at fences
  if (options_.zero_on_free) return std::nullopt;  // device_clear.cpp says why
  if (const Found again = take_again(request)) return again;
  std::vector<memory::Fence> fences;  // of streams that have a run, which they may still be using
  if (const Found found = borrow_passed(request, &fences)) return found;
  if (fences.empty()) return std::nullopt;
  if (reach == Reach::all_streams) return borrow_behind_wait(request, fences);
  for (const memory::Fence& fence : fences) {
    const Status marked = fences_.mark(fence.stream, fence.tick);
    if (!marked.ok() && marked.error().code != ErrorCode::captured) refusal_ = marked.error();
  }
  if (Status polled = fences_.poll(); !polled.ok()) refusal_ = polled.error();
  return borrow_passed(request, nullptr);
}

// From the first stream that has a run behind a passed fence. `fences`, where given, receives that of one run of
// each stream that has some behind others.
DeviceAllocator::Found DeviceAllocator::borrow_passed(const Request& request, std::vector<memory::Fence>* fences) {
  for (std::size_t i = 0;;) {
    const MutexLock lock(state_);
    for (std::size_t stop = i + kOwnersPerStep; i < stop; ++i) {
      if (i >= allocating_.size()) return std::nullopt;
      const StreamState& owner = *allocating_[i];
      if (&owner == &request.stream) continue;
      Pool& pool = request.pool.size_class() == SizeClass::small ? *owner.small : *owner.large;
      const std::size_t runs_before = pool.settled_runs();
      pool.settle();
      if (Block* run = find_lendable(pool, request.bytes, 0)) return lend(pool, run, request, runs_before);
      if (fences == nullptr) continue;
      if (const Block* run = find_lendable(pool, request.bytes, UINT64_MAX)) {
        fences->push_back({owner.index, run->tick_or_requested});
      }
    }
  }
}

// The wait comes first: whoever gets the address enqueues at once.
DeviceAllocator::Found DeviceAllocator::borrow_behind_wait(const Request& request,
                                                           const std::vector<memory::Fence>& fences) {
  for (const memory::Fence& fence : fences) {
    if (Status waits = fences_.make_stream_wait(request.stream.index, fence); !waits.ok()) {
      if (waits.error().code != ErrorCode::captured) refusal_ = waits.error();
      continue;
    }
    const MutexLock lock(state_);
    const StreamState& owner = *streams_[fence.stream];  // has its pools: they go under `grow` alone
    Pool& pool = request.pool.size_class() == SizeClass::small ? *owner.small : *owner.large;
    const std::size_t runs_before = pool.settled_runs();
    pool.settle();
    if (Block* run = find_lendable(pool, request.bytes, fence.tick)) return lend(pool, run, request, runs_before);
  }
  return std::nullopt;
}

// Throws std::bad_alloc with nothing changed.
Address DeviceAllocator::lend(Pool& pool, Block* run, const Request& request, std::size_t runs_before) {
  Shard& shard = shard_of(pool);
  shard.assert_held();
  shard.live.reserve(1);
  shard.blocks.reserve(1);
  auto uses = uses_.extract(uses_.emplace(nullptr, Uses{{request.stream.index}, true}).first);
  Block* const block = pool.take(run, request.bytes, request.requested);
  shard.usage.allocate(pool.size_class(), request.bytes, request.requested, runs_before, pool.settled_runs());
  ++counts_.borrowed_blocks;
  return hand_over(block, std::move(uses), request.stream);
}

// A block that the stream borrowed and freed, and that is its owner's again only behind a fence of the stream: of the
// same length, since what waits for a fence is not split.
DeviceAllocator::Found DeviceAllocator::take_again(const Request& request) {
  const MutexLock lock(state_);
  std::deque<Awaited>& awaited = request.stream.awaited;
  const std::size_t oldest = awaited.size() - std::min(awaited.size(), kPendingToLookAt);
  for (std::size_t i = awaited.size(); i-- > oldest;) {
    Deferred& deferred = *awaited[i].deferred;
    Block* const block = deferred.block;
    // The one fence that is left is that of the entry.
    if (block == nullptr || !deferred.borrowed || deferred.own_stream != request.stream.index) continue;
    if (deferred.fences_left != 1 || block->bytes != request.bytes) continue;
    Pool& pool = *block->pool;
    Shard& shard = shard_of(pool);
    shard.assert_held();
    shard.live.reserve(1);
    auto uses = uses_.extract(uses_.emplace(nullptr, Uses{{request.stream.index}, true}).first);
    deferred.block = nullptr;
    --pending_loans_;
    if (history_.on()) note_completed(block->address, block->bytes, request.stream.index);
    block->state = stitch::State::live;
    block->tick_or_requested = request.requested;
    usage_.resume(pool.size_class(), request.bytes, request.requested);
    return hand_over(block, std::move(uses), request.stream);
  }
  return std::nullopt;
}

// Takes no host memory: uses_ had room for the entry a moment ago, and its shard's live blocks have.
Address DeviceAllocator::hand_over(Block* block, UsesEntry uses, StreamState& borrower) {
  uses.key() = block;
  uses_.insert(std::move(uses));
  ++borrower.uses;
  block->used_elsewhere = true;
  Shard& shard = shard_of(*block->pool);
  shard.assert_held();
  shard.live.insert_reserved(block);
  if (shard.usage.is_short()) usage_.settle();
  if (history_.on()) {
    history_.add(History::Action::alloc, block->address, block->tick_or_requested, borrower.stream.handle);
  }
  return block->address;
}

}  // namespace gmlake::alloc
