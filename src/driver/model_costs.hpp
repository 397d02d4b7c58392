// What each driver call costs, as measured on one NVIDIA H200 (driver 580.159.04, CUDA 13.0, granularity 2 MiB). What
// jobs call most was measured inside of jobs, on a machine that nothing disturbs: tools/fit_costs.py prints it from the
// kept log of their calls. There each call costs a tenth to a third more than side by side. A cost that depends on a
// size is a line through measured points; beyond the last point it goes on with the slope of the last stretch, below
// the first it is the first's. Figures marked "assumed" were not measured. Values only: any thread may read them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace gmlake::driver {

struct CostPoint {
  std::uint64_t bytes = 0;
  double ns = 0;
};

// A line through at most six points, sizes rising.
struct CostCurve {
  std::array<CostPoint, 6> points{};
  std::size_t count = 0;

  template <class... Points>
  constexpr explicit CostCurve(Points... list) : points{list...}, count(sizeof...(list)) {}

  constexpr double at(std::uint64_t bytes) const {
    if (count == 1 || bytes <= points[0].bytes) return points[0].ns;
    std::size_t next = 1;
    while (next + 1 < count && points[next].bytes < bytes) ++next;
    const CostPoint& low = points[next - 1];
    const CostPoint& high = points[next];
    const double slope = (high.ns - low.ns) / static_cast<double>(high.bytes - low.bytes);
    return low.ns + slope * static_cast<double>(bytes - low.bytes);
  }
};

inline constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
inline constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

struct ModelCosts {
  // Of the range reserved. Freeing it: assumed to cost the same.
  CostCurve reserve{CostPoint{2 * kMiB, 700}, CostPoint{8 * kGiB, 17'000}};
  CostCurve address_free{CostPoint{2 * kMiB, 700}, CostPoint{8 * kGiB, 17'000}};

  // Of the handle. Creating host memory: assumed to cost what device memory does.
  CostCurve create{CostPoint{64 * kMiB, 10'000}, CostPoint{256 * kMiB, 30'000}, CostPoint{kGiB, 85'000},
                   CostPoint{4 * kGiB, 250'000}};
  CostCurve release{CostPoint{2 * kMiB, 11'000}, CostPoint{64 * kMiB, 39'000}, CostPoint{kGiB, 455'000}};

  // Of each handle in the range.
  double map = 1'600;
  double map_first_for_rdma = 4'200;  // more, where the handle is for RDMA and mapped nowhere
  double unmap = 22'400;
  CostCurve set_access{CostPoint{64 * kMiB, 25'700}, CostPoint{kGiB, 78'000}};  // the first device
  double set_access_more = 42'000;                                              // each device after it
  CostCurve set_access_host{CostPoint{2 * kMiB, 118'000},
                            CostPoint{32 * kMiB, 614'000}};  // host memory, the first time
  double set_access_again = 650;                             // every device has it already

  double event_record = 360;
  double event_query = 360;
  double event_other = 360;  // create, destroy, synchronize, stream_wait: assumed to cost what a record does
  double clear = 5'400;      // to enqueue it: 2 MiB, in batches that the stream's queue holds
};

}  // namespace gmlake::driver
