// The streams and private pools of DeviceAllocator: how they get their books, how they are forgotten and released, and
// who has their memory then.
#include <algorithm>
#include <new>
#include <thread>

#include "alloc/device_allocator.hpp"
#include "alloc/hot_path.hpp"
#include "base/room.hpp"
#include "driver/per_thread_stream.hpp"

namespace gmlake::alloc {

using stitch::Pool;
using stitch::SizeClass;

namespace {

constexpr std::size_t kForgottenAtOnce = 64;  // streams of threads, at a few microseconds each

}  // namespace

DeviceAllocator::StreamState& DeviceAllocator::named_stream(driver::Stream stream) {
  if (last_stream_ != nullptr && last_stream_->stream == stream) return *last_stream_;
  const auto found = stream_by_handle_.find(stream);
  return found != stream_by_handle_.end() ? *found->second : open_stream(stream);
}

DeviceAllocator::StreamState& DeviceAllocator::stream_state(std::uint64_t handle) {
  if (last_stream_ != nullptr && last_stream_->stream.handle == handle) return *last_stream_;
  StreamState& state = named_stream({device_, handle});
  if (state.large == nullptr) {
    make_room(allocating_, allocating_.size() + 1);
    stream_hints_.reserve_one();
    Shard& shard = shard_for(state.index);
    shard.assert_held();
    auto small = std::make_unique<Pool>(state.index, SizeClass::small, shard.blocks);
    state.large = std::make_unique<Pool>(state.index, SizeClass::large, shard.blocks);
    state.small = std::move(small);
    state.small->owner = state.large->owner = &state;
    // Once: who was told of a former stream of this number may be reading it.
    if (state.shard == nullptr) state.shard = &shard;
    allocating_.push_back(&state);
    stream_hints_.insert(handle, &state);
  }
  return *(last_stream_ = &state);
}

DeviceAllocator::StreamState& DeviceAllocator::open_stream(driver::Stream stream) {
  const memory::StreamIndex index = fences_.open(stream);
  try {
    if (streams_.size() == index) {
      streams_.push_back(std::make_unique<StreamState>());
      streams_.back()->index = index;
    }
    stream_by_handle_.emplace(stream, streams_[index].get());
  } catch (...) {
    fences_.reclaim(index, index < streams_.size() ? streams_[index]->tick : 0);
    throw;
  }
  StreamState& state = *streams_[index];
  state.stream = stream;
  state.closing = false;
  ++state.tick;  // up to here the clock has passed, for a former stream
  return state;
}

Status DeviceAllocator::forget_stream(driver::Stream stream) {
  const MutexLock grow(grow_);
  StreamState* state = nullptr;
  {
    const MutexLock lock(state_);
    const auto found = stream_by_handle_.find(stream);
    if (found == stream_by_handle_.end()) return {};
    state = found->second;
    make_room(forgotten_, forgotten_.size() + 1);
    state->closing = true;
  }
  const memory::Fence last = stop_clearing(*state);
  Status marked = Error{ErrorCode::out_of_memory, Step::forget_stream, stream.handle};
  try {
    marked = fences_.mark(last.stream, last.tick);
  } catch (const std::bad_alloc&) {  // of the host
  }
  if (!marked.ok()) {
    const MutexLock lock(state_);
    state->closing = false;
    return marked;
  }
  {
    const MutexLock lock(state_);
    stream_by_handle_.erase(stream);
    if (last_stream_ == state) last_stream_ = nullptr;
    if (state->large != nullptr) stream_hints_.erase(stream.handle);
    state->stream.handle = kForgotten;  // the handle is another stream's from now on
    forgotten_.push_back(state);
  }
  fences_.close(last.stream);  // waits for event calls of others: without the lock that hits take
  return {};
}

// The last tick of a stream that is closing: after whatever other threads are just enqueueing on it.
memory::Fence DeviceAllocator::stop_clearing(StreamState& stream) {
  for (;; std::this_thread::yield()) {
    const MutexLock lock(state_);
    if (stream.clearing == 0) return {stream.index, ++stream.tick};
  }
}

// The per-thread default streams of threads that have ended: nobody can name them again. There are more of them only
// where threads have come that are new. Those that cannot be forgotten now, as during a capture, are the next time.
void DeviceAllocator::forget_ended_threads(Caller caller) {
  const std::uint64_t threads = driver::numbered_threads();
  if (threads == numbered_threads_.load(std::memory_order_relaxed)) return;
  std::vector<driver::Stream> streams;  // before the look at who lives, which need not see who comes later
  {
    const MutexLock lock(state_);
    for (const auto& [stream, state] : stream_by_handle_) {
      if (driver::is_thread_stream(stream.handle)) streams.push_back(stream);
    }
  }
  const driver::LivingThreads living;
  std::size_t left = kForgottenAtOnce;
  for (const driver::Stream& stream : streams) {
    if (!living.lack(stream.handle)) continue;
    if (caller == Caller::worker && slow_requests_.load() != 0) return;
    if (left-- == 0 || !forget_stream(stream).ok()) return;
  }
  numbered_threads_.store(threads, std::memory_order_relaxed);
}

Status DeviceAllocator::begin_pool(PoolId id, StreamFilter filter) {
  if (Status retained = retain_pool(id); !retained.ok()) return retained;
  try {
    Status begun = routes_.begin(id, std::move(filter));
    if (!begun.ok()) (void)release_pool(id).ok();  // cannot fail: there is the reference just made
    return begun;
  } catch (const std::bad_alloc&) {
    (void)release_pool(id).ok();
    throw;
  }
}

Status DeviceAllocator::end_pool(PoolId id) { return routes_.end(id); }

Status DeviceAllocator::retain_pool(PoolId id) {
  if (id == PoolId{}) return Error{ErrorCode::invalid_value, Step::pool, 0};
  const MutexLock lock(state_);
  private_pools_.retain(id);
  return {};
}

Status DeviceAllocator::release_pool(PoolId id) {
  std::vector<memory::Fence> fences;
  {
    const MutexLock lock(state_);
    PrivatePools::PrivatePool* pool = private_pools_.find(id);
    if (pool == nullptr) return Error{ErrorCode::invalid_value, Step::pool, id.second != 0 ? id.second : id.first};
    if (pool->references == 1 && !pool->by_stream.empty()) {
      for (StreamState* stream : allocating_) fences.push_back({stream->index, ++stream->tick});
      private_pools_.retire(id, fences);
    } else if (--pool->references == 0) {
      private_pools_.erase(id);
    }
  }
  // Recorded now: the sooner the fence, the sooner the memory is back. What cannot be is marked with all others, when
  // memory is short.
  for (const memory::Fence& fence : fences) (void)fences_.mark(fence.stream, fence.tick).ok();
  return {};
}

std::uint64_t DeviceAllocator::pool_references(PoolId id) const {
  const MutexLock lock(state_);
  return private_pools_.references(id);
}

Result<Address> DeviceAllocator::allocate_privately(PoolId id, std::uint64_t stream, std::uint64_t bytes,
                                                    std::uint64_t requested, std::optional<OutOfMemoryReport>* wanted) {
  {
    const MutexLock lock(state_);
    StreamState& state = stream_state(stream);
    if (PrivatePools::PrivatePool* owner = private_pools_.find(id)) {
      if (const auto pair = owner->by_stream.find(state.index); pair != owner->by_stream.end()) {
        Pool& pool = pair->second.of(bytes);
        const std::size_t runs_before = pool.settled_runs();
        if (stitch::Block* run = pool.find(bytes)) return hand_out_slowly(pool, run, bytes, requested, runs_before);
      }
    }
  }
  return allocate_slowly(id, stream, bytes, requested, wanted);
}

DeviceAllocator::Request DeviceAllocator::make_request(std::optional<PoolId> id, std::uint64_t stream,
                                                       std::uint64_t bytes, std::uint64_t requested) {
  StreamState& state = stream_state(stream);
  settle_estates(&state);
  PrivatePools::PrivatePool* owner = id ? private_pools_.find(*id) : nullptr;
  if (owner == nullptr) {  // none, or released since its filter was asked
    return {state, bytes <= stitch::kSmallLimit ? *state.small : *state.large, bytes, requested};
  }
  auto pair = owner->by_stream.find(state.index);
  if (pair == owner->by_stream.end()) {
    state.shard->assert_held();
    pair = owner->by_stream.emplace(state.index, PoolPair(state.index, state.shard->blocks, true)).first;
    pair->second.small->owner = pair->second.large->owner = &state;
  }
  return {state, pair->second.of(bytes), bytes, requested};
}

void DeviceAllocator::settle_estates(StreamState* heir) {
  if (forgotten_.empty() && !private_pools_.any_retired()) return;
  while (PrivatePools::PrivatePool* released = private_pools_.first_passed(fences_)) {
    for (auto& [stream, pair] : released->by_stream) {
      if (options_.zero_on_free) {
        withdraw_free(*pair.small);
        withdraw_free(*pair.large);
      }
      inherit(*streams_[stream]->small, *pair.small);
      inherit(*streams_[stream]->large, *pair.large);
    }
    private_pools_.drop(released);
  }
  for (std::size_t i = 0; i < forgotten_.size();) {
    if (settle_stream(*forgotten_[i], heir)) {
      forgotten_[i] = forgotten_.back();
      forgotten_.pop_back();
    } else {
      ++i;
    }
  }
  settle_pools();  // what was freed last in a pool that is inherited is joined with its neighbours
}

// What is live in a pool is in its shard's books, and goes into the heir's with it.
void DeviceAllocator::inherit(Pool& heir, Pool& estate) {
  Shard& from = shard_of(estate);
  Shard& to = shard_of(heir);
  if (&from == &to) return heir.inherit(estate);
  from.assert_held();
  to.assert_held();
  std::vector<const memory::VmmSegment*> segments;
  std::vector<stitch::Block*> live;
  for (std::size_t i = 0; i < estate.segment_count(); ++i) {
    segments.push_back(estate.segment(i));
    for (stitch::Block* block = estate.first_block(estate.segment(i)); block != nullptr; block = block->next) {
      if (block->state == stitch::State::live) live.push_back(block);
    }
  }
  to.live.reserve(live.size());
  heir.inherit(estate);  // the last thing that can throw
  for (stitch::Block* block : live) {
    (void)from.live.take(block->address);
    to.live.insert_reserved(block);
  }
  for (const memory::VmmSegment* segment : segments) address_hints_.change(segment->base, &to);
}

// True once a forgotten stream has nothing left, and its number is free for another.
bool DeviceAllocator::settle_stream(StreamState& gone, StreamState* heir) {
  if (!fences_.passed({gone.index, UINT64_MAX})) return false;
  if (gone.large != nullptr) {
    if (heir != nullptr) {
      inherit(*heir->small, *gone.small);
      inherit(*heir->large, *gone.large);
    }
    if (gone.small->segment_count() + gone.large->segment_count() != 0) return false;
    if (private_pools_.has_pools_of(gone.index)) return false;
    std::erase(allocating_, &gone);
    gone.small.reset();
    gone.large.reset();
  }
  if (gone.uses != 0) return false;  // of live blocks, which are still to be freed
  if (gone.clearing != 0) return false;
  fences_.reclaim(gone.index, gone.tick);
  return true;
}

}  // namespace gmlake::alloc
