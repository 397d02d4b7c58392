#include "replay/write_trace.hpp"

#include <zlib.h>

#include "observe/output_file.hpp"
#include "replay/byte_source.hpp"
#include "replay/rmm_csv.hpp"
#include "replay/snapshot_writer.hpp"
#include "replay/trace_file.hpp"

namespace gmlake::replay {
namespace {

// Empty where there is no memory.
std::string gzip(const std::string& raw) {
  z_stream stream{};
  constexpr int kGzip = 16, kMemoryLevel = 8;
  if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, kGzip + MAX_WBITS, kMemoryLevel, Z_DEFAULT_STRATEGY) !=
      Z_OK) {
    return {};
  }
  std::string out(deflateBound(&stream, raw.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(raw.data()));
  stream.avail_in = static_cast<uInt>(raw.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int status = deflate(&stream, Z_FINISH);
  out.resize(status == Z_STREAM_END ? stream.total_out : 0);
  deflateEnd(&stream);
  return out;
}

}  // namespace

std::optional<TraceFormat> format_of(std::string_view path) {
  if (path.ends_with(".gmtrace")) return TraceFormat::gmtrace;
  if (path.ends_with(".csv")) return TraceFormat::rmm_csv;
  if (path.ends_with(".pickle") || path.ends_with(".pkl")) return TraceFormat::snapshot;
  if (path.ends_with(".pickle.gz") || path.ends_with(".pkl.gz")) return TraceFormat::snapshot_gz;
  return std::nullopt;
}

InputResult<std::string> encode_trace(const Trace& trace, TraceFormat format, const std::string& file) {
  const auto error = [&](std::string reason) { return InputError{file, InputPlace::whole_file, 0, std::move(reason)}; };
  for (const DeviceTrace& device : trace.devices) {
    if (auto reason = validate(device)) return error("cannot write an invalid trace: " + *reason);
  }
  switch (format) {
    case TraceFormat::gmtrace:
      return write_trace_file(trace, Compression::zlib);
    case TraceFormat::rmm_csv:
      if (trace.devices.size() != 1) {
        return error("an RMM log holds one device, and this trace has " + std::to_string(trace.devices.size()));
      }
      return write_rmm_csv(trace.devices.front());
    case TraceFormat::snapshot:
    case TraceFormat::snapshot_gz:
      break;
  }
  constexpr int kMaxDevices = 1024;  // a snapshot has a list for each device up to the last
  for (const DeviceTrace& device : trace.devices) {
    if (device.device >= kMaxDevices) return error("a snapshot holds devices 0 to 1023");
  }
  std::string pickle = write_snapshot(trace);
  if (pickle.size() > kMaxInputBytes) return error("would be longer than 4 GiB: .gmtrace is more compact");
  if (format == TraceFormat::snapshot) return pickle;
  std::string compressed = gzip(pickle);
  if (compressed.empty()) return error("not enough memory to compress it");
  if (pickle.size() > max_inflated_bytes(compressed.size())) {
    return error("would compress more than 100 times, which readers refuse: leave the .gz away");
  }
  return compressed;
}

std::optional<InputError> write_trace(const Trace& trace, const std::string& path, TraceFormat format) {
  const std::string file = path == "-" ? "standard output" : path;
  const auto bytes = encode_trace(trace, format, file);
  if (!bytes) return bytes.error();
  if (auto reason = observe::write_file_atomically(path, *bytes)) {
    return InputError{file, InputPlace::whole_file, 0, std::move(*reason)};
  }
  return std::nullopt;
}

}  // namespace gmlake::replay
