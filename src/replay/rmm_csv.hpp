// RMM's log of allocations, the CSV that rmm::mr::logging_resource_adaptor writes and RMM's replay benchmark reads.
// Pure functions.
#pragma once

#include <string>
#include <string_view>

#include "replay/byte_source.hpp"
#include "replay/input_error.hpp"
#include "replay/trace.hpp"

namespace gmlake::replay {

inline constexpr std::string_view kRmmCsvHeader = "Thread,Time,Action,Pointer,Size,Stream";

// Rows in the order of the file, which is one order over all threads: RMM logs a free before it frees and an allocation
// after it allocated. Actions: "allocate", "free" or "deallocate", and "allocate failure", which is skipped.
// Pointers, streams and sizes are decimal, or hexadecimal after 0x; pointer 0 (a request of 0 bytes) is skipped.
// A block that is freed on another stream than its own was used there: record_stream, then free.
// Errors carry the line: a malformed row, an unknown action, a free of what is not live, an allocation of what is.
InputResult<Trace> read_rmm_csv(ByteSource& source);

// The rows of one device. What the format has no word for is left out: record_stream, advance, trim, recorded segments.
// Pointers are made up; no two live blocks share bytes.
std::string write_rmm_csv(const DeviceTrace& trace);

}  // namespace gmlake::replay
