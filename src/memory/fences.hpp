// Points on streams, and whether the device has passed them.
//
// Each stream has a clock, its tick, that the allocator advances at every free on it. mark(stream) records an event and
// remembers the tick it stands for; a fence (stream, tick) has passed once an event recorded at that tick or later has.
// So one event answers for all memory freed before it, and nothing is recorded on the hot path.
//
// Thread-safe by a lock of its own, which is held across event calls (0.1 to 0.2 us), those that wait for the device
// excepted, and which the hot path never takes.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <vector>

#include "base/mutex.hpp"
#include "driver/driver.hpp"
#include "memory/phy_block.hpp"

namespace gmlake::memory {

class Fences {
 public:
  explicit Fences(driver::Driver& driver, int device) : driver_(driver), device_(device) {}
  ~Fences();
  Fences(const Fences&) = delete;
  Fences& operator=(const Fences&) = delete;

  // The number of a stream; a new one the first time it is seen. Throws std::bad_alloc.
  StreamIndex intern(driver::Stream stream);
  driver::Stream stream(StreamIndex index) const;
  std::size_t stream_count() const;

  // Records an event that stands for `tick` and everything before it, unless one does already. At most two driver
  // calls. On an error nothing stands for the tick, and it never passes by itself.
  Status mark(StreamIndex stream, std::uint64_t tick);

  // Asks the driver about the oldest events of each stream until one has not passed. The first error of a query: its
  // stream passes nothing, the others do.
  Status poll();

  // By what poll() has seen; makes no driver call.
  bool passed(const Fence& fence) const;

  // Waits until the fence has passed, marking it first where nothing stands for it yet.
  Status wait(const Fence& fence);

  // Makes later work on `waiter` wait, on the device, for the fence. Marks it first where needed.
  Status make_stream_wait(StreamIndex waiter, const Fence& fence);

  std::uint64_t events_pending() const { return pending_.load(std::memory_order_relaxed); }

 private:
  struct Mark {
    std::uint64_t tick = 0;
    driver::Event event = driver::Event::none;
  };
  struct Clock {
    driver::Stream stream;
    std::uint64_t passed_tick = 0;
    std::deque<Mark> marks;  // recorded and not known to have passed, ticks ascending
  };

  Status mark_locked(Clock& clock, std::uint64_t tick) GMLAKE_REQUIRES(mutex_);
  void pass_front(Clock& clock) GMLAKE_REQUIRES(mutex_);

  driver::Driver& driver_;
  const int device_;
  mutable Mutex mutex_;
  std::deque<Clock> clocks_ GMLAKE_GUARDED_BY(mutex_);
  std::vector<driver::Event> idle_events_ GMLAKE_GUARDED_BY(mutex_);
  std::size_t event_count_ GMLAKE_GUARDED_BY(mutex_) = 0;  // made by this, idle ones and pending ones
  std::atomic<std::uint64_t> pending_{0};                  // written under mutex_
};

}  // namespace gmlake::memory
