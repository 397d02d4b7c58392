// Holding streams and letting them go, use by use. Callable from the replaying thread.
#include "replay/held_streams.hpp"

#include <algorithm>

namespace gmlake::replay {

// A use is two operations: a gate, which touches nothing and counts itself when it completes, and the kernel. The gate
// of the next use is what tells where the operations behind a use end: an allocator records as many events as it likes.
Result<bool> HeldStreams::use(std::uint32_t index, driver::Stream stream, std::uint32_t id, driver::Address address,
                              std::uint64_t bytes) {
  if (index >= streams_.size()) return false;
  State& state = streams_[index];
  state.stream = stream;
  if (!state.held) simulator_->hold(stream);
  state.held = true;
  if (Status gate = simulator_->enqueue(stream, {}, [&state] { ++state.gates; }); !gate) return gate.error();
  ++state.uses;
  if (address == 0) return false;
  const driver::Access access{address, std::max<std::uint64_t>(bytes, 1), true};
  if (Status kernel = simulator_->enqueue(stream, {access}, [this, id] { done_(id); }); !kernel) return kernel.error();
  return true;
}

void HeldStreams::advance(std::uint32_t index, std::uint64_t count) {
  if (index >= streams_.size()) return;
  State& state = streams_[index];
  state.asked += std::min(count, state.uses - state.asked);
  if (state.asked == state.uses) {
    if (state.held) simulator_->resume(state.stream);
    state.held = false;
    return;
  }
  while (state.gates <= state.asked && simulator_->advance(state.stream, 1) != 0) {
  }
}

void HeldStreams::finish() {
  for (std::uint32_t index = 0; index < streams_.size(); ++index) advance(index, ~std::uint64_t{0});
}

}  // namespace gmlake::replay
