// How DeviceAllocator carries out a stitch: asks for a plan, clears what stands in its way (addresses, mappings), calls
// the driver, and puts the outcome into the books. The rungs of the ladder call stitch(); nobody else does.
#include <algorithm>
#include <bitset>
#include <new>

#include "alloc/device_allocator.hpp"
#include "alloc/growth_policy.hpp"
#include "alloc/hot_path.hpp"
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
constexpr int kPlansInSteps = 4;  // that other threads may outdate
// Up to so many streams each have a granule of their own for small requests, whatever the slack: a few that take turns
// would else take one from each other with every request.
constexpr std::size_t kStreamsWithAGranule = 32;

}  // namespace

std::vector<Pool*> DeviceAllocator::donor_pools(const Request& request, Reach reach) const {
  Pool* small = request.stream.small.get();
  Pool* large = request.stream.large.get();
  std::vector<Pool*> pools{small, large};
  if (request.pool.size_class() == SizeClass::large) std::swap(pools[0], pools[1]);
  if (reach == Reach::own_stream) return pools;
  for (const StreamState* other : allocating_) {
    if (other == &request.stream) continue;
    pools.push_back(other->large.get());
    pools.push_back(other->small.get());
  }
  return pools;
}

std::uint64_t DeviceAllocator::room_bytes() const {
  const std::uint64_t held = phy_pool_.held_bytes() + placed_bytes_;
  const std::uint64_t limit = limit_bytes();
  return held >= limit ? 0 : limit - held;
}

std::uint64_t DeviceAllocator::headroom_granules() const {
  const std::uint64_t left = room_bytes() >> granule_shift_;
  return driver_headroom_ ? std::min(left, *driver_headroom_) : left;
}

std::uint64_t DeviceAllocator::slack_granules(const Request& request) const {
  const std::uint64_t live = std::max(usage_.peak_live_bytes(), usage_.live_bytes() + request.bytes);
  const auto target = static_cast<std::uint64_t>(static_cast<double>(live) * (1.0 + options_.slack));
  const std::uint64_t held = phy_pool_.held_bytes();
  return target <= held ? 0 : (target - held) >> granule_shift_;
}

double DeviceAllocator::streams_that_share(const Request& request) const {
  EffectiveStreams streams;
  for (const StreamState* stream : allocating_) {
    streams.add(stream->large->free_runs() + (stream == &request.stream ? 1 : 0));
  }
  return streams.number();
}

std::uint32_t DeviceAllocator::phy_block_granules(const Request& request) {
  const std::uint64_t held = phy_pool_.held_bytes();
  const bool freeing = usage_.freed_bytes() > held / kSettledShare;
  if (!freeing) settled_bytes_ = held;
  return growth_granules({.footprint_granules = (held + request.bytes) >> granule_shift_,
                          .settled_granules = settled_bytes_ >> granule_shift_,
                          .freeing = freeing,
                          .streams = allocating_.size() > 1 ? streams_that_share(request) : 0.0,
                          .request_granules = request.bytes >> granule_shift_,
                          .headroom_granules = headroom_granules(),
                          .refused = driver_headroom_.has_value(),
                          .max_granules = std::max<std::uint64_t>(options_.max_phy_block_bytes >> granule_shift_, 1),
                          .usual_granules = std::max<std::uint64_t>(kUsualBlockBytes >> granule_shift_, 1),
                          .small = request.pool.size_class() == SizeClass::small});
}

DeviceAllocator::Found DeviceAllocator::stitch(const Request& request, const Manner& manner) {
  bound_stale_mappings();  // before the plan, which may count on those that are left
  bool refused = false;    // by the driver: tried once more then, with what it says is left
  Cleared cleared;
  Obstacle obstacle = Obstacle::none;
  for (;;) {
    const Attempt attempt = plan_and_claim(request, manner, cleared);
    obstacle = attempt.obstacle;
    if (obstacle == Obstacle::none) {
      if (const Found found = carry_out(request, *attempt.plan)) return found;
      if (refused) break;
      refused = true;
    } else if (!clear_away(request, attempt, cleared)) {
      break;
    }
  }
  tally_.movable_bytes = planner_.donor_granules() << granule_shift_;
  tally_.outcome = refused                           ? RungOutcome::refused
                   : obstacle == Obstacle::addresses ? RungOutcome::no_addresses
                   : obstacle == Obstacle::mappings  ? RungOutcome::no_mappings
                                                     : RungOutcome::too_little;
  return std::nullopt;
}

// The plan for a request, claimed; or what stands in its way, with nothing claimed.
DeviceAllocator::Attempt DeviceAllocator::plan_and_claim(const Request& request, const Manner& manner,
                                                         const Cleared& cleared) {
  std::vector<Pool*> pools;
  PlanRequest wanted;
  Growth growth = manner.growth;
  const bool may_collect = !cleared.test(static_cast<std::size_t>(Obstacle::garbage));
  {
    const MutexLock lock(state_);
    const bool first_granule = request.pool.size_class() == SizeClass::small && request.pool.holds_nothing() &&
                               allocating_.size() <= kStreamsWithAGranule;
    if (allocating_.size() == 1 || first_granule) growth = Growth::any;
    pools = donor_pools(request, manner.reach);
    wanted = {.pool = &request.pool,
              .bytes = request.bytes,
              .donors = pools,
              .stream_wait = manner.reach == Reach::all_streams,
              .block_granules = phy_block_granules(request),
              .slack_granules = slack_granules(request),
              .headroom_granules = headroom_granules()};
  }
  // Other threads go on taking what a plan counts on. Where several were made in vain, one is made while they wait.
  for (int tries = 0; manner.look == Look::in_steps && tries < kPlansInSteps; ++tries) {
    stitch::StateSteps steps{.state = &state_};
    Attempt attempt = try_plan(wanted, growth, may_collect, steps);
    if (attempt.obstacle == Obstacle::outdated) continue;
    const MutexLock lock(state_);
    count_claim(attempt, may_collect);
    return attempt;
  }
  const MutexLock lock(state_);
  stitch::StateSteps held;
  Attempt attempt = try_plan(wanted, growth, may_collect, held);
  count_claim(attempt, may_collect);
  return attempt;
}

void DeviceAllocator::count_claim(const Attempt& attempt, bool may_collect) {
  if (attempt.obstacle != Obstacle::none && attempt.obstacle != Obstacle::garbage) return;
  if (may_collect && options_.garbage_collection_threshold != 0 && attempt.plan->created_granules != 0) note_ages();
  if (attempt.obstacle == Obstacle::none) usage_.recount_cached(cached_totals());
}

DeviceAllocator::Attempt DeviceAllocator::try_plan(const PlanRequest& wanted, Growth growth, bool may_collect,
                                                   stitch::StateSteps& steps) {
  Attempt attempt{planner_.make(wanted, steps)};
  const std::optional<Plan>& plan = attempt.plan;
  if (!plan) {
    attempt.obstacle = planner_.failure() == PlanFailure::no_window ? Obstacle::addresses : Obstacle::memory;
  } else if (growth == Growth::within_slack && plan->created_granules > wanted.slack_granules) {
    attempt.obstacle = Obstacle::memory;
  } else if (mappings_.mapping_count() + plan->fills.size() > options_.max_mappings) {
    attempt.obstacle = Obstacle::mappings;
  } else if (may_collect && past_threshold(*plan)) {
    attempt.obstacle = Obstacle::garbage;
  } else if (!stitcher_.claim(*plan, steps)) {
    attempt.obstacle = Obstacle::outdated;
  }
  return attempt;
}

// False where it stays: want of memory is for the next rung, and everything else is tried once.
bool DeviceAllocator::clear_away(const Request& request, const Attempt& attempt, Cleared& cleared) {
  const auto kind = static_cast<std::size_t>(attempt.obstacle);
  const bool again = cleared.test(kind);
  cleared.set(kind);
  switch (attempt.obstacle) {
    case Obstacle::addresses:
      if (again) return false;
      if (Status added = add_segment(request); !added.ok()) refusal_ = added.error();
      return true;  // holes may be had where no segment was
    case Obstacle::mappings:
      if (!again && make_room_for(attempt.plan->fills.size())) return true;
      refusal_ = Error{ErrorCode::too_many_mappings, Step::map, request.bytes};
      return false;
    case Obstacle::garbage:
      collect_garbage(*attempt.plan);
      return true;  // there may have been none: this once is enough
    case Obstacle::none:
    case Obstacle::memory:
    case Obstacle::outdated:  // never of a plan made while others wait
      return false;
  }
  return false;
}

DeviceAllocator::Found DeviceAllocator::carry_out(const Request& request, const Plan& plan) {
  const Status executed = stitcher_.execute(plan);
  if (!executed.ok()) note_refusal(executed.error());
  stitch::StateSteps steps{.state = &state_};
  if (executed.ok()) stitcher_.publish_donors(steps);
  memory::Fence now;
  Found found;
  {
    const MutexLock lock(state_);
    // Behind a stream-wait the window belongs to a later point of its stream than any event recorded so far stands for.
    // It shows where the block finds no room in the host's books: then all of the window is left free, with this tick.
    if (plan.stream_wait) ++request.stream.tick;
    now = {request.stream.index, request.stream.tick};
    found = publish(request, plan, executed.ok());
  }
  if (found && !plan.moves.empty()) mark_stale(now);
  return found;
}

// What the plan made goes back into the books, and the request's part of it to its caller.
DeviceAllocator::Found DeviceAllocator::publish(const Request& request, const Plan& plan, bool succeeded) {
  stitch::StateSteps held;
  if (!succeeded) stitcher_.publish_donors(held);  // free runs again: nobody takes of them before they are counted
  Block* run = stitcher_.publish(plan, request.stream.tick, succeeded);
  if (run == nullptr) {
    usage_.recount_homes(cached_totals());
    return std::nullopt;
  }
  if (history_.on()) note_moves(plan);
  counts_.stitches += 1;
  counts_.moved_bytes += plan.moved_granules << granule_shift_;
  counts_.revived_mappings += plan.revive.size();
  counts_.revived_bytes += plan.revived_granules << granule_shift_;
  counts_.grown_bytes += plan.created_granules << granule_shift_;
  try {
    const Address address =
        hand_out_slowly(request.pool, run, request.bytes, request.requested, request.pool.settled_runs());
    usage_.recount_homes(cached_totals());  // now, not before: nobody could see the window as a cached run
    return address;
  } catch (const std::bad_alloc&) {
    usage_.recount_homes(cached_totals());
    throw;
  }
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
    const driver::RelaxedCapture relaxed(driver_);
    const Result<driver::MemoryInfo> info = driver_.memory_info(device_);
    driver_headroom_ = driver_headroom_ || !info ? 0 : info->free_bytes >> granule_shift_;
  }
}

Status DeviceAllocator::add_segment(const Request& request) {
  // Where addresses run short, those under stale mappings and empty segments can be had back.
  const auto make_room = [this]() GMLAKE_REQUIRES(grow_) {
    mark_all_streams();
    mappings_.retire(fences_, 0);
    release_vacant_segments();
  };
  if (mappings_.reserved_address_bytes() >= address_budget()) make_room();
  const Status reserved = reserve_segment(request);
  if (reserved.ok()) return reserved;
  make_room();
  return reserve_segment(request);
}

std::uint64_t DeviceAllocator::address_budget() const {
  return static_cast<std::uint64_t>(static_cast<double>(total_bytes_) * options_.max_address_space);
}

Status DeviceAllocator::reserve_segment(const Request& request) {
  const std::uint64_t budget = address_budget();
  const std::uint64_t reserved = mappings_.reserved_address_bytes();
  const std::uint64_t left = budget > reserved ? budget - reserved : 0;
  // The first large segment spans the device: most jobs need no other. Later ones take a share of what is left, for
  // there may be many streams; and never less than the request, whatever the budget.
  const bool small = request.pool.size_class() == SizeClass::small;
  const std::uint64_t share = small ? left / 256 : reserved < total_bytes_ ? total_bytes_ : left / 32;
  const std::uint64_t least = round_up(request.bytes, granule()) + granule();
  const std::uint64_t wanted = std::clamp(round_down(share, granule()), least, std::max(least, kMaxSegmentBytes));
  Result<memory::VmmSegment*> segment = mappings_.reserve(static_cast<std::uint32_t>(wanted >> granule_shift_));
  if (!segment && wanted > least) segment = mappings_.reserve(static_cast<std::uint32_t>(least >> granule_shift_));
  if (!segment) return segment.error();
  if (!options_.zero_on_free && !options_.unmap_on_free) {
    begin_.store(std::min(begin_.load(std::memory_order_relaxed), (*segment)->base), std::memory_order_relaxed);
    end_.store(std::max(end_.load(std::memory_order_relaxed), (*segment)->end()), std::memory_order_relaxed);
  }
  try {
    const MutexLock lock(state_);
    address_hints_.reserve_one();
    request.pool.adopt(*segment);
    address_hints_.insert((*segment)->base, &shard_of(request.pool));
    usage_.add_segment(request.pool.size_class());
  } catch (const std::bad_alloc&) {
    (void)mappings_.address_free(*segment).ok();
    throw;
  }
  return {};
}

std::uint64_t DeviceAllocator::stale_granules_bound() const {
  const std::uint64_t held = phy_pool_.held_bytes() >> granule_shift_;
  return static_cast<std::uint64_t>(static_cast<double>(held) * options_.max_stale);
}

void DeviceAllocator::bound_stale_mappings() {
  const std::uint64_t keep = stale_granules_bound();
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
