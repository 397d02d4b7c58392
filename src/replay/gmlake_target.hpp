// The allocator itself under replay: the public gmlake::Allocator, on the replay's driver. One thread: what the
// background worker would do is done by hand, a step after each event, so that a replay is the same each time. The
// worker of a real job keeps up better than that, for there are more than the 60 us of a step from one event to the
// next.
#pragma once

#include <memory>

#include "gmlake/allocator.hpp"
#include "replay/engine.hpp"
#include "replay/target.hpp"

namespace gmlake::replay {

class GmlakeTarget final : public Target {
 public:
  // Settings: the keys of GMLAKE_CONF (gmlake/options.hpp) but `record`. Errors: invalid_option, invalid_device.
  static Result<std::unique_ptr<Target>> make(driver::Driver& driver, const TargetOptions& options);

  std::string_view name() const override { return "gmlake"; }
  Result<driver::Address> allocate(std::uint64_t bytes, driver::Stream stream) override;
  Status deallocate(driver::Address address, driver::Stream stream) override;
  Status record_stream(driver::Address address, driver::Stream stream) override;
  Status trim() override { return allocator_->trim(); }
  void background_step() override {
    if (background_) (void)allocator_->background_step();
  }
  std::uint64_t reserved_bytes() const override { return allocator_->stats(device_).all.reserved_bytes.current; }
  std::uint64_t peak_reserved_bytes() const override { return allocator_->stats(device_).all.reserved_bytes.peak; }
  std::optional<std::uint64_t> pinned_bytes() const override { return allocator_->overhead(device_).pinned_bytes; }

 private:
  GmlakeTarget(std::unique_ptr<Allocator> allocator, int device, bool background)
      : allocator_(std::move(allocator)), device_(device), background_(background) {}

  std::unique_ptr<Allocator> allocator_;
  int device_;
  bool background_;  // the option background_worker
};

}  // namespace gmlake::replay
