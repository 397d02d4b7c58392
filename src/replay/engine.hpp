// Replays a trace through a target and measures it; the search for the smallest capacity; the registry of targets.
// One thread; the driver under the target is the caller's.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "driver/driver.hpp"
#include "driver/record.hpp"
#include "driver/stream_simulator.hpp"
#include "gmlake/result.hpp"
#include "replay/target.hpp"
#include "replay/trace.hpp"

namespace gmlake::replay {

// Called now and then with how much is done; never on a hot path.
using Progress = std::function<void(std::uint64_t done, std::uint64_t total)>;

struct ReplayOptions {
  bool verify = false;                    // stamp every block and check the stamps when it is freed, and at the end
  std::uint64_t verify_stride_bytes = 0;  // distance of the stamps inside a block; 0: one a granule
  bool stop_at_first_oom = false;         // for the search of the smallest capacity
  std::uint64_t lag_events = 0;           // so many events of the trace all streams fall behind the host; 0: none
  Progress progress;                      // called about a hundred times a replay; empty: never
  int device = 0;                         // the device that the target serves, whatever the trace was recorded on
  // The handle to use for each stream of the trace: real streams, where the driver has them. Empty: the recorded ones,
  // and handles of their own for held streams.
  std::vector<std::uint64_t> stream_handles;
};

struct ReplayReport {
  std::uint64_t events = 0;                // replayed: all, or up to the first out of memory
  std::uint64_t peak_allocated_bytes = 0;  // of sizes rounded up to 512 B, what every allocator here hands out
  std::uint64_t peak_requested_bytes = 0;
  std::uint64_t peak_reserved_bytes = 0;
  std::optional<std::uint64_t> pinned_bytes_at_peak;  // of what was held when that was reached: Target::pinned_bytes()
  driver::CallCounts driver_calls;
  std::uint64_t handles_mapped_second_half = 0;  // map calls after the first half of the events
  double driver_seconds = 0;                     // on the driver's clock
  double background_driver_seconds = 0;          // of them, between requests: see Target::background_step
  double host_ns_per_event = 0;                  // wall time of the replay loop; 0 where it verified
  std::uint64_t ooms = 0;
  std::uint64_t verified_bytes = 0;  // bytes of stamps that were checked
  std::uint64_t wrong_bytes = 0;     // of these, how many had changed
};

// `trace` has passed validate(). `record` is the wrapper that the target's driver calls go through, `streams` the
// simulator of the driver under it: the streams that the trace holds are put on hold there, and let go at the end.
// Without one (real streams) all streams keep up, and advance events do nothing.
// A request that the target refuses for want of memory is counted; the block's later events are skipped.
// At the end whatever is still live is freed, which is no part of what is measured: nothing of the target's is in use.
// Errors: invalid_value (indices out of range), not_supported (a lag with no simulator; verify on a driver whose
// addresses are not pointers: any but host), and what the target returns other than out of memory: the replay ends
// there.
Result<ReplayReport> replay(const DeviceTrace& trace, Target& target, driver::RecordDriver& record,
                            driver::StreamSimulator* streams, const ReplayOptions& options);

// Settings for a target, as --set gives them: KEY=VALUE, checked by the target that takes them.
using Settings = std::map<std::string, std::string, std::less<>>;

struct TargetOptions {
  int device = 0;
  std::uint64_t capacity_bytes = 0;  // the limit on reserved bytes; 0: the device's own
  Settings settings;                 // allocator options (gmlake: the keys of GMLAKE_CONF)
  // torch-native: take from this recording the addresses that order segments of equal size; it outlives make_target().
  // A recording of native is then replayed exactly, and the smallest capacity comes out as on the machine it is from.
  const DeviceTrace* recorded_segments = nullptr;
};

// Names: "gmlake", "torch-native", "torch-expandable", "direct". Errors: invalid_option.
Result<std::unique_ptr<Target>> make_target(std::string_view name, driver::Driver& driver,
                                            const TargetOptions& options);
std::vector<std::string_view> target_names();

struct FitReport {
  std::uint64_t min_capacity_bytes = 0;     // the smallest capacity tried at which the trace finished with no OOM
  std::uint64_t failed_capacity_bytes = 0;  // the lower end of the last bracket: it failed, or is below peak_allocated
  std::uint64_t peak_allocated_bytes = 0;
  std::uint64_t replays = 0;
};

// A bisection, each try on a fresh model device, from [peak allocated, peak reserved without a limit] to `tolerance`:
// 0.001 means that the answer is at most 0.1 % above a capacity that failed. A bracket of one granule ends it too.
// The smallest capacity need not be unique: an allocator may fail with more memory than it has finished with, where
// other addresses make for other fits. The answer is the upper end of a bracket whose lower end failed, no more; it is
// the same each time. Errors: invalid_option, and what make_target() and replay() return.
struct FitOptions {
  double tolerance = 0.001;
  Progress progress;
  Settings settings;
};
Result<FitReport> fit(const DeviceTrace& trace, std::string_view target_name, const FitOptions& options);

}  // namespace gmlake::replay
