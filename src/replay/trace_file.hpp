// gmlake's own trace format, .gmtrace: everything that a Trace has, about four bytes an event before compression, with
// a checksum. The layout is in docs/trace-format.md. Pure functions.
#pragma once

#include <string>
#include <string_view>

#include "observe/trace_file_layout.hpp"
#include "replay/byte_source.hpp"
#include "replay/input_error.hpp"
#include "replay/trace.hpp"

namespace gmlake::replay {

using observe::kTraceFileMagic;
using observe::kTraceFileVersion;

// Reads all that write_trace_file() wrote: the result equals what was written. Errors name the byte.
// Memory: 16 bytes an event, each of which is there in the file.
InputResult<Trace> read_trace_file(ByteSource& source);

enum class Compression : unsigned char { none = 0, zlib = 1 };

// The file's bytes. `trace` has passed validate(). zlib is not used where the result would inflate to more than a
// reader accepts.
std::string write_trace_file(const Trace& trace, Compression compression);

}  // namespace gmlake::replay
