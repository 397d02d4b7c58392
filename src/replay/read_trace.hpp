// Reads a trace of any format: a PyTorch memory snapshot, an RMM log, or gmlake's own. Callable from any thread.
#pragma once

#include <string>
#include <string_view>

#include "replay/input_error.hpp"
#include "replay/trace.hpp"

namespace gmlake::replay {

// `path` is a file, a pipe, or "-" for standard input. The trace's name is trace_name(path). The format is told by the
// content, not by the name; all of them may be gzipped. Every device of the result has passed validate(). Errors name
// the file, the place and the reason; whatever the file holds, reading it neither crashes nor takes memory out of
// proportion to its size.
InputResult<Trace> read_trace(const std::string& path);

// The same for bytes in memory; `file` is for errors. The trace has a name only where the format holds one.
InputResult<Trace> read_trace_from(std::string_view bytes, const std::string& file);

// "llama" for "runs/llama.pickle.gz": without folders and the endings that traces have.
std::string trace_name(std::string_view path);

}  // namespace gmlake::replay
