// Blocks that torch.multiprocessing sends to other processes. What it sends along is a name: of a socket, where a
// thread of this process hands the descriptors of the block's memory to whoever asks for its number and runs as the
// same user. PyTorch keeps a block that it sent until its receivers have let go of it.
//
// One for the process, never destroyed; a child of a fork begins anew. Any thread.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "gmlake/allocator.hpp"

namespace gmlake::torch_adapter {

class Sharing {
 public:
  // The name of a live block. Throws c10::Error, which says what failed.
  std::string name(gmlake::Allocator& allocator, void* pointer);
  // Call it before a block is freed: its memory is not handed out under that name any more.
  void freed(const void* pointer);
  // On the path of every free: one load where nothing was shared.
  bool any() const { return any_.load(std::memory_order_relaxed); }

  static bool is_name(std::string_view handle);
  // The memory behind a name, on `device`; the same as long as it is held. The last to let go of it waits for the
  // device. Throws c10::Error.
  std::shared_ptr<void> open(gmlake::Allocator& allocator, const std::string& name, int device);

 private:
  void begin();  // the thread, once in each process
  void serve(int listening);

  std::mutex mutex_;
  std::atomic<bool> any_ = false;
  int process_ = 0;  // that the rest belongs to
  std::string socket_;
  std::uint64_t next_ = 0;
  std::unordered_map<const void*, std::uint64_t> numbers_;  // of live blocks
  std::unordered_map<std::uint64_t, std::shared_ptr<SharedBlock>> blocks_;
  std::unordered_map<std::string, std::weak_ptr<void>> opened_;
};

}  // namespace gmlake::torch_adapter
