// Byte counts: literals, and the two conversions between counts and the way people write them.
// Pure functions, callable from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace gmlake {

namespace literals {
// 1_KiB is 1,024 bytes. A literal that overflows 64 bits does not compile to anything useful: keep it below 16 EiB.
constexpr std::uint64_t operator""_B(unsigned long long count) { return count; }
constexpr std::uint64_t operator""_KiB(unsigned long long count) { return count << 10; }
constexpr std::uint64_t operator""_MiB(unsigned long long count) { return count << 20; }
constexpr std::uint64_t operator""_GiB(unsigned long long count) { return count << 30; }
constexpr std::uint64_t operator""_TiB(unsigned long long count) { return count << 40; }
}  // namespace literals

// "512MiB", "24 GiB", "1.5g", "4096": a number, then an optional unit out of B, K, KB, KiB, M, MB, MiB, G, GB, GiB,
// T, TB, TiB in any case. All units are powers of 1,024, as PyTorch's own settings read them.
// Returns nothing for anything else: no digits, an unknown unit, a negative or a result of 2^64 bytes or more.
std::optional<std::uint64_t> parse_bytes(std::string_view text);

// "27.43 GiB", "512.00 KiB", "17 B": three to five significant digits and the largest unit that keeps the number >= 1.
std::string format_bytes(std::uint64_t bytes);
// The same into `out`, ended by a null byte, without taking host memory: 16 bytes are enough for any count.
void write_bytes(std::uint64_t bytes, char* out, std::size_t size) noexcept;

// Rounds up to a multiple of `step`, a power of two. The caller has checked that the result fits 64 bits.
constexpr std::uint64_t round_up(std::uint64_t bytes, std::uint64_t step) { return (bytes + step - 1) & ~(step - 1); }
constexpr std::uint64_t round_down(std::uint64_t bytes, std::uint64_t step) { return bytes & ~(step - 1); }

}  // namespace gmlake
