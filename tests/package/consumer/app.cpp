#include <gmlake/gmlake.hpp>

int main() {
  using namespace gmlake::literals;
  auto block = gmlake::create_vir_block(64_MiB);
  if (block == nullptr || block->size() != 64_MiB) return 1;
  return gmlake::default_allocator().device_of(block->get_block()) == 0 ? 0 : 1;
}
