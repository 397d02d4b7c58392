#include "replay/trace.hpp"

namespace gmlake::replay {
namespace {

class Validator {
 public:
  explicit Validator(const DeviceTrace& trace) : trace_(trace), uses_(trace.streams.size()) {}

  std::optional<std::string> run() {
    const std::size_t streams = trace_.streams.size();
    if (streams == 0 || streams > kMaxStreams) return "has " + std::to_string(streams) + " streams, not 1 to 1024";
    if (trace_.held_streams.size() != streams)
      return "says of " + std::to_string(trace_.held_streams.size()) + " streams whether they are held, but has " +
             std::to_string(streams);
    if (trace_.device < 0) return "has device number " + std::to_string(trace_.device);
    if (trace_.block_count > trace_.events.size()) return "claims more blocks than it has events";
    blocks_.reserve(trace_.block_count);
    for (std::size_t i = 0; i < trace_.events.size(); ++i) {
      if (const char* reason = check(trace_.events[i])) return "event " + std::to_string(i) + " " + reason;
    }
    if (blocks_.size() != trace_.block_count) {
      return "claims " + std::to_string(trace_.block_count) + " blocks, but allocates " +
             std::to_string(blocks_.size());
    }
    return check_segments();
  }

 private:
  struct Block {
    std::uint64_t bytes = 0;
    std::uint16_t stream = 0;
    bool live = true;
  };

  const char* check(const Event& event) {
    if (event.stream >= trace_.streams.size()) return "is on a stream that the trace does not have";
    if (event.reserved != 0) return "has a reserved byte that is not 0";
    switch (event.op) {
      case Op::alloc:
        return check_alloc(event);
      case Op::free: {
        if (event.bytes != 0) return "is a free with a size";
        if (!is_live(event.id)) return "frees a block that is not live";
        Block& block = blocks_[event.id];
        if (block.stream != event.stream) return "frees a block on another stream than it was allocated on";
        block.live = false;
        live_bytes_ -= block.bytes;
        return nullptr;
      }
      case Op::record_stream:
        if (event.bytes != 0) return "is a record_stream with a size";
        if (!is_live(event.id)) return "uses a block that is not live";
        ++uses_[event.stream];
        return nullptr;
      case Op::advance:
        if (event.id != 0) return "is an advance with a block";
        if (!trace_.held_streams[event.stream]) return "advances a stream that is not held";
        if (event.bytes == 0 || event.bytes > uses_[event.stream]) return "completes uses that were never recorded";
        uses_[event.stream] -= event.bytes;
        return nullptr;
      case Op::trim:
        return event.id != 0 || event.stream != 0 || event.bytes != 0 ? "is a trim with arguments" : nullptr;
    }
    return "has an unknown op";
  }

  const char* check_alloc(const Event& event) {
    if (event.id != blocks_.size() || event.id >= trace_.block_count) return "allocates a block out of order";
    if (event.bytes > kMaxBlockBytes) return "allocates more than 2^48 bytes";
    live_bytes_ += event.bytes;  // at most 2^60 + 2^48
    if (live_bytes_ > kMaxLiveBytes) return "makes more than 2^60 bytes live";
    blocks_.push_back({event.bytes, event.stream, true});
    return nullptr;
  }

  bool is_live(std::uint32_t id) const { return id < blocks_.size() && blocks_[id].live; }

  std::optional<std::string> check_segments() const {
    std::uint32_t last = 0;
    for (const RecordedSegment& segment : trace_.recorded_segments) {
      if (segment.event < last || segment.event >= trace_.events.size()) return "has a recorded segment out of order";
      if (segment.stream >= trace_.streams.size()) return "has a recorded segment on a stream that it does not have";
      last = segment.event;
    }
    return std::nullopt;
  }

  const DeviceTrace& trace_;
  std::vector<Block> blocks_;
  std::vector<std::uint64_t> uses_;
  std::uint64_t live_bytes_ = 0;
};

}  // namespace

std::optional<std::string> validate(const DeviceTrace& trace) { return Validator(trace).run(); }

}  // namespace gmlake::replay
