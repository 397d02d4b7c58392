// Whether tests that take minutes at their full figures run at these, not at the part that every test run makes.
#pragma once

#include <cstdlib>

namespace gmlake::test {

// By the environment variable GMLAKE_TEST_FULL, which bench/reliability.py sets.
inline bool full_run() { return std::getenv("GMLAKE_TEST_FULL") != nullptr; }

}  // namespace gmlake::test
