// From the library's errors, and whatever is thrown, to the statuses and texts of the C interface. Any thread may call;
// the text of the last failure is each thread's own.
#pragma once

#include <exception>
#include <new>
#include <string_view>

#include "gmlake/gmlake.h"
#include "gmlake/result.hpp"

namespace gmlake::capi {

constexpr gmlake_status status_of(ErrorCode code) {
  return static_cast<gmlake_status>(static_cast<int>(code) + 1);  // status.cpp holds them to the same order
}

// Each keeps the text for gmlake_last_error(), cut at the end where it is long, and returns the status.
gmlake_status fail(gmlake_status status, std::string_view function, std::string_view text) noexcept;
gmlake_status fail(const Error& error, std::string_view function) noexcept;

// Calls body(), which returns a gmlake_status, and lets no exception out.
template <class Body>
gmlake_status guarded(std::string_view function, Body&& body) noexcept {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return fail(GMLAKE_OUT_OF_MEMORY, function, "no host memory for the books");
  } catch (const std::exception& thrown) {
    return fail(GMLAKE_UNKNOWN, function, thrown.what());
  } catch (...) {
    return fail(GMLAKE_UNKNOWN, function, "unknown exception");
  }
}

}  // namespace gmlake::capi
