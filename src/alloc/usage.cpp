#include "alloc/usage.hpp"

#include <algorithm>

namespace gmlake::alloc {
namespace {

void set(Stat& stat, std::uint64_t value) {
  if (value >= stat.current) {
    stat.add(value - stat.current);
  } else {
    stat.remove(stat.current - value);
  }
}

}  // namespace

void Usage::fold(Side& side, std::uint64_t pending_blocks, std::uint64_t pending_bytes) {
  side.peak_blocks = std::max(side.peak_blocks, side.live_blocks.peak());
  side.peak_bytes = std::max(side.peak_bytes, side.live_bytes.peak());
  side.peak_active = std::max(side.peak_active, side.live_blocks.peak() + pending_blocks);
  side.peak_active_bytes = std::max(side.peak_active_bytes, side.live_bytes.peak() + pending_bytes);
  side.live_blocks.reset_peak();
  side.live_bytes.reset_peak();
}

// Before and after a change of what waits for other streams: the peaks seen so far had what waited before.
void Usage::fold() {
  for (Class& own : classes_) fold(own, own.pending_blocks, own.pending_bytes);
  fold(all_, classes_[0].pending_blocks + classes_[1].pending_blocks, pending_bytes());
}

void Usage::defer(SizeClass size_class, std::uint64_t bytes, std::uint64_t requested) {
  Class& own = of(size_class);
  fold();
  end_life(size_class, bytes, requested);
  for (Side* side : {static_cast<Side*>(&own), &all_}) {  // what was live until now did not wait as well
    side->live_blocks.reset_peak();
    side->live_bytes.reset_peak();
  }
  own.pending_blocks += 1;
  own.pending_bytes += bytes;
}

void Usage::complete(SizeClass size_class, std::uint64_t bytes, std::uint64_t runs_before, std::uint64_t runs_now) {
  fold();
  of(size_class).pending_blocks -= 1;
  of(size_class).pending_bytes -= bytes;
  cache(size_class, bytes, runs_before, runs_now);
}

void Usage::recount_cached(const Totals& totals) {
  for (std::size_t i = 0; i < classes_.size(); ++i) {
    Class& own = classes_[i];
    // Signed: of new memory that became live in the same step, the one is counted before the other.
    const auto bytes_out = static_cast<std::int64_t>(own.cached_bytes.now() - totals[i].bytes);
    const auto runs_out = static_cast<std::int64_t>(own.cached_runs.now() - totals[i].runs);
    if (bytes_out > 0) own.bytes_out += static_cast<std::uint64_t>(bytes_out);
    if (runs_out > 0) own.runs_out += static_cast<std::uint64_t>(runs_out);
    own.cached_bytes.set(totals[i].bytes);
    own.cached_runs.set(totals[i].runs);
  }
  all_.cached_bytes.set(totals[0].bytes + totals[1].bytes);
  all_.cached_runs.set(totals[0].runs + totals[1].runs);
}

void Usage::recount_homes(const Totals& totals) {
  recount_cached(totals);
  for (std::size_t i = 0; i < classes_.size(); ++i) {
    set(classes_[i].homed, totals[i].bytes + classes_[i].live_bytes.now() + classes_[i].pending_bytes);
  }
}

void Usage::add_segment(SizeClass size_class) {
  of(size_class).segments.add(1);
  all_.segments.add(1);
}

void Usage::remove_segment(SizeClass size_class) {
  of(size_class).segments.remove(1);
  all_.segments.remove(1);
}

std::uint64_t Usage::peak_active_bytes() const {
  return std::max(all_.peak_active_bytes, all_.live_bytes.peak() + pending_bytes());
}

void Usage::read(PoolStats& out, const Side& side, const Class& sums) {
  const auto stat = [](std::uint64_t current, std::uint64_t peak, std::uint64_t freed) {
    return Stat{current, peak, current + freed, freed};
  };
  const std::uint64_t blocks = side.live_blocks.now();
  const std::uint64_t bytes = side.live_bytes.now();
  out.allocation = stat(blocks, side.peak_blocks, sums.freed_blocks);
  out.allocated_bytes = stat(bytes, side.peak_bytes, sums.freed_bytes);
  out.requested_bytes = stat(side.requested_bytes.now(), side.requested_bytes.peak(), sums.freed_requested);
  out.active = stat(blocks + sums.pending_blocks, side.peak_active, sums.freed_blocks - sums.pending_blocks);
  out.active_bytes = stat(bytes + sums.pending_bytes, side.peak_active_bytes, sums.freed_bytes - sums.pending_bytes);
  // Whatever was ever live had been cached just before.
  out.inactive_split_bytes =
      stat(side.cached_bytes.now(), side.cached_bytes.peak(), bytes + sums.freed_bytes + sums.bytes_out);
  out.inactive_split = stat(side.cached_runs.now(), side.cached_runs.peak(), sums.runs_out);
  out.reserved_bytes = sums.homed;
  out.segment = side.segments;
}

void Usage::read(DeviceStats& stats) const {
  Usage now = *this;
  now.fold();
  const Class& small = now.classes_[0];
  const Class& large = now.classes_[1];
  read(stats.small_pool, small, small);
  read(stats.large_pool, large, large);
  Class both;
  for (std::uint64_t Class::*sum :
       {&Class::pending_blocks, &Class::pending_bytes, &Class::freed_blocks, &Class::freed_bytes,
        &Class::freed_requested, &Class::bytes_out, &Class::runs_out}) {
    both.*sum = small.*sum + large.*sum;
  }
  read(stats.all, now.all_, both);
}

void Usage::reset_peaks() {
  fold();
  const auto reset = [](Side& side, std::uint64_t pending_blocks, std::uint64_t pending_bytes) {
    side.peak_blocks = side.live_blocks.now();
    side.peak_bytes = side.live_bytes.now();
    side.peak_active = side.peak_blocks + pending_blocks;
    side.peak_active_bytes = side.peak_bytes + pending_bytes;
    for (Peaked* peaked : {&side.requested_bytes, &side.cached_bytes, &side.cached_runs}) peaked->reset_peak();
    side.segments.peak = side.segments.current;
  };
  for (Class& own : classes_) {
    reset(own, own.pending_blocks, own.pending_bytes);
    own.homed.peak = own.homed.current;
  }
  reset(all_, classes_[0].pending_blocks + classes_[1].pending_blocks, pending_bytes());
}

}  // namespace gmlake::alloc
