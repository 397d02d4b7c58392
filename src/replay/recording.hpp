// What PyTorch's allocator recorded on one device, and its translation to a trace: who was live before the recording
// began, which frees had to wait for another stream, and what the allocator itself took from the driver.
// Pure functions of their arguments.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "replay/stream_table.hpp"
#include "replay/trace.hpp"

namespace gmlake::replay {

enum class RecordedAction : std::uint8_t {
  alloc,
  free_requested,
  free_completed,
  segment_alloc,
  segment_free,
  segment_map,
  segment_unmap,
};
const char* to_string(RecordedAction action);

struct RecordedEvent {
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;
  std::uint32_t index = 0;   // in the file's list of events, for messages
  std::uint16_t stream = 0;  // its number in DeviceRecording::streams
  RecordedAction action = RecordedAction::alloc;
};

// A block that is in use, or waits for a stream, in the picture taken at the end of the recording.
struct FinalBlock {
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;  // as requested
  std::uint16_t stream = 0;
};

// A segment in that picture.
struct FinalSegment {
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;
  std::uint16_t stream = 0;
  bool expandable = false;
};

struct DeviceRecording {
  int device = 0;
  StreamTable streams;
  std::vector<RecordedEvent> events;  // oldest first; those before the first may be missing
  std::vector<FinalBlock> blocks;
  std::vector<FinalSegment> segments;
};

// Writes the trace of a recording to `trace`; the rules are in docs/trace-format.md. Returns why it cannot, or nothing.
// A recording may begin in the middle of a run; it may not contradict itself: an alloc of an address that is still
// live, a second free, a completion that nobody requested.
std::optional<std::string> translate(const DeviceRecording& recording, DeviceTrace& trace);

}  // namespace gmlake::replay
