// The driver of an allocator that was given none: the one place of the library that names the backends. Any thread.
#pragma once

#include <memory>

#include "driver/driver.hpp"
#include "gmlake/options.hpp"
#include "gmlake/result.hpp"

namespace gmlake::alloc {

// Simulated drivers have their defaults: one device, with the size of an H200 (model) or of 64 GiB (host), of which
// pages that are touched are memory of this machine.
// Errors: no_driver (cuda, where none is installed or it serves no device), not_supported.
Result<std::unique_ptr<driver::Driver>> open_driver(DriverKind kind);

}  // namespace gmlake::alloc
