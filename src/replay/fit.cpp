// The search for the smallest capacity at which an allocator finishes a trace: a bisection over replays on model
// devices. One thread.
#include <algorithm>

#include "driver/model.hpp"
#include "gmlake/bytes.hpp"
#include "replay/engine.hpp"

namespace gmlake::replay {

namespace {

constexpr std::uint64_t kExpectedReplays = 12;  // of progress reports only
constexpr int kMaxDoublings = 8;                // of a device on which even a replay without a limit ran out

class Search {
 public:
  Search(const DeviceTrace& trace, std::string_view target_name, const FitOptions& options)
      : trace_(trace), target_name_(target_name), options_(options) {}

  Result<FitReport> run();

 private:
  struct Outcome {
    bool finished = false;  // with no out of memory
    std::uint64_t peak_allocated_bytes = 0;
    std::uint64_t peak_reserved_bytes = 0;
  };

  // One replay on a fresh device; capacity 0: no limit but the device's own memory.
  Result<Outcome> attempt(std::uint64_t capacity_bytes);
  Result<Outcome> attempt_without_limit();
  Result<std::uint64_t> capacity_that_suffices(std::uint64_t start);

  const DeviceTrace& trace_;
  std::string_view target_name_;
  const FitOptions& options_;
  driver::ModelOptions device_;
  std::uint64_t replays_ = 0;
  std::uint64_t highest_failed_ = 0;
};

Result<Search::Outcome> Search::attempt(std::uint64_t capacity_bytes) {
  driver::ModelDriver model(device_);
  driver::RecordDriver record(model);
  TargetOptions target_options;
  target_options.capacity_bytes = capacity_bytes;
  target_options.settings = options_.settings;
  target_options.recorded_segments = &trace_;
  const Result<std::unique_ptr<Target>> target = make_target(target_name_, record, target_options);
  if (!target) return target.error();
  ReplayOptions replay_options;
  replay_options.stop_at_first_oom = true;
  const Result<ReplayReport> report = replay(trace_, **target, record, &model.streams(), replay_options);
  if (!report) return report.error();
  ++replays_;
  if (options_.progress) options_.progress(replays_, std::max(replays_ + 1, kExpectedReplays));
  if (report->ooms != 0) highest_failed_ = std::max(highest_failed_, capacity_bytes);
  return Outcome{report->ooms == 0, report->peak_allocated_bytes, report->peak_reserved_bytes};
}

// A trace from a larger device than the model's gets a larger model.
Result<Search::Outcome> Search::attempt_without_limit() {
  for (int i = 0;; ++i) {
    const Result<Outcome> outcome = attempt(0);
    if (!outcome || outcome->finished) return outcome;
    if (i == kMaxDoublings) return Error{ErrorCode::out_of_memory, Step::allocate, device_.capacity_bytes};
    device_.capacity_bytes *= 2;
  }
}

// What an unlimited replay reserved need not be enough as a limit: an allocator may hold more against it than it will
// map. The bound rises by a hundredth until a replay finishes.
Result<std::uint64_t> Search::capacity_that_suffices(std::uint64_t start) {
  for (std::uint64_t capacity = start; capacity < 2 * start; capacity += std::max<std::uint64_t>(start / 100, 1)) {
    const Result<Outcome> outcome = attempt(capacity);
    if (!outcome) return outcome.error();
    if (outcome->finished) return capacity;
  }
  return Error{ErrorCode::out_of_memory, Step::allocate, 2 * start};
}

Result<FitReport> Search::run() {
  const Result<Outcome> unlimited = attempt_without_limit();
  if (!unlimited) return unlimited.error();
  FitReport report;
  report.peak_allocated_bytes = unlimited->peak_allocated_bytes;
  if (unlimited->peak_reserved_bytes == 0) return report;  // nothing was allocated

  const Result<std::uint64_t> upper = capacity_that_suffices(unlimited->peak_reserved_bytes);
  if (!upper) return upper.error();
  // Less than the peak of live memory cannot do, so that needs no replay. Where replays fail above it, they say so.
  std::uint64_t low = std::max(highest_failed_, report.peak_allocated_bytes - 1);
  std::uint64_t high = *upper;
  while (high > low + device_.granularity &&
         static_cast<double>(high - low) > options_.tolerance * static_cast<double>(low)) {
    // Whole granules: between two of them nothing changes.
    const std::uint64_t middle = std::clamp(round_up(low + (high - low) / 2, device_.granularity), low + 1, high - 1);
    const Result<Outcome> outcome = attempt(middle);
    if (!outcome) return outcome.error();
    (outcome->finished ? high : low) = middle;
  }
  report.min_capacity_bytes = high;
  report.failed_capacity_bytes = low;
  report.replays = replays_;
  return report;
}

}  // namespace

Result<FitReport> fit(const DeviceTrace& trace, std::string_view target_name, const FitOptions& options) {
  if (!(options.tolerance > 0)) return Error{ErrorCode::invalid_option, Step::options, 0};
  return Search(trace, target_name, options).run();
}

}  // namespace gmlake::replay
