// The replay loop: what every event of a trace does to a target, and what is measured meanwhile.
// One thread; the loop itself costs a few nanoseconds an event, so that what it measures is the target.
#include "replay/engine.hpp"

#include <algorithm>
#include <chrono>
#include <optional>

#include "base/check.hpp"
#include "driver/per_thread_stream.hpp"
#include "gmlake/bytes.hpp"
#include "replay/held_streams.hpp"
#include "replay/lagging_streams.hpp"
#include "replay/stamps.hpp"

namespace gmlake::replay {

namespace {

constexpr std::uint64_t kHeldHandles = std::uint64_t{0x4845'4C44} << 32;    // "HELD": no stream of a driver lies there
constexpr std::uint64_t kThreadHandles = std::uint64_t{0x5448'5244} << 32;  // "THRD": nor there
constexpr std::uint64_t kProgressSteps = 100;
constexpr std::uint64_t kMinBlock = 512;  // what peak_allocated_bytes rounds to

bool is_out_of_memory(ErrorCode code) {
  return code == ErrorCode::out_of_memory || code == ErrorCode::too_many_mappings || code == ErrorCode::address_space ||
         code == ErrorCode::invalid_size;
}

// Indices in range, so that the loop need not look. A trace from a reader or a generator passes.
Status check_indices(const DeviceTrace& trace, const ReplayOptions& options) {
  const Error bad{ErrorCode::invalid_value, Step::none, 0};
  if (trace.streams.empty() || trace.held_streams.size() != trace.streams.size()) return bad;
  if (!options.stream_handles.empty() && options.stream_handles.size() != trace.streams.size()) return bad;
  for (const Event& event : trace.events) {
    const bool has_block = event.op == Op::alloc || event.op == Op::free || event.op == Op::record_stream;
    if (event.stream >= trace.streams.size()) return bad;
    if (has_block && event.id >= trace.block_count) return bad;
  }
  return {};
}

std::vector<driver::Stream> device_streams(const DeviceTrace& trace, const ReplayOptions& options) {
  std::vector<driver::Stream> streams;
  for (std::size_t i = 0; i < trace.streams.size(); ++i) {
    std::uint64_t handle = trace.held_streams[i] ? kHeldHandles + i : trace.streams[i];
    // To this process it would be its own thread's, or that of a thread it does not have.
    if (handle == driver::kPerThreadStream || driver::is_thread_stream(handle)) handle = kThreadHandles + i;
    if (!options.stream_handles.empty()) handle = options.stream_handles[i];
    streams.push_back({options.device, handle});
  }
  return streams;
}

class Replayer {
 public:
  Replayer(const DeviceTrace& trace, Target& target, driver::RecordDriver& record, driver::StreamSimulator* simulator,
           const ReplayOptions& options, std::uint64_t stride)
      : trace_(trace),
        target_(target),
        record_(record),
        options_(options),
        streams_(device_streams(trace, options)),
        blocks_(trace.block_count),
        held_(simulator, trace.streams.size(), [this](std::uint32_t id) { use_completed(id); }) {
    if (options.verify) stamps_.emplace(stride);
    if (options.lag_events != 0) lag_.emplace(*simulator, streams_, trace.held_streams, options.lag_events);
  }

  Result<ReplayReport> run();

 private:
  struct Block {
    driver::Address address = 0;  // 0: not live; never allocated, or freed, or refused
    std::uint64_t bytes = 0;
  };
  // Kept only where stamps are: a freed block that a held stream still uses is checked when its last use completes.
  struct Use {
    driver::Address address = 0;
    std::uint64_t bytes = 0;
    std::uint32_t pending = 0;
    bool freed = false;
  };

  Status run_events(std::uint64_t begin, std::uint64_t end);
  Status run_with_progress(std::uint64_t begin, std::uint64_t end);
  Status alloc(const Event& event);
  Status free(const Event& event);
  Status record_stream(const Event& event);
  void use_completed(std::uint32_t id);
  void note_peak();
  Status free_what_is_left();

  const DeviceTrace& trace_;
  Target& target_;
  driver::RecordDriver& record_;
  const ReplayOptions& options_;
  std::vector<driver::Stream> streams_;
  std::vector<Block> blocks_;  // by id
  std::vector<std::uint16_t> alloc_streams_;
  std::map<std::uint32_t, Use> uses_;
  std::optional<Stamps> stamps_;
  HeldStreams held_;
  std::optional<LaggingStreams> lag_;
  ReplayReport report_;
  std::uint64_t allocated_ = 0;
  std::uint64_t requested_ = 0;
  double seconds_seen_ = 0;  // of the driver, after the last event
  bool stopped_ = false;
};

Status Replayer::alloc(const Event& event) {
  const Result<driver::Address> address = target_.allocate(event.bytes, streams_[event.stream]);
  if (!address) {
    if (!is_out_of_memory(address.error().code)) return address.error();
    ++report_.ooms;
    stopped_ = options_.stop_at_first_oom;
    return {};
  }
  blocks_[event.id] = {*address, event.bytes};
  allocated_ += round_up(std::max<std::uint64_t>(event.bytes, 1), kMinBlock);
  requested_ += event.bytes;
  if (allocated_ > report_.peak_allocated_bytes) report_.peak_allocated_bytes = allocated_;
  if (requested_ > report_.peak_requested_bytes) report_.peak_requested_bytes = requested_;
  if (stamps_) stamps_->write(event.id, *address, event.bytes);
  return {};
}

Status Replayer::free(const Event& event) {
  Block& block = blocks_[event.id];
  if (block.address == 0) return {};
  if (stamps_) {
    const auto use = uses_.find(event.id);
    if (use == uses_.end()) {
      stamps_->verify(event.id, block.address, block.bytes);
    } else {
      use->second.freed = true;
    }
  }
  const driver::Address address = block.address;
  block.address = 0;
  allocated_ -= round_up(std::max<std::uint64_t>(block.bytes, 1), kMinBlock);
  requested_ -= block.bytes;
  return target_.deallocate(address, streams_[event.stream]);
}

Status Replayer::record_stream(const Event& event) {
  const Block& block = blocks_[event.id];
  if (trace_.held_streams[event.stream]) {
    const Result<bool> pending = held_.use(event.stream, streams_[event.stream], event.id, block.address, block.bytes);
    if (!pending) return pending.error();
    if (*pending && stamps_) {
      Use& use = uses_[event.id];
      use.address = block.address;
      use.bytes = block.bytes;
      ++use.pending;
    }
  }
  if (block.address == 0) return {};
  return target_.record_stream(block.address, streams_[event.stream]);
}

// Called by the simulator at the moment of completion: nobody can have been given the memory legally before.
void Replayer::use_completed(std::uint32_t id) {
  const auto use = uses_.find(id);
  if (use == uses_.end() || --use->second.pending != 0) return;
  if (use->second.freed) stamps_->verify(id, use->second.address, use->second.bytes);
  uses_.erase(use);
}

void Replayer::note_peak() {
  const std::uint64_t reserved = target_.peak_reserved_bytes();
  if (reserved <= report_.peak_reserved_bytes) return;
  report_.peak_reserved_bytes = reserved;
  report_.pinned_bytes_at_peak = target_.pinned_bytes();
}

Status Replayer::run_events(std::uint64_t begin, std::uint64_t end) {
  for (std::uint64_t i = begin; i < end && !stopped_; ++i) {
    const Event& event = trace_.events[i];
    Status status;
    switch (event.op) {
      case Op::alloc:
        status = alloc(event);
        break;
      case Op::free:
        status = free(event);
        break;
      case Op::record_stream:
        status = record_stream(event);
        break;
      case Op::advance:
        held_.advance(event.stream, event.bytes);
        break;
      case Op::trim:
        status = target_.trim();
        break;
    }
    ++report_.events;
    if (!status) return status;
    const double seconds = record_.seconds();
    if (seconds != seconds_seen_) note_peak();  // the driver was called: more may be held
    target_.background_step();
    seconds_seen_ = record_.seconds();
    report_.background_driver_seconds += seconds_seen_ - seconds;
    if (!lag_) continue;
    if (Status lagging = lag_->after_event(event.stream); !lagging) return lagging;
  }
  return {};
}

Status Replayer::run_with_progress(std::uint64_t begin, std::uint64_t end) {
  if (!options_.progress) return run_events(begin, end);
  const std::uint64_t total = trace_.events.size();
  const std::uint64_t step = std::max<std::uint64_t>(total / kProgressSteps, 1);
  for (std::uint64_t done = begin; done < end && !stopped_; done = std::min(done + step, end)) {
    if (Status status = run_events(done, std::min(done + step, end)); !status) return status;
    options_.progress(std::min(done + step, end), total);
  }
  return {};
}

// The target is left with nothing live and nothing pending, so that its destructor gives everything back.
Status Replayer::free_what_is_left() {
  Status status;
  for (std::uint32_t id = 0; id < blocks_.size(); ++id) {
    if (blocks_[id].address == 0) continue;
    Event event;
    event.op = Op::free;
    event.id = id;
    event.stream = alloc_streams_[id];
    if (Status freed = free(event); !freed && status) status = freed;
  }
  held_.finish();
  return status;
}

Result<ReplayReport> Replayer::run() {
  alloc_streams_.resize(trace_.block_count);
  for (const Event& event : trace_.events) {
    if (event.op == Op::alloc) alloc_streams_[event.id] = event.stream;
  }
  const driver::CallCounts calls_before = record_.counts();
  const double seconds_before = record_.seconds();
  const std::uint64_t half = trace_.events.size() / 2;

  const auto start = std::chrono::steady_clock::now();
  Status status = run_with_progress(0, half);
  const std::uint64_t maps_at_half = record_.counts().map;
  if (status) status = run_with_progress(half, trace_.events.size());
  const std::chrono::duration<double, std::nano> elapsed = std::chrono::steady_clock::now() - start;

  report_.driver_calls = record_.counts() - calls_before;
  report_.driver_seconds = record_.seconds() - seconds_before;
  report_.handles_mapped_second_half = record_.counts().map - maps_at_half;
  note_peak();
  if (!options_.verify && report_.events != 0) {
    report_.host_ns_per_event = elapsed.count() / static_cast<double>(report_.events);
  }

  const Status freed = free_what_is_left();
  if (!status) return status.error();
  if (!freed) return freed.error();
  if (stamps_) {
    report_.verified_bytes = stamps_->verified_bytes();
    report_.wrong_bytes = stamps_->wrong_bytes();
  }
  return report_;
}

// One stamp a granule by default: what is mapped wrongly is wrong by granules.
Result<std::uint64_t> stamp_stride(driver::Driver& driver, const ReplayOptions& options) {
  if (options.verify_stride_bytes != 0) return round_up(options.verify_stride_bytes, 8);
  driver::MemoryProperties properties;
  properties.location = {driver::Location::Kind::device, options.device};
  return driver.granularity(properties);
}

}  // namespace

Result<ReplayReport> replay(const DeviceTrace& trace, Target& target, driver::RecordDriver& record,
                            driver::StreamSimulator* streams, const ReplayOptions& options) {
  if (Status valid = check_indices(trace, options); !valid) return valid.error();
  if (options.lag_events != 0 && streams == nullptr) return Error{ErrorCode::not_supported, Step::options, 0};
  std::uint64_t stride = 8;
  if (options.verify) {
    // Only the host driver's addresses are pointers that this process may read and write.
    if (record.name() != "host") return Error{ErrorCode::not_supported, Step::options, 0};
    const Result<std::uint64_t> chosen = stamp_stride(record, options);
    if (!chosen) return chosen.error();
    stride = *chosen;
  }
  return Replayer(trace, target, record, streams, options, stride).run();
}

}  // namespace gmlake::replay
