// The streams of a trace that fall behind the host: their uses of blocks complete only where the trace says so, or when
// the allocator waits for them. Each use becomes a simulated kernel that touches its block, so that whatever an
// allocator enqueues behind it waits, and unmapping the block meanwhile is refused and reported by the simulator.
// Not thread-safe: one thread replays.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>

#include "driver/driver.hpp"
#include "driver/stream_simulator.hpp"
#include "gmlake/result.hpp"

namespace gmlake::replay {

class HeldStreams {
 public:
  // `simulator` null: real streams, which nobody can hold; uses are then none of our business.
  // `done(id)` is called at the moment when a use of block `id` completes. It calls neither simulator nor driver.
  HeldStreams(driver::StreamSimulator* simulator, std::size_t stream_count, std::function<void(std::uint32_t)> done)
      : simulator_(simulator), done_(std::move(done)), streams_(simulator == nullptr ? 0 : stream_count) {}
  ~HeldStreams() { finish(); }
  HeldStreams(const HeldStreams&) = delete;
  HeldStreams& operator=(const HeldStreams&) = delete;

  // Work on `stream` (trace index `index`) uses the block from now until advance() completes it. False: done already.
  // `address` 0 stands for a block that was refused: nothing is used, but advance() counts it.
  Result<bool> use(std::uint32_t index, driver::Stream stream, std::uint32_t id, driver::Address address,
                   std::uint64_t bytes);

  // Completes the `count` oldest uses not yet asked for, with whatever was enqueued behind each before the next. A
  // stream with no use left keeps up with the host until its next use.
  void advance(std::uint32_t index, std::uint64_t count);

  // Completes everything and ends all holds.
  void finish();

 private:
  struct State {
    driver::Stream stream;
    std::uint64_t uses = 0;   // so far
    std::uint64_t asked = 0;  // of these, how many advance() was told to complete
    std::uint64_t gates = 0;  // how many gates have been passed
    bool held = false;
  };

  driver::StreamSimulator* simulator_;
  std::function<void(std::uint32_t)> done_;
  std::deque<State> streams_;  // by trace index; a deque, because kernels point into it
};

}  // namespace gmlake::replay
