// What callers hold of one device, and what is cached: counts and bytes of each size class, with their peaks.
//
// The hot path keeps as little as exact peaks allow: 3 quantities of what is live and 2 of what is cached, for the
// class and for both together. The rest follows: sums over time from what was freed, and what is active from what is
// live and what waits for other streams. Waiting begins and ends on slow paths alone, so the peak of that sum is taken
// down there, and when somebody reads.
//
// Not thread-safe: the device's `state` lock covers it.
#pragma once

#include <array>
#include <cstdint>

#include "gmlake/stats.hpp"
#include "stitch/pool.hpp"

namespace gmlake::alloc {

// A number with its peak, kept as the peak and the distance to it: a change is one addition, and a branch if upward.
class Peaked {
 public:
  std::uint64_t now() const { return peak_ - static_cast<std::uint64_t>(room_); }
  std::uint64_t peak() const { return peak_; }
  void raise(std::uint64_t amount) {
    room_ -= static_cast<std::int64_t>(amount);
    if (room_ < 0) [[unlikely]] {
      reset_peak();
    }
  }
  void lower(std::uint64_t amount) { room_ += static_cast<std::int64_t>(amount); }
  void set(std::uint64_t value) { raise(value - now()); }
  void reset_peak() {
    peak_ = now();
    room_ = 0;
  }

 private:
  std::uint64_t peak_ = 0;
  std::int64_t room_ = 0;
};

// The cached runs of all pools of one size class.
struct CachedTotals {
  std::uint64_t bytes = 0;
  std::uint64_t runs = 0;
};

class Usage {
 public:
  using SizeClass = stitch::SizeClass;
  using Totals = std::array<CachedTotals, 2>;  // by size class

  // The hot path. A block is taken out of the cached runs, or goes back to them at once; `runs_before` and `runs_now`
  // count the cached runs of its pool.
  void allocate(SizeClass size_class, std::uint64_t bytes, std::uint64_t requested, std::uint64_t runs_before,
                std::uint64_t runs_now) {
    Class& own = of(size_class);
    for (Side* side : {static_cast<Side*>(&own), &all_}) {
      side->live_blocks.raise(1);
      side->live_bytes.raise(bytes);
      side->requested_bytes.raise(requested);
      side->cached_bytes.lower(bytes);
    }
    if (runs_now != runs_before) change_runs(own, runs_before, runs_now);
  }
  void free(SizeClass size_class, std::uint64_t bytes, std::uint64_t requested, std::uint64_t runs_before,
            std::uint64_t runs_now) {
    end_life(size_class, bytes, requested);
    cache(size_class, bytes, runs_before, runs_now);
  }

  // A live block is freed, and waits for other streams; and then goes back to the cached runs.
  void defer(SizeClass size_class, std::uint64_t bytes, std::uint64_t requested);
  void complete(SizeClass size_class, std::uint64_t bytes, std::uint64_t runs_before, std::uint64_t runs_now);
  // The slow path took cached runs out of the books; and put back what became of them.
  void recount_cached(const Totals& totals);
  void recount_homes(const Totals& totals);
  void add_segment(SizeClass size_class);
  void remove_segment(SizeClass size_class);

  std::uint64_t live_bytes() const { return all_.live_bytes.now(); }
  std::uint64_t active_bytes() const { return all_.live_bytes.now() + pending_bytes(); }
  std::uint64_t peak_active_bytes() const;
  std::uint64_t freed_bytes() const { return classes_[0].freed_bytes + classes_[1].freed_bytes; }

  // Fills in the three PoolStats, reserved_bytes of `all` excepted: PhyPool has that.
  void read(DeviceStats& stats) const;
  void reset_peaks();

 private:
  // Of one class, or of both together.
  struct Side {
    Peaked live_blocks;  // these two have their peaks since the last fold(),
    Peaked live_bytes;
    std::uint64_t peak_blocks = 0;  // and those before it here
    std::uint64_t peak_bytes = 0;
    std::uint64_t peak_active = 0;
    std::uint64_t peak_active_bytes = 0;
    Peaked requested_bytes;
    Peaked cached_bytes;
    Peaked cached_runs;
    Stat segments;
  };
  // Sums over time. Those of both classes follow.
  struct Class : Side {
    std::uint64_t pending_blocks = 0;  // freed, and in use on other streams
    std::uint64_t pending_bytes = 0;
    std::uint64_t freed_blocks = 0;
    std::uint64_t freed_bytes = 0;
    std::uint64_t freed_requested = 0;
    std::uint64_t bytes_out = 0;  // of cached runs, other than to become live
    std::uint64_t runs_out = 0;
    Stat homed;  // bytes in use at addresses of this class
  };

  Class& of(SizeClass size_class) { return classes_[static_cast<std::size_t>(size_class)]; }
  std::uint64_t pending_bytes() const { return classes_[0].pending_bytes + classes_[1].pending_bytes; }

  void end_life(SizeClass size_class, std::uint64_t bytes, std::uint64_t requested) {
    Class& own = of(size_class);
    for (Side* side : {static_cast<Side*>(&own), &all_}) {
      side->live_blocks.lower(1);
      side->live_bytes.lower(bytes);
      side->requested_bytes.lower(requested);
    }
    own.freed_blocks += 1;
    own.freed_bytes += bytes;
    own.freed_requested += requested;
  }
  void cache(SizeClass size_class, std::uint64_t bytes, std::uint64_t runs_before, std::uint64_t runs_now) {
    Class& own = of(size_class);
    for (Side* side : {static_cast<Side*>(&own), &all_}) side->cached_bytes.raise(bytes);
    if (runs_now != runs_before) change_runs(own, runs_before, runs_now);
  }
  // Most blocks are cut off a run and join one again, which leaves the number of runs as it was.
  void change_runs(Class& own, std::uint64_t before, std::uint64_t now) {
    own.cached_runs.raise(now - before);  // one less in some cases: wraps, as it should
    all_.cached_runs.raise(now - before);
    if (now < before) own.runs_out += before - now;
  }
  void fold();
  static void fold(Side& side, std::uint64_t pending_blocks, std::uint64_t pending_bytes);
  static void read(PoolStats& out, const Side& side, const Class& sums);

  std::array<Class, 2> classes_;
  Side all_;
};

}  // namespace gmlake::alloc
