// What the user asked of a replaying command. Apart from the parser's options, whose headers are slow to compile.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "replay/engine.hpp"

namespace gmlake::cli {

// What the replaying commands take.
struct ReplayArguments {
  std::vector<std::string> traces;
  std::vector<std::string> allocators;
  std::string driver = "model";
  std::uint64_t capacity_bytes = 0;   // 0: the device's own
  std::vector<std::string> settings;  // KEY=VALUE
  std::string json;                   // a file, "-" for standard output, empty for none
};

// "a, b, c"
std::string joined(const std::vector<std::string>& names);
std::vector<std::string> allocator_names();

// KEY=VALUE pairs, parsed. Throws CommandError for one with no '=', no key, or a key given twice.
replay::Settings parse_settings(const std::vector<std::string>& pairs);

}  // namespace gmlake::cli
