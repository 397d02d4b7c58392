// The slow path of DeviceAllocator: the ladder that a request climbs when no cached run fits, from stitching memory of
// its own stream to waiting for others. Each rung tries, counts, and leaves the books as they were when it fails.
#include <algorithm>
#include <new>

#include "alloc/device_allocator.hpp"
#include "alloc/growth_policy.hpp"
#include "gmlake/bytes.hpp"

namespace gmlake::alloc {

using stitch::Block;
using stitch::Plan;
using stitch::PlanFailure;
using stitch::PlanRequest;
using stitch::Pool;
using stitch::SizeClass;

namespace {

// The driver reserves no more than this in one piece (measured: 64 TiB work, 128 TiB do not).
constexpr std::uint64_t kMaxSegmentBytes = std::uint64_t{32} << 40;

}  // namespace

Result<Address> DeviceAllocator::allocate_slowly(StreamState& stream, std::uint64_t bytes, std::uint64_t requested) {
  const MutexLock grow(grow_);
  const Request request{stream, bytes <= stitch::kSmallLimit ? *stream.small : *stream.large, bytes, requested};
  driver_headroom_.reset();
  refusal_.reset();

  reclaim_deferred();
  if (const Rung found = fit(request)) return *found;
  if (const Rung found = climb(request, Reach::own_stream, &DeviceStats::rung_own_stream)) return *found;

  mark_all_streams();
  reclaim_deferred();
  if (const Rung found = fit(request, &DeviceStats::rung_passed_streams)) return *found;
  if (const Rung found = climb(request, Reach::passed_streams, &DeviceStats::rung_passed_streams)) return *found;
  if (options_.stream_wait) {
    if (const Rung found = climb(request, Reach::all_streams, &DeviceStats::rung_stream_wait)) return *found;
  }

  // Blocks that are cached in sizes that do not fit go back to the driver, and are made anew in sizes that do.
  for (const bool wait : {false, true}) {
    if (wait) {
      wait_for_all_streams();
      reclaim_deferred();
      if (const Rung found = fit(request, &DeviceStats::rung_wait)) return *found;
    }
    release_cached(round_up(bytes, std::uint64_t{1} << granule_shift_) >> granule_shift_);
    driver_headroom_.reset();
    const auto rung = wait ? &DeviceStats::rung_wait : &DeviceStats::rung_release_cached;
    if (const Rung found = climb(request, Reach::passed_streams, rung)) return *found;
  }
  return final_error(request);
}

// What stood in the way: the limit, or the driver, whose last refusal then says at which step.
Error DeviceAllocator::final_error(const Request& request) {
  release_spare(UINT64_MAX);  // created on the way up: others may need what this request could not use
  if (refusal_ && refusal_->code != ErrorCode::out_of_memory) return *refusal_;
  const MutexLock lock(state_);
  ++stats_.ooms;
  return {ErrorCode::out_of_memory, refusal_ ? refusal_->step : Step::allocate, request.requested};
}

DeviceAllocator::Rung DeviceAllocator::climb(const Request& request, Reach reach, std::uint64_t DeviceStats::*rung) {
  const Rung result = stitch(request, reach);
  if (result) {
    const MutexLock lock(state_);
    ++(stats_.*rung);
  }
  return result;
}

DeviceAllocator::Rung DeviceAllocator::fit(const Request& request, std::uint64_t DeviceStats::*rung) {
  const MutexLock lock(state_);
  Block* run = request.pool.find(request.bytes);
  if (run == nullptr) return std::nullopt;
  if (rung != nullptr) ++(stats_.*rung);
  return hand_out(request, run);
}

std::vector<Pool*> DeviceAllocator::donor_pools(const Request& request, Reach reach) const {
  Pool* small = request.stream.small.get();
  Pool* large = request.stream.large.get();
  std::vector<Pool*> pools{small, large};
  if (request.pool.size_class() == SizeClass::large) std::swap(pools[0], pools[1]);
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
  const std::uint64_t left = held >= limit_bytes_ ? 0 : (limit_bytes_ - held) >> granule_shift_;
  return driver_headroom_ ? std::min(left, *driver_headroom_) : left;
}

std::uint64_t DeviceAllocator::slack_granules(const Request& request) const {
  const std::uint64_t live = std::max(stats_.active_bytes.peak, stats_.active_bytes.current + request.bytes);
  const auto target = static_cast<std::uint64_t>(static_cast<double>(live) * (1.0 + options_.slack));
  const std::uint64_t held = phy_pool_.held_bytes();
  return target <= held ? 0 : (target - held) >> granule_shift_;
}

std::uint32_t DeviceAllocator::phy_block_granules(const Request& request) {
  const std::uint64_t held = phy_pool_.held_bytes();
  const bool freeing = stats_.allocated_bytes.freed > held / kSettledShare;
  if (!freeing) settled_bytes_ = held;
  return growth_granules({.footprint_granules = (held + request.bytes) >> granule_shift_,
                          .settled_granules = settled_bytes_ >> granule_shift_,
                          .freeing = freeing,
                          .request_granules = request.bytes >> granule_shift_,
                          .headroom_granules = headroom_granules(),
                          .max_granules = std::max<std::uint64_t>(options_.max_phy_block_bytes >> granule_shift_, 1),
                          .small = request.pool.size_class() == SizeClass::small});
}

DeviceAllocator::Rung DeviceAllocator::stitch(const Request& request, Reach reach) {
  bound_stale_mappings();  // before the plan, which may count on those that are left
  // A plan may want a segment, or room for mappings, first; and a first refusal by the driver is met by trying once
  // more with what it says is left. Each of these happens once.
  bool segment_added = false;
  bool room_made = false;
  bool refused = false;
  for (;;) {
    std::optional<Plan> plan;
    std::uint64_t too_many = 0;
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
      // Past the slack, memory that lies free on other streams comes before new memory: the next rung looks there.
      if (plan && reach == Reach::own_stream && plan->created_granules > wanted.slack_granules && streams_.size() > 1) {
        return std::nullopt;
      }
      if (plan && mappings_.mapping_count() + plan->fills.size() > options_.max_mappings) {
        too_many = plan->fills.size();
        plan.reset();
      }
      if (plan) stitcher_.claim(*plan);
    }
    if (too_many != 0) {
      if (room_made || !make_room_for(too_many)) {
        refusal_ = Error{ErrorCode::too_many_mappings, Step::map, request.bytes};
        return std::nullopt;
      }
      room_made = true;
    } else if (!plan) {
      if (planner_.failure() != PlanFailure::no_window || segment_added) return std::nullopt;
      segment_added = true;
      if (Status added = add_segment(request); !added.ok()) refusal_ = added.error();  // holes may be had instead
    } else {
      const Rung carried = carry_out(request, *plan, reach == Reach::all_streams);
      if (carried || refused) return carried;
      refused = true;
    }
  }
}

DeviceAllocator::Rung DeviceAllocator::carry_out(const Request& request, const Plan& plan, bool stream_wait) {
  const Status executed = stitcher_.execute(plan, stream_wait);
  if (!executed.ok()) note_refusal(executed.error());
  Address address = 0;
  memory::Fence now;
  {
    const MutexLock lock(state_);
    // Behind a stream-wait the window belongs to a later point of its stream than any event recorded so far stands for.
    if (stream_wait) ++request.stream.tick;
    now = {request.stream.index, request.stream.tick};
    Block* run = stitcher_.publish(plan, now.tick, executed.ok());
    if (run == nullptr) return std::nullopt;
    stats_.stitches += 1;
    stats_.moved_bytes += plan.moved_granules << granule_shift_;
    stats_.revived_bytes += plan.revived_granules << granule_shift_;
    stats_.grown_bytes += plan.created_granules << granule_shift_;
    address = hand_out(request, run);
  }
  if (!plan.moves.empty()) mark_stale(now);
  return address;
}

// Recorded as soon as something becomes stale, so that it can be retired, and its hole used, once the device comes
// here. A fence that cannot be recorded stays unpassed until another rung records one: the request is met all the same.
void DeviceAllocator::mark_stale(const memory::Fence& now) {
  try {
    (void)fences_.mark(now.stream, now.tick).ok();
  } catch (const std::bad_alloc&) {  // of the host, for the record of the event: as if it had been refused
  }
}

void DeviceAllocator::note_refusal(const Error& error) {
  refusal_ = error;
  // The driver says out of memory too where it has no room for more mappings; then it says so in set_access.
  if (error.code == ErrorCode::too_many_mappings ||
      (error.code == ErrorCode::out_of_memory && error.step == Step::set_access)) {
    mark_all_streams();
    mappings_.retire(fences_, 0);
  } else if (error.code == ErrorCode::out_of_memory) {
    // Another process, or memory of this one that is not ours, has the rest. What the driver says is free may be had in
    // single granules; if it refuses again, nothing is.
    const Result<driver::MemoryInfo> info = driver_.memory_info(device_);
    driver_headroom_ = driver_headroom_ || !info ? 0 : info->free_bytes >> granule_shift_;
  }
}

Status DeviceAllocator::add_segment(const Request& request) {
  const Status reserved = reserve_segment(request);
  if (reserved.ok()) return reserved;
  // Addresses ran short: those under stale mappings and empty segments can be had back.
  mark_all_streams();
  mappings_.retire(fences_, 0);
  release_vacant_segments();
  return reserve_segment(request);
}

Status DeviceAllocator::reserve_segment(const Request& request) {
  const std::uint64_t granule = std::uint64_t{1} << granule_shift_;
  const auto budget = static_cast<std::uint64_t>(static_cast<double>(total_bytes_) * options_.max_address_space);
  const std::uint64_t reserved = mappings_.reserved_address_bytes();
  const std::uint64_t left = budget > reserved ? budget - reserved : 0;
  // The first large segment spans the device: most jobs need no other. Later ones take a share of what is left, for
  // there may be many streams; and never less than the request, whatever the budget.
  const bool small = request.pool.size_class() == SizeClass::small;
  const std::uint64_t share = small ? left / 256 : reserved < total_bytes_ ? total_bytes_ : left / 32;
  const std::uint64_t least = round_up(request.bytes, granule) + granule;
  const std::uint64_t wanted = std::clamp(round_down(share, granule), least, std::max(least, kMaxSegmentBytes));
  Result<memory::VmmSegment*> segment = mappings_.reserve(static_cast<std::uint32_t>(wanted >> granule_shift_));
  if (!segment && wanted > least) segment = mappings_.reserve(static_cast<std::uint32_t>(least >> granule_shift_));
  if (!segment) return segment.error();
  try {
    const MutexLock lock(state_);
    request.pool.adopt(*segment);
  } catch (const std::bad_alloc&) {
    (void)mappings_.address_free(*segment).ok();
    throw;
  }
  return {};
}

void DeviceAllocator::reclaim_deferred() {
  (void)fences_.poll().ok();  // an event that cannot be queried has not passed
  const MutexLock lock(state_);
  const auto kept = std::partition(deferred_.begin(), deferred_.end(), [this](const Deferred& deferred) {
    return std::any_of(deferred.fences.begin(), deferred.fences.end(),
                       [this](const memory::Fence& fence) { return !fences_.passed(fence); });
  });
  for (auto passed = kept; passed != deferred_.end(); ++passed) {
    Pool* pool = passed->block->pool;
    stats_.active_bytes.remove(passed->block->bytes);
    pool->give_back(passed->block, passed->tick);  // not the tick of now, whose fence nobody has waited for
  }
  deferred_.erase(kept, deferred_.end());
}

std::vector<memory::Fence> DeviceAllocator::stream_ticks() const {
  const MutexLock lock(state_);
  std::vector<memory::Fence> ticks;
  for (const StreamState& stream : streams_) ticks.push_back({stream.index, stream.tick});
  return ticks;
}

void DeviceAllocator::mark_all_streams() {
  for (const memory::Fence& fence : stream_ticks()) {
    if (Status marked = fences_.mark(fence.stream, fence.tick); !marked.ok()) refusal_ = marked.error();
  }
  if (Status polled = fences_.poll(); !polled.ok()) refusal_ = polled.error();
}

void DeviceAllocator::wait_for_all_streams() {
  for (const memory::Fence& fence : stream_ticks()) {
    if (Status waited = fences_.wait(fence); !waited.ok()) refusal_ = waited.error();
  }
}

// Takes cached PhyBlocks out of their free runs, largest first and none larger than what still lacks if a smaller one
// will do, until `granules` are spare.
std::vector<memory::PhyBlock*> DeviceAllocator::make_spare(std::uint64_t granules) {
  std::vector<Pool*> pools;
  for (const StreamState& stream : streams_) {
    pools.push_back(stream.large.get());
    pools.push_back(stream.small.get());
  }
  if (pools.empty()) return {};
  std::vector<stitch::Donor> donors;
  for (const stitch::Donor& donor : planner_.collect({.pool = pools.front(), .donors = pools})) {
    bool passed = fences_.passed({donor.run->pool->stream(), donor.run->tick_or_requested});
    for (const memory::Mapping* m = donor.mapping->block->mappings; m != nullptr; m = m->next_of_block) {
      passed = passed && !m->quarantined && (m == donor.mapping || fences_.passed(m->fence));
    }
    if (passed) donors.push_back(donor);
  }
  std::stable_sort(donors.begin(), donors.end(), [](const stitch::Donor& a, const stitch::Donor& b) {
    return a.mapping->block->granules > b.mapping->block->granules;
  });
  std::vector<stitch::Donor> chosen;
  std::uint64_t left = granules;
  for (std::size_t i = 0; i < donors.size() && left > 0; ++i) {
    const std::uint64_t size = donors[i].mapping->block->granules;
    if (size > left && i + 1 < donors.size() && donors[i + 1].mapping->block->granules >= left) continue;
    chosen.push_back(donors[i]);
    left -= std::min(left, size);
  }
  std::sort(chosen.begin(), chosen.end(), [](const stitch::Donor& a, const stitch::Donor& b) {
    return a.run != b.run ? a.run->address < b.run->address : a.mapping->slot > b.mapping->slot;
  });
  std::vector<memory::PhyBlock*> blocks(chosen.size());
  Pool::Stash none;
  pools.front()->set_aside(none, 0, 2 * chosen.size());
  for (std::size_t i = 0; i < chosen.size(); ++i) {  // of one run by descending address: see Pool::claim
    const memory::Mapping& home = *chosen[i].mapping;
    const memory::VmmSegment* segment = home.segment;
    const std::uint64_t tick = chosen[i].run->tick_or_requested;
    Pool* pool = chosen[i].run->pool;
    Block* claimed = pool->claim(chosen[i].run, segment->address_of(home.slot),
                                 segment->address_of(std::uint64_t{home.slot} + home.block->granules));
    mappings_.leave_home(home.block, {pool->stream(), tick});
    pool->publish(claimed, tick);
    blocks[i] = home.block;
  }
  return blocks;
}

void DeviceAllocator::release_cached(std::uint64_t granules) {
  const std::uint64_t spare = phy_pool_.spare_bytes() >> granule_shift_;
  std::vector<memory::PhyBlock*> blocks;
  if (spare < granules) {
    const MutexLock lock(state_);
    blocks = make_spare(granules - spare);
  }
  for (memory::PhyBlock* block : blocks) (void)mappings_.retire_all_of(block).ok();  // what stays mapped stays spare
  release_spare(granules);
}

void DeviceAllocator::release_spare(std::uint64_t granules) {
  std::uint64_t released = 0;
  for (memory::PhyBlock* block = phy_pool_.spare().front(); block != nullptr && released < granules;) {
    memory::PhyBlock* next = memory::PhyPool::BlockList::next(block);
    const std::uint64_t size = block->granules;
    if (block->mappings == nullptr && phy_pool_.release(block).ok()) released += size;
    block = next;
  }
}

void DeviceAllocator::release_vacant_segments() {
  std::vector<memory::VmmSegment*> vacant;
  {
    const MutexLock lock(state_);
    for (const auto& segment : mappings_.segments()) {
      if (static_cast<Pool*>(segment->owner)->is_vacant(segment.get())) vacant.push_back(segment.get());
    }
    for (memory::VmmSegment* segment : vacant) static_cast<Pool*>(segment->owner)->abandon(segment);
  }
  for (memory::VmmSegment* segment : vacant) (void)mappings_.address_free(segment).ok();  // a refusal is counted there
}

Status DeviceAllocator::trim(std::uint64_t keep_bytes) {
  const MutexLock grow(grow_);
  refusal_.reset();
  wait_for_all_streams();
  reclaim_deferred();
  mappings_.retire(fences_, 0);
  if (phy_pool_.held_bytes() > keep_bytes) {
    const std::uint64_t granule = std::uint64_t{1} << granule_shift_;
    release_cached(round_up(phy_pool_.held_bytes() - keep_bytes, granule) >> granule_shift_);
  }
  release_vacant_segments();
  return refusal_ ? Status(*refusal_) : Status();
}

void DeviceAllocator::bound_stale_mappings() {
  const std::uint64_t held = phy_pool_.held_bytes() >> granule_shift_;
  const auto keep = static_cast<std::uint64_t>(static_cast<double>(held) * options_.max_stale);
  if (mappings_.stale_granules() <= keep) return;
  mark_all_streams();  // what cannot be marked is not passed, and stays
  mappings_.retire(fences_, keep);
}

// A tenth more than needed, so that a job at its bound does not come here with every request.
bool DeviceAllocator::make_room_for(std::uint64_t more) {
  mark_all_streams();
  const std::uint64_t wanted = options_.max_mappings - std::min(options_.max_mappings, more);
  const std::uint64_t step = std::max<std::uint64_t>(mappings_.stale_granules() / 10, 1);
  for (std::uint64_t keep = mappings_.stale_granules(); mappings_.mapping_count() > wanted && keep > 0;) {
    keep -= std::min(keep, step);
    mappings_.retire(fences_, keep);
  }
  return mappings_.mapping_count() <= wanted;
}

}  // namespace gmlake::alloc
