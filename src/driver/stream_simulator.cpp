#include "driver/stream_simulator.hpp"

#include <utility>

#include "driver/per_thread_stream.hpp"

namespace gmlake::driver {
namespace {

constexpr std::uint64_t kEventIndexBits = 32;  // an Event is a generation above, and the index of its slot plus 1 below

Error invalid_call(Step step, std::uint64_t value) { return {ErrorCode::invalid_value, step, value}; }

// Of the calling thread, for all simulators.
thread_local CaptureMode thread_mode = CaptureMode::global;

std::uint64_t bits(Event event) { return static_cast<std::uint64_t>(event); }

// Without sums that could overflow.
bool overlap(const Access& access, Address address, std::uint64_t bytes) {
  return access.address < address ? address - access.address < access.bytes : access.address - address < bytes;
}

}  // namespace

Event StreamSimulator::event_create(int device) {
  MutexLock lock(mutex_);
  if (free_events_.empty()) {
    free_events_.push_back(static_cast<std::uint32_t>(events_.size()));
    events_.emplace_back();
  }
  const std::uint32_t index = free_events_.back();
  free_events_.pop_back();
  EventState& event = events_[index];
  event = {event.generation + 1, device, true, false, {}};
  return static_cast<Event>(std::uint64_t{event.generation} << kEventIndexBits | (index + 1u));
}

Status StreamSimulator::event_record(Event event, Stream stream) {
  MutexLock lock(mutex_);
  EventState* state = find(event);
  if (state == nullptr || state->device != stream.device) return invalid_call(Step::event_record, bits(event));
  const std::uint32_t index = stream_index(stream);
  StreamState& target = streams_[index];
  if (target.destroyed) {
    add_violation({Violation::Kind::destroyed_stream, stream});
    return invalid_call(Step::event_record, stream.handle);
  }
  if (is_of_another_thread(stream.handle) && captures_ > 0) {
    add_violation({Violation::Kind::captured_event, stream});
    return invalid_call(Step::event_record, stream.handle);
  }
  state->captured = target.capture != CaptureState::none;
  if (state->captured) return {};
  add(target, {});
  state->point = {index, target.completed + target.pending.size()};
  return {};
}

Result<bool> StreamSimulator::event_query(Event event) {
  MutexLock lock(mutex_);
  const EventState* state = find(event);
  if (state == nullptr || refused_by_capture(*state)) return invalid_call(Step::event_query, bits(event));
  return passed(state->point);
}

Status StreamSimulator::event_synchronize(Event event) {
  MutexLock lock(mutex_);
  const EventState* state = find(event);
  if (state == nullptr || refused_by_capture(*state)) return invalid_call(Step::event_synchronize, bits(event));
  if (passed(state->point)) return {};
  ++synchronizations_;
  complete_until(state->point);
  settle();
  return {};
}

Status StreamSimulator::stream_wait(Stream stream, Event event) {
  MutexLock lock(mutex_);
  const EventState* state = find(event);
  if (state == nullptr) return invalid_call(Step::stream_wait, bits(event));
  if (is_of_another_thread(stream.handle)) return Error{ErrorCode::not_supported, Step::stream_wait, stream.handle};
  StreamState& target = streams_[stream_index(stream)];
  if (target.destroyed) {
    add_violation({Violation::Kind::destroyed_stream, stream});
    return invalid_call(Step::stream_wait, stream.handle);
  }
  const bool captured = target.capture != CaptureState::none;
  if (captured != state->captured) {
    add_violation({Violation::Kind::captured_event, stream});
    return invalid_call(Step::stream_wait, bits(event));
  }
  if (captured) return {};
  Operation wait;
  wait.waits = true;
  wait.until = state->point;
  add(target, std::move(wait));
  return {};
}

Result<bool> StreamSimulator::stream_query(Stream stream) {
  MutexLock lock(mutex_);
  if (is_of_another_thread(stream.handle)) return Error{ErrorCode::not_supported, Step::stream_query, stream.handle};
  const StreamState& state = streams_[stream_index(stream)];
  if (state.destroyed) {
    add_violation({Violation::Kind::destroyed_stream, stream});
    return invalid_call(Step::stream_query, stream.handle);
  }
  if (state.capture != CaptureState::none || forbidden_by_capture()) {
    break_captures(stream);
    return invalid_call(Step::stream_query, stream.handle);
  }
  return state.pending.empty();
}

Status StreamSimulator::event_destroy(Event event) {
  MutexLock lock(mutex_);
  EventState* state = find(event);
  if (state == nullptr) return invalid_call(Step::event_destroy, bits(event));
  state->live = false;
  free_events_.push_back(static_cast<std::uint32_t>(state - events_.data()));
  return {};
}

Result<CaptureState> StreamSimulator::capture_state(Stream stream) {
  MutexLock lock(mutex_);
  const StreamState& state = streams_[stream_index(stream)];
  if (state.destroyed) {
    add_violation({Violation::Kind::destroyed_stream, stream});
    return invalid_call(Step::properties, stream.handle);
  }
  if (is_of_another_thread(stream.handle)) return captures_ > 0 ? CaptureState::implicit : CaptureState::none;
  return state.capture;
}

void StreamSimulator::hold(Stream stream) {
  MutexLock lock(mutex_);
  streams_[stream_index(stream)].held = true;
}

void StreamSimulator::resume(Stream stream) {
  MutexLock lock(mutex_);
  streams_[stream_index(stream)].held = false;
  settle();
}

std::uint64_t StreamSimulator::advance(Stream stream, std::uint64_t count) {
  MutexLock lock(mutex_);
  StreamState& state = streams_[stream_index(stream)];
  std::uint64_t done = 0;
  while (done < count && complete_next(state)) ++done;
  settle();
  return done;
}

std::uint64_t StreamSimulator::advance_all(Stream stream) { return advance(stream, ~std::uint64_t{0}); }

void StreamSimulator::advance_all() {
  MutexLock lock(mutex_);
  for (std::uint32_t index = 0; index < streams_.size(); ++index) {
    complete_until({index, streams_[index].completed + streams_[index].pending.size()});
  }
}

Status StreamSimulator::enqueue(Stream stream, std::vector<Access> accesses, std::function<void()> run) {
  MutexLock lock(mutex_);
  StreamState& state = streams_[stream_index(stream)];
  if (state.destroyed) {
    add_violation({Violation::Kind::destroyed_stream, stream});
    return invalid_call(Step::none, stream.handle);
  }
  if (state.capture != CaptureState::none) return {};  // it goes into the graph
  Operation kernel;
  kernel.accesses = std::move(accesses);
  kernel.run = std::move(run);
  pending_accesses_.fetch_add(kernel.accesses.size());
  add(state, std::move(kernel));
  return {};
}

Status StreamSimulator::check_unmap(Address address, std::uint64_t bytes) {
  if (pending_accesses_.load() == 0) return {};
  MutexLock lock(mutex_);
  for (const StreamState& stream : streams_) {
    for (const Operation& operation : stream.pending) {
      for (const Access& access : operation.accesses) {
        if (!overlap(access, address, bytes)) continue;
        add_violation({Violation::Kind::unmap_in_use, stream.name, address, bytes});
        return invalid_call(Step::unmap, address);
      }
    }
  }
  return {};
}

CaptureMode StreamSimulator::exchange_capture_mode(CaptureMode mode) { return std::exchange(thread_mode, mode); }

void StreamSimulator::set_capture(Stream stream, CaptureState state, CaptureMode mode) {
  MutexLock lock(mutex_);
  StreamState& target = streams_[stream_index(stream)];
  captures_ -= target.capture != CaptureState::none ? 1 : 0;
  captures_ += state != CaptureState::none ? 1 : 0;
  target.capture = state;
  target.capture_mode = mode;
  target.capturer = std::this_thread::get_id();
}

Status StreamSimulator::destroy_stream(Stream stream) {
  MutexLock lock(mutex_);
  StreamState& state = streams_[stream_index(stream)];
  if (stream.handle == 0 || state.destroyed) return invalid_call(Step::none, stream.handle);
  captures_ -= state.capture != CaptureState::none ? 1 : 0;
  state.capture = CaptureState::none;
  state.destroyed = true;
  return {};
}

std::uint64_t StreamSimulator::enqueued(Stream stream) const {
  MutexLock lock(mutex_);
  const auto found = stream_indices_.find({stream.device, stream_meant_by(stream.handle)});
  if (found == stream_indices_.end()) return 0;
  const StreamState& state = streams_[found->second];
  return state.completed + state.pending.size();
}

std::uint64_t StreamSimulator::pending(Stream stream) const {
  MutexLock lock(mutex_);
  const auto found = stream_indices_.find({stream.device, stream_meant_by(stream.handle)});
  return found == stream_indices_.end() ? 0 : streams_[found->second].pending.size();
}

std::uint64_t StreamSimulator::live_events() const {
  MutexLock lock(mutex_);
  return events_.size() - free_events_.size();
}

std::uint64_t StreamSimulator::synchronizations() const {
  MutexLock lock(mutex_);
  return synchronizations_;
}

std::vector<Violation> StreamSimulator::violations() const {
  MutexLock lock(mutex_);
  return violations_;
}

void StreamSimulator::report(const Violation& violation) {
  MutexLock lock(mutex_);
  add_violation(violation);
}

std::uint32_t StreamSimulator::stream_index(Stream stream) {
  stream.handle = stream_meant_by(stream.handle);
  if (stream == last_stream_) return last_index_;
  const auto [entry, added] = stream_indices_.try_emplace(stream, static_cast<std::uint32_t>(streams_.size()));
  if (added) streams_.emplace_back().name = stream;
  last_stream_ = stream;
  last_index_ = entry->second;
  return last_index_;
}

StreamSimulator::EventState* StreamSimulator::find(Event event) {
  const std::uint64_t slot = (bits(event) & ((std::uint64_t{1} << kEventIndexBits) - 1)) - 1;
  if (slot >= events_.size()) return nullptr;
  EventState& state = events_[slot];
  return state.live && state.generation == bits(event) >> kEventIndexBits ? &state : nullptr;
}

bool StreamSimulator::passed(Point point) const {
  return point.sequence == 0 || streams_[point.stream].completed >= point.sequence;
}

// Whether some capture keeps the calling thread from querying and waiting for events.
bool StreamSimulator::forbidden_by_capture() const {
  if (captures_ == 0 || thread_mode == CaptureMode::relaxed) return false;
  for (const StreamState& stream : streams_) {
    if (stream.capture == CaptureState::none || stream.capture_mode == CaptureMode::relaxed) continue;
    if (stream.capturer == std::this_thread::get_id()) return true;
    if (thread_mode == CaptureMode::global && stream.capture_mode == CaptureMode::global) return true;
  }
  return false;
}

bool StreamSimulator::refused_by_capture(const EventState& event) {
  if (!event.captured && !forbidden_by_capture()) return false;
  break_captures(streams_.empty() ? Stream{} : streams_[event.point.stream].name);
  return true;
}

void StreamSimulator::break_captures(Stream by) {
  for (StreamState& stream : streams_) {
    if (stream.capture != CaptureState::none) stream.capture = CaptureState::invalidated;
  }
  add_violation({Violation::Kind::captured_event, by});
}

// Enqueues, and completes at once where nothing stands before it.
void StreamSimulator::add(StreamState& stream, Operation operation) {
  if (!stream.held && stream.pending.empty() && (!operation.waits || passed(operation.until))) {
    if (operation.run) operation.run();
    if (!operation.accesses.empty()) pending_accesses_.fetch_sub(operation.accesses.size());
    ++stream.completed;
    return;
  }
  stream.pending.push_back(std::move(operation));
}

// False where there is nothing to complete, or its wait is not satisfied.
bool StreamSimulator::complete_next(StreamState& stream) {
  if (stream.pending.empty()) return false;
  Operation& next = stream.pending.front();
  if (next.waits && !passed(next.until)) return false;
  if (next.run) next.run();
  pending_accesses_.fetch_sub(next.accesses.size());
  stream.pending.pop_front();
  ++stream.completed;
  return true;
}

// Completes what the point stands for: its stream up to it, and first the streams that those operations wait for.
// A wait looks back in time, so the chain of goals ends. It is a list, not a recursion: it may be long.
void StreamSimulator::complete_until(Point point) {
  std::vector<Point> goals = {point};
  while (!goals.empty()) {
    if (passed(goals.back())) {
      goals.pop_back();
    } else if (StreamState& stream = streams_[goals.back().stream]; !complete_next(stream)) {
      goals.push_back(stream.pending.front().until);
    }
  }
}

// Streams that are not on hold go on as far as their waits let them, until none can.
void StreamSimulator::settle() {
  for (bool moved = true; moved;) {
    moved = false;
    for (StreamState& stream : streams_) {
      while (!stream.held && complete_next(stream)) moved = true;
    }
  }
}

}  // namespace gmlake::driver
