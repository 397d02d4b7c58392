// A module with a copy of the library of its own, as a framework's extension has it, that is really unloaded.
#include "gmlake/gmlake.hpp"

// Allocates on an allocator of the module's and on its default one, leaves nothing behind, and says whether all went
// well.
extern "C" __attribute__((visibility("default"))) int plugin_run() {
  const auto own = gmlake::Allocator::create({.driver = gmlake::DriverKind::host});
  if (!own) return 1;
  void* pointer = (*own)->allocate(3 << 20);
  static_cast<char*>(pointer)[0] = 1;
  if (!(*own)->try_deallocate(pointer).ok()) return 2;
  return 0;
}
