// Loading and unloading. The C library stays loaded when it is closed, with everything in it alive. A module that has a
// copy of the library inside goes when it is closed, and leaves no handler behind that a fork or the exit would call.
//   process_dlopen libgmlake_c.so plugin.so
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include "gmlake/gmlake.h"
#include "process/child.hpp"
#include "support/host_default.hpp"

namespace {

int failures = 0;

void want(bool condition, const char* text) {
  if (condition) return;
  ++failures;
  std::fprintf(stderr, "not so: %s\n", text);
}
#define WANT(condition) want((condition), #condition)

template <class Function>
Function* symbol(void* library, const char* name) {
  void* const found = dlsym(library, name);
  if (found == nullptr) {
    std::fprintf(stderr, "no %s: %s\n", name, dlerror());
    std::exit(1);
  }
  return reinterpret_cast<Function*>(found);
}

void* open_library(const char* path) {
  void* const library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    std::exit(1);
  }
  return library;
}

bool loaded(const char* path) {
  void* const library = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
  if (library != nullptr) dlclose(library);
  return library != nullptr;
}

std::size_t mappings_of_this_process() {
  std::ifstream maps("/proc/self/maps");
  std::size_t lines = 0;
  for (std::string line; std::getline(maps, line);) ++lines;
  return lines;
}

void close_and_open_again(const char* path) {
  void* library = open_library(path);
  gmlake_allocator* allocator = nullptr;
  WANT(symbol<decltype(gmlake_allocator_default)>(library, "gmlake_allocator_default")(&allocator) == GMLAKE_OK);
  auto* const allocate = symbol<decltype(gmlake_allocate)>(library, "gmlake_allocate");
  auto* const deallocate = symbol<decltype(gmlake_deallocate)>(library, "gmlake_deallocate");
  void* kept = nullptr;
  WANT(allocate(allocator, 5 << 20, 0, nullptr, &kept) == GMLAKE_OK);
  std::memset(kept, 7, 5 << 20);
  const std::size_t mappings = mappings_of_this_process();
  for (int round = 0; round < 50; ++round) {
    WANT(dlclose(library) == 0);
    void* pointer = nullptr;
    WANT(allocate(allocator, 1 << 20, 0, nullptr, &pointer) == GMLAKE_OK);
    WANT(deallocate(allocator, pointer) == GMLAKE_OK);
    library = open_library(path);
    gmlake_allocator* again = nullptr;
    WANT(symbol<decltype(gmlake_allocator_default)>(library, "gmlake_allocator_default")(&again) == GMLAKE_OK);
    WANT(again == allocator);
  }
  WANT(mappings_of_this_process() <= mappings + 16);
  WANT(static_cast<char*>(kept)[(5 << 20) - 1] == 7);
  WANT(dlclose(library) == 0);
  WANT(gmlake::test::in_child([&] {
         void* pointer = nullptr;
         return allocate(allocator, 512, 0, nullptr, &pointer) == GMLAKE_FORKED ? 0 : 1;
       }) == 0);
  WANT(deallocate(allocator, kept) == GMLAKE_OK);
  WANT(allocate(allocator, 5 << 20, 0, nullptr, &kept) == GMLAKE_OK);  // and left to the exit
}

void load_and_unload(const char* path) {
  for (int round = 0; round < 10; ++round) {
    void* const plugin = open_library(path);
    WANT(symbol<int()>(plugin, "plugin_run")() == 0);
    WANT(dlclose(plugin) == 0);
    WANT(!loaded(path));
    WANT(gmlake::test::in_child([] { return 0; }) == 0);
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) {
    std::fprintf(stderr, "usage: process_dlopen LIBRARY PLUGIN\n");
    return 2;
  }
  close_and_open_again(arguments[1]);
  load_and_unload(arguments[2]);
  return failures == 0 ? 0 : 1;
}
