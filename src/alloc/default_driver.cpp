#include "alloc/default_driver.hpp"

#include "driver/host.hpp"

namespace gmlake::alloc {

Result<std::unique_ptr<driver::Driver>> open_default_driver() {
  Result<std::unique_ptr<driver::HostDriver>> host = driver::HostDriver::make();
  if (!host) return host.error();
  return std::unique_ptr<driver::Driver>(std::move(*host));
}

}  // namespace gmlake::alloc
