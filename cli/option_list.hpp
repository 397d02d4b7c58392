// The allocator's settings as text, from the library's own table: for `gmlake options`, and through it for
// docs/options.md.
#pragma once

#include <string>
#include <vector>

#include "replay/engine.hpp"

namespace gmlake::cli {

struct ListedOption {
  std::string key;
  std::string default_value;
  std::string range;
  std::string meaning;
};

std::vector<ListedOption> listed_options();

// Throws CommandError for a setting that gmlake refuses: names the key, and its range where the key is known.
void check_settings(const replay::Settings& settings);

}  // namespace gmlake::cli
