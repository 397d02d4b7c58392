// The checks behind SettingsReader. Callable from the replaying thread.
#include "replay/settings.hpp"

#include <algorithm>
#include <charconv>
#include <string>

namespace gmlake::replay {

Result<std::uint64_t> SettingsReader::number(std::string_view key, std::uint64_t low, std::uint64_t high,
                                             std::uint64_t otherwise) {
  known_.push_back(key);
  const auto found = settings_.find(key);
  if (found == settings_.end()) return otherwise;
  const std::string& text = found->second;
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc{} && end == text.data() + text.size();
  if (!whole || value < low || value > high) return Error{ErrorCode::invalid_option, Step::options, value};
  return value;
}

Status SettingsReader::all_known() const {
  for (const auto& [key, value] : settings_) {
    if (std::find(known_.begin(), known_.end(), key) == known_.end()) {
      return Error{ErrorCode::invalid_option, Step::options, 0};
    }
  }
  return {};
}

}  // namespace gmlake::replay
