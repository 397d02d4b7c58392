#include "drivers.hpp"

#include <algorithm>

#include "driver/cuda.hpp"
#include "driver/host.hpp"
#include "driver/model.hpp"
#include "error.hpp"

namespace gmlake::cli {
namespace {

// Devices that are simulated get as much memory as the user asked for: it is a number in their books.
template <class Options>
Options simulated_options(const BackendOptions& wanted) {
  Options options;
  options.devices = wanted.device_count;
  options.capacity_bytes = std::max(options.capacity_bytes, wanted.capacity_bytes);
  return options;
}

Backend make_model(const BackendOptions& wanted) {
  auto made = std::make_unique<driver::ModelDriver>(simulated_options<driver::ModelOptions>(wanted));
  driver::StreamSimulator& streams = made->streams();
  return {std::move(made), &streams, {}};
}

Backend make_host(const BackendOptions& wanted) {
  auto made = driver::HostDriver::make(simulated_options<driver::HostOptions>(wanted));
  if (!made) throw CommandError("host driver: " + describe(made.error()));
  driver::StreamSimulator& streams = (*made)->streams();
  return {std::move(*made), &streams, {}};
}

Backend make_cuda() {
  auto made = driver::CudaDriver::make();
  if (!made) {
    throw CommandError("cuda driver: " + describe(made.error()) + "; --driver model and host need no GPU");
  }
  if (auto started = (*made)->memory_info(0); !started) {  // its context takes a while, which is nobody's driver time
    throw CommandError("cuda driver: " + describe(started.error()));
  }
  driver::CudaDriver& driver = **made;
  return {std::move(*made), nullptr, [&driver] { return driver.make_stream(0); }};
}

}  // namespace

std::vector<std::string> driver_names() { return {"model", "host", "cuda"}; }

Backend make_driver(const std::string& name, const BackendOptions& options) {
  if (name == "model") return make_model(options);
  if (name == "host") return make_host(options);
  if (name == "cuda") return make_cuda();
  throw CommandError("unknown driver '" + name + "'");
}

}  // namespace gmlake::cli
