// What would help after an out-of-memory: one answer, from the figures of a report. Pure; any thread.
#pragma once

#include <cstdint>

#include "gmlake/oom.hpp"

namespace gmlake::alloc {

// Fills `remedy` and `remedy_bytes` from the other fields. `granule_bytes` is what memory is held in multiples of.
void choose_remedy(OutOfMemoryReport& report, std::uint64_t granule_bytes) noexcept;

}  // namespace gmlake::alloc
