// Writes a trace in any of the formats that read_trace() reads. Callable from any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "replay/input_error.hpp"
#include "replay/trace.hpp"

namespace gmlake::replay {

enum class TraceFormat : unsigned char {
  gmtrace,      // keeps everything
  rmm_csv,      // allocs and frees of one device
  snapshot,     // a pickle, of PyTorch's kind
  snapshot_gz,  // the same, gzipped
};

// By the ending of a name: ".gmtrace", ".csv", ".pickle" or ".pkl", ".pickle.gz" or ".pkl.gz". Nothing for others.
std::optional<TraceFormat> format_of(std::string_view path);

// The file's bytes, or why the format cannot hold the trace: one that fails validate(), several devices in an RMM log.
InputResult<std::string> encode_trace(const Trace& trace, TraceFormat format, const std::string& file);

// Writes whole or not at all: on failure a file that was there before is as it was. `path` may be a pipe, or "-" for
// standard output. Nothing on success.
std::optional<InputError> write_trace(const Trace& trace, const std::string& path, TraceFormat format);

}  // namespace gmlake::replay
