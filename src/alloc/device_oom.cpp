// What DeviceAllocator does where the ladder ends: the report of what each rung found, and who is told.
#include <algorithm>

#include "alloc/device_allocator.hpp"
#include "alloc/oom_report.hpp"

namespace gmlake::alloc {

namespace {

std::uint64_t less(std::uint64_t a, std::uint64_t b) { return a > b ? a - b : 0; }

// What the device has that nobody uses: it rises by what a callback frees, here or elsewhere.
std::uint64_t unused(const OutOfMemoryReport& report) {
  return report.device_free_bytes + less(report.reserved_bytes, report.active_bytes);
}

}  // namespace

// Enters what tally_ says. Until the next rung, report.movable_bytes is the most that was within reach so far.
void DeviceAllocator::note_rung(Rung rung, OutOfMemoryReport& report) {
  if (tally_.outcome == RungOutcome::not_tried) return;
  const std::uint64_t seen = tally_.movable_bytes + tally_.released_bytes;
  RungReport& entry = report.rung(rung);
  entry.outcome = tally_.outcome;
  entry.found_bytes = rung == Rung::release_cached ? tally_.released_bytes : less(seen, report.movable_bytes);
  report.movable_bytes = std::max(report.movable_bytes, seen) - tally_.released_bytes;
}

// The rest of the report: the state that the request leaves. Takes no host memory.
void DeviceAllocator::complete(OutOfMemoryReport& report, const Error& error) {
  const OutOfMemoryReport before = report;
  report.error = error;
  report.device = device_;
  report.device_total_bytes = total_bytes_;
  const driver::RelaxedCapture relaxed(driver_);
  const Result<driver::MemoryInfo> info = driver_.memory_info(device_);
  report.device_free_known = info.ok();
  report.device_free_bytes = info ? info->free_bytes : 0;
  report.limit_bytes = limit_bytes();
  report.reserved_bytes = phy_pool_.held_bytes();
  report.lost_bytes = phy_pool_.lost_bytes();
  report.stale_bytes = mappings_.stale_granules() << granule_shift_;
  report.mappings = mappings_.mapping_count();
  report.movable_bytes = tally_.movable_bytes;  // as the last rung saw it
  {
    const MutexLock lock(state_);
    settle_pools();
    report.allocated_bytes = usage_.live_bytes();
    report.active_bytes = usage_.active_bytes();
    report.cached_bytes = 0;
    report.largest_free_run_bytes = 0;
    for_each_pool([&report](stitch::Pool& pool) {
      report.cached_bytes += pool.free_bytes();
      pool.for_each_free(stitch::kAlignment, [&report](const stitch::Block* run) {
        report.largest_free_run_bytes = std::max(report.largest_free_run_bytes, run->bytes);
      });
    });
  }
  if (before.callback_rounds > 0) {
    report.rung(Rung::callbacks).found_bytes += less(unused(report), unused(before));
  }
  choose_remedy(report, granule());
}

Error DeviceAllocator::give_up(const OutOfMemoryReport& report, std::optional<OutOfMemoryReport>* wanted) {
  if (report.error.code == ErrorCode::out_of_memory) {
    const std::uint64_t left = less(report.limit_bytes, report.reserved_bytes);
    const MutexLock lock(state_);
    ++counts_.num_ooms;
    if (history_.on()) {
      history_.add(History::Action::oom, report.device_free_known ? std::min(left, report.device_free_bytes) : left,
                   report.requested_bytes, report.stream);
    }
  }
  {
    const MutexLock lock(last_oom_mutex_);
    last_oom_ = report;
  }
  if (wanted != nullptr) *wanted = report;
  callbacks_.tell(report);
  return report.error;
}

// Of host memory, for the books: freeing memory of the device would not mend it, so no release callback is asked.
Error DeviceAllocator::host_ran_out(std::uint64_t stream, std::uint64_t bytes,
                                    std::optional<OutOfMemoryReport>* wanted) {
  OutOfMemoryReport report;
  report.stream = stream;
  report.requested_bytes = bytes;
  {
    const MutexLock grow(grow_);
    tally_ = {};
    complete(report, {ErrorCode::out_of_memory, Step::allocate, bytes});
  }
  report.remedy = Remedy::host_memory;
  report.remedy_bytes = 0;
  return give_up(report, wanted);
}

std::optional<OutOfMemoryReport> DeviceAllocator::last_oom() const {
  const MutexLock lock(last_oom_mutex_);
  return last_oom_;
}

}  // namespace gmlake::alloc
