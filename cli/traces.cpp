#include "traces.hpp"

#include <fmt/format.h>

#include "error.hpp"
#include "gmlake/bytes.hpp"
#include "output.hpp"
#include "replay/read_trace.hpp"

namespace gmlake::cli {

replay::Trace load_trace(const std::string& path) {
  auto trace = replay::read_trace(path);
  if (!trace) throw CommandError(trace.error().text());
  bool any = false;
  for (const auto& device : trace->devices) any = any || !device.events.empty();
  if (!any) throw CommandError(path + ": the trace holds no events");
  return std::move(*trace);
}

void check_fits(const replay::Trace& trace, const std::string& path, std::uint64_t capacity_bytes) {
  for (const auto& device : trace.devices) {
    for (std::size_t at = 0; at < device.events.size(); ++at) {
      const auto& event = device.events[at];
      if (event.op != replay::Op::alloc || event.bytes <= capacity_bytes) continue;
      throw CommandError(fmt::format("{}: device {}, event {}: a request of {} is over the capacity of {}", path,
                                     device.device, at, format_bytes(event.bytes), format_bytes(capacity_bytes)));
    }
  }
}

replay::TraceFormat format_for(const std::string& path) {
  if (path == "-") return replay::TraceFormat::gmtrace;
  const auto format = replay::format_of(path);
  if (!format)
    throw CommandError(path + ": no trace format has this ending; use .gmtrace, .csv, .pickle or .pickle.gz");
  return *format;
}

void save_trace(const replay::Trace& trace, const std::string& path, replay::TraceFormat format) {
  if (is_stdout(path)) {  // where a reader that leaves early is no error
    const auto bytes = replay::encode_trace(trace, format, "standard output");
    if (!bytes) throw CommandError(bytes.error().text());
    return write_stdout(*bytes);
  }
  if (const auto error = replay::write_trace(trace, path, format)) throw CommandError(error->text());
}

}  // namespace gmlake::cli
