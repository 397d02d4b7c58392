// Blocks that were freed while other streams still used them, in the way of PyTorch's native allocator: an event is
// recorded on each such stream when the block is freed, the events are queried when memory is next asked for, in order
// on each stream, and a block is free when the last of its events has passed.
// Source: insert_events and process_events of c10/cuda/CUDACachingAllocator.cpp, PyTorch 2.11.
// Not thread-safe: one thread replays.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <unordered_map>
#include <vector>

#include "driver/driver.hpp"
#include "gmlake/result.hpp"

namespace gmlake::replay {

class PendingFrees {
 public:
  PendingFrees(driver::Driver& driver, int device) : driver_(driver), device_(device) {}
  ~PendingFrees();  // destroys the events; blocks still pending are the owner's to give up
  PendingFrees(const PendingFrees&) = delete;
  PendingFrees& operator=(const PendingFrees&) = delete;

  bool empty() const { return queues_.empty(); }

  // Records one event on each of `streams` (distinct, not empty) for `block`. On an error nothing has changed.
  Status add(std::uint32_t block, std::span<const driver::Stream> streams);

  // Queries events from the oldest on each stream up to the first that has not passed. Appends to `done` the blocks
  // that no stream uses any more.
  Status process(std::vector<std::uint32_t>& done);

  // The same for all events, waiting for each.
  Status drain(std::vector<std::uint32_t>& done);

 private:
  struct Entry {
    driver::Event event = driver::Event::none;
    std::uint32_t block = 0;
  };
  struct Queue {
    driver::Stream stream;
    std::deque<Entry> entries;
  };

  Result<driver::Event> take_event();
  Queue& queue_of(driver::Stream stream);
  void undo_add(std::span<const driver::Stream> streams, std::size_t count);
  void pop(Queue& queue, std::vector<std::uint32_t>& done);
  void drop_empty_queues();

  driver::Driver& driver_;
  int device_;
  std::vector<Queue> queues_;  // of the streams with pending events only
  std::vector<driver::Event> idle_events_;
  std::unordered_map<std::uint32_t, std::uint32_t> events_left_;  // by block
};

}  // namespace gmlake::replay
