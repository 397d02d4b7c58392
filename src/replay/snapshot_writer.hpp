// Writes a trace as a PyTorch memory snapshot, which PyTorch's own tools open: a pickle of protocol 4. A pure function.
#pragma once

#include <string>

#include "replay/trace.hpp"

namespace gmlake::replay {

// Every alloc and free of every device, with addresses made up so that live blocks share no bytes. A block that is
// freed while held streams still use it completes its free at the advance that ends its last use. The list of segments
// is empty; recorded segments are written as segment_alloc events where no segment was given back (their sum is the
// recorded peak). Left out: trims, and uses of streams that keep up with the host. `trace` has passed validate(); its
// device numbers are below 1,024.
std::string write_snapshot(const Trace& trace);

}  // namespace gmlake::replay
