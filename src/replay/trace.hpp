// A recorded run of an allocator's callers: what was allocated, freed and used on which stream, in order.
// The one vocabulary of operations that readers, writers, generators, the replay engine and tests speak.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace gmlake::replay {

// What an event does.
enum class Op : std::uint8_t {
  alloc,          // block `id` gets `bytes` on `stream`
  free,           // block `id` is freed (on the stream it was allocated on)
  record_stream,  // block `id` is used on `stream` too, by work enqueued now
  advance,        // `stream` completes its `bytes` oldest recorded uses (a held stream; see DeviceTrace::held_streams)
  trim,           // cached memory is given back
};

// 16 bytes: a trace of a million events stays in the cache's reach.
struct Event {
  Op op = Op::alloc;
  std::uint8_t reserved = 0;
  std::uint16_t stream = 0;  // an index into DeviceTrace::streams
  std::uint32_t id = 0;      // blocks are numbered from 0 in the order of their alloc events; each id is allocated once
  std::uint64_t bytes = 0;   // alloc: as requested, not rounded. advance: how many uses. others: 0

  friend bool operator==(const Event&, const Event&) = default;
};
static_assert(sizeof(Event) == 16);

// One of the recorded allocator's own driver allocations, in the order in which they were made: a model of that
// allocator can take its addresses from here, where the order of equal-sized free blocks depends on them.
struct RecordedSegment {
  std::uint32_t event = 0;  // the segment was made while handling events[event]
  std::uint16_t stream = 0;
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;

  friend bool operator==(const RecordedSegment&, const RecordedSegment&) = default;
};

// Everything that happened on one device.
struct DeviceTrace {
  int device = 0;
  std::vector<Event> events;
  std::uint32_t block_count = 0;
  std::vector<std::uint64_t> streams{0};  // the recorded handle of each stream index
  // Streams whose work completes only at `advance` events: readers add one for each group of uses that they saw pending
  // between a request to free and its completion. All other streams keep up with the host. True at index s: s is held.
  std::vector<bool> held_streams{false};
  std::vector<RecordedSegment> recorded_segments;
  std::uint64_t recorded_peak_reserved_bytes = 0;  // what the recorded allocator reserved at most; 0 where unknown

  friend bool operator==(const DeviceTrace&, const DeviceTrace&) = default;
};

struct Trace {
  std::string name;  // for tables: the file's name without folders and endings
  std::vector<DeviceTrace> devices;

  friend bool operator==(const Trace&, const Trace&) = default;
};

// What a trace may hold at most: sums of live bytes stay far from 64 bits, and streams fit Event::stream.
inline constexpr std::uint64_t kMaxBlockBytes = std::uint64_t{1} << 48;
inline constexpr std::uint64_t kMaxLiveBytes = std::uint64_t{1} << 60;
inline constexpr std::size_t kMaxStreams =
    1024;  // an allocator keeps pools for each: a log of rows must not make millions

// Why a trace cannot be replayed, or nothing: blocks are numbered in the order of their allocs; only live blocks are
// freed, on their own stream, or used; streams are in range; only held streams advance, by no more uses than are
// recorded; fields that an op does not have are 0; sizes keep to the bounds above; recorded segments are in order.
// Everything that read_trace() returns has passed. One pass over the events; takes some bytes for each block.
std::optional<std::string> validate(const DeviceTrace& trace);

}  // namespace gmlake::replay
