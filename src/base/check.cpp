#include "base/check.hpp"

#include <cinttypes>
#include <cstdio>
#include <cstdlib>

namespace gmlake::detail {

void check_failed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "gmlake: check failed: %s at %s:%d\n", expression, file, line);
  std::abort();
}

void check_failed(const char* expression, const char* file, int line, std::uint64_t left, std::uint64_t right) {
  std::fprintf(stderr, "gmlake: check failed: %s (%" PRIu64 " and %" PRIu64 ") at %s:%d\n", expression, left, right,
               file, line);
  std::abort();
}

}  // namespace gmlake::detail
