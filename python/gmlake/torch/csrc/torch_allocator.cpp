#include "torch_allocator.hpp"

#include <c10/core/impl/GPUTrace.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <cstdlib>

namespace gmlake::torch_adapter {
namespace {

// The deleter of all memory, gmlake's and native's: PyTorch compares it to know an allocator's own.
void delete_raw(void* pointer) { installed()->deallocate(pointer); }

cudaStream_t current_stream(c10::DeviceIndex device) { return c10::cuda::getCurrentCUDAStream(device).stream(); }

c10::DeviceIndex current_device() {
  c10::DeviceIndex device = 0;
  C10_CUDA_CHECK(c10::cuda::GetDevice(&device));
  return device;
}

// Whoever follows PyTorch's calls from Python, such as its stream sanitizer.
const c10::impl::PyInterpreter* tracer() { return c10::impl::GPUTrace::get_trace(); }

// What native last told of a request of this thread that it refused.
struct Refusal {
  std::int64_t device = 0;
  std::size_t bytes = 0;
  std::size_t total = 0;
  std::size_t free = 0;
};
thread_local Refusal refused_inside;

// A block of native's under the deleter that native knows it by, for the length of a call: its owner stays its owner.
class Lent {
 public:
  Lent(const c10::DataPtr& block, c10::DeleterFnPtr deleter)
      : block_(block.get(), block.get(), deleter, block.device()) {}
  ~Lent() { block_.release_context(); }
  Lent(const Lent&) = delete;
  Lent& operator=(const Lent&) = delete;
  const c10::DataPtr& get() const { return block_; }

 private:
  c10::DataPtr block_;
};

}  // namespace

TorchAllocator::TorchAllocator(native::CUDAAllocator& inner, Options options)
    : inner_(inner),
      uncached_(std::getenv("PYTORCH_NO_CUDA_MEMORY_CACHING") != nullptr),
      options_(std::move(options)) {}

bool TorchAllocator::set_options(const Options& options) {
  const std::lock_guard lock(starting_);
  if (started_) return false;
  options_ = options;
  return true;
}

void TorchAllocator::init(int device_count) {
  inner_.init(device_count);
  const std::lock_guard lock(starting_);
  if (started_ || device_count == 0) return;
  started_ = true;
  start(options_);
}

void TorchAllocator::start(Options options) {
  Result<std::unique_ptr<Lake>> made = Lake::create(options);
  if (!made) {  // the job runs as it would have
    TORCH_WARN("gmlake is not in use, PyTorch's own allocator is: ", describe(made.error()));
    return;
  }
  Lake* lake = (*made).get();
  inner_.attachOutOfMemoryObserver([](auto device, auto bytes, auto total, auto free) {
    refused_inside = {static_cast<std::int64_t>(device), bytes, total, free};
  });
  lake->add_mapping_observer([this](const MappingChange& change) { trackers_.tell(change); });
  lake->add_release_callback([this](const OutOfMemoryReport& report) { return release_memory(report.device); });
  if (!options.record.empty()) {
    FileError error;
    recorder_ = Recorder::start(*lake, options.record, error);
    if (!error.ok()) TORCH_WARN("gmlake: record: ", error.message);
  }
  limit_bytes_ = options.limit_bytes;
  fractions_.assign(static_cast<std::size_t>(std::max(lake->device_count(), 1)), options.limit_fraction);
  lake_.store(std::move(made).value().release(), std::memory_order_release);
}

FileError TorchAllocator::end_recording() {
  const std::lock_guard lock(starting_);
  if (recorder_ == nullptr) return {"nothing is recorded"};
  return recorder_->stop();
}

// What allocate() gives its memory: native's where that makes it without a cache.
c10::DeleterFnPtr TorchAllocator::raw_deleter() const { return cached() ? &delete_raw : inner_.raw_deleter(); }

void TorchAllocator::copy_data(void* to, const void* from, std::size_t bytes) const {
  C10_CUDA_CHECK(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToDevice));
}

c10::DataPtr TorchAllocator::allocate(std::size_t bytes) {
  if (!cached()) return inner_.allocate(bytes);  // with a deleter that frees at once
  const c10::DeviceIndex device = current_device();
  void* pointer = bytes == 0 ? nullptr : allocate_on(device, bytes, current_stream(device));
  return {pointer, pointer, &delete_raw, c10::Device(c10::DeviceType::CUDA, device)};
}

void* TorchAllocator::raw_alloc(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  const c10::DeviceIndex device = current_device();
  return allocate_on(device, bytes, current_stream(device));
}

void* TorchAllocator::raw_alloc_with_stream(std::size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return nullptr;
  return allocate_on(current_device(), bytes, stream);
}

void* TorchAllocator::allocate_on(c10::DeviceIndex device, std::size_t bytes, cudaStream_t stream) {
  Lake* lake = this->lake();
  if (lake == nullptr || uncached_ || (filters_.any() && filters_.choose(device, stream))) {
    return allocate_inside(device, bytes, stream);
  }
  void* pointer = nullptr;
  try {
    pointer = lake->allocate(bytes, device, stream);
  } catch (const OutOfMemoryError& error) {
    refuse(device, bytes, error.report());
  } catch (const AllocationError& error) {
    refuse(device, bytes, error.error());
  }
  if (contexts_.on()) contexts_.allocated(device, pointer);
  if (c10::memoryProfilingEnabled()) report_usage(pointer, static_cast<std::int64_t>(lake->size_of(pointer)), device);
  if (const auto* trace = tracer()) {
    (*trace)->trace_gpu_memory_allocation(c10::DeviceType::CUDA, reinterpret_cast<std::uintptr_t>(pointer));
  }
  return pointer;
}

// From native: the memory of a pool. Where it finds none, what gmlake has cached goes back to the driver first.
void* TorchAllocator::allocate_inside(c10::DeviceIndex device, std::size_t bytes, cudaStream_t stream) {
  Lake* lake = this->lake();
  if (lake == nullptr) return inner_.raw_alloc_with_stream(bytes, stream);
  share_limit(device);
  void* pointer = nullptr;
  try {
    pointer = inner_.raw_alloc_with_stream(bytes, stream);
  } catch (const c10::OutOfMemoryError&) {
    const std::uint64_t held = lake->stats(device).all.reserved_bytes.current;
    const bool trimmed = lake->trim().ok() && lake->stats(device).all.reserved_bytes.current < held;
    if (!trimmed) {
      tell_observers(refused_inside.device, refused_inside.bytes, refused_inside.total, refused_inside.free);
      throw;
    }
    statistics_.correct_ooms(device, -1);  // native has counted one, and this is its second try
    share_limit(device);
    try {
      pointer = inner_.raw_alloc_with_stream(bytes, stream);
    } catch (const c10::OutOfMemoryError&) {
      tell_observers(refused_inside.device, refused_inside.bytes, refused_inside.total, refused_inside.free);
      throw;
    }
  }
  share_limit(device);
  return pointer;
}

void TorchAllocator::deallocate(void* pointer) {
  if (pointer == nullptr) return;
  Lake* lake = this->lake();
  if (lake == nullptr) {
    inner_.raw_delete(pointer);
    return;
  }
  const bool profiled = c10::memoryProfilingEnabled();
  int device = -1;  // of a block that somebody follows; native tells of its own
  std::int64_t bytes = 0;
  if (profiled || contexts_.on() || tracer() != nullptr) {
    device = lake->device_of(pointer);
    bytes = static_cast<std::int64_t>(lake->size_of(pointer));
  }
  const auto index = static_cast<c10::DeviceIndex>(device);
  if (device >= 0 && contexts_.on()) contexts_.freed(index, pointer);  // before: then another thread may have it
  const auto* trace = tracer();
  if (device >= 0 && trace != nullptr) {
    (*trace)->trace_gpu_memory_deallocation(c10::DeviceType::CUDA, reinterpret_cast<std::uintptr_t>(pointer));
  }
  if (sharing_.any()) sharing_.freed(pointer);
  const Status freed = lake->try_deallocate(pointer);
  if (freed.ok()) {
    if (device >= 0 && profiled) report_usage(pointer, -bytes, index);  // with the sums as they are now
    return;
  }
  // Native's. While the process ends, or in the child of a fork, nothing is freed.
  if (freed.error().code == ErrorCode::invalid_pointer) inner_.raw_delete(pointer);
}

void TorchAllocator::report_usage(void* pointer, std::int64_t bytes, c10::DeviceIndex device) {
  const TorchStats stats = getDeviceStats(device);
  c10::reportMemoryUsageToProfiler(pointer, bytes, static_cast<std::size_t>(stats.allocated_bytes[0].current),
                                   static_cast<std::size_t>(stats.reserved_bytes[0].current),
                                   c10::Device(c10::DeviceType::CUDA, device));
}

void TorchAllocator::recordStream(const c10::DataPtr& pointer, c10::cuda::CUDAStream stream) {
  if (pointer.get() == nullptr) return;
  if (pointer.get_deleter() != &delete_raw) {  // native's, of before; or somebody else's, which native lets be
    inner_.recordStream(pointer, stream);
    return;
  }
  if (lake() != nullptr) {
    const Status recorded = lake()->try_record_stream(pointer.get(), stream.stream(), stream.device_index());
    if (recorded.ok() || recorded.error().code == ErrorCode::shut_down) return;  // at exit nothing is reused any more
    TORCH_CHECK(recorded.error().code == ErrorCode::invalid_pointer,
                "gmlake: record_stream: ", describe(recorded.error()));
  }
  const Lent known(pointer, inner_.raw_deleter());
  inner_.recordStream(known.get(), stream);
}

void TorchAllocator::emptyCache(c10::MempoolId_t pool) {
  if (lake() != nullptr && pool == c10::MempoolId_t{0, 0}) {
    const Status trimmed = lake()->trim();
    TORCH_CHECK(trimmed.ok() || trimmed.error().code == ErrorCode::captured,
                "gmlake: empty_cache: ", describe(trimmed.error()));
  }
  inner_.emptyCache(pool);
  if (lake() == nullptr) return;
  for (c10::DeviceIndex device = 0; device < lake()->device_count();
       ++device) {  // what native let go of is gmlake's now
    const Result<double> own = lake()->limit_fraction(device);
    if (own && *own < getMemoryFraction(device)) share_limit(device);
  }
}

TorchStats TorchAllocator::getDeviceStats(c10::DeviceIndex device) {
  TorchStats stats = inner_.getDeviceStats(device);
  return lake() == nullptr ? stats : statistics_.combine(device, lake()->stats(device), std::move(stats));
}

void TorchAllocator::resetAccumulatedStats(c10::DeviceIndex device) {
  inner_.resetAccumulatedStats(device);
  if (lake() != nullptr) statistics_.reset_accumulated(device, lake()->stats(device));
}

void TorchAllocator::resetPeakStats(c10::DeviceIndex device) {
  inner_.resetPeakStats(device);
  if (lake() != nullptr) lake()->reset_peaks(device);
}

// The blocks that come back are storages of PyTorch's, which looks for this allocator's deleter on them.
native::CheckpointDelta TorchAllocator::setCheckpointPoolState(c10::DeviceIndex device,
                                                               std::shared_ptr<native::AllocatorState> state) {
  native::CheckpointDelta delta = inner_.setCheckpointPoolState(device, std::move(state));
  for (c10::DataPtr& block : delta.dataptrs_allocd) {
    void* pointer = block.release_context();
    block = c10::DataPtr(pointer, pointer, &delete_raw, block.device());
  }
  return delta;
}

// All cached memory can be put together, so the largest block there could be is all of it.
void TorchAllocator::cacheInfo(c10::DeviceIndex device, std::size_t* largest) {
  inner_.cacheInfo(device, largest);
  if (lake() != nullptr) {
    *largest = std::max<std::size_t>(*largest, lake()->stats(device).all.inactive_split_bytes.current);
  }
}

void* TorchAllocator::getBaseAllocation(void* pointer, std::size_t* bytes) {
  if (!is_ours(pointer)) return inner_.getBaseAllocation(pointer, bytes);
  if (bytes != nullptr) *bytes = lake()->size_of(pointer);
  return pointer;
}

void TorchAllocator::attachAllocatorTraceTracker(native::AllocatorTraceTracker tracker) {
  trackers_.attach(tracker);
  inner_.attachAllocatorTraceTracker(std::move(tracker));
}

void TorchAllocator::enablePeerAccess(c10::DeviceIndex device, c10::DeviceIndex peer) {
  inner_.enablePeerAccess(device, peer);
  if (lake() == nullptr) return;
  const Status enabled = lake()->enable_peer_access(peer, device);
  TORCH_CHECK(enabled.ok(), "gmlake: peer access of device ", static_cast<int>(device), " to ", static_cast<int>(peer),
              ": ", describe(enabled.error()));
}

// Mapped memory is out of reach of cudaMemcpyAsync from another device where there is no peer access.
cudaError_t TorchAllocator::memcpyAsync(void* to, int to_device, const void* from, int from_device, std::size_t bytes,
                                        cudaStream_t stream, bool peer_access) {
  if (peer_access || to_device == from_device)
    return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
  return cudaMemcpyPeerAsync(to, to_device, from, from_device, bytes, stream);
}

native::ShareableHandle TorchAllocator::shareIpcHandle(void* pointer) {
  if (!is_ours(pointer)) return inner_.shareIpcHandle(pointer);
  return {0, sharing_.name(*lake(), pointer)};
}

std::shared_ptr<void> TorchAllocator::getIpcDevPtr(std::string handle) {
  if (!Sharing::is_name(handle)) return inner_.getIpcDevPtr(std::move(handle));
  TORCH_CHECK(lake() != nullptr, "gmlake: CUDA memory of another process came before PyTorch initialised CUDA");
  return sharing_.open(*lake(), handle, current_device());
}

void TorchAllocator::record_history(bool enabled, native::CreateContextFn recorder, std::size_t most,
                                    native::RecordContext when, bool clear,
                                    const std::vector<std::string>& skip_actions) {
  const std::size_t events = contexts_.configure(enabled, recorder, most, when, clear, skip_actions);
  if (lake() == nullptr || recorder_ != nullptr) return;  // a recorder keeps the history for itself
  const Status kept = lake()->keep_history(events);
  TORCH_CHECK(kept.ok(), "gmlake: _record_memory_history: ", describe(kept.error()));
}

}  // namespace gmlake::torch_adapter
