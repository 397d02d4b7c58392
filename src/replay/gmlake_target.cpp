#include "replay/gmlake_target.hpp"

#include <algorithm>
#include <bit>
#include <utility>

namespace gmlake::replay {
namespace {

void* pointer_to(std::uint64_t bits) { return std::bit_cast<void*>(static_cast<std::uintptr_t>(bits)); }

}  // namespace

Result<std::unique_ptr<Target>> GmlakeTarget::make(driver::Driver& driver, const TargetOptions& options) {
  Options settings;
  for (const auto& [key, value] : options.settings) {
    if (Status applied = apply_option(settings, key, value); !applied.ok()) return applied.error();
  }
  if (!settings.record.empty()) return Error{ErrorCode::invalid_option, Step::options};  // it has its trace
  if (options.capacity_bytes != 0) settings.limit_bytes = options.capacity_bytes;
  if (const auto properties = driver.device_properties(options.device); !properties) return properties.error();
  const bool background = std::exchange(settings.background_worker, false);
  Result<std::unique_ptr<Allocator>> allocator = Allocator::create(driver, settings);
  if (!allocator) return allocator.error();
  return std::unique_ptr<Target>(new GmlakeTarget(std::move(*allocator), options.device, background));
}

Result<driver::Address> GmlakeTarget::allocate(std::uint64_t bytes, driver::Stream stream) {
  const Result<void*> pointer =
      allocator_->try_allocate(std::max<std::uint64_t>(bytes, 1), device_, pointer_to(stream.handle));
  if (!pointer) return pointer.error();
  return static_cast<driver::Address>(std::bit_cast<std::uintptr_t>(*pointer));
}

Status GmlakeTarget::deallocate(driver::Address address, driver::Stream stream) {
  return allocator_->try_deallocate(pointer_to(address), pointer_to(stream.handle));
}

Status GmlakeTarget::record_stream(driver::Address address, driver::Stream stream) {
  return allocator_->try_record_stream(pointer_to(address), pointer_to(stream.handle));
}

}  // namespace gmlake::replay
