#include "replay_arguments.hpp"

#include "error.hpp"

namespace gmlake::cli {

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

std::vector<std::string> allocator_names() {
  const auto names = replay::target_names();
  return {names.begin(), names.end()};
}

replay::Settings parse_settings(const std::vector<std::string>& pairs) {
  replay::Settings settings;
  for (const auto& pair : pairs) {
    const auto equals = pair.find('=');
    if (equals == std::string::npos || equals == 0) throw CommandError("--set " + pair + ": not of the form KEY=VALUE");
    if (!settings.emplace(pair.substr(0, equals), pair.substr(equals + 1)).second)
      throw CommandError("--set " + pair + ": the key is given twice");
  }
  return settings;
}

}  // namespace gmlake::cli
