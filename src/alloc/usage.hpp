// What callers hold of one device, and what is cached: counts and bytes of each size class, with their peaks.
//
// Peaks are exact, and yet a hit touches what belongs to one shard of the books alone (alloc/shard.hpp). For that every
// quantity has a ceiling, the number up to which no peak has to be written down, and what is left below it is dealt out
// to the shards as room. A hit takes from the room of its shard, or adds to it. As long as no room is negative the sum
// over all shards is below the ceiling, whatever the others do. A shard that is short borrows from another, and where
// none has any, settle() raises the ceiling, and with it the peak, to what the sum is then. Whoever makes a shard short
// sees to that before it returns: until then its change may count as not made yet, so that no peak is missed by it.
//
// A hit changes 3 quantities of what is live and 2 of what is cached, for the class and for both together. The rest
// follows: sums over time from what was freed, and what is active from what is live and what waits for other streams.
// The ceiling of what is live is the lower one of two, since what is active has a peak of its own.
//
// Not thread-safe: a shard's lock covers its Share, and all of the device's `state` the rest.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "base/sharded_mutex.hpp"
#include "gmlake/stats.hpp"
#include "stitch/pool.hpp"

namespace gmlake::alloc {

// The cached runs of all pools of one size class.
struct CachedTotals {
  std::uint64_t bytes = 0;
  std::uint64_t runs = 0;
};

class Usage {
 public:
  using SizeClass = stitch::SizeClass;
  using Totals = std::array<CachedTotals, 2>;  // by size class

 private:
  enum Quantity : std::uint8_t { kLiveBlocks, kLiveBytes, kRequestedBytes, kCachedBytes, kCachedRuns };
  static constexpr std::size_t kQuantities = 5;
  // The size classes by their numbers, and both together.
  static constexpr std::size_t kBoth = 2;
  static constexpr std::size_t kSides = 3;

 public:
  // What one shard has of it all.
  class Share {
   public:
    // The hot path. A block is taken out of the cached runs, or goes back to them at once; `runs_before` and `runs_now`
    // count the cached runs of its pool.
    [[gnu::always_inline]] void allocate(SizeClass size_class, std::uint64_t bytes, std::uint64_t requested,
                                         std::uint64_t runs_before, std::uint64_t runs_now) {
      const auto number = static_cast<std::size_t>(size_class);
      for (Rooms* rooms : {&rooms_[number], &rooms_[kBoth]}) {
        raise((*rooms)[kLiveBlocks], 1);
        raise((*rooms)[kLiveBytes], bytes);
        raise((*rooms)[kRequestedBytes], requested);
        lower((*rooms)[kCachedBytes], bytes);
      }
      if (runs_now != runs_before) change_runs(number, runs_before, runs_now);
    }
    [[gnu::always_inline]] void free(SizeClass size_class, std::uint64_t bytes, std::uint64_t requested,
                                     std::uint64_t runs_before, std::uint64_t runs_now) {
      end_life(size_class, bytes, requested);
      cache(size_class, bytes, runs_before, runs_now);
    }

    // Some room is negative.
    bool is_short() const { return short_; }
    // Takes of the other's room what it lacks, and half of what that leaves. True: it is short of nothing any more.
    bool borrow(Share& other);

   private:
    friend class Usage;
    using Rooms = std::array<std::int64_t, kQuantities>;
    struct Freed {
      std::uint64_t blocks = 0;
      std::uint64_t bytes = 0;
      std::uint64_t requested = 0;
      std::uint64_t runs_out = 0;  // of cached runs
    };

    void raise(std::int64_t& room, std::uint64_t amount) {
      room -= static_cast<std::int64_t>(amount);
      if (room < 0) [[unlikely]] {
        short_ = true;
      }
    }
    static void lower(std::int64_t& room, std::uint64_t amount) { room += static_cast<std::int64_t>(amount); }
    void begin_life(SizeClass size_class, std::uint64_t bytes, std::uint64_t requested) {
      for (Rooms* rooms : {&rooms_[static_cast<std::size_t>(size_class)], &rooms_[kBoth]}) {
        raise((*rooms)[kLiveBlocks], 1);
        raise((*rooms)[kLiveBytes], bytes);
        raise((*rooms)[kRequestedBytes], requested);
      }
    }
    void end_life(SizeClass size_class, std::uint64_t bytes, std::uint64_t requested) {
      const auto number = static_cast<std::size_t>(size_class);
      for (Rooms* rooms : {&rooms_[number], &rooms_[kBoth]}) {
        lower((*rooms)[kLiveBlocks], 1);
        lower((*rooms)[kLiveBytes], bytes);
        lower((*rooms)[kRequestedBytes], requested);
      }
      freed_[number].blocks += 1;
      freed_[number].bytes += bytes;
      freed_[number].requested += requested;
    }
    void withdraw(SizeClass size_class, std::uint64_t bytes, std::uint64_t runs_before, std::uint64_t runs_now) {
      const auto number = static_cast<std::size_t>(size_class);
      for (Rooms* rooms : {&rooms_[number], &rooms_[kBoth]}) lower((*rooms)[kCachedBytes], bytes);
      if (runs_now != runs_before) change_runs(number, runs_before, runs_now);
      freed_[number].blocks += 1;
      freed_[number].bytes += bytes;
    }
    void cache(SizeClass size_class, std::uint64_t bytes, std::uint64_t runs_before, std::uint64_t runs_now) {
      const auto number = static_cast<std::size_t>(size_class);
      for (Rooms* rooms : {&rooms_[number], &rooms_[kBoth]}) raise((*rooms)[kCachedBytes], bytes);
      if (runs_now != runs_before) change_runs(number, runs_before, runs_now);
    }
    // Most blocks are cut off a run and join one again, which leaves the number of runs as it was.
    void change_runs(std::size_t number, std::uint64_t before, std::uint64_t now) {
      raise(rooms_[number][kCachedRuns], now - before);  // one less in some cases: wraps, as it should
      raise(rooms_[kBoth][kCachedRuns], now - before);
      if (now < before) freed_[number].runs_out += before - now;
    }

    std::array<Rooms, kSides> rooms_{};
    std::array<Freed, 2> freed_;
    bool short_ = false;
  };

  // One more share, which lives as long as this. There is one before anything else is done.
  void attach(Share& share) { shares_[count_++] = &share; }

  // Raises the ceilings that the shares together have passed, and deals out anew what some share is short of.
  void settle();

  // A live block is freed, and waits for other streams; and then goes back to the cached runs.
  void defer(SizeClass size_class, std::uint64_t bytes, std::uint64_t requested);
  void complete(SizeClass size_class, std::uint64_t bytes, std::uint64_t runs_before, std::uint64_t runs_now);
  // Or it is live again at once.
  void resume(SizeClass size_class, std::uint64_t bytes, std::uint64_t requested);
  // A cached run waits as one that was live and freed would.
  void withdraw(SizeClass size_class, std::uint64_t bytes, std::uint64_t runs_before, std::uint64_t runs_now);
  // The slow path took cached runs out of the books; and put back what became of them.
  void recount_cached(const Totals& totals);
  void recount_homes(const Totals& totals);
  void add_segment(SizeClass size_class);
  void remove_segment(SizeClass size_class);

  std::uint64_t live_bytes() const { return now(kBoth, kLiveBytes); }
  std::uint64_t active_bytes() const { return live_bytes() + pending_[kBoth][1]; }
  std::uint64_t peak_live_bytes() const { return std::max(peaks_[kBoth][kLiveBytes], live_bytes()); }
  std::uint64_t freed_bytes() const;

  // Fills in the three PoolStats, reserved_bytes of `all` excepted: PhyPool has that.
  void read(DeviceStats& stats) const;
  void reset_peaks();

  void check() const;

 private:
  using Numbers = std::array<std::array<std::uint64_t, kQuantities>, kSides>;
  using Waiting = std::array<std::array<std::uint64_t, 2>, kSides>;  // blocks and bytes, as the first two quantities
  static constexpr std::size_t kWaiting = 2;

  std::uint64_t now(std::size_t side, std::size_t quantity) const;
  std::uint64_t ceiling_for(std::size_t side, std::size_t quantity) const;
  void reach(std::size_t side, std::size_t quantity, std::uint64_t value);
  void set(std::size_t side, std::size_t quantity, std::uint64_t value);
  void change_pending(SizeClass size_class, std::uint64_t blocks, std::uint64_t bytes);
  // What was freed in all, and of that what nobody had.
  void read(PoolStats& out, std::size_t side, const Share::Freed& freed, const Share::Freed& withdrawn,
            std::uint64_t bytes_out, std::uint64_t runs_out) const;

  std::array<Share*, ShardedMutex::kMost> shares_{};
  std::size_t count_ = 0;
  Numbers ceilings_{};
  Numbers peaks_{};
  Waiting peak_active_{};
  Waiting pending_{};                             // freed, and in use on other streams
  std::array<Share::Freed, kSides> withdrawn_{};  // in what the shares say was freed: withdraw()
  std::array<std::uint64_t, 2> bytes_out_{};      // of cached runs, other than to become live
  std::array<std::uint64_t, 2> runs_out_{};
  std::array<Stat, kSides> segments_;
  std::array<Stat, 2> homed_;  // bytes in use at addresses of each class
};

}  // namespace gmlake::alloc
