// Points on streams, and whether the device has passed them.
//
// Each stream has a clock, its tick, that the allocator advances at every free on it. mark(stream) records an event and
// remembers the tick it stands for; a fence (stream, tick) has passed once an event recorded at that tick or later has.
// So one event answers for all memory freed before it, and nothing is recorded on the hot path.
//
// While a stream is captured into a graph, what is recorded on it belongs to the graph: its ticks wait for the first
// poll() after the capture. Events of other streams are asked about in relaxed capture mode, which breaks no capture.
//
// A clock outlives its stream until its last tick has passed. The next stream takes it over and goes on counting where
// it stopped, so that fences of the former stream stay passed.
//
// Thread-safe by two locks of its own. `calls` is held across event calls (0.1 to 0.2 us; making an event takes
// longer), those that wait for the device excepted. `names` never is: what is called with the device's `state` held,
// open(), reclaim() and passed(), takes that one or none, so that no hit waits for a driver call.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <vector>

#include "base/growing_array.hpp"
#include "base/mutex.hpp"
#include "driver/driver.hpp"
#include "memory/phy_block.hpp"

namespace gmlake::memory {

class Fences {
 public:
  explicit Fences(driver::Driver& driver) : driver_(driver) {}
  ~Fences();
  Fences(const Fences&) = delete;
  Fences& operator=(const Fences&) = delete;

  // A clock for a stream that has none, of any device. The number may be that of a former stream. Throws
  // std::bad_alloc with nothing changed.
  StreamIndex open(driver::Stream stream);
  // The stream is about to be destroyed, and its last tick is marked: that mark stands for all ticks to come too.
  void close(StreamIndex stream);
  // Lets a clock go on which every mark has passed, for open() to give to another stream: `tick` and all before it have
  // passed there. Whoever names it knows of no other tick.
  void reclaim(StreamIndex stream, std::uint64_t tick);

  driver::Stream stream(StreamIndex index) const;
  // Whether the driver says now that the stream may not be used because it, or one that it waits for, is captured; and
  // whether any stream that has a clock is. One driver call a stream.
  bool captured(StreamIndex stream);
  bool capture_under_way();
  // Whether the driver says now that the stream has not come to the end of its work. False where it may not be asked: a
  // stream that is captured, or another thread's. Two driver calls.
  bool behind(StreamIndex stream);

  // Records an event that stands for `tick` and everything before it, unless one does already. At most four driver
  // calls. On an error nothing stands for the tick, and it never passes by itself; `captured` excepted: the next poll()
  // after the capture marks it.
  Status mark(StreamIndex stream, std::uint64_t tick);

  // Asks the driver about the oldest events of each stream until one has not passed. The first error of a query: its
  // stream passes nothing, the others do.
  Status poll();

  // By what poll() has seen; makes no driver call and takes no lock.
  bool passed(const Fence& fence) const { return passed_[fence.stream].load(std::memory_order_acquire) >= fence.tick; }

  // Waits until the fence has passed, marking it first where nothing stands for it yet. Not for use while a capture is
  // known to be under way.
  Status wait(const Fence& fence);

  // Makes later work on `waiter` wait, on the device, for the fence. Marks it first where needed. Errors: also
  // `captured`, where the waiter is: a graph takes no order from outside; not_supported, where it is another thread's.
  Status make_stream_wait(StreamIndex waiter, const Fence& fence);

  // Enqueues on the stream, which nobody closes meanwhile, that memory becomes 0. Without a lock: where the stream has
  // a great deal before it, the call may wait for it. Errors: captured, with nothing enqueued; the driver's.
  enum class Cleared : std::uint8_t { in_order, in_a_graph };  // the latter: a capture began just then, and has it
  Result<Cleared> clear(StreamIndex stream, driver::Address address, std::uint64_t bytes);

  // Waits for everything that is marked. Names no stream: some may be gone.
  void wait_for_marks();

  std::uint64_t events_pending() const { return pending_.load(std::memory_order_relaxed); }

 private:
  struct Name {
    driver::Stream stream;
    bool open = false;
  };
  struct Mark {
    std::uint64_t tick = 0;
    driver::Event event = driver::Event::none;
  };
  struct Clock {
    bool listed = false;            // in busy_
    std::uint64_t wanted_tick = 0;  // to be marked once the capture of its stream is over
    std::deque<Mark> marks;         // recorded and not known to have passed, ticks ascending
  };
  struct Events {  // of one device
    std::vector<driver::Event> idle;
    std::size_t made = 0;  // idle ones and pending ones
  };

  Clock& clock(StreamIndex stream) GMLAKE_REQUIRES(calls_);  // made when it is first needed; throws std::bad_alloc
  Status check_capture(driver::Stream stream, Step step) const;
  Status record(StreamIndex stream, std::uint64_t tick) GMLAKE_REQUIRES(calls_);
  Status mark_locked(StreamIndex stream, std::uint64_t tick) GMLAKE_REQUIRES(calls_);
  void list(StreamIndex stream) GMLAKE_REQUIRES(calls_);
  void pass_front(StreamIndex stream) GMLAKE_REQUIRES(calls_);
  Status poll_clock(StreamIndex stream) GMLAKE_REQUIRES(calls_);

  driver::Driver& driver_;
  mutable Mutex calls_ GMLAKE_ACQUIRED_BEFORE(names_mutex_);
  mutable Mutex names_mutex_;
  std::vector<Name> names_ GMLAKE_GUARDED_BY(names_mutex_);
  std::vector<StreamIndex> free_ GMLAKE_GUARDED_BY(names_mutex_);  // clocks without a stream
  std::deque<Clock> clocks_ GMLAKE_GUARDED_BY(calls_);
  std::vector<StreamIndex> busy_ GMLAKE_GUARDED_BY(calls_);  // with marks or a wanted tick: what poll() looks at
  std::vector<Events> events_ GMLAKE_GUARDED_BY(calls_);     // by device
  GrowingArray<std::atomic<std::uint64_t>> passed_;          // the tick; written by whoever holds calls_, or the clock
  std::atomic<std::uint64_t> pending_{0};                    // written under calls_
};

}  // namespace gmlake::memory
