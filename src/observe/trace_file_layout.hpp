// Numbers that the readers and writers of .gmtrace share. Values in the files: never change one, add a version.
// docs/trace-format.md has the layout.
#pragma once

#include <cstddef>
#include <string_view>

namespace gmlake::observe {

// The first bytes of a .gmtrace: as in PNG, a byte outside ASCII and a line ending that text transfers would change.
inline constexpr std::string_view kTraceFileMagic = "\x89gmtrace\r\n";
inline constexpr unsigned char kTraceFileVersion = 1;

// The byte that begins an event: the op in its low three bits, and two flags.
enum class TraceOp : unsigned char { alloc, free, record_stream, advance, trim };
inline constexpr unsigned char kTagOp = 0x07;
inline constexpr unsigned char kTagStream = 0x08;     // the stream's number follows; else it is the last one that did
inline constexpr unsigned char kTagSameBytes = 0x10;  // an alloc of as many bytes as the last one

// After the magic: version, compression, checksum (4 bytes) of the raw body, its length (8), the payload's length (8).
inline constexpr std::size_t kHeaderTail = 1 + 1 + 4 + 8 + 8;

}  // namespace gmlake::observe
