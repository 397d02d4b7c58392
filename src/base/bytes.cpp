#include "gmlake/bytes.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>

namespace gmlake {
namespace {

// The power of 1,024 that a unit stands for, or -1.
int unit_exponent(std::string_view unit) {
  std::string lower;
  for (const char c : unit) lower += (c >= 'A' && c <= 'Z') ? static_cast<char>(c - 'A' + 'a') : c;
  if (lower.empty() || lower == "b") return 0;
  constexpr std::string_view kPrefixes = "kmgt";
  const auto prefix = kPrefixes.find(lower[0]);
  if (prefix == std::string_view::npos) return -1;
  const std::string_view rest = std::string_view(lower).substr(1);
  if (!rest.empty() && rest != "b" && rest != "ib") return -1;
  return static_cast<int>(prefix) + 1;
}

std::string_view trim_spaces(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

}  // namespace

std::optional<std::uint64_t> parse_bytes(std::string_view text) {
  text = trim_spaces(text);
  const auto digits = text.find_first_not_of("0123456789.");
  const std::string_view number = text.substr(0, digits);
  const int exponent = unit_exponent(trim_spaces(digits == std::string_view::npos ? "" : text.substr(digits)));
  if (number.empty() || number.front() == '.' || exponent < 0) return std::nullopt;
  if (number.find('.') == std::string_view::npos) {  // whole numbers exactly, to the last byte
    std::uint64_t count = 0;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), count);
    if (error != std::errc{} || end != number.data() + number.size()) return std::nullopt;
    const int shift = 10 * exponent;
    if (shift > 0 && count >> (64 - shift) != 0) return std::nullopt;
    return count << shift;
  }
  double count = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), count);
  if (error != std::errc{} || end != number.data() + number.size()) return std::nullopt;
  const double bytes = std::ldexp(count, 10 * exponent);
  if (!(bytes < 18446744073709551616.0)) return std::nullopt;
  return static_cast<std::uint64_t>(bytes);
}

void write_bytes(std::uint64_t bytes, char* out, std::size_t size) noexcept {
  constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  auto number = static_cast<double>(bytes);
  // From 1023.995 on, two decimals would print as 1024.00.
  while (number >= (unit == 0 ? 1024.0 : 1023.995) && unit + 1 < kUnits.size()) {
    number /= 1024.0;
    ++unit;
  }
  std::snprintf(out, size, unit == 0 ? "%.0f %s" : "%.2f %s", number, kUnits[unit]);
}

std::string format_bytes(std::uint64_t bytes) {
  char text[16];
  write_bytes(bytes, text, sizeof text);
  return text;
}

}  // namespace gmlake
