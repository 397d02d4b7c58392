// Integers in as few bytes as they need: seven bits a byte, the lowest first, the top bit set on all but the last.
// Signed ones are folded so that small magnitudes are small. Pure functions.
#pragma once

#include <cstdint>
#include <string>

namespace gmlake::observe {

inline void append_varint(std::string& out, std::uint64_t value) {
  while (value >= 0x80) {
    out += static_cast<char>(static_cast<unsigned char>(value | 0x80));
    value >>= 7;
  }
  out += static_cast<char>(static_cast<unsigned char>(value));
}

// False where the input ends first, or holds more than 64 bits. `at` moves past what was read.
inline bool read_varint(const char*& at, const char* end, std::uint64_t& value) {
  value = 0;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    if (at == end) return false;
    const auto byte = static_cast<unsigned char>(*at++);
    if (shift == 63 && byte > 1) return false;
    value |= std::uint64_t{byte & 0x7fu} << shift;
    if ((byte & 0x80u) == 0) return true;
  }
  return false;
}

constexpr std::uint64_t fold_sign(std::uint64_t difference) {
  const auto sign = static_cast<std::uint64_t>(static_cast<std::int64_t>(difference) >> 63);
  return difference << 1 ^ sign;
}
constexpr std::uint64_t unfold_sign(std::uint64_t folded) { return folded >> 1 ^ (~(folded & 1) + 1); }

}  // namespace gmlake::observe
