// PyTorch's CUDA allocator, served by gmlake. Private pools (CUDA graphs, MemPool, checkpoints of them) stay with the
// allocator that PyTorch came with, `native` below, which does them well; so does all that it handed out before this
// took its place. Which of the two a block is of is asked of gmlake's table of live blocks when it comes back.
//
// Any thread may call anything, as with PyTorch's own. There is one object, made when it is installed and never
// destroyed: tensors are freed up to the very end of the process.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "gmlake/allocator.hpp"
#include "gmlake/observe.hpp"
#include "history_contexts.hpp"
#include "pool_filters.hpp"
#include "sharing.hpp"
#include "statistics.hpp"
#include "trace_trackers.hpp"
#include "versions.hpp"

namespace gmlake::torch_adapter {

using Lake = gmlake::Allocator;  // the classes below have another Allocator among their bases

class TorchAllocator final : public native::CUDAAllocator {
 public:
  TorchAllocator(native::CUDAAllocator& inner, Options options);

  // Settings hold from when CUDA is initialised: false after that.
  bool set_options(const Options& options);
  // What serves devices; null before CUDA is initialised.
  Lake* lake() const { return lake_.load(std::memory_order_acquire); }
  native::CUDAAllocator& inner() { return inner_; }
  // Ends the recording that the option `record` asked for; an error where there is none or it could not be written.
  FileError end_recording();

  void* allocate_on(c10::DeviceIndex device, std::size_t bytes, cudaStream_t stream);
  void deallocate(void* pointer);

  // c10::Allocator
  c10::DataPtr allocate(std::size_t bytes) override;
  c10::DeleterFnPtr raw_deleter() const override;
  void copy_data(void* to, const void* from, std::size_t bytes) const override;

  // c10::DeviceAllocator
  bool initialized() override { return inner_.initialized(); }
  void emptyCache(c10::MempoolId_t pool) override;
  void recordStream(const c10::DataPtr& pointer, c10::cuda::CUDAStream stream) override;
  TorchStats getDeviceStats(c10::DeviceIndex device) override;
  void resetAccumulatedStats(c10::DeviceIndex device) override;
  void resetPeakStats(c10::DeviceIndex device) override;

  // CUDAAllocator: what gmlake does
  void* raw_alloc(std::size_t bytes) override;
  void* raw_alloc_with_stream(std::size_t bytes, cudaStream_t stream) override;
  void raw_delete(void* pointer) override { deallocate(pointer); }
  void init(int device_count) override;
  double getMemoryFraction(c10::DeviceIndex device) override;
  void setMemoryFraction(double fraction, c10::DeviceIndex device) override;
  void cacheInfo(c10::DeviceIndex device, std::size_t* largest) override;
  void* getBaseAllocation(void* pointer, std::size_t* bytes) override;
  void attachOutOfMemoryObserver(native::OutOfMemoryObserver observer) override;
  void attachAllocatorTraceTracker(native::AllocatorTraceTracker tracker) override;
  void enablePeerAccess(c10::DeviceIndex device, c10::DeviceIndex peer) override;
  cudaError_t memcpyAsync(void* to, int to_device, const void* from, int from_device, std::size_t bytes,
                          cudaStream_t stream, bool peer_access) override;
  native::ShareableHandle shareIpcHandle(void* pointer) override;
  std::string name() override { return "gmlake"; }

  TorchSnapshot take_snapshot(TorchSnapshot inner, c10::MempoolId_t pool, bool traces);
#if GMLAKE_TORCH_AT_LEAST(11)
  TorchSnapshot snapshot(c10::MempoolId_t pool, bool traces) override {
    return take_snapshot(inner_.snapshot(pool, traces), pool, traces);
  }
  void recordHistory(bool enabled, native::CreateContextFn recorder, std::size_t most, native::RecordContext when,
                     bool clear, const std::vector<std::string>& skip_actions) override {
    inner_.recordHistory(enabled, recorder, most, when, clear, skip_actions);
    record_history(enabled, recorder, most, when, clear, skip_actions);
  }
#else
  TorchSnapshot snapshot(c10::MempoolId_t pool) override { return take_snapshot(inner_.snapshot(pool), pool, true); }
  void recordHistory(bool enabled, native::CreateContextFn recorder, std::size_t most, native::RecordContext when,
                     bool clear) override {
    inner_.recordHistory(enabled, recorder, most, when, clear);
    record_history(enabled, recorder, most, when, clear, {});
  }
#endif
  bool isHistoryEnabled() override { return inner_.isHistoryEnabled(); }
  void pushCompileContext(std::string& text) override {
    inner_.pushCompileContext(text);
    HistoryContexts::push_compile_context(text);
  }
  void popCompileContext() override {
    inner_.popCompileContext();
    HistoryContexts::pop_compile_context();
  }

  // CUDAAllocator: pools, which `native` keeps
  void beginAllocateToPool(c10::DeviceIndex device, c10::MempoolId_t id,
                           std::function<bool(cudaStream_t)> filter) override {
    filters_.begin(device, id, filter);
    inner_.beginAllocateToPool(device, id, std::move(filter));
  }
  void endAllocateToPool(c10::DeviceIndex device, c10::MempoolId_t id) override {
    inner_.endAllocateToPool(device, id);
    filters_.end(device, id);
  }
  void releasePool(c10::DeviceIndex device, c10::MempoolId_t id) override { inner_.releasePool(device, id); }
  int getPoolUseCount(c10::DeviceIndex device, c10::MempoolId_t id) override {
    return inner_.getPoolUseCount(device, id);
  }
  void createOrIncrefPool(c10::DeviceIndex device, c10::MempoolId_t id, PoolAllocator allocator) override {
    inner_.createOrIncrefPool(device, id, std::move(allocator));
  }
#if GMLAKE_TORCH_AT_LEAST(11)
  void setUseOnOOM(c10::DeviceIndex device, c10::MempoolId_t id, bool use) override {
    inner_.setUseOnOOM(device, id, use);
  }
#else
  void setUseOnOOM(c10::DeviceIndex device, c10::MempoolId_t id) override { inner_.setUseOnOOM(device, id); }
#endif
#if GMLAKE_TORCH_AT_LEAST(10)
  void setNoSplit(c10::DeviceIndex device, c10::MempoolId_t id) override { inner_.setNoSplit(device, id); }
  std::vector<native::StreamSegmentSize> getExpandableSegmentSizes(c10::DeviceIndex device) override {
    return inner_.getExpandableSegmentSizes(device);
  }
  void setUserMetadata(const std::string& text) override { inner_.setUserMetadata(text); }
  std::string getUserMetadata() override { return inner_.getUserMetadata(); }
#endif
  bool checkPoolLiveAllocations(c10::DeviceIndex device, c10::MempoolId_t id,
                                const std::unordered_set<void*>& expected) override {
    return inner_.checkPoolLiveAllocations(device, id, expected);
  }
  std::shared_ptr<native::AllocatorState> getCheckpointState(c10::DeviceIndex device, c10::MempoolId_t id) override {
    return inner_.getCheckpointState(device, id);
  }
  native::CheckpointDelta setCheckpointPoolState(c10::DeviceIndex device,
                                                 std::shared_ptr<native::AllocatorState> state) override;

  // CUDAAllocator: the rest
  void enable(bool value) override { inner_.enable(value); }
  bool isEnabled() const override { return inner_.isEnabled(); }
  std::shared_ptr<void> getIpcDevPtr(std::string handle) override;
  void recordAnnotation(const std::vector<std::pair<std::string, std::string>>& text) override {
    inner_.recordAnnotation(text);
  }
#if GMLAKE_TORCH_AT_LEAST(12)
  void attachOomRejectionObserver(native::OomRejectionObserver observer) override {
    inner_.attachOomRejectionObserver(std::move(observer));
  }
  std::shared_ptr<c10::GatheredContext> getContextForPointer(const void* pointer) override {
    if (lake() != nullptr && lake()->device_of(pointer) >= 0) return contexts_.context_of(pointer);
    return inner_.getContextForPointer(pointer);
  }
#endif

 private:
  // Whether memory is cached at all: the environment and enable() can say no, and native makes each allocation then.
  bool cached() const { return !uncached_ && inner_.isEnabled(); }
  bool is_ours(const void* pointer) const { return lake() != nullptr && lake()->device_of(pointer) >= 0; }
  void* allocate_inside(c10::DeviceIndex device, std::size_t bytes, cudaStream_t stream);
  void start(Options options);
  void share_limit(c10::DeviceIndex device);
  void tell_observers(std::int64_t device, std::size_t bytes, std::size_t total, std::size_t free);
  bool release_memory(int device);
  [[noreturn]] void refuse(c10::DeviceIndex device, std::size_t bytes, const OutOfMemoryReport& report);
  [[noreturn]] void refuse(c10::DeviceIndex device, std::size_t bytes, const Error& error);
  void report_usage(void* pointer, std::int64_t bytes, c10::DeviceIndex device);
  void record_history(bool enabled, native::CreateContextFn recorder, std::size_t most, native::RecordContext when,
                      bool clear, const std::vector<std::string>& skip_actions);

  native::CUDAAllocator& inner_;
  const bool uncached_;               // PYTORCH_NO_CUDA_MEMORY_CACHING
  std::atomic<Lake*> lake_{nullptr};  // never destroyed
  std::mutex starting_;
  Options options_;  // under starting_, as are the next two
  bool started_ = false;
  std::unique_ptr<Recorder> recorder_;
  std::mutex limits_;
  std::vector<double> fractions_;  // under limits_; by device, 1 where none was set
  std::uint64_t limit_bytes_ = 0;  // the option, of each device; set before lake_
  std::mutex observers_;
  std::vector<native::OutOfMemoryObserver> oom_observers_;  // under observers_
  PoolFilters filters_;
  TraceTrackers trackers_;
  Statistics statistics_;
  HistoryContexts contexts_;
  Sharing sharing_;
};

// The one object; null before it is installed.
TorchAllocator* installed();

}  // namespace gmlake::torch_adapter
