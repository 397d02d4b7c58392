// Which driver an allocator runs on where its caller names none. Callable from any thread.
#pragma once

#include <memory>

#include "driver/driver.hpp"
#include "gmlake/result.hpp"

namespace gmlake::alloc {

// Ordinary memory of the host. Errors: not_supported. A CUDA backend goes here, first, when there is one.
Result<std::unique_ptr<driver::Driver>> open_default_driver();

}  // namespace gmlake::alloc
