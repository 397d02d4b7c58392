// The checksum of zlib, gzip and PNG, for a library that does not link zlib. Pure.
#pragma once

#include <cstdint>
#include <string_view>

namespace gmlake::observe {

// Of what `crc` is the checksum of, followed by `bytes`; 0 is that of nothing.
std::uint32_t crc32(std::uint32_t crc, std::string_view bytes);

}  // namespace gmlake::observe
