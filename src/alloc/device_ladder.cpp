// The slow path of DeviceAllocator: the ladder that a request climbs when no cached run fits, from stitching memory of
// its own stream to waiting for others. Each rung tries, counts, and leaves the books as they were when it fails.
#include <algorithm>

#include "alloc/device_allocator.hpp"
#include "alloc/growth_policy.hpp"
#include "base/check.hpp"
#include "gmlake/bytes.hpp"

namespace gmlake::alloc {

using stitch::Block;
using stitch::Donor;
using stitch::Plan;
using stitch::PlanFailure;
using stitch::PlanRequest;
using stitch::Pool;
using stitch::SizeClass;

Result<Address> DeviceAllocator::allocate_slowly(StreamState& stream, std::uint64_t bytes, std::uint64_t requested) {
  const MutexLock grow(grow_);
  const Request request{stream, bytes <= stitch::kSmallLimit ? *stream.small : *stream.large, bytes, requested};
  driver_full_ = false;

  reclaim_deferred();
  if (const auto fitted = fit(request)) return *fitted;
  const auto climb = [&](Reach reach, std::uint64_t DeviceStats::*rung) -> Rung {
    Rung rung_result = stitch(request, reach);
    if (rung_result && *rung_result) {
      const MutexLock lock(state_);
      ++(stats_.*rung);
    }
    return rung_result;
  };

  Rung reached = climb(Reach::own_stream, &DeviceStats::rung_own_stream);
  if (!reached) return reached.error();
  if (*reached) return **reached;

  if (Status marked = mark_all_streams(); !marked.ok()) return marked.error();
  reclaim_deferred();
  if (const auto fitted = fit(request)) return *fitted;
  reached = climb(Reach::passed_streams, &DeviceStats::rung_passed_streams);
  if (!reached) return reached.error();
  if (*reached) return **reached;

  if (options_.stream_wait) {
    reached = climb(Reach::all_streams, &DeviceStats::rung_stream_wait);
    if (!reached) return reached.error();
    if (*reached) return **reached;
  }

  // Blocks that are cached in sizes that do not fit go back to the driver, and are made anew in sizes that do.
  for (const bool wait : {false, true}) {
    if (wait) {
      if (Status waited = wait_for_all_streams(); !waited.ok()) return waited.error();
      reclaim_deferred();
      if (const auto fitted = fit(request)) return *fitted;
    }
    driver_full_ = false;
    const std::uint64_t needed = round_up(bytes, std::uint64_t{1} << granule_shift_) >> granule_shift_;
    release_cached(needed);
    reached = climb(Reach::passed_streams, wait ? &DeviceStats::rung_wait : &DeviceStats::rung_release_cached);
    if (!reached) return reached.error();
    if (*reached) return **reached;
  }

  const MutexLock lock(state_);
  ++stats_.ooms;
  return Error{ErrorCode::out_of_memory, Step::allocate, requested};
}

std::optional<Address> DeviceAllocator::fit(const Request& request) {
  const MutexLock lock(state_);
  Block* run = request.pool.find(request.bytes);
  if (run == nullptr) return std::nullopt;
  return hand_out(request, run);
}

std::vector<Pool*> DeviceAllocator::donor_pools(const Request& request, Reach reach) const {
  const bool small = request.pool.size_class() == SizeClass::small;
  std::vector<Pool*> pools{small ? request.stream.small.get() : request.stream.large.get(),
                           small ? request.stream.large.get() : request.stream.small.get()};
  if (reach == Reach::own_stream) return pools;
  for (const StreamState& other : streams_) {
    if (&other == &request.stream) continue;
    pools.push_back(other.large.get());
    pools.push_back(other.small.get());
  }
  return pools;
}

std::uint64_t DeviceAllocator::headroom_granules() const {
  const std::uint64_t held = phy_pool_.held_bytes();
  return driver_full_ || held >= limit_bytes_ ? 0 : (limit_bytes_ - held) >> granule_shift_;
}

std::uint64_t DeviceAllocator::slack_granules(const Request& request) const {
  const std::uint64_t live = std::max(stats_.active_bytes.peak, stats_.active_bytes.current + request.bytes);
  const auto target = static_cast<std::uint64_t>(static_cast<double>(live) * (1.0 + options_.slack));
  const std::uint64_t held = phy_pool_.held_bytes();
  return target <= held ? 0 : (target - held) >> granule_shift_;
}

std::uint32_t DeviceAllocator::phy_block_granules(const Request& request) const {
  return growth_granules({.footprint_granules = (phy_pool_.held_bytes() + request.bytes) >> granule_shift_,
                          .headroom_granules = headroom_granules(),
                          .max_granules = std::max<std::uint64_t>(options_.max_phy_block_bytes >> granule_shift_, 1),
                          .small = request.pool.size_class() == SizeClass::small});
}

DeviceAllocator::Rung DeviceAllocator::stitch(const Request& request, Reach reach) {
  for (bool segment_added = false;; segment_added = true) {
    std::optional<Plan> plan;
    {
      const MutexLock lock(state_);
      const std::vector<Pool*> pools = donor_pools(request, reach);
      const PlanRequest wanted{.pool = &request.pool,
                               .bytes = request.bytes,
                               .donors = pools,
                               .stream_wait = reach == Reach::all_streams,
                               .block_granules = phy_block_granules(request),
                               .slack_granules = slack_granules(request),
                               .headroom_granules = headroom_granules()};
      plan = planner_.make(wanted);
      if (plan) {
        // Past the slack, memory that lies free on other streams comes before new memory: the next rung looks there.
        if (reach == Reach::own_stream && plan->created_granules > wanted.slack_granules && streams_.size() > 1) {
          return std::optional<Address>();
        }
        stitcher_.claim(*plan);
        stats_.stitches += 1;
        stats_.moved_bytes += plan->moved_granules << granule_shift_;
        stats_.revived_bytes += plan->revived_granules << granule_shift_;
        stats_.grown_bytes += plan->created_granules << granule_shift_;
      } else if (planner_.failure() != PlanFailure::no_window || segment_added) {
        return std::optional<Address>();
      }
    }
    if (plan) return carry_out(request, *plan, reach == Reach::all_streams);
    if (Status added = add_segment(request); !added.ok()) return added.error();
  }
}

DeviceAllocator::Rung DeviceAllocator::carry_out(const Request& request, const Plan& plan, bool stream_wait) {
  const Status executed = stitcher_.execute(plan, stream_wait);
  std::optional<Address> address;
  {
    const MutexLock lock(state_);
    Block* run = stitcher_.publish(plan, request.stream.tick, executed.ok());
    if (run != nullptr) address = hand_out(request, run);
  }
  if (!executed.ok() && executed.error().code == ErrorCode::out_of_memory) driver_full_ = true;
  bound_stale_mappings();
  return address;
}

Status DeviceAllocator::add_segment(const Request& request) {
  const std::uint64_t granule = std::uint64_t{1} << granule_shift_;
  const auto budget = static_cast<std::uint64_t>(static_cast<double>(total_bytes_) * options_.max_address_space);
  const std::uint64_t reserved = mappings_.reserved_address_bytes();
  const std::uint64_t least = round_up(request.bytes, granule) + granule;
  // The first large segment spans the device: most jobs need no other. Later ones are shorter, for there may be many.
  const bool small = request.pool.size_class() == SizeClass::small;
  std::uint64_t wanted = small ? total_bytes_ / 64 : reserved < total_bytes_ ? total_bytes_ : total_bytes_ / 4;
  wanted = std::max(round_up(wanted, granule), least);
  if (reserved + wanted > budget) wanted = least;
  if (reserved + wanted > budget) return Error{ErrorCode::address_space, Step::reserve, request.bytes};
  const auto slots = static_cast<std::uint32_t>(wanted >> granule_shift_);
  Result<memory::VmmSegment*> segment = mappings_.reserve(slots);
  if (!segment) return segment.error();
  const MutexLock lock(state_);
  request.pool.adopt(*segment);
  return {};
}

void DeviceAllocator::reclaim_deferred() {
  (void)fences_.poll().ok();  // an event that cannot be queried has not passed
  const MutexLock lock(state_);
  std::erase_if(deferred_, [this](const Deferred& deferred) GMLAKE_NO_THREAD_SAFETY_ANALYSIS {
    for (const memory::Fence& fence : deferred.fences) {
      if (!fences_.passed(fence)) return false;
    }
    Pool* pool = deferred.block->pool;
    stats_.active_bytes.remove(deferred.block->bytes);
    pool->give_back(deferred.block, ++streams_[pool->stream()].tick);
    return true;
  });
}

Status DeviceAllocator::mark_all_streams() {
  std::vector<memory::Fence> ticks;
  {
    const MutexLock lock(state_);
    for (const StreamState& stream : streams_) {
      if (stream.small->free_bytes() + stream.large->free_bytes() > 0) ticks.push_back({stream.index, stream.tick});
    }
  }
  for (const memory::Fence& fence : ticks) {
    if (Status marked = fences_.mark(fence.stream, fence.tick); !marked.ok()) return marked;
  }
  return fences_.poll();
}

Status DeviceAllocator::wait_for_all_streams() {
  std::vector<memory::Fence> ticks;
  {
    const MutexLock lock(state_);
    for (const StreamState& stream : streams_) ticks.push_back({stream.index, stream.tick});
  }
  for (const memory::Fence& fence : ticks) {
    if (Status waited = fences_.wait(fence); !waited.ok()) return waited;
  }
  return {};
}

std::uint64_t DeviceAllocator::release_cached(std::uint64_t granules) {
  std::uint64_t released = 0;
  while (released < granules) {
    memory::PhyBlock* block = phy_pool_.spare().front();
    while (block != nullptr && block->mappings != nullptr) block = memory::PhyPool::BlockList::next(block);
    if (block == nullptr) {  // the smallest that is enough, else the largest there is
      const MutexLock lock(state_);
      std::vector<Pool*> pools;
      for (const StreamState& stream : streams_) {
        pools.push_back(stream.large.get());
        pools.push_back(stream.small.get());
      }
      if (pools.empty()) return released;
      const Donor* best = nullptr;
      for (const Donor& donor : planner_.collect({.pool = pools.front(), .donors = pools})) {
        bool passed = fences_.passed({donor.run->pool->stream(), donor.run->tick_or_requested});
        for (const auto* m = donor.mapping->block->mappings; m != nullptr; m = m->next_of_block) {
          passed = passed && !m->quarantined && (m == donor.mapping || fences_.passed(m->fence));
        }
        if (!passed) continue;
        const std::uint64_t size = donor.mapping->block->granules;
        const std::uint64_t best_size = best == nullptr ? 0 : best->mapping->block->granules;
        const std::uint64_t wanted = granules - released;
        if (best == nullptr || (best_size < wanted ? size > best_size : size >= wanted && size < best_size)) {
          best = &donor;
        }
      }
      if (best == nullptr) return released;
      block = best->mapping->block;
      const memory::VmmSegment* segment = best->mapping->segment;
      const std::uint64_t tick = best->run->tick_or_requested;
      Pool* pool = best->run->pool;
      Block* claimed = pool->claim(best->run, segment->address_of(best->mapping->slot),
                                   segment->address_of(std::uint64_t{best->mapping->slot} + block->granules));
      mappings_.leave_home(block, {pool->stream(), tick});
      pool->publish(claimed, tick);
    }
    const std::uint64_t size = block->granules;
    if (mappings_.retire_all_of(block).ok() && phy_pool_.release(block).ok()) released += size;
  }
  return released;
}

Status DeviceAllocator::trim(std::uint64_t keep_bytes) {
  const MutexLock grow(grow_);
  if (Status waited = wait_for_all_streams(); !waited.ok()) return waited;
  reclaim_deferred();
  if (phy_pool_.held_bytes() > keep_bytes) {
    release_cached((phy_pool_.held_bytes() - keep_bytes) >> granule_shift_);
  }
  return {};
}

void DeviceAllocator::bound_stale_mappings() {
  const std::uint64_t held = phy_pool_.held_bytes() >> granule_shift_;
  auto keep = static_cast<std::uint64_t>(static_cast<double>(held) * options_.max_stale);
  if (mappings_.mapping_count() > options_.max_mappings) keep = 0;
  if (mappings_.stale_granules() <= keep) return;
  mappings_.retire(fences_, keep);
}

}  // namespace gmlake::alloc
