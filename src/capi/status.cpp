#include "capi/status.hpp"

#include <cinttypes>
#include <cstdio>
#include <cstring>

namespace gmlake::capi {
namespace {

constinit thread_local char last_error[512] = "";

// In the order of ErrorCode, which may grow at its end alone.
constexpr gmlake_status kStatuses[] = {status_of(ErrorCode::out_of_memory),   status_of(ErrorCode::too_many_mappings),
                                       status_of(ErrorCode::address_space),   status_of(ErrorCode::invalid_value),
                                       status_of(ErrorCode::invalid_size),    status_of(ErrorCode::invalid_device),
                                       status_of(ErrorCode::invalid_pointer), status_of(ErrorCode::invalid_option),
                                       status_of(ErrorCode::not_supported),   status_of(ErrorCode::no_driver),
                                       status_of(ErrorCode::device_lost),     status_of(ErrorCode::shut_down),
                                       status_of(ErrorCode::forked),          status_of(ErrorCode::unknown),
                                       status_of(ErrorCode::captured)};
constexpr gmlake_status kNames[] = {
    GMLAKE_OUT_OF_MEMORY,  GMLAKE_TOO_MANY_MAPPINGS, GMLAKE_ADDRESS_SPACE,  GMLAKE_INVALID_VALUE, GMLAKE_INVALID_SIZE,
    GMLAKE_INVALID_DEVICE, GMLAKE_INVALID_POINTER,   GMLAKE_INVALID_OPTION, GMLAKE_NOT_SUPPORTED, GMLAKE_NO_DRIVER,
    GMLAKE_DEVICE_LOST,    GMLAKE_SHUT_DOWN,         GMLAKE_FORKED,         GMLAKE_UNKNOWN,       GMLAKE_CAPTURED};
constexpr bool same_order() {
  for (std::size_t i = 0; i < std::size(kStatuses); ++i) {
    if (kStatuses[i] != kNames[i]) return false;
  }
  return std::size(kStatuses) == std::size(kNames);
}
static_assert(same_order());

}  // namespace

gmlake_status fail(gmlake_status status, std::string_view function, std::string_view text) noexcept {
  std::snprintf(last_error, sizeof last_error, "%.*s: %s: %.*s", static_cast<int>(function.size()), function.data(),
                gmlake_status_text(status), static_cast<int>(text.size()), text.data());
  return status;
}

gmlake_status fail(const Error& error, std::string_view function) noexcept {
  std::snprintf(last_error, sizeof last_error, "%.*s: %s%s%s (%" PRIu64 ")", static_cast<int>(function.size()),
                function.data(), to_string(error.step), error.step == Step::none ? "" : ": ", to_string(error.code),
                error.value);
  return status_of(error.code);
}

}  // namespace gmlake::capi

using namespace gmlake;  // NOLINT: the functions of this file are outside every namespace

uint32_t gmlake_version() {
  return GMLAKE_VERSION_MAJOR * 1'000'000 + GMLAKE_VERSION_MINOR * 1'000 + GMLAKE_VERSION_PATCH;
}

#define GMLAKE_TEXT_OF(number) #number
#define GMLAKE_TEXT(number) GMLAKE_TEXT_OF(number)
const char* gmlake_version_string() {
  return GMLAKE_TEXT(GMLAKE_VERSION_MAJOR) "." GMLAKE_TEXT(GMLAKE_VERSION_MINOR) "." GMLAKE_TEXT(GMLAKE_VERSION_PATCH);
}

uint32_t gmlake_abi_version() { return GMLAKE_ABI_VERSION; }

const char* gmlake_status_text(gmlake_status status) {
  int number = 0;  // C may pass any, and C++ may not read what is none of an enum's values
  static_assert(sizeof number == sizeof status);
  std::memcpy(&number, &status, sizeof number);
  if (number == GMLAKE_OK) return "ok";
  if (number == GMLAKE_FILE_ERROR) return "file error";
  if (number < GMLAKE_OUT_OF_MEMORY || number > GMLAKE_CAPTURED) return "unknown status";
  return to_string(static_cast<ErrorCode>(number - 1));
}

const char* gmlake_last_error() { return capi::last_error; }
