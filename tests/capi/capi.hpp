// What the tests of the C interface share.
#pragma once

#include <cstddef>

#include "gmlake/gmlake.h"

namespace gmlake::test {

inline constexpr std::size_t kMiB = 1 << 20;

inline gmlake_stats empty_stats() {
  gmlake_stats stats{};
  stats.size = sizeof stats;
  stats.version = GMLAKE_STATS_VERSION;
  return stats;
}

}  // namespace gmlake::test
