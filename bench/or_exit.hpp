// What a call gave; or, where it failed, a line on standard error and the end of the program.
#pragma once

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

#include "gmlake/result.hpp"
#include "replay/read_trace.hpp"

namespace gmlake::bench {

[[noreturn]] inline void exit_with(const char* what, const std::string& why) {
  std::fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, why.c_str());
  std::exit(1);
}

template <class T>
T value_of(Result<T> result, const char* what) {
  if (!result) exit_with(what, describe(result.error()));
  return std::move(*result);
}

inline void done(const Status& status, const char* what) {
  if (!status.ok()) exit_with(what, describe(status.error()));
}

// The first device's part of a trace.
inline replay::DeviceTrace first_device(const char* path) {
  auto trace = replay::read_trace(path);
  if (!trace) exit_with("trace", trace.error().text());
  if (trace->devices.empty()) exit_with(path, "has no device");
  return std::move(trace->devices.front());
}

}  // namespace gmlake::bench
