#include "alloc/usage.hpp"

#include <algorithm>

#include "base/check.hpp"

namespace gmlake::alloc {
namespace {

void set_to(Stat& stat, std::uint64_t value) {
  if (value >= stat.current) {
    stat.add(value - stat.current);
  } else {
    stat.remove(stat.current - value);
  }
}

}  // namespace

bool Usage::Share::borrow(Share& other) {
  short_ = false;
  for (std::size_t side = 0; side < kSides; ++side) {
    for (std::size_t quantity = 0; quantity < kQuantities; ++quantity) {
      std::int64_t& own = rooms_[side][quantity];
      std::int64_t& lender = other.rooms_[side][quantity];
      if (own >= 0) continue;
      if (lender > 0) {
        const std::int64_t lent = -own <= lender ? -own + (lender + own) / 2 : lender;
        own += lent;
        lender -= lent;
      }
      if (own < 0) short_ = true;
    }
  }
  return !short_;
}

// What there is now, whatever is in the way of saying so in the ceilings: some room may be negative.
std::uint64_t Usage::now(std::size_t side, std::size_t quantity) const {
  std::uint64_t value = ceilings_[side][quantity];
  for (std::size_t i = 0; i < count_; ++i) value -= static_cast<std::uint64_t>(shares_[i]->rooms_[side][quantity]);
  return value;
}

// Up to where neither peak moves.
std::uint64_t Usage::ceiling_for(std::size_t side, std::size_t quantity) const {
  const std::uint64_t peak = peaks_[side][quantity];
  return quantity < kWaiting ? std::min(peak, peak_active_[side][quantity] - pending_[side][quantity]) : peak;
}

void Usage::reach(std::size_t side, std::size_t quantity, std::uint64_t value) {
  std::uint64_t& peak = peaks_[side][quantity];
  peak = std::max(peak, value);
  if (quantity < kWaiting) {
    std::uint64_t& active = peak_active_[side][quantity];
    active = std::max(active, value + pending_[side][quantity]);
  }
  ceilings_[side][quantity] = ceiling_for(side, quantity);
}

void Usage::settle() {
  const auto is_short = [](const Share* share) { return share->short_; };
  if (std::none_of(shares_.begin(), shares_.begin() + count_, is_short)) return;
  for (std::size_t side = 0; side < kSides; ++side) {
    for (std::size_t quantity = 0; quantity < kQuantities; ++quantity) {
      std::int64_t left = 0;
      bool some_short = false;
      for (std::size_t i = 0; i < count_; ++i) {
        const std::int64_t room = shares_[i]->rooms_[side][quantity];
        left += room;
        some_short = some_short || room < 0;
      }
      if (!some_short) continue;
      if (left < 0) {
        reach(side, quantity, ceilings_[side][quantity] + static_cast<std::uint64_t>(-left));
        left = 0;
      }
      // In equal parts; the first has what cannot be divided.
      const std::int64_t part = left / static_cast<std::int64_t>(count_);
      for (std::size_t i = 0; i < count_; ++i) shares_[i]->rooms_[side][quantity] = part;
      shares_[0]->rooms_[side][quantity] += left - part * static_cast<std::int64_t>(count_);
    }
  }
  for (std::size_t i = 0; i < count_; ++i) shares_[i]->short_ = false;
}

void Usage::set(std::size_t side, std::size_t quantity, std::uint64_t value) {
  const std::uint64_t more = value - now(side, quantity);
  if (more != 0) shares_[0]->raise(shares_[0]->rooms_[side][quantity], more);
}

// What is live stays, and the peaks that were; but how far it may go until one moves has changed.
void Usage::change_pending(SizeClass size_class, std::uint64_t blocks, std::uint64_t bytes) {
  for (const std::size_t side : {static_cast<std::size_t>(size_class), kBoth}) {
    pending_[side][0] += blocks;
    pending_[side][1] += bytes;
    for (std::size_t quantity = 0; quantity < kWaiting; ++quantity) {
      const std::uint64_t ceiling = ceiling_for(side, quantity);
      shares_[0]->raise(shares_[0]->rooms_[side][quantity], ceilings_[side][quantity] - ceiling);
      ceilings_[side][quantity] = ceiling;
    }
  }
}

void Usage::defer(SizeClass size_class, std::uint64_t bytes, std::uint64_t requested) {
  settle();  // the peaks that were reached before, with what was live then
  shares_[0]->end_life(size_class, bytes, requested);
  change_pending(size_class, 1, bytes);
  settle();
}

void Usage::complete(SizeClass size_class, std::uint64_t bytes, std::uint64_t runs_before, std::uint64_t runs_now) {
  settle();
  change_pending(size_class, std::uint64_t{0} - 1, std::uint64_t{0} - bytes);
  shares_[0]->cache(size_class, bytes, runs_before, runs_now);
  settle();
}

void Usage::resume(SizeClass size_class, std::uint64_t bytes, std::uint64_t requested) {
  settle();
  change_pending(size_class, std::uint64_t{0} - 1, std::uint64_t{0} - bytes);
  shares_[0]->begin_life(size_class, bytes, requested);
  settle();
}

void Usage::withdraw(SizeClass size_class, std::uint64_t bytes, std::uint64_t runs_before, std::uint64_t runs_now) {
  settle();
  shares_[0]->withdraw(size_class, bytes, runs_before, runs_now);
  for (const std::size_t side : {static_cast<std::size_t>(size_class), kBoth}) {
    withdrawn_[side].blocks += 1;
    withdrawn_[side].bytes += bytes;
  }
  change_pending(size_class, 1, bytes);
  settle();
}

void Usage::recount_cached(const Totals& totals) {
  for (std::size_t i = 0; i < totals.size(); ++i) {
    // Signed: of new memory that became live in the same step, the one is counted before the other.
    const auto bytes_out = static_cast<std::int64_t>(now(i, kCachedBytes) - totals[i].bytes);
    const auto runs_out = static_cast<std::int64_t>(now(i, kCachedRuns) - totals[i].runs);
    if (bytes_out > 0) bytes_out_[i] += static_cast<std::uint64_t>(bytes_out);
    if (runs_out > 0) runs_out_[i] += static_cast<std::uint64_t>(runs_out);
    set(i, kCachedBytes, totals[i].bytes);
    set(i, kCachedRuns, totals[i].runs);
  }
  set(kBoth, kCachedBytes, totals[0].bytes + totals[1].bytes);
  set(kBoth, kCachedRuns, totals[0].runs + totals[1].runs);
  settle();
}

void Usage::recount_homes(const Totals& totals) {
  recount_cached(totals);
  for (std::size_t i = 0; i < totals.size(); ++i) {
    set_to(homed_[i], totals[i].bytes + now(i, kLiveBytes) + pending_[i][1]);
  }
}

void Usage::add_segment(SizeClass size_class) {
  for (const std::size_t side : {static_cast<std::size_t>(size_class), kBoth}) segments_[side].add(1);
}

void Usage::remove_segment(SizeClass size_class) {
  for (const std::size_t side : {static_cast<std::size_t>(size_class), kBoth}) segments_[side].remove(1);
}

std::uint64_t Usage::freed_bytes() const {
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < count_; ++i) bytes += shares_[i]->freed_[0].bytes + shares_[i]->freed_[1].bytes;
  return bytes;
}

void Usage::read(PoolStats& out, std::size_t side, const Share::Freed& freed, const Share::Freed& withdrawn,
                 std::uint64_t bytes_out, std::uint64_t runs_out) const {
  const auto stat = [](std::uint64_t current, std::uint64_t peak, std::uint64_t gone) {
    return Stat{current, std::max(peak, current), current + gone, gone};
  };
  const auto& peaks = peaks_[side];
  const std::uint64_t blocks = now(side, kLiveBlocks);
  const std::uint64_t bytes = now(side, kLiveBytes);
  const auto [pending_blocks, pending_bytes] = pending_[side];
  const auto [active_blocks, active_bytes] = peak_active_[side];
  out.allocation = stat(blocks, peaks[kLiveBlocks], freed.blocks - withdrawn.blocks);
  out.allocated_bytes = stat(bytes, peaks[kLiveBytes], freed.bytes - withdrawn.bytes);
  out.requested_bytes = stat(now(side, kRequestedBytes), peaks[kRequestedBytes], freed.requested);
  out.active = stat(blocks + pending_blocks, active_blocks, freed.blocks - pending_blocks);
  out.active_bytes = stat(bytes + pending_bytes, active_bytes, freed.bytes - pending_bytes);
  // Whatever was ever live had been cached just before.
  out.inactive_split_bytes = stat(now(side, kCachedBytes), peaks[kCachedBytes], bytes + freed.bytes + bytes_out);
  out.inactive_split = stat(now(side, kCachedRuns), peaks[kCachedRuns], runs_out);
  out.segment = segments_[side];
}

void Usage::read(DeviceStats& stats) const {
  std::array<Share::Freed, kSides> freed{};
  for (std::size_t i = 0; i < count_; ++i) {
    for (std::size_t number = 0; number < 2; ++number) {
      for (Share::Freed* sum : {&freed[number], &freed[kBoth]}) {
        const Share::Freed& share = shares_[i]->freed_[number];
        sum->blocks += share.blocks;
        sum->bytes += share.bytes;
        sum->requested += share.requested;
        sum->runs_out += share.runs_out;
      }
    }
  }
  read(stats.small_pool, 0, freed[0], withdrawn_[0], bytes_out_[0], freed[0].runs_out + runs_out_[0]);
  read(stats.large_pool, 1, freed[1], withdrawn_[1], bytes_out_[1], freed[1].runs_out + runs_out_[1]);
  read(stats.all, kBoth, freed[kBoth], withdrawn_[kBoth], bytes_out_[0] + bytes_out_[1],
       freed[kBoth].runs_out + runs_out_[0] + runs_out_[1]);
  stats.small_pool.reserved_bytes = homed_[0];
  stats.large_pool.reserved_bytes = homed_[1];
}

void Usage::reset_peaks() {
  for (std::size_t side = 0; side < kSides; ++side) {
    for (std::size_t quantity = 0; quantity < kQuantities; ++quantity) {
      const std::uint64_t value = now(side, quantity);
      peaks_[side][quantity] = 0;
      if (quantity < kWaiting) peak_active_[side][quantity] = pending_[side][quantity];
      reach(side, quantity, value);
      for (std::size_t i = 0; i < count_; ++i) shares_[i]->rooms_[side][quantity] = 0;
    }
    segments_[side].peak = segments_[side].current;
  }
  for (std::size_t i = 0; i < count_; ++i) shares_[i]->short_ = false;
  for (Stat& homed : homed_) homed.peak = homed.current;
}

void Usage::check() const {
  for (std::size_t side = 0; side < kSides; ++side) {
    for (std::size_t quantity = 0; quantity < kQuantities; ++quantity) {
      GMLAKE_CHECK_EQ(ceilings_[side][quantity], ceiling_for(side, quantity));
      for (std::size_t i = 0; i < count_; ++i) {
        GMLAKE_CHECK(shares_[i]->short_ || shares_[i]->rooms_[side][quantity] >= 0);
      }
      if (side != kBoth) continue;
      GMLAKE_CHECK_EQ(now(kBoth, quantity), now(0, quantity) + now(1, quantity));
    }
  }
}

}  // namespace gmlake::alloc
