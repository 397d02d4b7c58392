// Errors as values. What can go wrong returns a Result or a Status; nothing in the library throws below the C++ edge.
// An Error is two small enums and a number: making one allocates nothing, so it is safe in an out-of-memory path.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace gmlake {

enum class ErrorCode : std::uint8_t {
  out_of_memory,      // physical memory, or the limit, is used up
  too_many_mappings,  // the driver, or the bound on live mappings, takes no more
  address_space,      // no address range of that size is left
  invalid_value,      // an argument, or a driver call with a bad argument
  invalid_size,       // a size that overflows or exceeds what the device can hold
  invalid_device,     // no such device
  invalid_pointer,    // double free, foreign or interior pointer
  invalid_option,     // a setting with an unknown key or a value outside its range
  not_supported,      // the device or the driver cannot do this
  no_driver,          // no CUDA driver on this machine: for the CUDA backend, as the next three are
  device_lost,        // the context is in a sticky error state
  shut_down,          // used after shutdown, or while the process exits
  forked,             // used in the child of a fork
  unknown,            // the driver said something that is none of the others
  captured,           // a stream is being captured into a graph: not before that ends
};

// The step during which an error arose: a driver call, or a part of the library.
enum class Step : std::uint8_t {
  none,
  reserve,
  address_free,
  create,
  release,
  map,
  unmap,
  set_access,
  event_create,
  event_record,
  event_query,
  event_synchronize,
  event_destroy,
  stream_wait,
  stream_query,
  clear,
  properties,
  memory_info,
  allocate,
  deallocate,
  record_stream,
  trim,
  options,
  forget_stream,
  pool,   // of private pools: begin, end, retain, release
  share,  // with another process: export, import
};

const char* to_string(ErrorCode code);
const char* to_string(Step step);

struct Error {
  ErrorCode code = ErrorCode::unknown;
  Step step = Step::none;
  std::uint64_t value = 0;  // the size, pointer or device in question, for the message

  friend bool operator==(const Error&, const Error&) = default;
};

// One line for people: what was being done, what went wrong, and the value in question.
std::string describe(const Error& error);

namespace detail {
// What an unchecked Result or Status ends in: prints what was there instead, and aborts.
[[noreturn]] void value_of_an_error(const Error& error);
[[noreturn]] void error_of_a_success();
}  // namespace detail

// A value or an Error. Look before you take: value() of an error is a checked abort.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, error) {}

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T& value() & { return *held(std::get_if<0>(&state_)); }
  const T& value() const& { return *held(std::get_if<0>(&state_)); }
  T&& value() && { return std::move(*held(std::get_if<0>(&state_))); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  const Error& error() const {
    if (const Error* error = std::get_if<1>(&state_)) return *error;
    detail::error_of_a_success();
  }

 private:
  template <class Value>
  Value* held(Value* value) const {
    if (value == nullptr) detail::value_of_an_error(*std::get_if<1>(&state_));
    return value;
  }

  std::variant<T, Error> state_;
};

// Success, or an Error.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : error_(error) {}

  bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Error& error() const {
    if (!error_) detail::error_of_a_success();
    return *error_;
  }

 private:
  std::optional<Error> error_;
};

}  // namespace gmlake
