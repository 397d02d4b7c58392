// The history of a device: what its callers asked and what the allocator did about it, event by event. Plain values.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace gmlake {

struct HistoryEvent {
  enum class Action : std::uint8_t {
    alloc,           // a block is handed out; `bytes` as requested
    free_requested,  // its caller frees it
    free_completed,  // and it may be handed out again: at once, or when other streams have passed
    record_stream,   // work on `stream` uses it
    segment_map,     // physical memory came to lie at an address, for use
    segment_unmap,   // and left it
    trim,            // the caller gave cached memory back, down to `bytes`
    oom,             // a request for `bytes` was refused; `address` is what the limit and the driver left of memory
  };
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;
  std::uint64_t stream = 0;   // handle. Of a free: the stream that its caller used the block on last
  std::uint64_t time_us = 0;  // since 1970, to the nearest tick of the system's clock: some milliseconds
  Action action = Action::alloc;

  friend bool operator==(const HistoryEvent&, const HistoryEvent&) = default;
};

// As files name it: PyTorch's name where it has one.
constexpr std::string_view name_of(HistoryEvent::Action action) {
  switch (action) {
    case HistoryEvent::Action::alloc:
      return "alloc";
    case HistoryEvent::Action::free_requested:
      return "free_requested";
    case HistoryEvent::Action::free_completed:
      return "free_completed";
    case HistoryEvent::Action::record_stream:
      return "record_stream";
    case HistoryEvent::Action::segment_map:
      return "segment_map";
    case HistoryEvent::Action::segment_unmap:
      return "segment_unmap";
    case HistoryEvent::Action::trim:
      return "trim";
    case HistoryEvent::Action::oom:
      return "oom";
  }
  return {};
}

// Whether PyTorch has such an event.
constexpr bool known_to_torch(HistoryEvent::Action action) {
  return action != HistoryEvent::Action::record_stream && action != HistoryEvent::Action::trim;
}

// Events in their order. Each has a number, counted from when the device was first used.
struct HistoryPart {
  std::uint64_t first = 0;  // number of the first of `events`: what was asked for, or more where that is gone
  std::uint64_t end = 0;    // number of the event that comes next on the device
  std::vector<HistoryEvent> events;
};

}  // namespace gmlake
