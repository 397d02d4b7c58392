#include "replay/lagging_streams.hpp"

#include <algorithm>

namespace gmlake::replay {

LaggingStreams::LaggingStreams(driver::StreamSimulator& simulator, const std::vector<driver::Stream>& streams,
                               const std::vector<bool>& held, std::uint64_t lag)
    : simulator_(simulator), lag_(lag) {
  for (std::size_t i = 0; i < streams.size(); ++i) {
    if (!held[i]) simulator_.hold(streams[i]);
    states_.push_back({streams[i], held[i], simulator_.enqueued(streams[i])});
  }
}

LaggingStreams::~LaggingStreams() {
  for (const State& state : states_) {
    if (!state.held) simulator_.resume(state.stream);
  }
}

Status LaggingStreams::after_event(std::size_t stream) {
  ++event_;
  if (!states_[stream].held) {
    if (Status work = simulator_.enqueue(states_[stream].stream, {}); !work) return work;
  }
  for (std::size_t i = 0; i < states_.size(); ++i) {
    State& state = states_[i];
    if (state.held) continue;
    const std::uint64_t enqueued = simulator_.enqueued(state.stream);
    if (enqueued == state.enqueued) continue;
    state.enqueued = enqueued;
    due_.push_back({event_ + lag_, i, enqueued});
  }
  complete_due();
  return {};
}

// A stream may wait for another, so what one completes may let another go on; what still waits stays due.
void LaggingStreams::complete_due() {
  const auto end = std::find_if(due_.begin(), due_.end(), [this](const Due& due) { return due.event > event_; });
  for (bool moved = true; moved;) {
    moved = false;
    for (auto due = due_.begin(); due != end; ++due) {
      const driver::Stream stream = states_[due->stream].stream;
      const std::uint64_t completed = simulator_.enqueued(stream) - simulator_.pending(stream);
      if (completed < due->enqueued) moved |= simulator_.advance(stream, due->enqueued - completed) != 0;
    }
  }
  while (!due_.empty() && due_.front().event <= event_) {
    const Due& due = due_.front();
    const driver::Stream stream = states_[due.stream].stream;
    if (simulator_.enqueued(stream) - simulator_.pending(stream) < due.enqueued) break;
    due_.pop_front();
  }
}

}  // namespace gmlake::replay
