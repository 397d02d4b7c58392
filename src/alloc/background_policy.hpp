// What the background worker takes off requests: how many stale mappings to retire ahead of need. Pure.
//
// Mappings are kept below their bounds, which a request would otherwise have to restore all at once. More is not
// retired ahead: an unmapping costs as much as a mapping, the driver has one lock for all threads, and most of what is
// stale is never in the way or is revived. docs/decisions/0008-fewer-handles-for-large-jobs.md has the figures, 0003
// says why nothing is created ahead.
#pragma once

#include <cstdint>

namespace gmlake::alloc {

// In one driver call, the most by which a request has to wait: 100 us. The driver charges by the handle, so that many
// small calls cost no more than a large one.
inline constexpr std::uint64_t kRetiredAtOnce = 4;

struct StaleMappings {
  std::uint64_t granules = 0;
  std::uint64_t granules_bound = 0;  // what a request would retire down to
  std::uint64_t count = 0;           // of all mappings
  std::uint64_t count_bound = 0;
};

inline bool near_a_bound(const StaleMappings& mappings) {
  return mappings.granules > 0 &&
         (mappings.granules > mappings.granules_bound / 8 * 7 || mappings.count > mappings.count_bound / 8 * 7);
}

}  // namespace gmlake::alloc
