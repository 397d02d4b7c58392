// What the tests of drivers share: one device, and the size of memory that they work with on it.
#pragma once

#include <cstdint>

namespace gmlake::driver {

inline constexpr std::uint64_t kGranule = std::uint64_t{2} << 20;
inline constexpr int kDevices[] = {0};

}  // namespace gmlake::driver
