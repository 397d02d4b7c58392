// What the fuzzers of readers check of each input: a trace that can be trusted, or an error in one line.
#pragma once

#include <cstdlib>
#include <string>

#include "replay/input_error.hpp"
#include "replay/read_trace.hpp"
#include "replay/trace_file.hpp"

namespace gmlake::replay {

inline void require(bool condition) {
  if (!condition) std::abort();
}

inline void check_trace(const InputResult<Trace>& trace) {
  if (!trace) {
    require(!trace.error().reason.empty() && trace.error().text().find('\n') == std::string::npos);
    return;
  }
  for (const DeviceTrace& device : trace->devices) require(!validate(device));
  const auto again = read_trace_from(write_trace_file(*trace, Compression::none), "again");
  require(again.ok() && *again == *trace);
}

}  // namespace gmlake::replay
