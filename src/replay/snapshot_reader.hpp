// Reads PyTorch's memory snapshots: the pickles of torch.cuda.memory._snapshot() and _dump_snapshot(). A pure function.
#pragma once

#include "replay/byte_source.hpp"
#include "replay/input_error.hpp"
#include "replay/trace.hpp"

namespace gmlake::replay {

// The trace of each device that has events. `source` stands at the start of the pickle and is read to its end.
// Unknown actions, which newer versions of PyTorch may add, and unknown fields are skipped. The trace has no name yet.
// Memory: what PickleDocument takes, and about 64 bytes an event.
InputResult<Trace> read_snapshot(ByteSource& source);

}  // namespace gmlake::replay
