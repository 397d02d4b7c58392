// Gives the default allocator of a test program ordinary memory, on machines with and without a GPU. For one source
// file of a program, before anything uses that allocator.
#pragma once

#include <cstdlib>

namespace gmlake::test {

inline const int host_default = setenv("GMLAKE_CONF", "driver:host", 1);

}  // namespace gmlake::test
