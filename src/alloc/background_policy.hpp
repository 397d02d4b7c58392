// What the background worker takes off requests: how many stale mappings to retire ahead of need. Pure.
//
// A request that fills a hole has to unmap what is stale there first, at 15 us a handle. Retiring everything in the
// background would save it that, and cost what could have been revived for nothing; so it is done where requests have
// shown that they need it: for each mapping that they unmapped themselves, the worker unmaps four, the oldest first. A
// job in its rhythm unmaps nothing, and the worker sleeps. Apart from that, mappings are kept below their bounds, which
// a request would otherwise have to restore all at once. docs/decisions/0003-background-worker.md has the figures, and
// says why nothing is created ahead.
#pragma once

#include <algorithm>
#include <cstdint>

namespace gmlake::alloc {

inline constexpr std::uint64_t kRetiredForEach = 4;  // mappings, for each that a request unmapped
// In one driver call, the most by which a request has to wait: 60 us. The driver charges by the handle, so that many
// small calls cost no more than a large one.
inline constexpr std::uint64_t kRetiredAtOnce = 4;

class RetireAhead {
 public:
  struct Mappings {
    std::uint64_t by_requests = 0;  // unmapped by requests, in all
    std::uint64_t stale_granules = 0;
    std::uint64_t stale_granules_bound = 0;  // what a request would retire down to
    std::uint64_t count = 0;
    std::uint64_t count_bound = 0;
  };

  static bool near_a_bound(const Mappings& mappings) {
    return mappings.stale_granules > 0 && (mappings.stale_granules > mappings.stale_granules_bound / 8 * 7 ||
                                           mappings.count > mappings.count_bound / 8 * 7);
  }

  // How many to retire now, at most kRetiredAtOnce; 0: none.
  std::uint64_t wanted(const Mappings& mappings) {
    owed_ += kRetiredForEach * (mappings.by_requests - seen_by_requests_);
    seen_by_requests_ = mappings.by_requests;
    owed_ = std::min(owed_, mappings.stale_granules);  // a mapping has at least one: no more than there are
    return near_a_bound(mappings) ? kRetiredAtOnce : std::min(owed_, kRetiredAtOnce);
  }
  void retired(std::uint64_t mappings) { owed_ -= std::min(owed_, mappings); }

 private:
  std::uint64_t owed_ = 0;
  std::uint64_t seen_by_requests_ = 0;
};

}  // namespace gmlake::alloc
