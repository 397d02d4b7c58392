#include "alloc/default_driver.hpp"

#include "driver/host.hpp"
#include "driver/model.hpp"

namespace gmlake::alloc {

Result<std::unique_ptr<driver::Driver>> open_default_driver() { return open_driver("host"); }

Result<std::unique_ptr<driver::Driver>> open_driver(std::string_view name) {
  if (name == "model") return std::unique_ptr<driver::Driver>(std::make_unique<driver::ModelDriver>());
  if (name != "host") return Error{ErrorCode::not_supported, Step::properties};
  Result<std::unique_ptr<driver::HostDriver>> host = driver::HostDriver::make();
  if (!host) return host.error();
  return std::unique_ptr<driver::Driver>(std::move(*host));
}

}  // namespace gmlake::alloc
