#include <gmlake/gmlake.h>
#include <stdio.h>

int main(void) {
  gmlake_allocator* allocator = NULL;
  void* pointer = NULL;
  if (gmlake_allocator_default(&allocator) == GMLAKE_OK &&
      gmlake_allocate(allocator, 64u << 20, 0, NULL, &pointer) == GMLAKE_OK &&
      gmlake_deallocate(allocator, pointer) == GMLAKE_OK && gmlake_version() == 1000 * GMLAKE_VERSION_MINOR) {
    return 0;
  }
  fprintf(stderr, "%s\n", gmlake_last_error());
  return 1;
}
