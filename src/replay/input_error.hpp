// What is wrong with an input file, as a value: the file, the place in it, and the reason, in one line for people.
// Plain values, usable from any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace gmlake::replay {

// Where in a file the error lies.
enum class InputPlace : std::uint8_t {
  whole_file,     // no single place: cannot be opened, unknown format
  byte,           // `position` counts bytes of the file from 0
  inflated_byte,  // `position` counts bytes of what the file inflates to, from 0
  line,           // `position` counts lines from 1
};

struct InputError {
  std::string file;
  InputPlace place = InputPlace::whole_file;
  std::uint64_t position = 0;
  std::string reason;

  // "FILE: reason", "FILE: at byte 1234: reason", "FILE: at inflated byte 1234: reason" or "FILE:17: reason".
  // Always one line: control characters of file and reason come out as "?".
  std::string text() const;

  friend bool operator==(const InputError&, const InputError&) = default;
};

// Text out of an input file, made fit for a message: quoted, cut after 40 bytes, control characters replaced by "?".
std::string quote_for_message(std::string_view text);

// A value or an InputError. Look before you take: value() of an error throws std::bad_variant_access.
template <class T>
class [[nodiscard]] InputResult {
 public:
  InputResult(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  InputResult(InputError error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T& value() & { return std::get<0>(state_); }
  const T& value() const& { return std::get<0>(state_); }
  T&& value() && { return std::get<0>(std::move(state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  const InputError& error() const& { return std::get<1>(state_); }
  InputError&& error() && { return std::get<1>(std::move(state_)); }

 private:
  std::variant<T, InputError> state_;
};

}  // namespace gmlake::replay
