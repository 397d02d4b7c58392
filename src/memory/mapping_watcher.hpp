// Who is told what MappingTable maps, and what it is about to unmap. Called with the device's `grow` lock held.
#pragma once

#include <cstdint>

#include "memory/phy_block.hpp"

namespace gmlake::memory {

class MappingWatcher {
 public:
  virtual ~MappingWatcher() = default;
  // Slots [begin, end) of the segment can be used from now on.
  virtual void mapped(const VmmSegment& segment, std::uint32_t begin, std::uint32_t end) noexcept = 0;
  // And no more once this has returned; the driver may refuse to unmap them, and then nothing uses them either.
  virtual void unmapping(const VmmSegment& segment, std::uint32_t begin, std::uint32_t end) noexcept = 0;
};

}  // namespace gmlake::memory
