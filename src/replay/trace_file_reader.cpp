#include <zlib.h>

#include <cstring>

#include "observe/trace_file_layout.hpp"
#include "observe/varint.hpp"
#include "replay/trace_file.hpp"

namespace gmlake::replay {

using observe::kHeaderTail;
using observe::kTagOp;
using observe::kTagSameBytes;
using observe::kTagStream;
using observe::read_varint;
using observe::unfold_sign;

namespace {

// Reads the raw body. Every count that it claims is checked against the bytes that are left before memory is taken.
class BodyReader {
 public:
  BodyReader(std::string_view body, Trace& trace)
      : begin_(body.data()), at_(body.data()), end_(body.data() + body.size()), trace_(trace) {}

  // Why the body is wrong, or null; offset() says where.
  const char* run() {
    std::uint64_t length = 0, devices = 0;
    if (!count(length, 1)) return reason_;
    trace_.name.assign(at_, static_cast<std::size_t>(length));
    at_ += length;
    if (!count(devices, kLeastDevice)) return reason_;
    for (std::uint64_t i = 0; i < devices; ++i) {
      if (!read_device(trace_.devices.emplace_back())) return reason_;
    }
    return at_ == end_ ? nullptr : "has bytes after its last device";
  }
  std::size_t offset() const { return static_cast<std::size_t>(at_ - begin_); }

 private:
  static constexpr std::uint64_t kLeastDevice = 6, kLeastStream = 2, kLeastSegment = 4, kLeastEvent = 1;

  bool fail(const char* reason) {
    reason_ = reason;
    return false;
  }
  bool number(std::uint64_t& value) { return read_varint(at_, end_, value) || fail("ends within a number"); }
  // A count of things that take at least `least` bytes each.
  bool count(std::uint64_t& value, std::uint64_t least) {
    if (!number(value)) return false;
    return value <= static_cast<std::uint64_t>(end_ - at_) / least || fail("claims more than it holds");
  }

  bool read_device(DeviceTrace& trace) {
    std::uint64_t device = 0, streams = 0;
    if (!number(device)) return false;
    if (device > 0x7fffffffu) return fail("has a device number that is too large");
    trace.device = static_cast<int>(device);
    if (!count(streams, kLeastStream)) return false;
    if (streams > kMaxStreams) return fail("has more than 1024 streams");
    trace.streams.resize(streams);
    trace.held_streams.assign(streams, false);
    for (std::size_t i = 0; i < streams; ++i) {
      if (!number(trace.streams[i])) return false;
      if (at_ == end_ || static_cast<unsigned char>(*at_) > 1) return fail("does not say whether a stream is held");
      trace.held_streams[i] = *at_++ == 1;
    }
    return number(trace.recorded_peak_reserved_bytes) && read_segments(trace) && read_events(trace);
  }

  bool read_segments(DeviceTrace& trace) {
    std::uint64_t segments = 0;
    if (!count(segments, kLeastSegment)) return false;
    trace.recorded_segments.reserve(segments);
    RecordedSegment segment;
    for (std::uint64_t i = 0; i < segments; ++i) {
      std::uint64_t event = 0, stream = 0, difference = 0;
      if (!number(event) || !number(stream) || !number(difference) || !number(segment.bytes)) return false;
      if (event > 0xffffffffu - segment.event || stream >= kMaxStreams) return fail("has a segment out of range");
      segment.event += static_cast<std::uint32_t>(event);
      segment.stream = static_cast<std::uint16_t>(stream);
      segment.address += unfold_sign(difference);
      trace.recorded_segments.push_back(segment);
    }
    return true;
  }

  bool read_events(DeviceTrace& trace) {
    std::uint64_t events = 0;
    if (!count(events, kLeastEvent)) return false;
    trace.events.reserve(events);
    streams_of_blocks_.clear();
    last_stream_ = 0;
    last_bytes_ = 0;
    for (std::uint64_t i = 0; i < events; ++i) {
      Event event;
      if (!read_event(event)) return false;
      trace.events.push_back(event);
    }
    trace.block_count = static_cast<std::uint32_t>(streams_of_blocks_.size());
    return true;
  }

  bool read_event(Event& event) {
    if (at_ == end_) return fail("ends within its events");
    const auto tag = static_cast<unsigned char>(*at_++);
    if ((tag & kTagOp) > static_cast<unsigned char>(Op::trim)) return fail("has an unknown op");
    if ((tag & ~(kTagOp | kTagStream | kTagSameBytes)) != 0) return fail("has an unknown flag");
    event.op = static_cast<Op>(tag & kTagOp);
    if ((tag & kTagStream) != 0) {
      std::uint64_t stream = 0;
      if (!number(stream)) return false;
      if (stream >= kMaxStreams) return fail("has an event on a stream out of range");
      last_stream_ = static_cast<std::uint16_t>(stream);
    }
    if (event.op != Op::trim) event.stream = last_stream_;
    if (event.op == Op::alloc) {
      if ((tag & kTagSameBytes) == 0 && !number(last_bytes_)) return false;
      if (streams_of_blocks_.size() == 0xffffffffu) return fail("has too many blocks");
      event.bytes = last_bytes_;
      event.id = static_cast<std::uint32_t>(streams_of_blocks_.size());
      streams_of_blocks_.push_back(event.stream);
    } else if (event.op == Op::free || event.op == Op::record_stream) {
      std::uint64_t back = 0;
      if (!number(back)) return false;
      if (back >= streams_of_blocks_.size()) return fail("speaks of a block that is not allocated yet");
      event.id = static_cast<std::uint32_t>(streams_of_blocks_.size() - 1 - back);
      if (event.op == Op::free) event.stream = streams_of_blocks_[event.id];
    } else if (event.op == Op::advance) {
      return number(event.bytes);
    }
    return true;
  }

  const char* begin_;
  const char* at_;
  const char* end_;
  Trace& trace_;
  const char* reason_ = nullptr;
  std::vector<std::uint16_t> streams_of_blocks_;
  std::uint16_t last_stream_ = 0;
  std::uint64_t last_bytes_ = 0;
};

std::uint64_t load_fixed(const char* from, std::size_t bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < bytes; ++i) value |= std::uint64_t{static_cast<unsigned char>(from[i])} << (8 * i);
  return value;
}

}  // namespace

InputResult<Trace> read_trace_file(ByteSource& source) {
  constexpr std::size_t kHeader = kTraceFileMagic.size() + kHeaderTail;
  const auto error = [&](std::string reason) -> InputError {
    return source.damage() ? *source.damage() : source.error_at(source.at(), std::move(reason));
  };
  if (!source.fill(kHeader)) return error("ends within its header");
  const std::string_view header(source.at(), kHeader);
  if (!header.starts_with(kTraceFileMagic)) return error("does not begin as a .gmtrace does");
  const char* const fields = header.data() + kTraceFileMagic.size();
  const auto version = static_cast<unsigned char>(fields[0]);
  const auto compression = static_cast<unsigned char>(fields[1]);
  if (version != kTraceFileVersion) {
    return error("is of version " + std::to_string(version) + " of the format; this gmlake reads version 1");
  }
  if (compression > 1) return error("is compressed in an unknown way");
  const std::uint64_t checksum = load_fixed(fields + 2, 4);
  const std::uint64_t raw_bytes = load_fixed(fields + 6, 8);
  const std::uint64_t payload_bytes = load_fixed(fields + 14, 8);
  source.set_at(source.at() + kHeader);
  if (payload_bytes > kMaxInputBytes || !source.fill(static_cast<std::size_t>(payload_bytes))) {
    return error("claims " + std::to_string(payload_bytes) + " bytes, more than are left");
  }
  std::string_view raw(source.at(), static_cast<std::size_t>(payload_bytes));
  ByteBuffer inflated;
  if (compression == 1) {
    if (raw_bytes > max_inflated_bytes(payload_bytes))
      return error("claims to inflate to more than 100 times its size");
    if (!inflated.reserve(static_cast<std::size_t>(raw_bytes) + 1)) return error("not enough memory to inflate it");
    uLongf size = static_cast<uLongf>(raw_bytes);
    if (uncompress(reinterpret_cast<Bytef*>(inflated.data()), &size, reinterpret_cast<const Bytef*>(raw.data()),
                   static_cast<uLong>(raw.size())) != Z_OK ||
        size != raw_bytes) {
      return error("is damaged: its compressed data are malformed");
    }
    raw = {inflated.data(), static_cast<std::size_t>(raw_bytes)};
  }
  if (raw.size() != raw_bytes) return error("is damaged: its two lengths differ");
  if (crc32_z(0, reinterpret_cast<const Bytef*>(raw.data()), raw.size()) != checksum) {
    return error("is damaged: its checksum is wrong");
  }
  Trace trace;
  BodyReader body(raw, trace);
  if (const char* reason = body.run()) {
    if (compression == 0) return source.error_at(source.at() + body.offset(), reason);
    return InputError{source.file(), InputPlace::inflated_byte, body.offset(), reason};
  }
  return trace;
}

}  // namespace gmlake::replay
