// The queues of events behind PendingFrees. Callable from the replaying thread.
#include "replay/pending_frees.hpp"

#include <algorithm>

#include "base/check.hpp"

namespace gmlake::replay {

PendingFrees::~PendingFrees() {
  // Nobody is left to hear of a failure here; the driver's own count of events shows it.
  for (Queue& queue : queues_) {
    for (Entry& entry : queue.entries) static_cast<void>(driver_.event_destroy(entry.event).ok());
  }
  for (driver::Event event : idle_events_) static_cast<void>(driver_.event_destroy(event).ok());
}

Status PendingFrees::add(std::uint32_t block, std::span<const driver::Stream> streams) {
  GMLAKE_CHECK(!streams.empty());
  for (std::size_t i = 0; i < streams.size(); ++i) {
    Result<driver::Event> event = take_event();
    Status recorded = event ? driver_.event_record(*event, streams[i]) : Status(event.error());
    if (!recorded) {
      if (event) idle_events_.push_back(*event);
      undo_add(streams, i);
      return recorded;
    }
    queue_of(streams[i]).entries.push_back({*event, block});
  }
  events_left_[block] = static_cast<std::uint32_t>(streams.size());
  return {};
}

Status PendingFrees::process(std::vector<std::uint32_t>& done) {
  Status status;
  for (Queue& queue : queues_) {
    while (!queue.entries.empty()) {
      const Result<bool> passed = driver_.event_query(queue.entries.front().event);
      if (!passed) status = passed.error();
      if (!passed || !*passed) break;
      pop(queue, done);
    }
  }
  drop_empty_queues();
  return status;
}

Status PendingFrees::drain(std::vector<std::uint32_t>& done) {
  Status status;
  for (Queue& queue : queues_) {
    while (!queue.entries.empty()) {
      if (Status waited = driver_.event_synchronize(queue.entries.front().event); !waited) {
        status = waited;
        break;
      }
      pop(queue, done);
    }
  }
  drop_empty_queues();
  return status;
}

Result<driver::Event> PendingFrees::take_event() {
  if (idle_events_.empty()) return driver_.event_create(device_);
  const driver::Event event = idle_events_.back();
  idle_events_.pop_back();
  return event;
}

PendingFrees::Queue& PendingFrees::queue_of(driver::Stream stream) {
  const auto found = std::find_if(queues_.begin(), queues_.end(), [&](const Queue& q) { return q.stream == stream; });
  if (found != queues_.end()) return *found;
  return queues_.emplace_back(Queue{stream, {}});
}

// Takes back the events of the first `count` streams: each is the newest of its queue.
void PendingFrees::undo_add(std::span<const driver::Stream> streams, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    Queue& queue = queue_of(streams[i]);
    idle_events_.push_back(queue.entries.back().event);
    queue.entries.pop_back();
  }
  drop_empty_queues();
}

void PendingFrees::pop(Queue& queue, std::vector<std::uint32_t>& done) {
  const Entry entry = queue.entries.front();
  queue.entries.pop_front();
  idle_events_.push_back(entry.event);
  const auto left = events_left_.find(entry.block);
  if (--left->second != 0) return;
  events_left_.erase(left);
  done.push_back(entry.block);
}

void PendingFrees::drop_empty_queues() {
  std::erase_if(queues_, [](const Queue& queue) { return queue.entries.empty(); });
}

}  // namespace gmlake::replay
