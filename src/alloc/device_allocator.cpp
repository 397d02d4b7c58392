#include "alloc/device_allocator.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <new>

#include "alloc/hot_path.hpp"
#include "base/check.hpp"
#include "base/room.hpp"
#include "driver/per_thread_stream.hpp"
#include "gmlake/bytes.hpp"

namespace gmlake::alloc {

using stitch::Block;
using stitch::kAlignment;
using stitch::kSmallLimit;
using stitch::Pool;
using stitch::State;

namespace {

constexpr std::size_t kDeferredBatch = 64;
constexpr std::size_t kClearedAtOnce = 4;  // by a free: its own block, and some that had to wait

constexpr std::array kPoolStats = {
    &PoolStats::allocation,      &PoolStats::segment,        &PoolStats::active,       &PoolStats::inactive_split,
    &PoolStats::allocated_bytes, &PoolStats::reserved_bytes, &PoolStats::active_bytes, &PoolStats::inactive_split_bytes,
    &PoolStats::requested_bytes};

void check_pool_stats(const PoolStats& stats, const PoolStats& recounted) {
  for (Stat PoolStats::*field : kPoolStats) {
    const Stat& stat = stats.*field;
    GMLAKE_CHECK_EQ(stat.current, (recounted.*field).current);
    GMLAKE_CHECK_EQ(stat.current, stat.allocated - stat.freed);
    GMLAKE_CHECK(stat.peak >= stat.current);
  }
}

std::vector<std::unique_ptr<Shard>> first_shard() {
  std::vector<std::unique_ptr<Shard>> shards;
  shards.push_back(std::make_unique<Shard>(0));
  return shards;
}

StreamHandle stream_handle(std::uint64_t bits) {
  return std::bit_cast<StreamHandle>(static_cast<std::uintptr_t>(bits));
}

}  // namespace

Result<std::unique_ptr<DeviceAllocator>> DeviceAllocator::create(driver::Driver& driver, int device,
                                                                 const Options& options, OomCallbacks& callbacks,
                                                                 const MappingObservers& observers) {
  const Result<driver::DeviceProperties> properties = driver.device_properties(device);
  if (!properties) return properties.error();
  if (!properties->vmm_supported) {
    return Error{ErrorCode::not_supported, Step::properties, static_cast<std::uint64_t>(device)};
  }
  // Memory that other devices of the machine and other processes can be given, where that is to be had.
  driver::MemoryProperties memory{.location = {driver::Location::Kind::device, device},
                                  .rdma_capable = properties->rdma_supported,
                                  .posix_fd_handle = properties->posix_fd_supported,
                                  .fabric_handle = properties->fabric_supported};
  Result<std::uint64_t> granularity = driver.granularity(memory);
  if (!granularity && granularity.error().code == ErrorCode::not_supported) {
    memory = {.location = memory.location};
    granularity = driver.granularity(memory);
  }
  if (!granularity) return granularity.error();
  const auto shift = static_cast<std::uint32_t>(std::countr_zero(*granularity));
  return std::unique_ptr<DeviceAllocator>(
      new DeviceAllocator(driver, memory, options, shift, properties->total_bytes, callbacks, observers));
}

DeviceAllocator::DeviceAllocator(driver::Driver& driver, const driver::MemoryProperties& memory, const Options& options,
                                 std::uint32_t granule_shift, std::uint64_t total_bytes, OomCallbacks& callbacks,
                                 const MappingObservers& observers)
    : meter_(driver),
      driver_(meter_),
      device_(memory.location.id),
      options_(options),
      granule_shift_(granule_shift),
      total_bytes_(total_bytes),
      own_limit_bytes_(options.limit_bytes),
      limit_fraction_(options.limit_fraction),
      callbacks_(callbacks),
      shards_(first_shard()),
      state_(shards_.front()->mutex),
      fences_(driver_),
      phy_pool_(driver_, memory, granule_shift),
      teller_(observers, memory.location.id),
      mappings_(driver_, phy_pool_, granule_shift, {memory.location.id}, &teller_),
      planner_(phy_pool_, fences_),
      stitcher_(mappings_, phy_pool_, fences_),
      worker_([this] { return background_step(); },
              options.background_worker ? BackgroundWorker::Mode::thread : BackgroundWorker::Mode::by_hand) {
  usage_.attach(shards_.front()->usage);
}

DeviceAllocator::~DeviceAllocator() {
  worker_.stop();
  if (options_.zero_on_free) fences_.wait_for_marks();  // what is enqueued here nobody else knows to wait for
  const MutexLock grow(grow_);
  mappings_.shut_down();
}

Status DeviceAllocator::set_limit_fraction(double fraction) {
  if (!(fraction >= 0 && fraction <= 1)) return Error{ErrorCode::invalid_option, Step::options, 0};
  limit_fraction_.store(fraction, std::memory_order_relaxed);
  return {};
}

std::uint64_t DeviceAllocator::limit_bytes() const {
  const auto share = static_cast<std::uint64_t>(static_cast<double>(total_bytes_) * limit_fraction());
  const std::uint64_t own = own_limit_bytes_.load(std::memory_order_relaxed);
  return own == 0 ? share : std::min(share, own);
}

Address DeviceAllocator::hand_out_slowly(Pool& pool, Block* run, std::uint64_t bytes, std::uint64_t requested,
                                         std::size_t runs_before) {
  Shard& shard = shard_of(pool);
  shard.assert_held();
  shard.live.reserve(1);
  shard.blocks.reserve(1);
  const Address address = hand_out(shard, pool, run, bytes, requested, runs_before);
  if (shard.usage.is_short()) usage_.settle();
  return address;
}

// The analysis does not know that one shard is all of them where no other is in use, nor that nobody changes which are
// while one of them is held. Another's lock is tried, not waited for: its holder may want this one's, or be
// interrupted.
GMLAKE_NO_THREAD_SAFETY_ANALYSIS void DeviceAllocator::find_room(Shard& shard) noexcept {
  const std::size_t count = shards_.size();
  if (count == 1) return usage_.settle();
  for (std::size_t i = 1; i < count; ++i) {
    Shard& other = *shards_[(shard.number + i) % count];
    if (!other.mutex.try_lock()) continue;
    const bool found = shard.usage.borrow(other.usage);
    other.mutex.unlock();
    if (found) return;
  }
  shard.mutex.unlock();
  {
    const MutexLock lock(state_);
    usage_.settle();
  }
  shard.mutex.lock();
}

Shard& DeviceAllocator::shard_for(memory::StreamIndex stream) {
  const std::size_t number = stream % ShardedMutex::kMost;
  make_room(shards_, number + 1);
  while (shards_.size() <= number) {
    shards_.push_back(std::make_unique<Shard>(shards_.size()));
    Shard& shard = *shards_.back();
    state_.add(shard.mutex);
    shard.assert_held();
    usage_.attach(shard.usage);
  }
  return *shards_[number];
}

Block* DeviceAllocator::find_live(Address address) const {
  const Shard* shard = address_hints_.find(address);
  if (shard == nullptr) return nullptr;
  shard->assert_held();
  return shard->live.find(address);
}

Result<Address> DeviceAllocator::allocate(std::uint64_t bytes, std::uint64_t stream,
                                          std::optional<OutOfMemoryReport>* report) {
  if (bytes == 0 || bytes > total_bytes_) return Error{ErrorCode::invalid_size, Step::allocate, bytes};
  if (driver_.lost()) [[unlikely]]
    return Error{ErrorCode::device_lost, driver_.lost_at(), bytes};
  const std::uint64_t rounded = round_up(bytes, kAlignment);
  try {
    if (routes_.any()) [[unlikely]] {
      if (const auto id = routes_.find(stream_handle(driver::handle_of_stream(stream))))
        return allocate_privately(*id, stream, rounded, bytes, report);
    }
    {
      const MutexLock lock(state_);
      StreamState& state = stream_state(stream);
      Pool& pool = rounded <= kSmallLimit ? *state.small : *state.large;
      const std::size_t runs_before = pool.settled_runs();
      if (Block* run = pool.find(rounded)) return hand_out_slowly(pool, run, rounded, bytes, runs_before);
    }
    return allocate_slowly(std::nullopt, stream, rounded, bytes, report);
  } catch (const std::bad_alloc&) {  // of the host, for the books
    return host_ran_out(stream, bytes, report);
  }
}

Status DeviceAllocator::deallocate(Address address, std::optional<std::uint64_t> stream) {
  Status freed = free_block(address, stream);
  if (freed.ok() && options_.unmap_on_free) unmap_freed();
  return freed;
}

Status DeviceAllocator::free_block(Address address, std::optional<std::uint64_t> stream) {
  std::vector<memory::Fence> fences;
  Deferred* deferred = nullptr;
  bool many_deferred = false;
  {
    const MutexLock lock(state_);
    Block* block = find_live(address);  // before the stream: one of another device must not get books here
    if (block == nullptr) return Error{ErrorCode::invalid_pointer, Step::deallocate, address};
    StreamState& freed_on = stream ? named_stream({device_, *stream}) : *streams_[allocated_for(*block)];
    Pool& pool = *block->pool;
    const bool clears = options_.zero_on_free && !pool.pinned();
    const bool at_once = !clears && !block->used_elsewhere && pool.stream() == freed_on.index;
    if (!at_once) deferred = defer(block, freed_on.index, fences);
    Shard& shard = shard_of(pool);
    shard.assert_held();
    shard.live.take(address);
    const std::uint64_t bytes = block->bytes;
    const std::uint64_t requested = block->tick_or_requested;
    if (history_.on()) [[unlikely]] {
      history_.add(History::Action::free_requested, address, bytes, freed_on.stream.handle);
      if (at_once) history_.add(History::Action::free_completed, address, bytes, freed_on.stream.handle);
    }
    if (at_once) {
      const std::size_t runs_before = pool.settled_runs();
      pool.give_back(block, ++freed_on.tick);
      shard.usage.free(pool.size_class(), bytes, requested, runs_before, pool.settled_runs());
      if (shard.usage.is_short()) usage_.settle();
      return {};
    }
    usage_.defer(pool.size_class(), bytes, requested);
    block->state = State::pending;
    if (fences.empty()) let_go(deferred);
    many_deferred = deferred_.live_count() % kDeferredBatch == 0;
  }
  // Recorded now, not when memory runs short: the sooner the fence, the sooner the memory is back. A fence that cannot
  // be recorded never passes by itself: the block stays out of use until a rung of the ladder waits for its stream.
  try {
    for (const memory::Fence& fence : fences) (void)fences_.mark(fence.stream, fence.tick).ok();
    // Requests that hit look at no fence: here now and then, so that neither events nor memory pile up.
    if (many_deferred) reclaim_deferred();
    clear_freed(kClearedAtOnce);
  } catch (const std::bad_alloc&) {  // of the host: no fence either, and the block is freed all the same
  }
  if (!fences.empty()) worker_.wake();  // which asks for the fences as time goes on
  return {};
}

Status DeviceAllocator::record_stream(Address address, driver::Stream stream) {
  const MutexLock lock(state_);
  Block* block = find_live(address);
  if (block == nullptr) return Error{ErrorCode::invalid_pointer, Step::record_stream, address};
  StreamState& used_on = named_stream(stream);
  if (allocated_for(*block) == used_on.index) return {};
  Uses& uses = uses_[block];
  block->used_elsewhere = true;  // it has an entry now, whatever the next line throws
  if (std::find(uses.streams.begin(), uses.streams.end(), used_on.index) == uses.streams.end()) {
    drop_passed_uses(uses);  // of a block that outlives many threads, or there would be one of each
    uses.streams.push_back(used_on.index);
    ++used_on.uses;
  }
  if (history_.on()) history_.add(History::Action::record_stream, address, block->bytes, stream.handle);
  return {};
}

std::uint64_t DeviceAllocator::block_bytes(Address address) const {
  const MutexLock lock(state_);
  const Block* block = find_live(address);
  return block == nullptr ? 0 : block->bytes;
}

void DeviceAllocator::count_invalid_free() { count(&DeviceStats::invalid_frees); }

void DeviceAllocator::count(std::uint64_t DeviceStats::*counter) {
  const MutexLock lock(state_);
  ++(counts_.*counter);
}

Usage::Totals DeviceAllocator::cached_totals() const {
  Usage::Totals totals{};
  for_each_pool([&](const Pool& pool) {
    CachedTotals& sum = totals[static_cast<std::size_t>(pool.size_class())];
    sum.bytes += pool.free_bytes();
    sum.runs += pool.settled_runs();
  });
  return totals;
}

void DeviceAllocator::settle_pools() const {
  for_each_pool([](Pool& pool) { pool.settle(); });
  usage_.recount_cached(cached_totals());
}

DeviceStats DeviceAllocator::stats() const {
  const MutexLock lock(state_);
  return stats_locked();
}

DeviceStats DeviceAllocator::stats_locked() const {
  settle_pools();
  DeviceStats stats = counts_;
  usage_.read(stats);
  Stat& reserved = stats.all.reserved_bytes;  // whoever holds `grow` may be writing these four: each is true by itself
  reserved.current = phy_pool_.held_bytes();
  reserved.peak = std::max(phy_pool_.peak_held_bytes(), reserved.current);
  reserved.allocated = std::max(phy_pool_.created_bytes(), reserved.current);
  reserved.freed = reserved.allocated - reserved.current;
  stats.spare_bytes = phy_pool_.spare_bytes();
  stats.lost_bytes = phy_pool_.lost_bytes();
  stats.address_bytes = mappings_.reserved_address_bytes();
  stats.quarantined_bytes = mappings_.quarantined_bytes();
  stats.stale_bytes = mappings_.stale_granules() << granule_shift_;
  stats.mappings = mappings_.mapping_count();
  stats.phy_blocks_created = phy_pool_.created_count();
  stats.phy_blocks_released = phy_pool_.released_count();
  stats.mappings_retired = mappings_.retired_count();
  stats.background_retired = background_retired_.load(std::memory_order_relaxed);
  stats.events_pending = fences_.events_pending();
  const driver::CallCounts calls = meter_.counts();
  stats.num_device_alloc = calls.map;
  stats.num_device_free = calls.unmap;
  stats.driver_calls = calls.total();
  stats.driver_ns = meter_.nanoseconds();
  return stats;
}

void DeviceAllocator::reset_peaks() {
  const MutexLock grow(grow_);  // whoever holds it writes the peak of held memory
  const MutexLock lock(state_);
  usage_.reset_peaks();
  phy_pool_.reset_peak();
}

void DeviceAllocator::check() const {
  const MutexLock grow(grow_);
  const MutexLock lock(state_);
  check_locked();
}

void DeviceAllocator::check_locked() const {
  phy_pool_.check();
  mappings_.check();
  // What the blocks themselves add up to, by size class, in the order of PoolStats.
  std::array<PoolStats, 2> recounted{};
  std::uint64_t pending_blocks = 0;
  std::size_t used_elsewhere = 0;
  for_each_pool([](const Pool& pool) { pool.check(); });
  settle_pools();
  std::size_t segments = 0;
  for_each_pool([&](const Pool& pool) {
    pool.check();
    segments += pool.segment_count();
    PoolStats& sum = recounted[static_cast<std::size_t>(pool.size_class())];
    sum.segment.current += pool.segment_count();
    pool.for_each_block([&](const Block& block) {
      GMLAKE_CHECK(block.state != State::claimed);  // by the holder of `grow` alone, which is us
      const bool live = block.state == State::live;
      const bool active = live || block.state == State::pending;
      const bool cached = block.state == State::free;
      sum.allocation.current += live;
      sum.allocated_bytes.current += live ? block.bytes : 0;
      sum.requested_bytes.current += live ? block.tick_or_requested : 0;
      sum.active.current += active;
      sum.active_bytes.current += active ? block.bytes : 0;
      sum.inactive_split.current += cached;
      sum.inactive_split_bytes.current += cached ? block.bytes : 0;
      sum.reserved_bytes.current += block.state == State::hole ? 0 : block.bytes;
      pending_blocks += active && !live;
      used_elsewhere += live && block.used_elsewhere;
    });
  });
  DeviceStats stats;
  usage_.read(stats);
  check_pool_stats(stats.small_pool, recounted[0]);
  check_pool_stats(stats.large_pool, recounted[1]);
  PoolStats both = recounted[0];
  for (Stat PoolStats::*stat : kPoolStats) (both.*stat).current += (recounted[1].*stat).current;
  GMLAKE_CHECK_EQ(both.reserved_bytes.current + phy_pool_.spare_bytes() + phy_pool_.lost_bytes(),
                  phy_pool_.held_bytes());
  stats.all.reserved_bytes = stats.small_pool.reserved_bytes;  // its own is PhyPool's
  stats.all.reserved_bytes.add(stats.large_pool.reserved_bytes.current);
  check_pool_stats(stats.all, both);
  check_shards(both.allocation.current);
  GMLAKE_CHECK_EQ(segments, mappings_.segments().size());
  std::uint64_t uses = 0;
  for (const auto& stream : streams_) uses += stream->uses;
  for (const auto& [block, of_block] : uses_) uses -= of_block.streams.size();
  GMLAKE_CHECK_EQ(uses, 0u);
  check_deferred(pending_blocks);
  GMLAKE_CHECK_EQ(used_elsewhere, uses_.size());
}

void DeviceAllocator::check_shards(std::uint64_t live_blocks) const {
  usage_.check();
  std::size_t live = 0;
  for (const auto& shard : shards_) {
    shard->assert_held();
    live += shard->live.size();
  }
  GMLAKE_CHECK_EQ(live, live_blocks);
  std::size_t blocks = 0;
  for_each_pool([&](const Pool& pool) {
    const Shard& shard = shard_of(pool);
    for (std::size_t i = 0; i < pool.segment_count(); ++i) {
      for (const Address at : {pool.segment(i)->base, pool.segment(i)->end() - 1}) {
        GMLAKE_CHECK(address_hints_.find(at) == &shard);
      }
    }
    pool.for_each_block([&](const Block& block) {
      shard.assert_held();
      ++blocks;
      if (block.state == State::live) GMLAKE_CHECK(shard.live.find(block.address) == &block);
    });
  });
  for (const auto& shard : shards_) {
    shard->assert_held();
    blocks -= shard->blocks.live_count();
  }
  GMLAKE_CHECK_EQ(blocks, 0u);
  GMLAKE_CHECK_EQ(address_hints_.size(), mappings_.segments().size());
  std::size_t named = 0;
  for (const StreamState* stream : allocating_) {
    if (stream->stream.handle == kForgotten) continue;
    ++named;
    GMLAKE_CHECK(stream_hints_.find(stream->stream.handle) == stream);
  }
  GMLAKE_CHECK_EQ(stream_hints_.size(), named);
}

}  // namespace gmlake::alloc
