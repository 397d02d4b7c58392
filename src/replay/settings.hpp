// Reads the settings of a target (KEY=VALUE) one by one, and refuses the keys that nobody asked for.
// Not thread-safe: used while a target is made.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "gmlake/result.hpp"
#include "replay/engine.hpp"

namespace gmlake::replay {

class SettingsReader {
 public:
  // `settings` outlives the reader.
  explicit SettingsReader(const Settings& settings) : settings_(settings) {}

  // The value of `key`, a plain decimal number in [low, high]; `otherwise` where the key is absent.
  // Errors: invalid_option.
  Result<std::uint64_t> number(std::string_view key, std::uint64_t low, std::uint64_t high, std::uint64_t otherwise);

  // After all keys were asked for: invalid_option where the settings have another one.
  Status all_known() const;

 private:
  const Settings& settings_;
  std::vector<std::string_view> known_;
};

}  // namespace gmlake::replay
