#include "memory/fences.hpp"

#include "base/check.hpp"

namespace gmlake::memory {

Fences::~Fences() {
  const MutexLock lock(mutex_);
  for (Clock& clock : clocks_) {
    for (const Mark& mark : clock.marks) (void)driver_.event_destroy(mark.event).ok();
  }
  for (const driver::Event event : idle_events_) (void)driver_.event_destroy(event).ok();
}

StreamIndex Fences::intern(driver::Stream stream) {
  const MutexLock lock(mutex_);
  for (std::size_t i = 0; i < clocks_.size(); ++i) {
    if (clocks_[i].stream == stream) return static_cast<StreamIndex>(i);
  }
  clocks_.push_back(Clock{stream, 0, {}});
  return static_cast<StreamIndex>(clocks_.size() - 1);
}

driver::Stream Fences::stream(StreamIndex index) const {
  const MutexLock lock(mutex_);
  return clocks_[index].stream;
}

std::size_t Fences::stream_count() const {
  const MutexLock lock(mutex_);
  return clocks_.size();
}

Status Fences::mark(StreamIndex stream, std::uint64_t tick) {
  const MutexLock lock(mutex_);
  return mark_locked(clocks_[stream], tick);
}

Status Fences::mark_locked(Clock& clock, std::uint64_t tick) {
  if (clock.passed_tick >= tick || (!clock.marks.empty() && clock.marks.back().tick >= tick)) return {};
  if (idle_events_.empty()) {
    idle_events_.reserve(event_count_ + 1);  // of every event there is: none is lost for want of host memory
    Result<driver::Event> made = driver_.event_create(device_);
    if (!made) return made.error();
    ++event_count_;
    idle_events_.push_back(*made);
  }
  const driver::Event event = idle_events_.back();
  if (Status recorded = driver_.event_record(event, clock.stream); !recorded) return recorded;
  clock.marks.push_back({tick, event});
  idle_events_.pop_back();
  pending_.fetch_add(1, std::memory_order_relaxed);
  return {};
}

void Fences::pass_front(Clock& clock) {
  clock.passed_tick = clock.marks.front().tick;
  idle_events_.push_back(clock.marks.front().event);
  clock.marks.pop_front();
  pending_.fetch_sub(1, std::memory_order_relaxed);
}

Status Fences::poll() {
  const MutexLock lock(mutex_);
  Status first;
  if (events_pending() == 0) return first;
  for (Clock& clock : clocks_) {
    while (!clock.marks.empty()) {
      const Result<bool> done = driver_.event_query(clock.marks.front().event);
      if (!done && first.ok()) first = done.error();
      if (!done || !*done) break;
      pass_front(clock);
    }
  }
  return first;
}

bool Fences::passed(const Fence& fence) const {
  const MutexLock lock(mutex_);
  return clocks_[fence.stream].passed_tick >= fence.tick;
}

Status Fences::wait(const Fence& fence) {
  for (;;) {
    Mark oldest;
    {
      const MutexLock lock(mutex_);
      Clock& clock = clocks_[fence.stream];
      if (Status marked = mark_locked(clock, fence.tick); !marked) return marked;
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
  Clock& clock = clocks_[fence.stream];
  if (Status marked = mark_locked(clock, fence.tick); !marked) return marked;
  if (clock.passed_tick >= fence.tick) return {};
  for (const Mark& mark : clock.marks) {
    if (mark.tick >= fence.tick) return driver_.stream_wait(clocks_[waiter].stream, mark.event);
  }
  GMLAKE_CHECK(false);
}

}  // namespace gmlake::memory
