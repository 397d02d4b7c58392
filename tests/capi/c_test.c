/* The C interface as a C program uses it: compiled as C11, linked with the shared library alone. */
#define _POSIX_C_SOURCE 200112L  /* setenv */
#include <gmlake/gmlake.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures = 0;

static void expect(int condition, const char* text, int line) {
  if (condition) return;
  ++failures;
  fprintf(stderr, "line %d: %s; last error: %s\n", line, text, gmlake_last_error());
}
#define EXPECT(condition) expect((condition), #condition, __LINE__)

static void use_memory(gmlake_allocator* allocator) {
  const size_t bytes = 3u << 20;
  void* pointer = NULL;
  EXPECT(gmlake_allocate(allocator, bytes, 0, NULL, &pointer) == GMLAKE_OK);
  EXPECT(pointer != NULL && (uintptr_t)pointer % 512 == 0);
  memset(pointer, 7, bytes);
  EXPECT(((unsigned char*)pointer)[bytes - 1] == 7);

  int device = -1;
  size_t size = 0;
  EXPECT(gmlake_device_of(allocator, pointer, &device) == GMLAKE_OK && device == 0);
  EXPECT(gmlake_size_of(allocator, pointer, &size) == GMLAKE_OK && size == bytes);
  EXPECT(gmlake_record_stream(allocator, pointer, (void*)(uintptr_t)64) == GMLAKE_OK);
  EXPECT(gmlake_deallocate_on(allocator, pointer, NULL) == GMLAKE_OK);
  EXPECT(gmlake_deallocate(allocator, pointer) == GMLAKE_INVALID_POINTER);
  EXPECT(strstr(gmlake_last_error(), "gmlake_deallocate") != NULL);
  EXPECT(gmlake_trim(allocator, 0) == GMLAKE_OK);

  gmlake_stats stats;
  stats.size = sizeof stats;
  stats.version = GMLAKE_STATS_VERSION;
  EXPECT(gmlake_get_stats(allocator, 0, &stats) == GMLAKE_OK);
  EXPECT(stats.size == sizeof stats && stats.version == GMLAKE_STATS_VERSION);
  EXPECT(stats.allocations.current == 0 && stats.allocations.allocated >= 1 && stats.reserved_bytes.current == 0);
  EXPECT(gmlake_reset_peaks(allocator, 0) == GMLAKE_OK);
}

static void use_vir_block(gmlake_allocator* allocator) {
  gmlake_vir_block* block = NULL;
  EXPECT(gmlake_vir_block_create(allocator, 40u << 20, 0, NULL, &block) == GMLAKE_OK);
  void* address = NULL;
  size_t bytes = 0;
  int device = -1;
  EXPECT(gmlake_vir_block_get(block, &address) == GMLAKE_OK && address != NULL);
  EXPECT(gmlake_vir_block_size(block, &bytes) == GMLAKE_OK && bytes == 40u << 20);
  EXPECT(gmlake_vir_block_device(block, &device) == GMLAKE_OK && device == 0);
  memset(address, 1, bytes);
  size_t count = 0;
  EXPECT(gmlake_vir_block_phy_blocks(block, NULL, 0, &count) == GMLAKE_OK && count > 0);
  uint64_t first = 0;
  EXPECT(gmlake_vir_block_phy_blocks(block, &first, 1, &count) == GMLAKE_OK && first > 0);
  EXPECT(gmlake_vir_block_destroy(block) == GMLAKE_OK);
  EXPECT(gmlake_vir_block_destroy(block) == GMLAKE_INVALID_VALUE);
}

static int is_that_stream(void* stream, void* context) { return stream == context; }

static void use_pool(gmlake_allocator* allocator) {
  const gmlake_pool_id pool = {1, 0};
  void* const stream = (void*)(uintptr_t)64;
  void* pointer = NULL;
  uint64_t references = 0;
  EXPECT(gmlake_begin_pool(allocator, 0, pool, is_that_stream, stream) == GMLAKE_OK);
  EXPECT(gmlake_allocate(allocator, 4u << 20, 0, stream, &pointer) == GMLAKE_OK && pointer != NULL);
  EXPECT(gmlake_end_pool(allocator, 0, pool) == GMLAKE_OK);
  EXPECT(gmlake_retain_pool(allocator, 0, pool) == GMLAKE_OK);
  EXPECT(gmlake_pool_references(allocator, 0, pool, &references) == GMLAKE_OK && references == 2);
  EXPECT(gmlake_deallocate(allocator, pointer) == GMLAKE_OK);
  EXPECT(gmlake_release_pool(allocator, 0, pool) == GMLAKE_OK);
  EXPECT(gmlake_release_pool(allocator, 0, pool) == GMLAKE_OK);
  EXPECT(gmlake_forget_stream(allocator, 0, stream) == GMLAKE_OK);
}

static void use_files(gmlake_allocator* allocator) {
  gmlake_recorder* recorder = NULL;
  void* pointer = NULL;
  uint64_t dropped = 1;
  EXPECT(gmlake_recorder_create(allocator, "/dev/null", 0, &recorder) == GMLAKE_OK);
  EXPECT(gmlake_allocate(allocator, 1000, 0, NULL, &pointer) == GMLAKE_OK);
  EXPECT(gmlake_recorder_progress(recorder, NULL, &dropped) == GMLAKE_OK && dropped == 0);
  EXPECT(gmlake_recorder_destroy(recorder) == GMLAKE_OK);

  gmlake_event events[8];
  uint64_t first = 0;
  size_t count = 0;
  EXPECT(gmlake_keep_history(allocator, 16) == GMLAKE_OK);
  EXPECT(gmlake_get_history(allocator, 0, 0, events, 0, &first, &count) == GMLAKE_OK && count == 0);
  EXPECT(gmlake_deallocate(allocator, pointer) == GMLAKE_OK);
  EXPECT(gmlake_get_history(allocator, 0, first, events, 8, &first, &count) == GMLAKE_OK && count == 2);
  EXPECT(events[0].action == GMLAKE_FREE_REQUESTED && events[0].address == (uintptr_t)pointer);
  EXPECT(events[1].action == GMLAKE_FREE_COMPLETED);
  EXPECT(gmlake_write_pickle_snapshot(allocator, "/dev/null") == GMLAKE_OK);
  EXPECT(gmlake_write_json_snapshot(allocator, "/dev/null") == GMLAKE_OK);
  EXPECT(gmlake_write_json_snapshot(allocator, "/no/such/folder/file") == GMLAKE_FILE_ERROR);
  EXPECT(gmlake_keep_history(allocator, 0) == GMLAKE_OK);
}

int main(void) {
  EXPECT(gmlake_version() ==
         GMLAKE_VERSION_MAJOR * 1000000u + GMLAKE_VERSION_MINOR * 1000u + GMLAKE_VERSION_PATCH);
  EXPECT(gmlake_abi_version() == GMLAKE_ABI_VERSION);
  EXPECT(gmlake_last_error()[0] == '\0');

  gmlake_allocator* allocator = NULL;
  EXPECT(gmlake_allocator_create("limit:1GiB,driver:host", &allocator) == GMLAKE_OK);
  int devices = 0;
  EXPECT(gmlake_device_count(allocator, &devices) == GMLAKE_OK && devices >= 1);
  use_memory(allocator);
  use_vir_block(allocator);
  use_pool(allocator);
  use_files(allocator);
  void* beyond = NULL;
  EXPECT(gmlake_allocate(allocator, (size_t)2 << 30, 0, NULL, &beyond) == GMLAKE_OUT_OF_MEMORY && beyond == NULL);
  EXPECT(gmlake_allocator_destroy(allocator) == GMLAKE_OK);
  EXPECT(gmlake_allocator_destroy(allocator) == GMLAKE_INVALID_VALUE);

  EXPECT(setenv("GMLAKE_CONF", "driver:host", 1) == 0);
  gmlake_allocator* shared = NULL;
  gmlake_allocator* again = NULL;
  EXPECT(gmlake_allocator_default(&shared) == GMLAKE_OK);
  EXPECT(gmlake_allocator_default(&again) == GMLAKE_OK && again == shared);
  use_memory(shared);
  use_vir_block(shared);
  EXPECT(gmlake_allocator_destroy(shared) == GMLAKE_INVALID_VALUE);

  if (failures != 0) fprintf(stderr, "%d failures\n", failures);
  return failures != 0;
}
