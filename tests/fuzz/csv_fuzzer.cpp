// Any bytes as the rows of an RMM log, and as a file of any format, gzip included.
#include <cstddef>
#include <cstdint>
#include <string>

#include "fuzz/check_trace.hpp"
#include "replay/rmm_csv.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace gmlake::replay;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  check_trace(read_trace_from(bytes, "fuzz"));
  check_trace(read_trace_from(std::string(kRmmCsvHeader) + "\n" + bytes, "fuzz"));
  return 0;
}
