#include "option_list.hpp"

#include <fmt/format.h>

#include "error.hpp"
#include "gmlake/options.hpp"

namespace gmlake::cli {

std::vector<ListedOption> listed_options() {
  std::vector<ListedOption> listed;
  for (const OptionInfo& info : option_table()) {
    listed.push_back(
        {std::string(info.key), option_value(Options{}, info.key), std::string(info.range), std::string(info.meaning)});
  }
  return listed;
}

void check_settings(const replay::Settings& settings) {
  Options scratch;
  for (const auto& [key, value] : settings) {
    if (key == "record" && !value.empty())
      throw CommandError("--set record: a replay has its trace; a live program records one");
    if (apply_option(scratch, key, value).ok()) continue;
    for (const OptionInfo& info : option_table()) {
      if (info.key == key) throw CommandError(fmt::format("--set {}={}: must be {}", key, value, info.range));
    }
    throw CommandError(fmt::format("--set {}={}: unknown key; `gmlake options` lists them all", key, value));
  }
}

}  // namespace gmlake::cli
