// Marks in the memory of live blocks, by which an overlap of two of them shows: each block is stamped at both ends and
// once per stride with values that belong to it alone, and the stamps are read back when the block's last user is done.
// The stamps in between lie at addresses that are multiples of the stride, not at such offsets: of two blocks that
// share such an address one has overwritten the other's stamp. With a stride of one granule the same holds for two
// mappings of one piece of physical memory. Works where an address of the driver is a pointer of this process (the host
// driver). Not thread-safe: one thread replays.
#pragma once

#include <cstdint>

#include "driver/driver.hpp"

namespace gmlake::replay {

class Stamps {
 public:
  // `stride_bytes`: a multiple of 8, not 0.
  explicit Stamps(std::uint64_t stride_bytes) : stride_(stride_bytes) {}

  // Stamps the `bytes` at `address` as block `id`'s. Blocks of less than 16 bytes get one stamp, cut where it must be.
  void write(std::uint32_t id, driver::Address address, std::uint64_t bytes) const;
  // Reads the same stamps back and counts.
  void verify(std::uint32_t id, driver::Address address, std::uint64_t bytes);

  std::uint64_t verified_bytes() const { return verified_bytes_; }
  std::uint64_t wrong_bytes() const { return wrong_bytes_; }

 private:
  template <class Visit>
  void for_each(std::uint32_t id, driver::Address address, std::uint64_t bytes, Visit visit) const;

  std::uint64_t stride_;
  std::uint64_t verified_bytes_ = 0;
  std::uint64_t wrong_bytes_ = 0;
};

}  // namespace gmlake::replay
