// What the replay engine drives: an allocator, real or modelled, on a driver. One instance serves one device.
// Not thread-safe: one thread replays.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "driver/driver.hpp"
#include "gmlake/result.hpp"

namespace gmlake::replay {

class Target {
 public:
  virtual ~Target() = default;

  virtual std::string_view name() const = 0;  // as --allocators spells it

  // Errors: out_of_memory and its kin. A request of 0 bytes is treated as 1.
  virtual Result<driver::Address> allocate(std::uint64_t bytes, driver::Stream stream) = 0;
  virtual Status deallocate(driver::Address address, driver::Stream stream) = 0;
  virtual Status record_stream(driver::Address address, driver::Stream stream) = 0;
  virtual Status trim() = 0;
  // One piece of what the allocator does between requests, where it has such work.
  virtual void background_step() {}

  // Physical bytes held now, and at most so far.
  virtual std::uint64_t reserved_bytes() const = 0;
  virtual std::uint64_t peak_reserved_bytes() const = 0;
  // Free bytes that cannot be had elsewhere because live memory shares their physical memory; none where the target
  // does not tell. Not cheap.
  virtual std::optional<std::uint64_t> pinned_bytes() const { return std::nullopt; }
};

}  // namespace gmlake::replay
