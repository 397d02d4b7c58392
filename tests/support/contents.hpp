// What a block's owner writes into it, and how it sees that nobody else wrote there: one stamp a 64 KiB and one at each
// end. Runs inside simulated kernels, so it sees what the device would see at that moment. On the host driver alone:
// other drivers have no memory.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "driver/driver.hpp"

namespace gmlake::test {

inline constexpr std::uint64_t kStampStride = 64 << 10;

template <class Visit>
void for_each_stamp(driver::Address address, std::uint64_t bytes, std::uint64_t seed, Visit&& visit) {
  if (bytes < sizeof(std::uint64_t)) return;  // handed out as 512 B at least: callers pass that
  const auto at = [&](std::uint64_t offset) {
    auto* place = std::bit_cast<unsigned char*>(static_cast<std::uintptr_t>(address + offset));
    visit(place, (seed + offset) * 0x9E3779B97F4A7C15u);
  };
  for (std::uint64_t offset = 0; offset + sizeof(std::uint64_t) <= bytes; offset += kStampStride) at(offset);
  at(bytes - sizeof(std::uint64_t));
}

inline void write_stamps(driver::Address address, std::uint64_t bytes, std::uint64_t seed) {
  for_each_stamp(address, bytes, seed,
                 [](unsigned char* place, std::uint64_t stamp) { std::memcpy(place, &stamp, sizeof stamp); });
}

inline bool is_zero(driver::Address address, std::uint64_t bytes) {
  const auto* begin = std::bit_cast<const unsigned char*>(static_cast<std::uintptr_t>(address));
  return *begin == 0 && std::memcmp(begin, begin + 1, bytes - 1) == 0;
}

// How many stamps are not what write_stamps() wrote.
inline std::uint64_t wrong_stamps(driver::Address address, std::uint64_t bytes, std::uint64_t seed) {
  std::uint64_t wrong = 0;
  for_each_stamp(address, bytes, seed, [&wrong](const unsigned char* place, std::uint64_t stamp) {
    wrong += std::memcmp(place, &stamp, sizeof stamp) != 0 ? 1 : 0;
  });
  return wrong;
}

}  // namespace gmlake::test
