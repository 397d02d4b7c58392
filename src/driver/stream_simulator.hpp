// Streams and events in software, for the backends that have no GPU. Work completes the moment it is enqueued, unless
// its stream is on hold: then the caller completes it step by step, and so chooses every interleaving.
// One operation is one enqueue: a kernel, an event's record, or a wait. A stream completes its operations in order; a
// wait completes when the point that it waits for has. A stream exists from its first use on. CU_STREAM_PER_THREAD is
// the calling thread's, and the same as its number (per_thread_stream.hpp); work may be put on it by that from any
// thread. Any thread may call anything. One lock inside; no call waits. Recording and querying cost a lock and a table
// look-up.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/mutex.hpp"
#include "driver/driver.hpp"
#include "gmlake/result.hpp"

namespace gmlake::driver {

// What a simulated kernel touches.
struct Access {
  Address address = 0;
  std::uint64_t bytes = 0;
  bool write = false;

  friend bool operator==(const Access&, const Access&) = default;
};

// Something done that real hardware would punish with a fault, with wrong data, or by breaking a graph capture.
// The call in question was refused as well; the list is for the code that ignores errors.
struct Violation {
  enum class Kind : std::uint8_t {
    unmap_in_use,      // a range was unmapped that pending work touches
    no_access,         // a kernel touched a range that its device may not
    captured_event,    // a query, record or wait that breaks a capture, or across the border of one
    destroyed_stream,  // a stream was used after it was destroyed
  };
  Kind kind = Kind::unmap_in_use;
  Stream stream = {};   // the stream of the pending work, the kernel, or the event
  Address address = 0;  // of the first two kinds
  std::uint64_t bytes = 0;

  friend bool operator==(const Violation&, const Violation&) = default;
};

class StreamSimulator {
 public:
  StreamSimulator() = default;
  StreamSimulator(const StreamSimulator&) = delete;
  StreamSimulator& operator=(const StreamSimulator&) = delete;

  // Events, with the contract of Driver. Errors: invalid_value for an unknown or destroyed event, a destroyed stream,
  // an event recorded on a stream of another device, and whatever a capture forbids: of another thread's stream, a
  // record while there is any, as if every stream were a blocking one. not_supported: such a stream may not
  // wait.
  Event event_create(int device);
  Status event_record(Event event, Stream stream);
  Result<bool> event_query(Event event);
  // Where the event has not passed, completes what it stands for, as real time would, and counts one synchronization.
  Status event_synchronize(Event event);
  Status stream_wait(Stream stream, Event event);
  Status event_destroy(Event event);
  Result<bool> stream_query(Stream stream);
  Result<CaptureState> capture_state(Stream stream);
  // The calling thread's mode is one for all simulators, as it is one for all devices of CUDA.
  static CaptureMode exchange_capture_mode(CaptureMode mode);

  // Puts a stream on hold, and ends that. Both leave what is complete as it is; resume completes what it can.
  void hold(Stream stream);
  void resume(Stream stream);
  // Completes the oldest `count` operations of a stream, fewer where it has fewer or a wait is not satisfied.
  // Gives the number completed. A destroyed stream still completes its work.
  std::uint64_t advance(Stream stream, std::uint64_t count);
  std::uint64_t advance_all(Stream stream);
  void advance_all();  // every stream, to the end

  // Enqueues a kernel that touches these ranges, and runs `run` when it completes, under the simulator's lock: `run`
  // calls neither the simulator nor its driver. Errors: invalid_value (a destroyed stream).
  Status enqueue(Stream stream, std::vector<Access> accesses, std::function<void()> run = {});
  // Refuses, as invalid_value at Step::unmap and a violation, a range that pending work touches.
  Status check_unmap(Address address, std::uint64_t bytes);

  // Starts or ends a capture, begun by the calling thread in that mode. While it lasts, invalidated or not, querying or
  // synchronizing any event from a thread whose mode does not allow it is refused and invalidates every capture; so is
  // that of an event recorded in a capture, in any mode. Work on a captured stream is not run. Stricter than CUDA: an
  // event cannot carry an order into a capture or out of it.
  void set_capture(Stream stream, CaptureState state, CaptureMode mode = CaptureMode::global);
  // Errors: invalid_value (the default stream, or one destroyed before). Its pending work stays pending.
  Status destroy_stream(Stream stream);

  std::uint64_t enqueued(Stream stream) const;  // operations so far, complete or not
  std::uint64_t pending(Stream stream) const;   // of them, not complete
  std::uint64_t live_events() const;            // created and not destroyed
  std::uint64_t synchronizations() const;       // calls of event_synchronize that had to wait
  std::vector<Violation> violations() const;
  void report(const Violation& violation);  // what a driver found by itself

 private:
  // The state of a stream after `sequence` of its operations.
  struct Point {
    std::uint32_t stream = 0;
    std::uint64_t sequence = 0;
  };
  struct Operation {
    bool waits = false;
    Point until;  // of a wait
    std::vector<Access> accesses;
    std::function<void()> run;
  };
  struct StreamState {
    Stream name;
    bool held = false;
    bool destroyed = false;
    CaptureState capture = CaptureState::none;
    CaptureMode capture_mode = CaptureMode::global;
    std::thread::id capturer;  // the thread that began the capture
    std::uint64_t completed = 0;
    std::deque<Operation> pending;
  };
  struct EventState {
    std::uint32_t generation = 0;  // counts the uses of the slot, so that an old handle is recognized
    int device = 0;
    bool live = false;
    bool captured = false;  // its last record went into a capture
    Point point;            // sequence 0 before the first record: passed
  };
  struct StreamHash {
    std::size_t operator()(const Stream& stream) const {
      const std::uint64_t mixed =
          (stream.handle ^ static_cast<std::uint64_t>(stream.device) << 48) * 0x9E3779B97F4A7C15u;
      return mixed ^ mixed >> 32;
    }
  };

  std::uint32_t stream_index(Stream stream) GMLAKE_REQUIRES(mutex_);
  EventState* find(Event event) GMLAKE_REQUIRES(mutex_);
  bool passed(Point point) const GMLAKE_REQUIRES(mutex_);
  bool forbidden_by_capture() const GMLAKE_REQUIRES(mutex_);
  bool refused_by_capture(const EventState& event) GMLAKE_REQUIRES(mutex_);
  void break_captures(Stream by) GMLAKE_REQUIRES(mutex_);
  void add(StreamState& stream, Operation operation) GMLAKE_REQUIRES(mutex_);
  bool complete_next(StreamState& stream) GMLAKE_REQUIRES(mutex_);
  void complete_until(Point point) GMLAKE_REQUIRES(mutex_);
  void settle() GMLAKE_REQUIRES(mutex_);
  void add_violation(const Violation& violation) GMLAKE_REQUIRES(mutex_) { violations_.push_back(violation); }

  mutable Mutex mutex_;
  std::deque<StreamState> streams_ GMLAKE_GUARDED_BY(mutex_);  // a deque: states stay where they are
  std::unordered_map<Stream, std::uint32_t, StreamHash> stream_indices_ GMLAKE_GUARDED_BY(mutex_);
  Stream last_stream_ GMLAKE_GUARDED_BY(mutex_){-1, 0};  // the stream looked up last, which most calls name again
  std::uint32_t last_index_ GMLAKE_GUARDED_BY(mutex_) = 0;
  std::vector<EventState> events_ GMLAKE_GUARDED_BY(mutex_);
  std::vector<std::uint32_t> free_events_ GMLAKE_GUARDED_BY(mutex_);
  std::uint64_t captures_ GMLAKE_GUARDED_BY(mutex_) = 0;  // streams with a capture, invalidated ones included
  std::uint64_t synchronizations_ GMLAKE_GUARDED_BY(mutex_) = 0;
  std::vector<Violation> violations_ GMLAKE_GUARDED_BY(mutex_);
  std::atomic<std::uint64_t> pending_accesses_ = 0;  // read without the lock: 0 lets an unmap through at once
};

}  // namespace gmlake::driver
