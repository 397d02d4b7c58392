// The stacks that go with gmlake's history: where in the program each block was allocated and freed. gmlake keeps the
// events; this keeps, beside them, what PyTorch's recorder says of the calling thread. Off, it costs a load. Any
// thread.
#pragma once

#include <atomic>
#include <deque>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "gmlake/allocator.hpp"
#include "versions.hpp"

namespace gmlake::torch_adapter {

class HistoryContexts {
 public:
  // As CUDAAllocator::recordHistory(). Returns how many events gmlake is to keep.
  std::size_t configure(bool enabled, native::CreateContextFn recorder, std::size_t most, native::RecordContext when,
                        bool clear, const std::vector<std::string>& skip_actions);

  bool on() const { return on_.load(std::memory_order_relaxed); }
  void allocated(c10::DeviceIndex device, const void* pointer);
  // Call it before the block is freed: at once after that, another thread may have it.
  void freed(c10::DeviceIndex device, const void* pointer);

  Context context_of(const void* pointer) const;  // of a live block; null where none was recorded
  // The kept events of a device, as PyTorch's, with their stacks.
  TorchTrace trace(c10::DeviceIndex device, const std::vector<HistoryEvent>& events) const;

  // What the calling thread's events are marked with.
  static void push_compile_context(std::string& text);
  static void pop_compile_context();

 private:
  struct Call {
    std::uint64_t address = 0;
    bool free = false;
    Context context;
    std::string compile_context;
  };
  Context gather(native::RecordContext least) const;
  void remember(c10::DeviceIndex device, Call call);

  std::atomic<bool> on_ = false;
  std::atomic<native::CreateContextFn> recorder_ = nullptr;
  std::atomic<native::RecordContext> when_ = native::RecordContext::NEVER;
  mutable std::mutex mutex_;
  std::size_t most_ = 0;
  std::vector<std::string> skip_actions_;
  std::unordered_map<const void*, Context> live_;
  std::unordered_map<int, std::deque<Call>> calls_;  // by device, oldest first
};

}  // namespace gmlake::torch_adapter
