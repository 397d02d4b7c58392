#include <zlib.h>

#include <algorithm>

#include "observe/trace_file_layout.hpp"
#include "observe/varint.hpp"
#include "replay/trace_file.hpp"

namespace gmlake::replay {

using observe::append_varint;
using observe::fold_sign;
using observe::kTagSameBytes;
using observe::kTagStream;

static_assert(static_cast<int>(Op::alloc) == static_cast<int>(observe::TraceOp::alloc));
static_assert(static_cast<int>(Op::free) == static_cast<int>(observe::TraceOp::free));
static_assert(static_cast<int>(Op::record_stream) == static_cast<int>(observe::TraceOp::record_stream));
static_assert(static_cast<int>(Op::advance) == static_cast<int>(observe::TraceOp::advance));
static_assert(static_cast<int>(Op::trim) == static_cast<int>(observe::TraceOp::trim));

namespace {

void append_fixed(std::string& out, std::uint64_t value, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) out += static_cast<char>(static_cast<unsigned char>(value >> (8 * i)));
}

void append_event(std::string& out, const Event& event, std::uint32_t blocks, std::uint16_t& last_stream,
                  std::uint64_t& last_bytes) {
  auto tag = static_cast<unsigned char>(event.op);
  // A free says nothing of its stream: it is its block's.
  const bool says_stream = event.op != Op::free && event.op != Op::trim && event.stream != last_stream;
  const bool same_bytes = event.op == Op::alloc && event.bytes == last_bytes;
  if (says_stream) tag |= kTagStream;
  if (same_bytes) tag |= kTagSameBytes;
  out += static_cast<char>(tag);
  if (says_stream) append_varint(out, last_stream = event.stream);
  if (event.op == Op::free || event.op == Op::record_stream) append_varint(out, blocks - 1 - event.id);
  if ((event.op == Op::alloc && !same_bytes) || event.op == Op::advance) append_varint(out, event.bytes);
  if (event.op == Op::alloc) last_bytes = event.bytes;
}

void append_device(std::string& out, const DeviceTrace& trace) {
  append_varint(out, static_cast<std::uint64_t>(trace.device));
  append_varint(out, trace.streams.size());
  for (std::size_t i = 0; i < trace.streams.size(); ++i) {
    append_varint(out, trace.streams[i]);
    out += trace.held_streams[i] ? '\1' : '\0';
  }
  append_varint(out, trace.recorded_peak_reserved_bytes);
  append_varint(out, trace.recorded_segments.size());
  RecordedSegment last;
  for (const RecordedSegment& segment : trace.recorded_segments) {
    append_varint(out, segment.event - last.event);
    append_varint(out, segment.stream);
    append_varint(out, fold_sign(segment.address - last.address));
    append_varint(out, segment.bytes);
    last = segment;
  }
  append_varint(out, trace.events.size());
  std::uint32_t blocks = 0;
  std::uint16_t last_stream = 0;
  std::uint64_t last_bytes = 0;
  for (const Event& event : trace.events) {
    append_event(out, event, blocks, last_stream, last_bytes);
    if (event.op == Op::alloc) ++blocks;
  }
}

// Empty where compressing fails.
std::string compress_all(const std::string& raw) {
  uLongf size = compressBound(raw.size());
  std::string out(size, '\0');
  const int status = compress2(reinterpret_cast<Bytef*>(out.data()), &size, reinterpret_cast<const Bytef*>(raw.data()),
                               raw.size(), Z_DEFAULT_COMPRESSION);
  out.resize(status == Z_OK ? size : 0);
  return out;
}

}  // namespace

std::string write_trace_file(const Trace& trace, Compression compression) {
  std::string raw;
  append_varint(raw, trace.name.size());
  raw += trace.name;
  append_varint(raw, trace.devices.size());
  for (const DeviceTrace& device : trace.devices) append_device(raw, device);

  std::string payload;
  if (compression == Compression::zlib) payload = compress_all(raw);
  if (payload.empty() || raw.size() > max_inflated_bytes(payload.size())) {
    compression = Compression::none;
    payload = raw;
  }
  std::string out(kTraceFileMagic);
  out += static_cast<char>(kTraceFileVersion);
  out += static_cast<char>(compression);
  append_fixed(out, crc32_z(0, reinterpret_cast<const Bytef*>(raw.data()), raw.size()), 4);
  append_fixed(out, raw.size(), 8);
  append_fixed(out, payload.size(), 8);
  return out + payload;
}

}  // namespace gmlake::replay
