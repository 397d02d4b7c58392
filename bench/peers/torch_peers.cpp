// PyTorch's own allocators under the loop of replay_loop.hpp, called as PyTorch's C++ calls them. Compiled on the
// machine with PyTorch, by bench/gpu.py; which of the allocators it is, PYTORCH_CUDA_ALLOC_CONF says before PyTorch
// starts.
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>

#include "replay_loop.hpp"

namespace {

namespace torch_cuda = c10::cuda::CUDACachingAllocator;

class TorchAllocator {
 public:
  explicit TorchAllocator(std::size_t streams) {
    streams_.push_back(c10::cuda::getDefaultCUDAStream(0));
    while (streams_.size() < streams) streams_.push_back(c10::cuda::getStreamFromPool(false, 0));
  }

  void* allocate(std::uint64_t bytes, std::size_t stream) {
    try {
      return torch_cuda::raw_alloc_with_stream(bytes, streams_[stream].stream());
    } catch (const c10::OutOfMemoryError&) {
      return nullptr;
    }
  }
  void deallocate(void* pointer, std::size_t) { torch_cuda::raw_delete(pointer); }
  void record(void* pointer, std::size_t stream) {
    c10::DataPtr data(pointer, pointer, torch_cuda::get()->raw_deleter(), c10::Device(c10::DeviceType::CUDA, 0));
    torch_cuda::recordStream(data, streams_[stream]);
    (void)data.release_context();
  }
  void trim() { torch_cuda::emptyCache(); }

  void reset(std::uint64_t limit) {
    wait();
    torch_cuda::emptyCache();
    std::size_t free = 0;
    std::size_t total = 0;
    (void)cudaMemGetInfo(&free, &total);
    torch_cuda::setMemoryFraction(
        limit == 0 ? 1.0 : std::min(1.0, (static_cast<double>(limit) + 0.5) / static_cast<double>(total)), 0);
    torch_cuda::resetPeakStats(0);
  }
  std::uint64_t peak_reserved() const {
    return static_cast<std::uint64_t>(torch_cuda::getDeviceStats(0).reserved_bytes[0].peak);
  }
  std::uint64_t driver_calls() const {
    const auto stats = torch_cuda::getDeviceStats(0);
    return static_cast<std::uint64_t>(stats.num_device_alloc + stats.num_device_free);
  }
  void wait() { c10::cuda::device_synchronize(); }

 private:
  std::vector<c10::cuda::CUDAStream> streams_;
};

}  // namespace

extern "C" __attribute__((visibility("default"))) int measure(const char* name, const char* trace_name,
                                                              const char* path, double fit_seconds) {
  gmlake_peers::FlatTrace trace;
  if (!gmlake_peers::read_flat(path, trace)) return 1;
  TorchAllocator allocator(trace.counts[2]);
  gmlake_peers::measure_trace(name, trace_name, trace, allocator, fit_seconds);
  return 0;
}

extern "C" __attribute__((visibility("default"))) double pair(std::uint64_t bytes, int count) {
  TorchAllocator allocator(1);
  allocator.reset(0);
  std::vector<void*> live;
  for (int i = 0; i < 1000; ++i) live.push_back(allocator.allocate(512 * (1 + i % 16), 0));
  for (int i = 0; i < 1000; i += 2) allocator.deallocate(live[i], 0);
  const double ns = gmlake_peers::pair_ns(allocator, bytes, count);
  for (int i = 1; i < 1000; i += 2) allocator.deallocate(live[i], 0);
  return ns;
}
