// A GPU as the tests and benches use it, beside what the library does with it: kernels that write and check patterns,
// copies, graphs, memory of other allocators. Found at run time in the driver, so nothing here needs a toolkit; the
// kernels are PTX, which the driver compiles. One thread a Gpu at a time; its device's primary context is current on
// the thread that made it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "driver/cuda_api.hpp"

namespace gmlake::test {

class Gpu {
 public:
  using Result = driver::cuda::CUresult;
  using Stream = void*;  // a CUstream; null: the default stream
  using Graph = void*;   // a CUgraphExec

  // Null where this machine has no GPU, or a call was refused.
  static std::unique_ptr<Gpu> make(int device = 0);
  ~Gpu();
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  void make_current();  // its context, for a thread that uses it when no other does
  Stream make_stream();
  void synchronize(Stream stream);
  // Each enqueues, and ends the process with the driver's answer where that is an error.
  // Word i of the pattern is a mix of `seed` and i: no two blocks, and no two parts of one, look alike.
  void fill(void* words, std::size_t bytes, std::uint64_t seed, Stream stream);
  void check(const void* words, std::size_t bytes, std::uint64_t seed, Stream stream);  // counts what differs
  void spin(std::uint64_t nanoseconds, Stream stream);  // keeps one thread of the device busy
  void copy(void* to, const void* from, std::size_t bytes, Stream stream);
  void set(void* words, std::uint32_t word, std::size_t bytes, Stream stream);
  void wait_for(Stream waiter, Stream other);  // later work on `waiter` waits for what `other` has now

  // Words that check() found different, on any stream, since the last call. Waits for the device.
  std::uint64_t wrong_words();
  std::uint64_t free_bytes();

  // Captures what `enqueue` puts on the stream; mode 0: global. Launches go to any stream.
  template <class Enqueue>
  Graph capture(Stream stream, Enqueue&& enqueue, int mode = 0) {
    begin_capture(stream, mode);
    enqueue();
    return end_capture(stream);
  }
  void launch(Graph graph, Stream stream);
  void destroy(Graph graph);

  // Of the driver's own allocators.
  void* allocate(std::size_t bytes);  // cuMemAlloc; null for want of memory
  void free(void* pointer);
  void* allocate_async(std::size_t bytes, Stream stream);  // cuMemAllocAsync, of the device's default pool
  void free_async(void* pointer, Stream stream);
  void keep_async_memory();  // the default pool gives nothing back by itself
  void* allocate_pinned(std::size_t bytes);
  void free_pinned(void* pointer);

  static std::uint64_t pattern(std::uint64_t seed, std::uint64_t index) {
    return (seed * 0xD1B54A32D192ED03u + index) * 0x9E3779B97F4A7C15u;
  }

 private:
  struct Functions;
  explicit Gpu(int device);
  bool open();
  void begin_capture(Stream stream, int mode);
  Graph end_capture(Stream stream);
  void launch_kernel(void* function, unsigned blocks, Stream stream, void** arguments);

  int device_;
  bool retained_ = false;
  driver::cuda::CUcontext context_ = nullptr;
  std::unique_ptr<Functions> call_;
  void* fill_ = nullptr;
  void* check_ = nullptr;
  void* spin_ = nullptr;
  std::uint64_t* wrong_ = nullptr;  // on the device
  std::vector<Stream> streams_;
};

}  // namespace gmlake::test
