// The drivers that an allocator opens by itself: by name, or where its caller names none. Callable from any thread.
#pragma once

#include <memory>
#include <string_view>

#include "driver/driver.hpp"
#include "gmlake/result.hpp"

namespace gmlake::alloc {

// Ordinary memory of the host. Errors: not_supported. A CUDA backend goes here, first, when there is one.
Result<std::unique_ptr<driver::Driver>> open_default_driver();

// "host" or "model", with their defaults. Errors: not_supported, for any other name too.
Result<std::unique_ptr<driver::Driver>> open_driver(std::string_view name);

}  // namespace gmlake::alloc
