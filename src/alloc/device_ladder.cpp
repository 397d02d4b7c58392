// The slow path of DeviceAllocator: the ladder that a request climbs when no cached run fits, from stitching memory of
// its own stream to waiting for others. Each rung tries, and leaves the books as they were when it fails.
#include <algorithm>

#include "alloc/device_allocator.hpp"
#include "alloc/hot_path.hpp"
#include "gmlake/bytes.hpp"

namespace gmlake::alloc {

using stitch::Block;

namespace {

// What more memory, or a callback that frees some, may mend.
bool is_shortage(ErrorCode code) {
  return code == ErrorCode::out_of_memory || code == ErrorCode::too_many_mappings || code == ErrorCode::address_space;
}

}  // namespace

// The whole ladder; then, with no lock held, the callbacks, and the ladder again for as long as they free something.
Result<Address> DeviceAllocator::allocate_slowly(std::optional<PoolId> id, std::uint64_t stream, std::uint64_t bytes,
                                                 std::uint64_t requested, std::optional<OutOfMemoryReport>* wanted) {
  OutOfMemoryReport report;
  for (;;) {
    const Result<Address> found = climb(id, stream, bytes, requested, report);
    if (found || !is_shortage(found.error().code)) return found;
    if (report.callback_rounds == kMaxCallbackRounds) break;
    const OomCallbacks::Answer answer = callbacks_.ask(report);
    if (answer == OomCallbacks::Answer::nobody) break;
    ++report.callback_rounds;
    report.rung(Rung::callbacks).outcome = RungOutcome::too_little;
    if (answer == OomCallbacks::Answer::no) break;
  }
  // Not for a private pool: what lies there stays at its addresses, and a graph knows no other memory.
  if (overflow_ && !id && report.error.code == ErrorCode::out_of_memory) {
    const Result<Address> placed = overflow_(stream, requested);
    if (placed) {
      count(&DeviceStats::spills);
      return placed;
    }
  }
  return give_up(report, wanted);
}

Result<Address> DeviceAllocator::climb(std::optional<PoolId> id, std::uint64_t stream, std::uint64_t bytes,
                                       std::uint64_t requested, OutOfMemoryReport& report) {
  struct Step {
    Rung rung;
    Found (DeviceAllocator::*climb)(const Request&);
    std::uint64_t DeviceStats::*counter;
  };
  static constexpr Step kLadder[] = {
      {Rung::own_stream, &DeviceAllocator::try_own_stream, &DeviceStats::rung_own_stream},
      {Rung::passed_streams, &DeviceAllocator::try_passed_streams, &DeviceStats::rung_passed_streams},
      {Rung::stream_wait, &DeviceAllocator::try_stream_wait, &DeviceStats::rung_stream_wait},
      {Rung::release_cached, &DeviceAllocator::try_release_cached, &DeviceStats::rung_release_cached},
      {Rung::wait, &DeviceAllocator::try_wait, &DeviceStats::rung_wait},
  };
  const SlowRequest slow(*this);
  try {
    forget_ended_threads(Caller::request);
  } catch (const std::bad_alloc&) {  // of the host: the next time
  }
  const MutexLock grow(grow_);
  driver_headroom_.reset();
  refusal_.reset();
  report.requested_bytes = requested;
  report.movable_bytes = 0;

  reclaim_deferred();
  Request request = [&]() GMLAKE_REQUIRES(grow_) {
    const MutexLock lock(state_);
    return make_request(id, stream, bytes, requested);
  }();
  report.stream = request.stream.stream.handle;
  clear_freed(SIZE_MAX);
  Found found = fit(request);
  std::uint64_t DeviceStats::*counter = nullptr;
  // Before anything moves or is created: but small requests come by the thousand, and should hit a cache of their own.
  if (!found && request.pool.size_class() == stitch::SizeClass::large) {
    found = borrow(request, Reach::passed_streams);
    if (found) counter = &DeviceStats::rung_passed_streams;
  }
  if (!found) request.waits = waits_rather_than_grow(request);  // before a rung records an event on it
  for (const Step& step : kLadder) {
    if (found) break;
    tally_ = {};
    found = (this->*step.climb)(request);
    counter = step.counter;
    if (!found) note_rung(step.rung, report);
  }
  if (!found) {
    const Error error = final_error(request);
    complete(report, error);
    return error;
  }
  if (report.callback_rounds > 0) counter = &DeviceStats::rung_callbacks;
  if (counter != nullptr) count(counter);
  return *found;
}

// What stood in the way: the limit, or the driver, whose last refusal then says at which step.
Error DeviceAllocator::final_error(const Request& request) {
  if (driver_.lost()) return {ErrorCode::device_lost, driver_.lost_at(), request.requested};
  release_spare();  // created on the way up: others may need what this request could not use
  if (refusal_ && refusal_->code != ErrorCode::out_of_memory) return *refusal_;
  return {ErrorCode::out_of_memory, refusal_ ? refusal_->step : Step::allocate, request.requested};
}

DeviceAllocator::Found DeviceAllocator::try_own_stream(const Request& request) {
  return stitch(request, {.reach = Reach::own_stream, .growth = Growth::within_slack});
}

DeviceAllocator::Found DeviceAllocator::try_passed_streams(const Request& request) {
  const Growth growth = request.waits ? Growth::within_slack : Growth::any;
  mark_all_streams();
  take_in(request);
  if (const Found found = fit(request)) return found;
  if (const Found found = stitch(request, {.reach = Reach::passed_streams, .growth = growth})) return found;
  // Small requests come by the thousand: each of them would borrow anew, where a granule that moves serves many.
  if (request.waits && request.pool.size_class() == stitch::SizeClass::small) return std::nullopt;
  return borrow(request, Reach::passed_streams);
}

// A graph takes no order from outside, and may be launched on streams that no wait is placed on.
bool DeviceAllocator::may_wait(const Request& request) const {
  return options_.stream_wait != StreamWait::never && !request.pool.pinned();
}

// A stream that has work before it comes to this request later anyway, and as a rule about as late as others come to
// what they have freed: the streams of a job fall behind together. An idle one could start at once.
bool DeviceAllocator::waits_rather_than_grow(const Request& request) {
  if (options_.stream_wait != StreamWait::before_growth || !may_wait(request)) return false;
  {
    const MutexLock lock(state_);
    if (allocating_.size() == 1) return false;
  }
  return fences_.behind(request.stream.index);
}

// Where a stream waits rather than grow, it grows all the same by what the waits do not bring. What others are still at
// work on comes back behind a wait only where there is nothing left to create: a copy, say, may take its time.
DeviceAllocator::Found DeviceAllocator::try_stream_wait(const Request& request) {
  if (!may_wait(request) || fences_.captured(request.stream.index)) return std::nullopt;
  if (recall(request, Recall::loans)) {
    if (const Found found = fit(request)) return found;
  }
  if (const Found found = stitch(request, {.reach = Reach::all_streams})) return found;
  if (const Found found = borrow(request, Reach::all_streams)) return found;
  if (request.waits) {
    if (const Found found = stitch(request, {.reach = Reach::passed_streams})) return found;
  }
  if (!recall(request, Recall::all)) return std::nullopt;
  if (const Found found = fit(request)) return found;
  if (const Found found = stitch(request, {.reach = Reach::all_streams})) return found;
  return borrow(request, Reach::all_streams);
}

// Blocks that are cached in sizes that do not fit go back to the driver, and are made anew in sizes that do.
DeviceAllocator::Found DeviceAllocator::try_release_cached(const Request& request) {
  count(&DeviceStats::num_alloc_retries);
  tally_.released_bytes = release_cached(round_up(request.bytes, granule()) >> granule_shift_);
  driver_headroom_.reset();
  return stitch(request, {.reach = Reach::passed_streams});
}

DeviceAllocator::Found DeviceAllocator::try_wait(const Request& request) {
  wait_for_all_streams();
  take_in(request);
  if (const Found found = fit(request)) return found;
  if (const Found found = borrow(request, Reach::passed_streams)) return found;
  if (const Found found = try_release_cached(request)) return found;
  // Looked at in steps, free memory that other threads keep moving about may escape a plan. This one sees all of it.
  return stitch(request, {.reach = Reach::passed_streams, .look = Look::at_once});
}

// What streams have come to since the request began: deferred blocks, released pools and forgotten streams.
void DeviceAllocator::take_in(const Request& request) {
  reclaim_deferred();
  {
    const MutexLock lock(state_);
    settle_estates(&request.stream);
  }
  clear_freed(SIZE_MAX);
}

DeviceAllocator::Found DeviceAllocator::fit(const Request& request) {
  const MutexLock lock(state_);
  const std::size_t runs_before = request.pool.settled_runs();
  Block* run = request.pool.find(request.bytes);
  if (run == nullptr) return std::nullopt;
  return hand_out_slowly(request.pool, run, request.bytes, request.requested, runs_before);
}

void DeviceAllocator::mark_all_streams() {
  for (const memory::Fence& fence : stream_ticks()) {
    Status marked = fences_.mark(fence.stream, fence.tick);
    if (!marked.ok() && marked.error().code != ErrorCode::captured) refusal_ = marked.error();
  }
  if (Status polled = fences_.poll(); !polled.ok()) refusal_ = polled.error();
}

// And for what is to be cleared then. Not while a stream is captured: to wait on the host would break the capture.
void DeviceAllocator::wait_for_all_streams() {
  if (fences_.capture_under_way()) return mark_all_streams();
  count(&DeviceStats::num_sync_all_streams);
  const auto wait = [this]() GMLAKE_REQUIRES(grow_) {
    for (const memory::Fence& fence : stream_ticks()) {
      if (Status waited = fences_.wait(fence); !waited.ok()) refusal_ = waited.error();
    }
  };
  wait();
  if (!options_.zero_on_free) return;
  reclaim_deferred();
  if (clear_freed(SIZE_MAX)) wait();
}

}  // namespace gmlake::alloc
