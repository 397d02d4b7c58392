// Numbers the stream handles of a recording in the order in which they come; handle 0, the default stream, is number 0.
// One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "replay/trace.hpp"

namespace gmlake::replay {

class StreamTable {
 public:
  // Nothing where there are more streams than a trace can have.
  std::optional<std::uint16_t> index_of(std::uint64_t handle) {
    if (handle == last_handle_) return last_index_;  // most traces use one stream for long
    const auto [entry, inserted] = indices_.try_emplace(handle, static_cast<std::uint16_t>(handles_.size()));
    if (inserted) {
      if (handles_.size() == kMaxStreams) {
        indices_.erase(entry);
        return std::nullopt;
      }
      handles_.push_back(handle);
    }
    last_handle_ = handle;
    last_index_ = entry->second;
    return last_index_;
  }

  bool has(std::uint64_t handle) const { return indices_.contains(handle); }
  const std::vector<std::uint64_t>& handles() const { return handles_; }

 private:
  std::vector<std::uint64_t> handles_{0};
  std::unordered_map<std::uint64_t, std::uint16_t> indices_{{0, std::uint16_t{0}}};
  std::uint64_t last_handle_ = 0;
  std::uint16_t last_index_ = 0;
};

}  // namespace gmlake::replay
