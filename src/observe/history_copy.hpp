// The history of one device up to a point, without gaps. Any thread.
#pragma once

#include <algorithm>
#include <vector>

#include "gmlake/allocator.hpp"

namespace gmlake::observe {

// The events before number `end` that are still kept. While they are copied, the oldest may make way for new ones: what
// comes before such a gap is left out. Throws std::bad_alloc.
inline std::vector<HistoryEvent> copy_history(const Allocator& allocator, int device, std::uint64_t end) {
  std::vector<HistoryEvent> events;
  std::uint64_t next = 0;
  while (next < end) {
    const HistoryPart part = allocator.history(device, next, end - next);
    if (part.events.empty() || part.first >= end) break;
    if (part.first != next) events.clear();
    const auto count = std::min<std::uint64_t>(part.events.size(), end - part.first);
    events.insert(events.end(), part.events.begin(), part.events.begin() + static_cast<std::ptrdiff_t>(count));
    next = part.first + count;
  }
  return events;
}

}  // namespace gmlake::observe
