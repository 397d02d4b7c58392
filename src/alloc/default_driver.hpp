// Which driver an allocator runs on where its caller names none. Callable from any thread.
#pragma once

#include <memory>

#include "driver/driver.hpp"
#include "gmlake/result.hpp"

namespace gmlake::alloc {

// The CUDA driver where this machine has one, else ordinary memory of the host. Errors: not_supported.
Result<std::unique_ptr<driver::Driver>> open_default_driver();

}  // namespace gmlake::alloc
