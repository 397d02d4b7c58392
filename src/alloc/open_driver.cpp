#include "alloc/open_driver.hpp"

#include "driver/cuda.hpp"
#include "driver/host.hpp"
#include "driver/model.hpp"

namespace gmlake::alloc {
namespace {

template <class Backend>
Result<std::unique_ptr<driver::Driver>> opened(Result<std::unique_ptr<Backend>> made) {
  if (!made) return made.error();
  return std::unique_ptr<driver::Driver>(std::move(*made));
}

}  // namespace

Result<std::unique_ptr<driver::Driver>> open_driver(DriverKind kind) {
  switch (kind) {
    case DriverKind::cuda:
      return opened(driver::CudaDriver::make());
    case DriverKind::host:
      return opened(driver::HostDriver::make());
    case DriverKind::model:
      return std::unique_ptr<driver::Driver>(std::make_unique<driver::ModelDriver>());
  }
  return Error{ErrorCode::not_supported, Step::properties};
}

}  // namespace gmlake::alloc
