// How large to create PhyBlocks. Pure; called on the slow path.
//
// The driver charges by the handle, so blocks are as large as waste allows. What is wasted are the ends of free runs,
// where a block lies partly under live memory and cannot move: about one block a run. So the size follows the memory in
// which runs come and go. What was there before anything was freed (weights, as a rule) stays, wastes nothing and is
// made of large blocks; a long request moves as a whole and is made of few, at most 256; near the limit every byte
// counts, down to a share of what is held that wastes next to nothing. A block of more than 16 MiB is for large jobs
// alone, as a share of what they hold. And no block is longer than the request that it is made for, or few short blocks
// that outlive the others would each pin a long one. Streams have free runs of their own, whose ends are lost to the
// others, so where there are several, blocks are smaller: half as long, or less where the runs are not one stream's.
// docs/decisions/ has the figures: 0001, 0004 for the bound by the request, 0005, 0007 and 0015 for streams, 0008 for
// large jobs, 0010 for jobs near a limit.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace gmlake::alloc {

struct GrowthInput {
  std::uint64_t footprint_granules = 0;  // held, with what the request adds
  std::uint64_t settled_granules = 0;    // of it, held before memory began to be freed
  bool freeing = false;                  // that has begun
  double streams = 0.0;                  // that the free runs are spread over; 0: one alone allocates
  std::uint64_t request_granules = 0;
  std::uint64_t headroom_granules = 0;  // to the limit, or what the driver says is left where it has refused some
  bool refused = false;                 // that it has: what is left may lie in pieces
  std::uint64_t max_granules = 1;       // of a block, by option
  std::uint64_t usual_granules = 1;     // kUsualBlockBytes
  bool small = false;                   // for requests of up to 1 MiB
};

// Memory is being freed once what was freed in all is this share of what is held.
inline constexpr std::uint64_t kSettledShare = 64;

// The largest block of a job of the usual size: more is had where it is no more than this share of all that is held.
inline constexpr std::uint64_t kUsualBlockBytes = std::uint64_t{16} << 20;
inline constexpr std::uint64_t kBlocksPerLargeJob = 640;

inline constexpr std::uint64_t kBlocksPerSettled = 96;      // while nothing is freed
inline constexpr std::uint64_t kBlocksPerChurned = 512;     // then, of the memory that came since
inline constexpr std::uint64_t kBlocksPerFootprint = 1024;  // but no more than this of all of it,
inline constexpr std::uint64_t kBlocksPerRequest = 128;     // nor of the request
inline constexpr double kPartsPerStream = 2.0;              // each of these three is divided into, where
inline constexpr double kMostParts = 8.0;                   // there are several streams; at most so many,
inline constexpr std::uint64_t kBlocksPerHeadroom = 2048;   // and always, of what the limit leaves,
inline constexpr std::uint64_t kMostBlocks = 3072;          // but no less than this of the footprint, at most half of
                                                            // what is usual

// Over how many streams free runs are spread: (sum of runs)^2 / sum of squares, Simpson's effective number. From 1,
// where all are one stream's, to the number of streams, where each has as many.
class EffectiveStreams {
 public:
  void add(std::uint64_t free_runs) {
    const auto runs = static_cast<double>(free_runs);
    sum_ += runs;
    squares_ += runs * runs;
  }
  double number() const { return squares_ > 0.0 ? sum_ * sum_ / squares_ : 1.0; }

 private:
  double sum_ = 0.0;
  double squares_ = 0.0;
};

inline std::uint32_t growth_granules(const GrowthInput& input) {
  if (input.small) return 1;
  std::uint64_t share = input.footprint_granules / kBlocksPerSettled;
  if (input.freeing) {
    const std::uint64_t churned = input.footprint_granules - std::min(input.settled_granules, input.footprint_granules);
    share = std::max({churned / kBlocksPerChurned, input.footprint_granules / kBlocksPerFootprint,
                      input.request_granules / kBlocksPerRequest});
    if (input.streams > 0.0) {
      const double parts = std::min(kPartsPerStream * input.streams, kMostParts);
      share = static_cast<std::uint64_t>(static_cast<double>(share) / parts);
    }
  }
  share = std::min(share, std::max(input.usual_granules, input.footprint_granules / kBlocksPerLargeJob));
  const std::uint64_t least = std::min(input.footprint_granules / kMostBlocks, input.usual_granules / 2);
  const std::uint64_t near_limit = std::max(input.headroom_granules / kBlocksPerHeadroom, input.refused ? 0 : least);
  share = std::min({share, near_limit, std::bit_ceil(input.request_granules)});
  return static_cast<std::uint32_t>(std::bit_floor(std::clamp<std::uint64_t>(share, 1, input.max_granules)));
}

}  // namespace gmlake::alloc
