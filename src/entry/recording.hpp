// What the option `record` asks for. Whoever makes an allocator from settings as text calls this once it is made: the
// process-wide allocator and the C interface do. Any thread.
#pragma once

#include <memory>

#include "gmlake/allocator.hpp"
#include "gmlake/observe.hpp"

namespace gmlake::entry {

// Records `allocator` from now on where `options` say so; null where they do not, or it cannot: `error` says why then.
// "%p" in the path is the number of this process: the workers of one job share their settings, and must not share a
// file. Throws std::bad_alloc and std::system_error, as Recorder::start.
std::unique_ptr<Recorder> start_recording(Allocator& allocator, const Options& options, FileError& error);

}  // namespace gmlake::entry
