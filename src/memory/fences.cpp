#include "memory/fences.hpp"

#include <algorithm>
#include <cstdint>

#include "base/check.hpp"
#include "base/room.hpp"
#include "driver/per_thread_stream.hpp"

namespace gmlake::memory {

Fences::~Fences() {
  const MutexLock lock(calls_);
  for (Clock& clock : clocks_) {
    for (const Mark& mark : clock.marks) (void)driver_.event_destroy(mark.event).ok();
  }
  for (const Events& events : events_) {
    for (const driver::Event event : events.idle) (void)driver_.event_destroy(event).ok();
  }
}

StreamIndex Fences::open(driver::Stream stream) {
  const MutexLock lock(names_mutex_);
  if (free_.empty()) {
    const std::size_t count = names_.size() + 1;
    make_room(names_, count);  // nothing grows where that would lose something
    make_room(free_, count);
    passed_.grow_to(count);
    names_.emplace_back();
    free_.push_back(static_cast<StreamIndex>(count - 1));
  }
  const StreamIndex index = free_.back();
  free_.pop_back();
  names_[index] = {stream, true};
  return index;
}

void Fences::close(StreamIndex stream) {
  const MutexLock lock(calls_);
  Clock& closed = clock(stream);
  if (closed.marks.empty()) {
    passed_[stream].store(UINT64_MAX, std::memory_order_release);
  } else {
    closed.marks.back().tick = UINT64_MAX;
  }
  const MutexLock names(names_mutex_);
  names_[stream].open = false;
}

// Without calls_: its last mark has passed, so nothing is left of the clock but a tick that may still be wanted. That
// is one of the former stream's, which have passed.
void Fences::reclaim(StreamIndex stream, std::uint64_t tick) {
  const MutexLock lock(names_mutex_);
  GMLAKE_CHECK(passed({stream, tick}));
  names_[stream].open = false;
  passed_[stream].store(tick, std::memory_order_release);
  free_.push_back(stream);
}

driver::Stream Fences::stream(StreamIndex index) const {
  const MutexLock lock(names_mutex_);
  return names_[index].stream;
}

bool Fences::captured(StreamIndex index) { return !check_capture(stream(index), Step::none).ok(); }

bool Fences::behind(StreamIndex index) {
  if (captured(index)) return false;
  const driver::RelaxedCapture relaxed(driver_);
  const Result<bool> idle = driver_.stream_query(stream(index));
  return idle && !*idle;
}

bool Fences::capture_under_way() {
  std::vector<driver::Stream> open;
  {
    const MutexLock lock(names_mutex_);
    for (const Name& name : names_) {
      if (name.open) open.push_back(name.stream);
    }
  }
  return std::any_of(open.begin(), open.end(),
                     [this](driver::Stream each) { return !check_capture(each, Step::none).ok(); });
}

// No stream says by itself when a capture of it begins, so it is asked each time.
Status Fences::check_capture(driver::Stream stream, Step step) const {
  const Result<driver::CaptureState> capture = driver_.capture_state(stream);
  if (!capture) return capture.error();
  if (*capture == driver::CaptureState::none) return {};
  return Error{ErrorCode::captured, step, stream.handle};
}

Fences::Clock& Fences::clock(StreamIndex stream) {
  while (clocks_.size() <= stream) {
    make_room(busy_, clocks_.size() + 1);  // so that to list one costs nothing
    clocks_.emplace_back();
  }
  return clocks_[stream];
}

void Fences::list(StreamIndex stream) {
  if (clocks_[stream].listed) return;
  clocks_[stream].listed = true;
  busy_.push_back(stream);
}

Status Fences::mark(StreamIndex stream, std::uint64_t tick) {
  const MutexLock lock(calls_);
  return mark_locked(stream, tick);
}

Status Fences::mark_locked(StreamIndex stream, std::uint64_t tick) {
  Clock& marked = clock(stream);
  if (passed({stream, tick}) || (!marked.marks.empty() && marked.marks.back().tick >= tick)) return {};
  Status recorded = check_capture(this->stream(stream), Step::event_record);
  if (recorded.ok()) recorded = record(stream, tick);
  if (recorded.ok()) {
    list(stream);
  } else if (recorded.error().code == ErrorCode::captured) {
    marked.wanted_tick = std::max(marked.wanted_tick, tick);
    list(stream);
  }
  return recorded;
}

Status Fences::record(StreamIndex stream, std::uint64_t tick) {
  const driver::Stream on = this->stream(stream);
  if (events_.size() <= static_cast<std::size_t>(on.device)) events_.resize(static_cast<std::size_t>(on.device) + 1);
  Events& events = events_[static_cast<std::size_t>(on.device)];
  if (events.idle.empty()) {
    events.idle.reserve(events.made + 1);  // of every event there is: none is lost for want of host memory
    Result<driver::Event> made = driver_.event_create(on.device);
    if (!made) return made.error();
    ++events.made;
    events.idle.push_back(*made);
  }
  std::deque<Mark>& marks = clocks_[stream].marks;
  marks.push_back({tick, events.idle.back()});
  Status recorded = driver_.event_record(marks.back().event, on);
  // Should a capture have begun on another thread since the stream was asked about, the event may be part of the graph:
  // it would never pass. It stays idle; its next record makes it an ordinary one again.
  if (recorded.ok()) recorded = check_capture(on, Step::event_record);
  if (!recorded.ok()) {
    marks.pop_back();
    return recorded;
  }
  events.idle.pop_back();
  pending_.fetch_add(1, std::memory_order_relaxed);
  return {};
}

void Fences::pass_front(StreamIndex stream) {
  std::deque<Mark>& marks = clocks_[stream].marks;
  events_[static_cast<std::size_t>(this->stream(stream).device)].idle.push_back(marks.front().event);
  passed_[stream].store(marks.front().tick, std::memory_order_release);
  marks.pop_front();
  pending_.fetch_sub(1, std::memory_order_relaxed);
}

Status Fences::poll_clock(StreamIndex stream) {
  Clock& polled = clocks_[stream];
  if (polled.wanted_tick != 0) {
    Status marked = mark_locked(stream, polled.wanted_tick);
    if (marked.ok()) polled.wanted_tick = 0;
    if (!marked.ok() && marked.error().code != ErrorCode::captured) return marked;
  }
  while (!polled.marks.empty()) {
    const Result<bool> done = driver_.event_query(polled.marks.front().event);
    if (!done) return done.error();
    if (!*done) break;
    pass_front(stream);
  }
  return {};
}

Status Fences::poll() {
  const MutexLock lock(calls_);
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

Status Fences::wait(const Fence& fence) {
  const driver::RelaxedCapture relaxed(driver_);
  for (;;) {
    Mark oldest;
    {
      const MutexLock lock(calls_);
      if (Status marked = mark_locked(fence.stream, fence.tick); !marked) return marked;
      if (passed(fence)) return {};
      const Clock& clock = clocks_[fence.stream];
      GMLAKE_CHECK(!clock.marks.empty());
      oldest = clock.marks.front();
    }
    // May last as long as the stream's work: without the lock. Should a poll() elsewhere see the event passed and use
    // it again meanwhile, this waits for more than it must; ticks say which it was, and once the fence has passed, the
    // clock may be another stream's, whose ticks say nothing.
    if (Status waited = driver_.event_synchronize(oldest.event); !waited) return waited;
    const MutexLock lock(calls_);
    if (passed(fence)) return {};
    const Clock& clock = clocks_[fence.stream];
    if (!clock.marks.empty() && clock.marks.front().tick == oldest.tick) pass_front(fence.stream);
  }
}

Status Fences::make_stream_wait(StreamIndex waiter, const Fence& fence) {
  const driver::Stream waits = stream(waiter);
  if (driver::is_of_another_thread(waits.handle)) {  // before an event is recorded in vain
    return Error{ErrorCode::not_supported, Step::stream_wait, waits.handle};
  }
  const MutexLock lock(calls_);
  if (Status marked = mark_locked(fence.stream, fence.tick); !marked) return marked;
  if (passed(fence)) return {};
  if (Status free = check_capture(waits, Step::stream_wait); !free.ok()) return free;
  for (const Mark& mark : clocks_[fence.stream].marks) {
    if (mark.tick >= fence.tick) return driver_.stream_wait(waits, mark.event);
  }
  GMLAKE_CHECK(false);
}

void Fences::wait_for_marks() {
  const MutexLock lock(calls_);
  for (const Clock& clock : clocks_) {
    if (!clock.marks.empty()) (void)driver_.event_synchronize(clock.marks.back().event).ok();  // else nothing will tell
  }
}

Result<Fences::Cleared> Fences::clear(StreamIndex index, driver::Address address, std::uint64_t bytes) {
  const driver::Stream on = stream(index);
  if (Status free = check_capture(on, Step::clear); !free.ok()) return free.error();
  if (Status cleared = driver_.clear(on, address, bytes); !cleared.ok()) return cleared.error();
  const Status after = check_capture(on, Step::clear);
  if (after.ok()) return Cleared::in_order;
  if (after.error().code == ErrorCode::captured) return Cleared::in_a_graph;
  return after.error();  // nobody knows: it is cleared again
}

}  // namespace gmlake::memory
