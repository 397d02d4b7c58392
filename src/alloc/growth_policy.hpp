// How large to create PhyBlocks. Pure; called on the slow path.
//
// The driver charges by the handle, so blocks are as large as waste allows. What is wasted are the ends of free runs,
// where a block lies partly under live memory and cannot move: about one block a run. So the size grows with the
// footprint, and shrinks with what the limit leaves: far from the limit driver calls matter more, near it every byte.
// Small requests get single granules. docs/decisions/ has the figures behind the constants.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace gmlake::alloc {

struct GrowthInput {
  std::uint64_t footprint_granules = 0;  // held, with what the request adds
  std::uint64_t headroom_granules = 0;   // what the limit leaves to create
  std::uint64_t max_granules = 1;        // of a block, by option
  bool small = false;                    // for requests of up to 1 MiB
};

inline constexpr std::uint64_t kBlocksPerFootprint = 512;
inline constexpr std::uint64_t kBlocksPerHeadroom = 2048;

inline std::uint32_t growth_granules(const GrowthInput& input) {
  if (input.small) return 1;
  const std::uint64_t share =
      std::min(input.footprint_granules / kBlocksPerFootprint, input.headroom_granules / kBlocksPerHeadroom);
  return static_cast<std::uint32_t>(std::bit_floor(std::clamp<std::uint64_t>(share, 1, input.max_granules)));
}

}  // namespace gmlake::alloc
