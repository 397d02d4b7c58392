// Any bytes as the body of a .gmtrace, under a header with the right checksum, and as a whole file.
#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "fuzz/check_trace.hpp"
#include "replay/trace_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace gmlake::replay;
  const std::string body(reinterpret_cast<const char*>(data), size);
  std::string file(kTraceFileMagic);
  file += '\1';
  file += '\0';
  const auto append = [&](std::uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) file += static_cast<char>(value >> (8 * i));
  };
  append(crc32_z(0, reinterpret_cast<const Bytef*>(body.data()), body.size()), 4);
  append(body.size(), 8);
  append(body.size(), 8);
  check_trace(read_trace_from(file + body, "fuzz"));
  check_trace(read_trace_from(body, "fuzz"));
  return 0;
}
