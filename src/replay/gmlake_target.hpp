// The allocator itself under replay: the public gmlake::Allocator, on the replay's driver. One thread.
#pragma once

#include <memory>

#include "gmlake/allocator.hpp"
#include "replay/engine.hpp"
#include "replay/target.hpp"

namespace gmlake::replay {

class GmlakeTarget final : public Target {
 public:
  // Settings: the keys of GMLAKE_CONF (gmlake/options.hpp). Errors: invalid_option, invalid_device.
  static Result<std::unique_ptr<Target>> make(driver::Driver& driver, const TargetOptions& options);

  std::string_view name() const override { return "gmlake"; }
  Result<driver::Address> allocate(std::uint64_t bytes, driver::Stream stream) override;
  Status deallocate(driver::Address address, driver::Stream stream) override;
  Status record_stream(driver::Address address, driver::Stream stream) override;
  Status trim() override { return allocator_->trim(); }
  std::uint64_t reserved_bytes() const override { return allocator_->stats(device_).all.reserved_bytes.current; }
  std::uint64_t peak_reserved_bytes() const override { return allocator_->stats(device_).all.reserved_bytes.peak; }

 private:
  GmlakeTarget(std::unique_ptr<Allocator> allocator, int device) : allocator_(std::move(allocator)), device_(device) {}

  std::unique_ptr<Allocator> allocator_;
  int device_;
};

}  // namespace gmlake::replay
