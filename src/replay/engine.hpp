// Replays a trace through a target and measures it; the search for the smallest capacity; the registry of targets.
// One thread; the driver under the target is the caller's.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "driver/driver.hpp"
#include "driver/record.hpp"
#include "gmlake/result.hpp"
#include "replay/target.hpp"
#include "replay/trace.hpp"

namespace gmlake::replay {

// Called now and then with how much is done; never on a hot path.
using Progress = std::function<void(std::uint64_t done, std::uint64_t total)>;

struct ReplayOptions {
  bool verify = false;                     // stamp every block and check the stamps when it is freed, and at the end
  std::uint64_t verify_stride_bytes = 0;   // distance of the stamps inside a block; 0: one a granule
  bool stop_at_first_oom = false;          // for the search of the smallest capacity
  Progress progress;                       // called about a hundred times a replay; empty: never
};

struct ReplayReport {
  std::uint64_t events = 0;
  std::uint64_t peak_allocated_bytes = 0;  // of sizes rounded up to 512 B, what every allocator here hands out
  std::uint64_t peak_requested_bytes = 0;
  std::uint64_t peak_reserved_bytes = 0;
  driver::CallCounts driver_calls;
  std::uint64_t handles_mapped_second_half = 0;  // map calls after the first half of the events
  double driver_seconds = 0;                     // on the driver's clock
  double host_ns_per_event = 0;                  // wall time of the replay loop over its events (unknown 0 when verifying)
  std::uint64_t ooms = 0;
  std::uint64_t verified_bytes = 0;  // bytes of stamps that were checked
  std::uint64_t wrong_bytes = 0;     // of these, how many had changed
};

// `record` is the wrapper that the target's driver calls go through.
// Streams that the trace holds must be held in `streams` (driver/stream_simulator.hpp) before the first event: done here.
Result<ReplayReport> replay(const DeviceTrace& trace, Target& target, driver::RecordDriver& record,
                            driver::StreamSimulator* streams, const ReplayOptions& options);

// Settings for a target, as --set gives them: KEY=VALUE, checked by the target that takes them.
using Settings = std::map<std::string, std::string, std::less<>>;

struct TargetOptions {
  int device = 0;
  std::uint64_t capacity_bytes = 0;              // the limit on reserved bytes; 0: the device's own
  Settings settings;                             // allocator options (gmlake: the keys of GMLAKE_CONF)
  const DeviceTrace* recorded_segments = nullptr;  // torch-native: take segment addresses from this recording
};

// Names: "gmlake", "torch-native", "torch-expandable", "direct". Errors: invalid_option.
Result<std::unique_ptr<Target>> make_target(std::string_view name, driver::Driver& driver,
                                            const TargetOptions& options);
std::vector<std::string_view> target_names();

struct FitReport {
  std::uint64_t min_capacity_bytes = 0;    // the smallest capacity tried at which the trace finished with no OOM
  std::uint64_t peak_allocated_bytes = 0;
  std::uint64_t replays = 0;
};

// Bisection to `tolerance` (0.001: the answer is at most 0.1 % above a capacity that failed). `make_driver` makes a
// fresh driver for each try.
struct FitOptions {
  double tolerance = 0.001;
  Progress progress;
  Settings settings;
};
Result<FitReport> fit(const DeviceTrace& trace, std::string_view target_name, const FitOptions& options);

}  // namespace gmlake::replay
