// Checks of what cannot happen. A failed check prints the expression, both values and the place, and aborts.
// Three levels: GMLAKE_CHECK always runs; GMLAKE_DCHECK from level 1 (debug); GMLAKE_AUDIT from level 2, where each
// stateful class recounts itself after every public call. A check that is off still compiles.
#pragma once

#include <concepts>
#include <cstdint>

#ifndef GMLAKE_CHECK_LEVEL
#define GMLAKE_CHECK_LEVEL 0
#endif

namespace gmlake::detail {

[[noreturn]] void check_failed(const char* expression, const char* file, int line);
[[noreturn]] void check_failed(const char* expression, const char* file, int line, std::uint64_t left,
                               std::uint64_t right);

template <class T>
constexpr std::uint64_t as_bits(T value) {
  if constexpr (requires { static_cast<std::uint64_t>(value); }) {
    return static_cast<std::uint64_t>(value);
  } else {
    return 0;
  }
}

}  // namespace gmlake::detail

#define GMLAKE_CHECK(condition) \
  (static_cast<bool>(condition) ? void(0) : ::gmlake::detail::check_failed(#condition, __FILE__, __LINE__))

#define GMLAKE_CHECK_EQ(left, right)                                                                                  \
  do {                                                                                                                \
    const auto gmlake_left = (left);                                                                                  \
    const auto gmlake_right = (right);                                                                                \
    if (!(gmlake_left == gmlake_right))                                                                               \
      ::gmlake::detail::check_failed(#left " == " #right, __FILE__, __LINE__, ::gmlake::detail::as_bits(gmlake_left), \
                                     ::gmlake::detail::as_bits(gmlake_right));                                        \
  } while (false)

#define GMLAKE_DCHECK(condition)                                    \
  do {                                                              \
    if constexpr (GMLAKE_CHECK_LEVEL >= 1) GMLAKE_CHECK(condition); \
  } while (false)

#define GMLAKE_AUDIT(statement)                         \
  do {                                                  \
    if constexpr (GMLAKE_CHECK_LEVEL >= 2) (statement); \
  } while (false)
