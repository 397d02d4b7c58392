// Where the tool gets its drivers: the one place that knows the backends by name.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "driver/driver.hpp"
#include "driver/stream_simulator.hpp"

namespace gmlake::cli {

struct BackendOptions {
  int device_count = 1;
  std::uint64_t capacity_bytes = 0;  // simulated devices get at least this much; 0: what an H200 has
};

// A driver, and the streams behind it where they are simulated (null for cuda).
struct Backend {
  std::unique_ptr<driver::Driver> driver;
  driver::StreamSimulator* streams = nullptr;
  std::function<Result<driver::Stream>()> make_stream;  // a real one of device 0; empty where any handle will do
};

std::vector<std::string> driver_names();

// Throws CommandError for a name that is not one of driver_names(), and for a backend that cannot work here.
Backend make_driver(const std::string& name, const BackendOptions& options);

}  // namespace gmlake::cli
