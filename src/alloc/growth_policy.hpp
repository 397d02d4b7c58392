// How large to create PhyBlocks. Pure; called on the slow path.
//
// The driver charges by the handle, so blocks are as large as waste allows. What is wasted are the ends of free runs,
// where a block lies partly under live memory and cannot move: about one block a run. So the size grows with the
// footprint: small blocks for small footprints and for small requests. docs/decisions/ has the figures behind it.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace gmlake::alloc {

struct GrowthInput {
  std::uint64_t footprint_granules = 0;  // held, with what the request adds
  std::uint64_t max_granules = 1;        // of a block, by option
  bool small = false;                    // for requests of up to 1 MiB
};

inline constexpr std::uint64_t kBlocksPerFootprint = 512;

inline std::uint32_t growth_granules(const GrowthInput& input) {
  if (input.small) return 1;
  const std::uint64_t share = input.footprint_granules / kBlocksPerFootprint;
  return static_cast<std::uint32_t>(std::bit_floor(std::clamp<std::uint64_t>(share, 1, input.max_granules)));
}

}  // namespace gmlake::alloc
