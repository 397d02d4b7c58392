// Streams that fall behind the host by a number of events, as those of a job do whose host enqueues faster than the
// device works. An event of the trace stands for some work on its stream. That, and what the allocator enqueues (an
// event's record, a wait), completes so many events of the trace later, a wait not before what it waits for, or when
// somebody waits for it.
// Not thread-safe: one thread replays.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "driver/driver.hpp"
#include "driver/stream_simulator.hpp"

namespace gmlake::replay {

class LaggingStreams {
 public:
  // `streams` are those of the trace, by number, of which the `held` ones are another's (replay/held_streams.hpp).
  // `lag` is in events, and at least 1.
  LaggingStreams(driver::StreamSimulator& simulator, const std::vector<driver::Stream>& streams,
                 const std::vector<bool>& held, std::uint64_t lag);
  ~LaggingStreams();
  LaggingStreams(const LaggingStreams&) = delete;
  LaggingStreams& operator=(const LaggingStreams&) = delete;

  // One more event of the trace has been replayed, on that stream. Errors: invalid_value (a destroyed stream).
  Status after_event(std::size_t stream);

 private:
  struct State {
    driver::Stream stream;
    bool held = false;
    std::uint64_t enqueued = 0;  // operations so far, when they were last counted
  };
  struct Due {
    std::uint64_t event = 0;
    std::size_t stream = 0;
    std::uint64_t enqueued = 0;  // these are complete once the event has come
  };

  void complete_due();

  driver::StreamSimulator& simulator_;
  std::uint64_t lag_;
  std::uint64_t event_ = 0;
  std::vector<State> states_;  // by the stream's number
  std::deque<Due> due_;        // by event
};

}  // namespace gmlake::replay
