#include "gmlake/result.hpp"

#include <cinttypes>
#include <cstdio>
#include <cstdlib>

namespace gmlake {

const char* to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::out_of_memory:
      return "out of memory";
    case ErrorCode::too_many_mappings:
      return "too many mappings";
    case ErrorCode::address_space:
      return "no address range of that size is left";
    case ErrorCode::invalid_value:
      return "invalid value";
    case ErrorCode::invalid_size:
      return "invalid size";
    case ErrorCode::invalid_device:
      return "no such device";
    case ErrorCode::invalid_pointer:
      return "not the start of a live block";
    case ErrorCode::invalid_option:
      return "invalid option";
    case ErrorCode::not_supported:
      return "not supported";
    case ErrorCode::no_driver:
      return "no CUDA driver on this machine";
    case ErrorCode::device_lost:
      return "the device is lost";
    case ErrorCode::shut_down:
      return "used after shutdown";
    case ErrorCode::forked:
      return "used in the child of a fork";
    case ErrorCode::captured:
      return "a stream is being captured";
    case ErrorCode::unknown:
      return "unknown driver error";
  }
  return "unknown error code";
}

const char* to_string(Step step) {
  switch (step) {
    case Step::none:
      return "";
    case Step::reserve:
      return "reserve";
    case Step::address_free:
      return "address_free";
    case Step::create:
      return "create";
    case Step::release:
      return "release";
    case Step::map:
      return "map";
    case Step::unmap:
      return "unmap";
    case Step::set_access:
      return "set_access";
    case Step::event_create:
      return "event_create";
    case Step::event_record:
      return "event_record";
    case Step::event_query:
      return "event_query";
    case Step::event_synchronize:
      return "event_synchronize";
    case Step::event_destroy:
      return "event_destroy";
    case Step::stream_wait:
      return "stream_wait";
    case Step::stream_query:
      return "stream_query";
    case Step::clear:
      return "clear";
    case Step::properties:
      return "properties";
    case Step::memory_info:
      return "memory_info";
    case Step::allocate:
      return "allocate";
    case Step::deallocate:
      return "deallocate";
    case Step::record_stream:
      return "record_stream";
    case Step::trim:
      return "trim";
    case Step::options:
      return "options";
    case Step::forget_stream:
      return "forget_stream";
    case Step::pool:
      return "private pool";
    case Step::share:
      return "share";
  }
  return "unknown step";
}

std::string describe(const Error& error) {
  char text[160];
  std::snprintf(text, sizeof text, "%s%s%s (%" PRIu64 ")", to_string(error.step), error.step == Step::none ? "" : ": ",
                to_string(error.code), error.value);
  if (error.code != ErrorCode::no_driver) return text;
  return text + std::string("; on a machine without a GPU, the option driver:host works on ordinary memory");
}

namespace detail {

void value_of_an_error(const Error& error) {
  std::fprintf(stderr, "gmlake: value() of an error: %s\n", describe(error).c_str());
  std::abort();
}

void error_of_a_success() {
  std::fprintf(stderr, "gmlake: error() of a success\n");
  std::abort();
}

}  // namespace detail

}  // namespace gmlake
