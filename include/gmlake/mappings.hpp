// Who follows what is mapped where: code that registers memory with a network card or another library, and has to take
// that back before the memory goes.
#pragma once

#include <cstdint>
#include <functional>

namespace gmlake {

struct MappingChange {
  enum class Kind : std::uint8_t {
    mapped,     // physical memory came to lie here, and can be used from now on
    unmapping,  // it is about to go, once every observer has returned
  };
  Kind kind = Kind::mapped;
  int device = 0;
  std::uint64_t address = 0;  // of its first byte; a multiple of the device's granularity, as the bytes are
  std::uint64_t bytes = 0;
  std::uint64_t stream = 0;  // that the addresses serve: the handle's bits
};

// Called on whichever thread changes a mapping, with the lock of the device's slow path held: it may neither call the
// allocator nor wait for a thread that does. What it throws is dropped.
//
// A range may go in other pieces than it came in, and without having come: where it was mapped before the observer was
// there, or the driver refused to make it usable. Memory that moves is mapped at its new address first, and at the old
// one until that goes; so what was cached need not be mapped anew to be used again. Blocks with a placement of their
// own are not told of.
using MappingObserver = std::function<void(const MappingChange&)>;

}  // namespace gmlake
