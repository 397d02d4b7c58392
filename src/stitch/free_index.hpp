// The free runs of one pool, found by size.
//
// Requests below 64 MiB take the smallest run that holds them, so that what is left over is small: on recorded traces
// this wastes half of what the lowest address does. Longer requests take the lowest address: there are few such runs,
// and filling the low end leaves the ones at the high end to grow or to be taken apart.
// docs/decisions/ has the figures.
//
// One bin for each multiple of 512 B up to 1 MiB, 64 to each power of two from there to 64 MiB, and one for all that is
// longer. Two levels of bits say which bins hold something, so a search costs a few dozen instructions at any count.
// Of a bin of several sizes the first kScan runs are looked at: a run of the next bin up is nearly as good as the best
// of its own. Only where no bin above holds anything is the whole of its own searched.
//
// Not thread-safe: the device's `state` lock covers it.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "base/check.hpp"
#include "stitch/block.hpp"

namespace gmlake::stitch {

class FreeIndex {
 public:
  void insert(Block* run) {
    ++count_;
    link(run, bin_of(run->bytes));
  }

  void erase(Block* run) {
    --count_;
    unlink(run);
  }

  // After the length of a run that is in here has changed: it is looked for where its new length says.
  void update(Block* run) {
    const std::size_t bin = bin_of(run->bytes);
    if (bin == run->bin) {
      ++version_;
      return;
    }
    unlink(run);
    link(run, bin);
  }

  // Whether the rule for `bytes` is the lowest address, not the smallest run.
  static bool goes_by_address(std::uint64_t bytes) { return bytes >= kHuge; }

  // The run to take `bytes`, a multiple of 512, from; null where none is long enough.
  Block* find(std::uint64_t bytes) const {
    std::size_t bin = bin_of(bytes);
    if (bin == kHugeBin) return lowest(bytes);
    const std::size_t own = bin;
    if (own >= kExactBins) {  // its own bin may hold shorter runs too
      if (Block* run = smallest(own, bytes, kScan)) return run;
      ++bin;
    }
    bin = next_used(bin);
    if (bin < kExactBins) return bins_[bin];
    if (bin < kBins) {  // of these each is long enough
      Block* const head = bins_[bin];
      return head->links.next == nullptr ? head : smallest(bin, bytes, kScan);
    }
    return own < kExactBins ? nullptr : smallest(own, bytes, count_);
  }

  // Calls visit(Block*) for each run of at least `bytes`, a multiple of 512; shorter bins first.
  template <class Visit>
  void for_each(std::uint64_t bytes, Visit&& visit) const {
    for (std::size_t bin = next_used(bin_of(bytes)); bin < kBins; bin = next_used(bin + 1)) {
      for (Block* run = bins_[bin]; run != nullptr; run = run->links.next) {
        GMLAKE_DCHECK(run->bin == bin && bin_of(run->bytes) == bin);
        if (run->bytes >= bytes) visit(run);
      }
    }
  }

  // One after another: the first run of the shortest bin that may hold `bytes`, and the one after a run that is in the
  // index; shorter bins first. Null at the end.
  Block* first(std::uint64_t bytes) const { return front_of(next_used(bin_of(bytes))); }
  Block* after(const Block* run) const {
    Block* next = run->links.next;
    return next != nullptr ? next : front_of(next_used(run->bin + std::size_t{1}));
  }

  std::size_t count() const { return count_; }
  // Another number whenever what find() says may have changed.
  std::uint64_t version() const { return version_; }

 private:
  static constexpr std::size_t kExactBins = kSmallLimit / kAlignment;  // bin i: runs of exactly (i + 1) * 512 B
  static constexpr std::size_t kSubBinBits = 6;
  static constexpr std::size_t kHugeBin = kExactBins + (std::size_t{6} << kSubBinBits);
  static constexpr std::size_t kBins = kHugeBin + 1;
  static constexpr std::uint64_t kHuge = kSmallLimit << 6;  // 64 MiB
  static constexpr std::size_t kScan = 32;
  static_assert(kBins < std::size_t{63} * 64, "the summary is one word, and shifts by less than its length");

  static std::size_t bin_of(std::uint64_t bytes) {
    if (bytes <= kSmallLimit) return bytes / kAlignment - 1;
    if (bytes >= kHuge) return kHugeBin;
    const auto octave = static_cast<std::size_t>(std::bit_width(bytes) - std::bit_width(kSmallLimit));
    const auto shift = static_cast<std::size_t>(std::bit_width(bytes)) - 1 - kSubBinBits;
    const std::size_t sub = (bytes >> shift) & ((std::size_t{1} << kSubBinBits) - 1);
    return kExactBins + (octave << kSubBinBits) + sub;
  }

  Block* front_of(std::size_t bin) const { return bin < kBins ? bins_[bin] : nullptr; }

  // The first bin from `bin` on that holds something; kBins where there is none.
  std::size_t next_used(std::size_t bin) const {
    if (bin >= kBins) return kBins;
    const std::uint64_t bits = words_[bin / 64] & (~std::uint64_t{0} << (bin % 64));
    if (bits != 0) return (bin & ~std::size_t{63}) + static_cast<std::size_t>(std::countr_zero(bits));
    const std::uint64_t later = summary_ & (~std::uint64_t{0} << (bin / 64 + 1));
    if (later == 0) return kBins;
    const auto word = static_cast<std::size_t>(std::countr_zero(later));
    return word * 64 + static_cast<std::size_t>(std::countr_zero(words_[word]));
  }

  // The shortest run of a bin with at least `bytes`, among equals the lowest; of the first `left` that it holds.
  Block* smallest(std::size_t bin, std::uint64_t bytes, std::size_t left) const {
    Block* best = nullptr;
    for (Block* run = bins_[bin]; run != nullptr && left > 0; run = run->links.next, --left) {
      if (run->bytes < bytes) continue;
      if (best == nullptr || run->bytes < best->bytes || (run->bytes == best->bytes && run->address < best->address)) {
        best = run;
      }
    }
    return best;
  }

  // Of the runs of 64 MiB and more, the lowest that is long enough: they are in order of address.
  Block* lowest(std::uint64_t bytes) const {
    Block* run = bins_[kHugeBin];
    while (run != nullptr && run->bytes < bytes) run = run->links.next;
    return run;
  }

  void link(Block* run, std::size_t bin) {
    ++version_;
    run->bin = static_cast<std::uint16_t>(bin);
    Block* const head = bins_[bin];
    if (bin == kHugeBin && head != nullptr && head->address < run->address) return link_behind(head, run);
    run->links = {nullptr, head};
    bins_[bin] = run;
    if (head != nullptr) {
      head->links.prev = run;
      return;
    }
    words_[bin / 64] |= std::uint64_t{1} << (bin % 64);
    summary_ |= std::uint64_t{1} << (bin / 64);
  }

  // Of the runs from `before` on, behind the last that lies lower. There are at most a few hundred on any device.
  static void link_behind(Block* before, Block* run) {
    Block* next = before->links.next;
    for (; next != nullptr && next->address < run->address; next = next->links.next) before = next;
    run->links = {before, next};
    before->links.next = run;
    if (next != nullptr) next->links.prev = run;
  }

  void unlink(Block* run) {
    ++version_;
    const auto [prev, next] = run->links;
    if (next != nullptr) next->links.prev = prev;
    if (prev != nullptr) {
      prev->links.next = next;
      return;
    }
    const std::size_t bin = run->bin;
    bins_[bin] = next;
    if (next != nullptr) return;
    words_[bin / 64] &= ~(std::uint64_t{1} << (bin % 64));
    if (words_[bin / 64] == 0) summary_ &= ~(std::uint64_t{1} << (bin / 64));
  }

  // Each bin is a list by Block::links: what was put in last comes first, or, of the longest, what lies lowest. Runs
  // shrink and grow where they are and never change places.
  std::array<Block*, kBins> bins_{};
  std::array<std::uint64_t, (kBins + 63) / 64> words_{};
  std::uint64_t summary_ = 0;
  std::size_t count_ = 0;
  std::uint64_t version_ = 0;
};

}  // namespace gmlake::stitch
