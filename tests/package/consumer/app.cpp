#include <gmlake/bytes.hpp>
#include <gmlake/result.hpp>

int main() {
  using namespace gmlake::literals;
  const auto error = gmlake::Error{gmlake::ErrorCode::out_of_memory, gmlake::Step::create, 512_MiB};
  return gmlake::parse_bytes("512MiB") == 512_MiB && !gmlake::describe(error).empty() ? 0 : 1;
}
