#include "replay/made_up_addresses.hpp"

#include "gmlake/bytes.hpp"

namespace gmlake::replay {

std::uint64_t MadeUpAddresses::rounded(std::uint64_t bytes) { return bytes == 0 ? 512 : round_up(bytes, 512); }

void MadeUpAddresses::insert(std::uint64_t address, std::uint64_t bytes) {
  free_.emplace(address, bytes);
  free_by_size_.emplace(bytes, address);
}

void MadeUpAddresses::erase(std::map<std::uint64_t, std::uint64_t>::iterator range) {
  free_by_size_.erase({range->second, range->first});
  free_.erase(range);
}

std::uint64_t MadeUpAddresses::take(std::uint64_t bytes) {
  const std::uint64_t size = rounded(bytes);
  const auto best = free_by_size_.lower_bound({size, 0});
  if (best == free_by_size_.end()) {
    const std::uint64_t address = end_;
    end_ += size;
    return address;
  }
  const auto [found, address] = *best;
  erase(free_.find(address));
  if (found > size) insert(address + size, found - size);
  return address;
}

void MadeUpAddresses::give(std::uint64_t address, std::uint64_t bytes) {
  std::uint64_t size = rounded(bytes);
  const auto next = free_.lower_bound(address);
  if (next != free_.end() && next->first == address + size) {
    size += next->second;
    erase(next);
  }
  const auto after = free_.lower_bound(address);
  if (after != free_.begin()) {
    const auto previous = std::prev(after);
    if (previous->first + previous->second == address) {
      address = previous->first;
      size += previous->second;
      erase(previous);
    }
  }
  if (address + size == end_) {
    end_ = address;
  } else {
    insert(address, size);
  }
}

}  // namespace gmlake::replay
