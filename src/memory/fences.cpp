#include "memory/fences.hpp"

#include <algorithm>
#include <cstdint>

#include "base/check.hpp"

namespace gmlake::memory {

Fences::~Fences() {
  const MutexLock lock(mutex_);
  for (Clock& clock : clocks_) {
    for (const Mark& mark : clock.marks) (void)driver_.event_destroy(mark.event).ok();
  }
  for (const Events& events : events_) {
    for (const driver::Event event : events.idle) (void)driver_.event_destroy(event).ok();
  }
}

StreamIndex Fences::open(driver::Stream stream) {
  const MutexLock lock(mutex_);
  if (events_.size() <= static_cast<std::size_t>(stream.device)) {
    events_.resize(static_cast<std::size_t>(stream.device) + 1);
  }
  if (free_.empty()) {
    busy_.reserve(clocks_.size() + 1);  // neither grows where that would lose something
    free_.reserve(clocks_.size() + 1);
    clocks_.emplace_back();
    free_.push_back(static_cast<StreamIndex>(clocks_.size() - 1));
  }
  const StreamIndex index = free_.back();
  free_.pop_back();
  clocks_[index].stream = stream;
  clocks_[index].open = true;
  return index;
}

void Fences::close(StreamIndex stream) {
  const MutexLock lock(mutex_);
  Clock& clock = clocks_[stream];
  (clock.marks.empty() ? clock.passed_tick : clock.marks.back().tick) = UINT64_MAX;
  clock.open = false;
}

void Fences::reclaim(StreamIndex stream, std::uint64_t tick) {
  const MutexLock lock(mutex_);
  Clock& clock = clocks_[stream];
  GMLAKE_CHECK(clock.marks.empty() && clock.passed_tick >= tick);
  clock.open = false;
  clock.wanted_tick = 0;
  clock.passed_tick = tick;
  free_.push_back(stream);
}

driver::Stream Fences::stream(StreamIndex index) const {
  const MutexLock lock(mutex_);
  return clocks_[index].stream;
}

bool Fences::captured(StreamIndex stream) {
  const MutexLock lock(mutex_);
  return !check_capture(clocks_[stream], Step::none).ok();
}

bool Fences::capture_under_way() {
  const MutexLock lock(mutex_);
  return std::any_of(clocks_.begin(), clocks_.end(), [this](const Clock& clock) GMLAKE_REQUIRES(mutex_) {
    return clock.open && !check_capture(clock, Step::none).ok();
  });
}

// No stream says by itself when a capture of it begins, so it is asked each time.
Status Fences::check_capture(const Clock& clock, Step step) {
  const Result<driver::CaptureState> capture = driver_.capture_state(clock.stream);
  if (!capture) return capture.error();
  if (*capture == driver::CaptureState::none) return {};
  return Error{ErrorCode::captured, step, clock.stream.handle};
}

void Fences::list(StreamIndex stream) {
  if (clocks_[stream].listed) return;
  clocks_[stream].listed = true;
  busy_.push_back(stream);
}

Status Fences::mark(StreamIndex stream, std::uint64_t tick) {
  const MutexLock lock(mutex_);
  return mark_locked(stream, tick);
}

Status Fences::mark_locked(StreamIndex stream, std::uint64_t tick) {
  Clock& clock = clocks_[stream];
  if (clock.passed_tick >= tick || (!clock.marks.empty() && clock.marks.back().tick >= tick)) return {};
  Status recorded = check_capture(clock, Step::event_record);
  if (recorded.ok()) recorded = record(clock, tick);
  if (recorded.ok()) {
    list(stream);
  } else if (recorded.error().code == ErrorCode::captured) {
    clock.wanted_tick = std::max(clock.wanted_tick, tick);
    list(stream);
  }
  return recorded;
}

Status Fences::record(Clock& clock, std::uint64_t tick) {
  Events& events = events_[static_cast<std::size_t>(clock.stream.device)];
  if (events.idle.empty()) {
    events.idle.reserve(events.made + 1);  // of every event there is: none is lost for want of host memory
    Result<driver::Event> made = driver_.event_create(clock.stream.device);
    if (!made) return made.error();
    ++events.made;
    events.idle.push_back(*made);
  }
  clock.marks.push_back({tick, events.idle.back()});
  Status recorded = driver_.event_record(clock.marks.back().event, clock.stream);
  // Should a capture have begun on another thread since the stream was asked about, the event may be part of the graph:
  // it would never pass. It stays idle; its next record makes it an ordinary one again.
  if (recorded.ok()) recorded = check_capture(clock, Step::event_record);
  if (!recorded.ok()) {
    clock.marks.pop_back();
    return recorded;
  }
  events.idle.pop_back();
  pending_.fetch_add(1, std::memory_order_relaxed);
  return {};
}

void Fences::pass_front(Clock& clock) {
  clock.passed_tick = clock.marks.front().tick;
  events_[static_cast<std::size_t>(clock.stream.device)].idle.push_back(clock.marks.front().event);
  clock.marks.pop_front();
  pending_.fetch_sub(1, std::memory_order_relaxed);
}

Status Fences::poll_clock(StreamIndex stream) {
  Clock& clock = clocks_[stream];
  if (clock.wanted_tick != 0) {
    Status marked = mark_locked(stream, clock.wanted_tick);
    if (marked.ok()) clock.wanted_tick = 0;
    if (!marked.ok() && marked.error().code != ErrorCode::captured) return marked;
  }
  while (!clock.marks.empty()) {
    const Result<bool> done = driver_.event_query(clock.marks.front().event);
    if (!done) return done.error();
    if (!*done) break;
    pass_front(clock);
  }
  return {};
}

Status Fences::poll() {
  const MutexLock lock(mutex_);
  Status first;
  if (busy_.empty()) return first;
  const driver::RelaxedCapture relaxed(driver_);
  for (std::size_t i = 0; i < busy_.size();) {
    const StreamIndex stream = busy_[i];
    if (Status polled = poll_clock(stream); !polled.ok() && first.ok()) first = polled;
    Clock& clock = clocks_[stream];
    if (clock.marks.empty() && clock.wanted_tick == 0) {
      clock.listed = false;
      busy_[i] = busy_.back();
      busy_.pop_back();
    } else {
      ++i;
    }
  }
  return first;
}

bool Fences::passed(const Fence& fence) const {
  const MutexLock lock(mutex_);
  return clocks_[fence.stream].passed_tick >= fence.tick;
}

Status Fences::wait(const Fence& fence) {
  const driver::RelaxedCapture relaxed(driver_);
  for (;;) {
    Mark oldest;
    {
      const MutexLock lock(mutex_);
      if (Status marked = mark_locked(fence.stream, fence.tick); !marked) return marked;
      const Clock& clock = clocks_[fence.stream];
      if (clock.passed_tick >= fence.tick) return {};
      GMLAKE_CHECK(!clock.marks.empty());
      oldest = clock.marks.front();
    }
    // May last as long as the stream's work: without the lock. Should a poll() elsewhere see the event passed and use
    // it again meanwhile, this waits for more than it must; ticks say which it was.
    if (Status waited = driver_.event_synchronize(oldest.event); !waited) return waited;
    const MutexLock lock(mutex_);
    Clock& clock = clocks_[fence.stream];
    if (!clock.marks.empty() && clock.marks.front().tick == oldest.tick) pass_front(clock);
  }
}

Status Fences::make_stream_wait(StreamIndex waiter, const Fence& fence) {
  const MutexLock lock(mutex_);
  const Clock& clock = clocks_[fence.stream];
  if (Status marked = mark_locked(fence.stream, fence.tick); !marked) return marked;
  if (clock.passed_tick >= fence.tick) return {};
  if (Status free = check_capture(clocks_[waiter], Step::stream_wait); !free.ok()) return free;
  for (const Mark& mark : clock.marks) {
    if (mark.tick >= fence.tick) return driver_.stream_wait(clocks_[waiter].stream, mark.event);
  }
  GMLAKE_CHECK(false);
}

}  // namespace gmlake::memory
