// Any bytes as a pickle: the reader of snapshots neither crashes nor returns a trace that does not hold together.
#include <cstddef>
#include <cstdint>

#include "fuzz/check_trace.hpp"
#include "replay/snapshot_reader.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace gmlake::replay;
  ByteSource source({reinterpret_cast<const char*>(data), size}, "fuzz");
  auto trace = read_snapshot(source);
  if (trace) {
    for (const DeviceTrace& device : trace->devices) {
      if (validate(device)) return 0;  // sizes beyond the bounds; read_trace() refuses them
    }
  }
  check_trace(trace);
  return 0;
}
