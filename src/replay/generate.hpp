// Made-up traces that are hard on an allocator, each from a seed: adversaries for tests, benchmarks and
// `gmlake generate`. The same options give the same trace on every platform. Pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "replay/input_error.hpp"
#include "replay/trace.hpp"

namespace gmlake::replay {

struct GenerateOptions {
  std::uint64_t seed = 1;
  std::uint64_t events = 100'000;                      // how many the trace has: 1 to 2^31
  std::uint64_t peak_bytes = std::uint64_t{16} << 30;  // live bytes never exceed it: 64 MiB to 2^50
  std::uint32_t streams = 1;  // blocks are spread over so many: 1 to 1,024; with more, some are used on two
};

struct Pattern {
  std::string_view name;
  std::string_view summary;  // one line, for --help: what it does, and what it is meant to hurt
};

// In the order in which help lists them.
std::span<const Pattern> patterns();

// A trace of one device, named after the pattern. It has exactly `events` events and ends where they end: blocks may
// still be live. Errors: an unknown pattern (the message lists the names), an option out of its range.
InputResult<Trace> generate(std::string_view pattern, const GenerateOptions& options);

}  // namespace gmlake::replay
