#include "observe/trace_encoder.hpp"

#include <algorithm>
#include <limits>

#include "observe/varint.hpp"

namespace gmlake::observe {
namespace {

// Limits of readers: docs/trace-format.md. Streams past theirs share the default stream's number.
constexpr std::size_t kMaxStreams = 1024;
constexpr std::uint32_t kMaxBlocks = std::numeric_limits<std::uint32_t>::max();

}  // namespace

std::uint16_t TraceEncoder::index_of(std::uint64_t stream) {
  if (stream == handles_[last_stream_]) return last_stream_;
  const auto found = index_by_handle_.find(stream);
  if (found != index_by_handle_.end()) return found->second;
  if (handles_.size() == kMaxStreams) return 0;
  const auto index = static_cast<std::uint16_t>(handles_.size());
  handles_.push_back(stream);
  index_by_handle_.emplace(stream, index);
  return index;
}

void TraceEncoder::tag(TraceOp op, unsigned char flags, std::string& out) {
  out += static_cast<char>(static_cast<unsigned char>(op) | flags);
  ++events_;
}

void TraceEncoder::alloc(std::uint64_t address, std::uint64_t bytes, std::uint64_t stream, std::string& out) {
  if (blocks_ == kMaxBlocks) return;
  if (const auto old = live_.find(address); old != live_.end()) free(old, out);  // its free was dropped
  const std::uint16_t index = index_of(stream);
  const bool says_stream = index != last_stream_;
  const bool same_bytes = bytes == last_bytes_;
  tag(TraceOp::alloc, (says_stream ? kTagStream : 0) | (same_bytes ? kTagSameBytes : 0), out);
  if (says_stream) append_varint(out, index);
  if (!same_bytes) append_varint(out, bytes);
  last_stream_ = index;
  last_bytes_ = bytes;
  live_.emplace(address, Block{blocks_++, index});
}

void TraceEncoder::use(const Block& block, std::uint16_t stream, std::string& out) {
  const bool says_stream = stream != last_stream_;
  tag(TraceOp::record_stream, says_stream ? kTagStream : 0, out);
  if (says_stream) append_varint(out, stream);
  append_varint(out, blocks_ - 1 - block.id);
  last_stream_ = stream;
}

void TraceEncoder::free(std::unordered_map<std::uint64_t, Block>::iterator block, std::string& out) {
  tag(TraceOp::free, 0, out);
  append_varint(out, blocks_ - 1 - block->second.id);
  live_.erase(block);
}

void TraceEncoder::begin(const DeviceSnapshot& device, std::string& out) {
  struct Live {
    std::uint64_t address, bytes, stream;
  };
  std::vector<Live> blocks;
  for (const SegmentInfo& segment : device.segments) {
    for (const BlockInfo& block : segment.blocks) {
      if (block.state != BlockInfo::State::live) continue;
      blocks.push_back({block.address, block.requested_bytes, block.stream});
    }
  }
  std::sort(blocks.begin(), blocks.end(), [](const Live& a, const Live& b) { return a.address < b.address; });
  for (const Live& block : blocks) alloc(block.address, block.bytes, block.stream, out);
}

void TraceEncoder::add(const HistoryEvent& event, std::string& out) {
  using Action = HistoryEvent::Action;
  if (event.action == Action::alloc) return alloc(event.address, event.bytes, event.stream, out);
  if (event.action == Action::trim) return tag(TraceOp::trim, 0, out);
  if (event.action != Action::free_requested && event.action != Action::record_stream) return;
  const auto block = live_.find(event.address);
  if (block == live_.end()) return;  // its alloc was dropped
  const std::uint16_t stream = index_of(event.stream);
  if (stream != block->second.stream) use(block->second, stream, out);
  if (event.action == Action::free_requested) free(block, out);
}

std::string TraceEncoder::head(int device, std::uint64_t peak_reserved_bytes) const {
  std::string out;
  append_varint(out, static_cast<std::uint64_t>(device));
  append_varint(out, handles_.size());
  for (const std::uint64_t handle : handles_) {
    append_varint(out, handle);
    out += '\0';  // not held
  }
  append_varint(out, peak_reserved_bytes);
  append_varint(out, 0);  // no recorded segments
  append_varint(out, events_);
  return out;
}

}  // namespace gmlake::observe
