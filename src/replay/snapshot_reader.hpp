// Reads PyTorch's memory snapshots: the pickles of torch.cuda.memory._snapshot() and _dump_snapshot(). A pure function.
#pragma once

#include <string>
#include <string_view>

#include "replay/input_error.hpp"
#include "replay/trace.hpp"

namespace gmlake::replay {

// The trace of each device that has events. `pickle` is the inflated file; `file` and `place` are for errors.
// Unknown actions, which newer versions of PyTorch may add, and unknown fields are skipped. The trace has no name yet.
// Memory: what PickleDocument takes, and about 64 bytes an event.
InputResult<Trace> read_snapshot(std::string_view pickle, const std::string& file, InputPlace place);

}  // namespace gmlake::replay
