/* What Python calls of the library that puts gmlake under PyTorch, through ctypes.
 *
 * The library is built against one version of PyTorch and serves that minor version alone: the class that it derives
 * from changes with each. Any thread may call any function at any time; none throws. A text that is returned belongs
 * to the library and stays as it is until the same thread calls the same function again.
 */
#ifndef GMLAKE_TORCH_H
#define GMLAKE_TORCH_H

#include <stdint.h>

#if defined(__GNUC__)
#define GMLAKE_TORCH_API __attribute__((visibility("default")))
#else
#define GMLAKE_TORCH_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Makes gmlake the allocator of all CUDA memory that PyTorch asks for from now on. `options` is as in GMLAKE_CONF;
 * NULL: the value of that environment variable. Touches no driver where PyTorch has not initialised CUDA yet: a process
 * may still fork. What PyTorch's own allocator handed out before is freed there. Where it is installed already, the
 * options take the place of those before, until CUDA is initialised. NULL on success, else why not, in words that begin
 * with "option" where a setting is to blame, and PyTorch is as it was. */
GMLAKE_TORCH_API const char* gmlake_torch_install(const char* options);
/* 1 once installed, 0 before. */
GMLAKE_TORCH_API int gmlake_torch_is_installed(void);
/* Every counter of a device as one JSON object, name to whole number: gmlake's own, under the names of its
 * documentation, and under "native." those of PyTorch's allocator, which keeps the pools of graphs. "{}" where gmlake
 * is not installed or CUDA is not initialised. */
GMLAKE_TORCH_API const char* gmlake_torch_stats_json(int device);
/* Writes a snapshot of what gmlake holds: as JSON where `path` ends in ".json", else as the pickle that PyTorch's
 * memory_viz reads. NULL on success, else why not. */
GMLAKE_TORCH_API const char* gmlake_torch_snapshot(const char* path);
/* Gives cached memory back to the driver until each device holds at most `bytes`. NULL on success, else why not. */
GMLAKE_TORCH_API const char* gmlake_torch_trim(uint64_t bytes);
/* Ends the recording that the option `record` asked for. NULL where it was written, else why not. */
GMLAKE_TORCH_API const char* gmlake_torch_end_recording(void);
/* The version of PyTorch that the library was built against, "2.11.0". */
GMLAKE_TORCH_API const char* gmlake_torch_torch_version(void);

#ifdef __cplusplus
}
#endif

#endif
