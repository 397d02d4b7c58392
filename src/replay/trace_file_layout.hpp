// Numbers that the reader and the writer of .gmtrace share. Values in the files: never change one, add a version.
#pragma once

#include <cstddef>

namespace gmlake::replay {

// The byte that begins an event: the op in its low three bits, and two flags.
inline constexpr unsigned char kTagOp = 0x07;
inline constexpr unsigned char kTagStream = 0x08;     // the stream's number follows; else it is the last one that did
inline constexpr unsigned char kTagSameBytes = 0x10;  // an alloc of as many bytes as the last one

// After the magic: version, compression, checksum (4 bytes) of the raw body, its length (8), the payload's length (8).
inline constexpr std::size_t kHeaderTail = 1 + 1 + 4 + 8 + 8;

}  // namespace gmlake::replay
