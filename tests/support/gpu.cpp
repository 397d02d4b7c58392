#include "support/gpu.hpp"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <type_traits>

namespace gmlake::test {
namespace {

using driver::cuda::CUcontext;
using driver::cuda::CUdevice;
using driver::cuda::CUdeviceptr;

// Strides over the words with all threads of the grid; `spin` is for one thread.
constexpr const char* kKernels = R"(
.version 7.0
.target sm_70
.address_size 64

.visible .entry fill(.param .u64 words, .param .u64 count, .param .u64 seed) {
  .reg .u64 %base, %count, %i, %seed, %value, %step, %t;
  .reg .u32 %block, %size, %thread, %blocks;
  .reg .pred %done;
  ld.param.u64 %base, [words];
  ld.param.u64 %count, [count];
  ld.param.u64 %seed, [seed];
  cvta.to.global.u64 %base, %base;
  mov.u32 %block, %ctaid.x;
  mov.u32 %size, %ntid.x;
  mov.u32 %thread, %tid.x;
  mov.u32 %blocks, %nctaid.x;
  mul.wide.u32 %i, %block, %size;
  cvt.u64.u32 %t, %thread;
  add.u64 %i, %i, %t;
  mul.wide.u32 %step, %blocks, %size;
  mov.u64 %t, 0xD1B54A32D192ED03;
  mul.lo.u64 %seed, %seed, %t;
NEXT:
  setp.ge.u64 %done, %i, %count;
  @%done bra END;
  add.u64 %value, %seed, %i;
  mov.u64 %t, 0x9E3779B97F4A7C15;
  mul.lo.u64 %value, %value, %t;
  shl.b64 %t, %i, 3;
  add.u64 %t, %base, %t;
  st.global.u64 [%t], %value;
  add.u64 %i, %i, %step;
  bra NEXT;
END:
  ret;
}

.visible .entry check(.param .u64 words, .param .u64 count, .param .u64 seed, .param .u64 wrong) {
  .reg .u64 %base, %count, %i, %seed, %value, %found, %step, %t, %wrong, %one;
  .reg .u32 %block, %size, %thread, %blocks;
  .reg .pred %done, %same;
  ld.param.u64 %base, [words];
  ld.param.u64 %count, [count];
  ld.param.u64 %seed, [seed];
  ld.param.u64 %wrong, [wrong];
  cvta.to.global.u64 %base, %base;
  cvta.to.global.u64 %wrong, %wrong;
  mov.u64 %one, 1;
  mov.u32 %block, %ctaid.x;
  mov.u32 %size, %ntid.x;
  mov.u32 %thread, %tid.x;
  mov.u32 %blocks, %nctaid.x;
  mul.wide.u32 %i, %block, %size;
  cvt.u64.u32 %t, %thread;
  add.u64 %i, %i, %t;
  mul.wide.u32 %step, %blocks, %size;
  mov.u64 %t, 0xD1B54A32D192ED03;
  mul.lo.u64 %seed, %seed, %t;
NEXT:
  setp.ge.u64 %done, %i, %count;
  @%done bra END;
  add.u64 %value, %seed, %i;
  mov.u64 %t, 0x9E3779B97F4A7C15;
  mul.lo.u64 %value, %value, %t;
  shl.b64 %t, %i, 3;
  add.u64 %t, %base, %t;
  ld.global.u64 %found, [%t];
  setp.eq.u64 %same, %found, %value;
  @%same bra GO_ON;
  red.global.add.u64 [%wrong], %one;
GO_ON:
  add.u64 %i, %i, %step;
  bra NEXT;
END:
  ret;
}

.visible .entry spin(.param .u64 nanoseconds) {
  .reg .u64 %until, %now;
  .reg .pred %early;
  ld.param.u64 %until, [nanoseconds];
  mov.u64 %now, %globaltimer;
  add.u64 %until, %until, %now;
WAIT:
  mov.u64 %now, %globaltimer;
  setp.lt.u64 %early, %now, %until;
  @%early bra WAIT;
  ret;
}
)";

constexpr unsigned kThreads = 256;
constexpr unsigned kBlocks = 132 * 8;

CUdeviceptr address_of(const void* pointer) { return reinterpret_cast<CUdeviceptr>(pointer); }

void want(Gpu::Result result, const char* what) {
  if (result == driver::cuda::kSuccess) return;
  std::fprintf(stderr, "%s: CUDA error %d\n", what, result);
  std::abort();
}

}  // namespace

struct Gpu::Functions {
  Result (*init)(unsigned);
  Result (*device_get)(CUdevice*, int);
  Result (*primary_ctx_retain)(CUcontext*, CUdevice);
  Result (*primary_ctx_release)(CUdevice);
  Result (*ctx_set_current)(CUcontext);
  Result (*ctx_synchronize)();
  Result (*module_load)(void**, const void*);
  Result (*module_get_function)(void**, void*, const char*);
  Result (*launch_kernel)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Stream, void**,
                          void**);
  Result (*stream_create)(Stream*, unsigned);
  Result (*stream_destroy)(Stream);
  Result (*stream_synchronize)(Stream);
  Result (*stream_wait_event)(Stream, void*, unsigned);
  Result (*event_create)(void**, unsigned);
  Result (*event_record)(void*, Stream);
  Result (*event_destroy)(void*);
  Result (*memcpy_async)(CUdeviceptr, CUdeviceptr, std::size_t, Stream);
  Result (*memset_async)(CUdeviceptr, unsigned, std::size_t, Stream);
  Result (*mem_get_info)(std::size_t*, std::size_t*);
  Result (*mem_alloc)(CUdeviceptr*, std::size_t);
  Result (*mem_free)(CUdeviceptr);
  Result (*mem_alloc_async)(CUdeviceptr*, std::size_t, Stream);
  Result (*mem_free_async)(CUdeviceptr, Stream);
  Result (*default_pool)(void**, CUdevice);
  Result (*pool_set_attribute)(void*, int, void*);
  Result (*mem_host_alloc)(void**, std::size_t, unsigned);
  Result (*mem_host_free)(void*);
  Result (*begin_capture)(Stream, int);
  Result (*end_capture)(Stream, void**);
  Result (*graph_instantiate)(void**, void*, unsigned long long);
  Result (*graph_launch)(void*, Stream);
  Result (*graph_destroy)(void*);
  Result (*graph_exec_destroy)(void*);

  bool find() {
    void* library = ::dlopen("libcuda.so.1", RTLD_NOW);
    if (library == nullptr) return false;
    bool complete = true;
    const auto get = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(library, name));
      complete = complete && function != nullptr;
    };
    get(init, "cuInit");
    get(device_get, "cuDeviceGet");
    get(primary_ctx_retain, "cuDevicePrimaryCtxRetain");
    get(primary_ctx_release, "cuDevicePrimaryCtxRelease_v2");
    get(ctx_set_current, "cuCtxSetCurrent");
    get(ctx_synchronize, "cuCtxSynchronize");
    get(module_load, "cuModuleLoadData");
    get(module_get_function, "cuModuleGetFunction");
    get(launch_kernel, "cuLaunchKernel");
    get(stream_create, "cuStreamCreate");
    get(stream_destroy, "cuStreamDestroy_v2");
    get(stream_synchronize, "cuStreamSynchronize");
    get(stream_wait_event, "cuStreamWaitEvent");
    get(event_create, "cuEventCreate");
    get(event_record, "cuEventRecord");
    get(event_destroy, "cuEventDestroy_v2");
    get(memcpy_async, "cuMemcpyAsync");
    get(memset_async, "cuMemsetD32Async");
    get(mem_get_info, "cuMemGetInfo_v2");
    get(mem_alloc, "cuMemAlloc_v2");
    get(mem_free, "cuMemFree_v2");
    get(mem_alloc_async, "cuMemAllocAsync");
    get(mem_free_async, "cuMemFreeAsync");
    get(default_pool, "cuDeviceGetDefaultMemPool");
    get(pool_set_attribute, "cuMemPoolSetAttribute");
    get(mem_host_alloc, "cuMemHostAlloc");
    get(mem_host_free, "cuMemFreeHost");
    get(begin_capture, "cuStreamBeginCapture_v2");
    get(end_capture, "cuStreamEndCapture");
    get(graph_instantiate, "cuGraphInstantiateWithFlags");
    get(graph_launch, "cuGraphLaunch");
    get(graph_destroy, "cuGraphDestroy");
    get(graph_exec_destroy, "cuGraphExecDestroy");
    return complete;
  }
};

Gpu::Gpu(int device) : device_(device) {}

std::unique_ptr<Gpu> Gpu::make(int device) {
  std::unique_ptr<Gpu> gpu(new Gpu(device));
  return gpu->open() ? std::move(gpu) : nullptr;
}

bool Gpu::open() {
  call_ = std::make_unique<Functions>();
  CUdevice ordinal = 0;
  if (!call_->find() || call_->init(0) != 0 || call_->device_get(&ordinal, device_) != 0) return false;
  retained_ = call_->primary_ctx_retain(&context_, ordinal) == 0;
  void* module = nullptr;
  if (!retained_ || call_->ctx_set_current(context_) != 0 || call_->module_load(&module, kKernels) != 0) return false;
  if (call_->module_get_function(&fill_, module, "fill") != 0) return false;
  if (call_->module_get_function(&check_, module, "check") != 0) return false;
  if (call_->module_get_function(&spin_, module, "spin") != 0) return false;
  wrong_ = static_cast<std::uint64_t*>(allocate(sizeof *wrong_));
  if (wrong_ == nullptr) return false;
  (void)wrong_words();  // sets it to 0
  return true;
}

Gpu::~Gpu() {
  if (!retained_) return;
  (void)call_->ctx_synchronize();
  for (const Stream stream : streams_) (void)call_->stream_destroy(stream);
  if (wrong_ != nullptr) free(wrong_);
  (void)call_->primary_ctx_release(device_);
}

void Gpu::make_current() { want(call_->ctx_set_current(context_), "cuCtxSetCurrent"); }

Gpu::Stream Gpu::make_stream() {
  Stream stream = nullptr;
  want(call_->stream_create(&stream, driver::cuda::kStreamNonBlocking), "cuStreamCreate");
  streams_.push_back(stream);
  return stream;
}

void Gpu::synchronize(Stream stream) { want(call_->stream_synchronize(stream), "cuStreamSynchronize"); }

void Gpu::launch_kernel(void* function, unsigned blocks, Stream stream, void** arguments) {
  const unsigned threads = function == spin_ ? 1 : kThreads;
  want(call_->launch_kernel(function, blocks, 1, 1, threads, 1, 1, 0, stream, arguments, nullptr), "cuLaunchKernel");
}

void Gpu::fill(void* words, std::size_t bytes, std::uint64_t seed, Stream stream) {
  std::uint64_t count = bytes / 8;
  void* arguments[] = {&words, &count, &seed};
  const auto blocks = static_cast<unsigned>((count + kThreads - 1) / kThreads);
  launch_kernel(fill_, blocks < kBlocks ? blocks : kBlocks, stream, arguments);
}

void Gpu::check(const void* words, std::size_t bytes, std::uint64_t seed, Stream stream) {
  std::uint64_t count = bytes / 8;
  void* arguments[] = {&words, &count, &seed, &wrong_};
  const auto blocks = static_cast<unsigned>((count + kThreads - 1) / kThreads);
  launch_kernel(check_, blocks < kBlocks ? blocks : kBlocks, stream, arguments);
}

void Gpu::spin(std::uint64_t nanoseconds, Stream stream) {
  void* arguments[] = {&nanoseconds};
  launch_kernel(spin_, 1, stream, arguments);
}

void Gpu::copy(void* to, const void* from, std::size_t bytes, Stream stream) {
  want(call_->memcpy_async(address_of(to), address_of(from), bytes, stream), "cuMemcpyAsync");
}

void Gpu::set(void* words, std::uint32_t word, std::size_t bytes, Stream stream) {
  want(call_->memset_async(address_of(words), word, bytes / 4, stream), "cuMemsetD32Async");
}

void Gpu::wait_for(Stream waiter, Stream other) {
  void* event = nullptr;
  want(call_->event_create(&event, driver::cuda::kEventDisableTiming), "cuEventCreate");
  want(call_->event_record(event, other), "cuEventRecord");
  want(call_->stream_wait_event(waiter, event, 0), "cuStreamWaitEvent");
  want(call_->event_destroy(event), "cuEventDestroy");
}

std::uint64_t Gpu::wrong_words() {
  std::uint64_t wrong = 0;
  want(call_->ctx_synchronize(), "cuCtxSynchronize");
  copy(&wrong, wrong_, sizeof wrong, nullptr);
  set(wrong_, 0, sizeof wrong, nullptr);
  want(call_->ctx_synchronize(), "cuCtxSynchronize");
  return wrong;
}

std::uint64_t Gpu::free_bytes() {
  std::size_t free = 0;
  std::size_t total = 0;
  want(call_->mem_get_info(&free, &total), "cuMemGetInfo");
  return free;
}

void Gpu::begin_capture(Stream stream, int mode) { want(call_->begin_capture(stream, mode), "cuStreamBeginCapture"); }

Gpu::Graph Gpu::end_capture(Stream stream) {
  void* graph = nullptr;
  Graph made = nullptr;
  want(call_->end_capture(stream, &graph), "cuStreamEndCapture");
  want(call_->graph_instantiate(&made, graph, 0), "cuGraphInstantiate");
  want(call_->graph_destroy(graph), "cuGraphDestroy");
  return made;
}

void Gpu::launch(Graph graph, Stream stream) { want(call_->graph_launch(graph, stream), "cuGraphLaunch"); }
void Gpu::destroy(Graph graph) { want(call_->graph_exec_destroy(graph), "cuGraphExecDestroy"); }

void* Gpu::allocate(std::size_t bytes) {
  CUdeviceptr pointer = 0;
  return call_->mem_alloc(&pointer, bytes) == 0 ? reinterpret_cast<void*>(pointer) : nullptr;
}
void Gpu::free(void* pointer) { want(call_->mem_free(address_of(pointer)), "cuMemFree"); }

void* Gpu::allocate_async(std::size_t bytes, Stream stream) {
  CUdeviceptr pointer = 0;
  return call_->mem_alloc_async(&pointer, bytes, stream) == 0 ? reinterpret_cast<void*>(pointer) : nullptr;
}
void Gpu::free_async(void* pointer, Stream stream) {
  want(call_->mem_free_async(address_of(pointer), stream), "cuMemFreeAsync");
}
void Gpu::keep_async_memory() {
  constexpr int kReleaseThreshold = 4;  // CU_MEMPOOL_ATTR_RELEASE_THRESHOLD
  void* pool = nullptr;
  std::uint64_t all = ~std::uint64_t{0};
  want(call_->default_pool(&pool, device_), "cuDeviceGetDefaultMemPool");
  want(call_->pool_set_attribute(pool, kReleaseThreshold, &all), "cuMemPoolSetAttribute");
}

void* Gpu::allocate_pinned(std::size_t bytes) {
  void* pointer = nullptr;
  want(call_->mem_host_alloc(&pointer, bytes, 0), "cuMemHostAlloc");
  return pointer;
}
void Gpu::free_pinned(void* pointer) { want(call_->mem_host_free(pointer), "cuMemFreeHost"); }

}  // namespace gmlake::test
