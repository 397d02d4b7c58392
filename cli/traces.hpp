// Traces as commands want them: read whole, or a CommandError that says where the file is wrong.
#pragma once

#include <string>

#include "replay/trace.hpp"
#include "replay/write_trace.hpp"

namespace gmlake::cli {

// Throws CommandError: unreadable, damaged, or empty.
replay::Trace load_trace(const std::string& path);

// Throws CommandError when one request of the trace is larger than `capacity_bytes`: no allocator could serve it.
// `path` is for the message.
void check_fits(const replay::Trace& trace, const std::string& path, std::uint64_t capacity_bytes);

// What the endings of files that are written mean, for --help.
inline constexpr const char* kFormatHelp =
    "The ending of FILE chooses its format: .gmtrace (compact, keeps everything), .csv (an RMM log: one device),\n"
    ".pickle or .pickle.gz (a memory snapshot of PyTorch). Standard output gets .gmtrace.\n";

// Throws CommandError for an ending that no format has.
replay::TraceFormat format_for(const std::string& path);

// Whole or not at all. Throws CommandError.
void save_trace(const replay::Trace& trace, const std::string& path, replay::TraceFormat format);

}  // namespace gmlake::cli
