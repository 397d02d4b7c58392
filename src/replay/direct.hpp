// No caching at all: one driver allocation a request, given back when it is freed. The least memory that any allocator
// without sub-allocation can hold, and the most driver calls: the baseline of both.
// Not thread-safe: one thread replays.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "replay/address_map.hpp"
#include "replay/engine.hpp"
#include "replay/pending_frees.hpp"
#include "replay/segment.hpp"
#include "replay/target.hpp"

namespace gmlake::replay {

class Direct final : public Target {
 public:
  // No settings. Errors: invalid_option; what granularity() returns.
  static Result<std::unique_ptr<Target>> make(driver::Driver& driver, const TargetOptions& options);
  ~Direct() override;

  std::string_view name() const override { return "direct"; }
  // Four driver calls; before them three for each block whose last use on another stream has passed.
  Result<driver::Address> allocate(std::uint64_t bytes, driver::Stream stream) override;
  // Three driver calls, or an event_record per other stream that uses the block.
  Status deallocate(driver::Address address, driver::Stream stream) override;
  Status record_stream(driver::Address address, driver::Stream stream) override;
  Status trim() override;  // waits for the blocks that other streams still use, and frees them

  std::uint64_t reserved_bytes() const override { return held_.held(); }
  std::uint64_t peak_reserved_bytes() const override { return held_.peak(); }

 private:
  struct Block {
    Segment segment;
    driver::Stream stream;
    std::vector<driver::Stream> uses;  // streams noted by record_stream
  };

  Direct(driver::Driver& driver, const TargetOptions& options, std::uint64_t granularity);

  Result<Segment> make_segment(std::uint64_t bytes);
  std::uint32_t new_number();
  Status free_block(std::uint32_t number);
  Status free_done();

  driver::Driver& driver_;
  int device_;
  std::uint64_t granularity_;
  HeldBytes held_;
  std::vector<Block> blocks_;
  std::vector<std::uint32_t> idle_;  // numbers to use again
  AddressMap live_;
  PendingFrees pending_;
  std::vector<std::uint32_t> done_;  // scratch: blocks whose last use has passed
};

}  // namespace gmlake::replay
