#include "alloc/device_allocator.hpp"

#include <algorithm>
#include <bit>
#include <new>

#include "base/check.hpp"
#include "gmlake/bytes.hpp"

namespace gmlake::alloc {

using stitch::Block;
using stitch::kAlignment;
using stitch::kSmallLimit;
using stitch::Pool;
using stitch::SizeClass;
using stitch::State;

namespace {

constexpr std::size_t kDeferredBatch = 64;

}  // namespace

Result<std::unique_ptr<DeviceAllocator>> DeviceAllocator::create(driver::Driver& driver, int device,
                                                                 const Options& options) {
  const Result<driver::DeviceProperties> properties = driver.device_properties(device);
  if (!properties) return properties.error();
  if (!properties->vmm_supported) {
    return Error{ErrorCode::not_supported, Step::properties, static_cast<std::uint64_t>(device)};
  }
  const Result<std::uint64_t> granularity = driver.granularity({.location = {driver::Location::Kind::device, device}});
  if (!granularity) return granularity.error();
  const auto shift = static_cast<std::uint32_t>(std::countr_zero(*granularity));
  return std::unique_ptr<DeviceAllocator>(new DeviceAllocator(driver, device, options, shift, properties->total_bytes));
}

DeviceAllocator::DeviceAllocator(driver::Driver& driver, int device, const Options& options,
                                 std::uint32_t granule_shift, std::uint64_t total_bytes)
    : driver_(driver),
      device_(device),
      options_(options),
      granule_shift_(granule_shift),
      total_bytes_(total_bytes),
      own_limit_bytes_(options.limit_bytes),
      limit_fraction_(options.limit_fraction),
      fences_(driver_, device),
      phy_pool_(driver_, {.location = {driver::Location::Kind::device, device}}, granule_shift),
      mappings_(driver_, phy_pool_, granule_shift, {device}),
      planner_(phy_pool_, fences_),
      stitcher_(mappings_, phy_pool_, fences_) {}

DeviceAllocator::~DeviceAllocator() {
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

DeviceAllocator::StreamState& DeviceAllocator::stream_state(std::uint64_t handle) {
  if (last_stream_ != nullptr && last_stream_->stream.handle == handle) return *last_stream_;
  if (const auto found = stream_by_handle_.find(handle); found != stream_by_handle_.end()) {
    return *(last_stream_ = found->second);
  }
  // A new one. Any step may throw; a later call, for this stream or another, then finds what the earlier one left, and
  // goes on from there.
  const memory::StreamIndex index = fences_.intern({device_, handle});
  while (streams_.size() <= index) {
    const auto next = static_cast<memory::StreamIndex>(streams_.size());
    auto small = std::make_unique<Pool>(next, SizeClass::small, blocks_);
    auto large = std::make_unique<Pool>(next, SizeClass::large, blocks_);
    streams_.push_back({next, fences_.stream(next), 1, std::move(small), std::move(large)});
  }
  StreamState* state = &streams_[index];
  stream_by_handle_.emplace(handle, state);
  return *(last_stream_ = state);
}

Result<Address> DeviceAllocator::allocate(std::uint64_t bytes, std::uint64_t stream) {
  if (bytes == 0 || bytes > total_bytes_) return Error{ErrorCode::invalid_size, Step::allocate, bytes};
  if (driver_.lost()) [[unlikely]]
    return Error{ErrorCode::device_lost, driver_.lost_at(), bytes};
  const std::uint64_t rounded = round_up(bytes, kAlignment);
  try {
    StreamState* state = nullptr;
    {
      const MutexLock lock(state_);
      state = &stream_state(stream);
      Pool& pool = rounded <= kSmallLimit ? *state->small : *state->large;
      if (Block* run = pool.find(rounded)) return hand_out({*state, pool, rounded, bytes}, run);
    }
    return allocate_slowly(*state, rounded, bytes);
  } catch (const std::bad_alloc&) {  // of the host, for the books
    return Error{ErrorCode::out_of_memory, Step::allocate, bytes};
  }
}

Address DeviceAllocator::hand_out(const Request& request, Block* run) {
  live_.reserve_one();
  Block* block = request.pool.take(run, request.bytes, request.requested);
  live_.insert(block);
  stats_.allocated_bytes.add(request.bytes);
  stats_.requested_bytes.add(request.requested);
  stats_.active_bytes.add(request.bytes);
  stats_.allocations.add(1);
  return block->address;
}

Status DeviceAllocator::deallocate(Address address, std::optional<std::uint64_t> stream) {
  std::vector<memory::Fence> fences;
  bool many_deferred = false;
  {
    const MutexLock lock(state_);
    Block* block = live_.find(address);  // before the stream: one of another device must not get books here
    if (block == nullptr) return Error{ErrorCode::invalid_pointer, Step::deallocate, address};
    StreamState& freed_on = stream ? stream_state(*stream) : streams_[block->pool->stream()];
    const bool at_once = !block->used_elsewhere && block->pool->stream() == freed_on.index;
    if (!at_once) {  // nothing changes before all that can run out of host memory has been had
      for (const memory::StreamIndex use : uses_of(*block, freed_on.index)) {
        fences.push_back({use, ++streams_[use].tick});
      }
      deferred_.push_back({block, fences, ++streams_[block->pool->stream()].tick});
      uses_.erase(block);
    }
    live_.take(address);
    stats_.allocated_bytes.remove(block->bytes);
    stats_.requested_bytes.remove(block->tick_or_requested);
    stats_.allocations.remove(1);
    if (at_once) {
      stats_.active_bytes.remove(block->bytes);
      block->pool->give_back(block, ++freed_on.tick);
      return {};
    }
    block->state = State::pending;
    many_deferred = deferred_.size() % kDeferredBatch == 0;
  }
  // Recorded now, not when memory runs short: the sooner the fence, the sooner the memory is back. A fence that cannot
  // be recorded never passes by itself: the block stays out of use until a rung of the ladder waits for its stream.
  try {
    for (const memory::Fence& fence : fences) (void)fences_.mark(fence.stream, fence.tick).ok();
    // Requests that hit look at no fence: here now and then, so that neither events nor memory pile up.
    if (many_deferred) reclaim_deferred();
  } catch (const std::bad_alloc&) {  // of the host: no fence either, and the block is freed all the same
  }
  return {};
}

// The streams whose work a block freed on `freed_on` has to outlive, its own not among them.
std::vector<memory::StreamIndex> DeviceAllocator::uses_of(const Block& block, memory::StreamIndex freed_on) const {
  std::vector<memory::StreamIndex> uses;
  if (const auto found = uses_.find(&block); found != uses_.end()) uses = found->second;
  if (block.pool->stream() != freed_on && std::find(uses.begin(), uses.end(), freed_on) == uses.end()) {
    uses.push_back(freed_on);
  }
  return uses;
}

Status DeviceAllocator::record_stream(Address address, std::uint64_t stream) {
  const MutexLock lock(state_);
  Block* block = live_.find(address);
  if (block == nullptr) return Error{ErrorCode::invalid_pointer, Step::record_stream, address};
  const StreamState& used_on = stream_state(stream);
  if (block->pool->stream() == used_on.index) return {};
  std::vector<memory::StreamIndex>& uses = uses_[block];
  block->used_elsewhere = true;  // it has an entry now, whatever the next line throws
  if (std::find(uses.begin(), uses.end(), used_on.index) == uses.end()) uses.push_back(used_on.index);
  return {};
}

std::uint64_t DeviceAllocator::block_bytes(Address address) const {
  const MutexLock lock(state_);
  const Block* block = live_.find(address);
  return block == nullptr ? 0 : block->bytes;
}

void DeviceAllocator::count_invalid_free() {
  const MutexLock lock(state_);
  ++stats_.invalid_frees;
}

DeviceStats DeviceAllocator::stats() const {
  const MutexLock lock(state_);
  DeviceStats stats = stats_;
  stats.reserved_bytes = phy_pool_.held_bytes();
  stats.peak_reserved_bytes = phy_pool_.peak_held_bytes();
  stats.spare_bytes = phy_pool_.spare_bytes();
  stats.lost_bytes = phy_pool_.lost_bytes();
  stats.address_bytes = mappings_.reserved_address_bytes();
  stats.quarantined_bytes = mappings_.quarantined_bytes();
  stats.stale_bytes = mappings_.stale_granules() << granule_shift_;
  stats.mappings = mappings_.mapping_count();
  stats.phy_blocks_created = phy_pool_.created_count();
  stats.phy_blocks_released = phy_pool_.released_count();
  stats.mappings_retired = mappings_.retired_count();
  stats.events_pending = fences_.events_pending();
  return stats;
}

void DeviceAllocator::reset_peaks() {
  const MutexLock grow(grow_);  // whoever holds it writes the peak of held memory
  const MutexLock lock(state_);
  for (Stat* stat : {&stats_.allocated_bytes, &stats_.requested_bytes, &stats_.active_bytes, &stats_.allocations}) {
    stat->peak = stat->current;
  }
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
  std::uint64_t live_blocks = 0;
  std::uint64_t pending_blocks = 0;
  std::uint64_t allocated = 0;
  std::uint64_t requested = 0;
  std::uint64_t active = 0;
  std::size_t used_elsewhere = 0;
  for (const StreamState& stream : streams_) {
    for (const Pool* pool : {stream.small.get(), stream.large.get()}) {
      pool->check();
      pool->for_each_block([&](const Block& block) {
        GMLAKE_CHECK(block.state != State::claimed);  // by the holder of `grow` alone, which is us
        if (block.state == State::live) {
          ++live_blocks;
          allocated += block.bytes;
          requested += block.tick_or_requested;
          used_elsewhere += block.used_elsewhere;
        }
        pending_blocks += block.state == State::pending;
        active += block.state == State::live || block.state == State::pending ? block.bytes : 0;
      });
    }
  }
  GMLAKE_CHECK_EQ(live_blocks, live_.size());
  GMLAKE_CHECK_EQ(live_blocks, stats_.allocations.current);
  GMLAKE_CHECK_EQ(pending_blocks, deferred_.size());
  GMLAKE_CHECK_EQ(used_elsewhere, uses_.size());
  GMLAKE_CHECK_EQ(allocated, stats_.allocated_bytes.current);
  GMLAKE_CHECK_EQ(requested, stats_.requested_bytes.current);
  GMLAKE_CHECK_EQ(active, stats_.active_bytes.current);
}

}  // namespace gmlake::alloc
