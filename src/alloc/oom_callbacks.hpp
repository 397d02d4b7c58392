// The release callbacks and the observers of an allocator: who they are, and calling them.
//
// Any thread may call any function, from inside a callback too. The lock is held across no callback; a call in progress
// is a record on its caller's stack, so that calling takes no host memory.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <list>
#include <thread>

#include "base/mutex.hpp"
#include "gmlake/oom.hpp"

namespace gmlake::alloc {

class OomCallbacks {
 public:
  OomCallbacks() = default;
  OomCallbacks(const OomCallbacks&) = delete;
  OomCallbacks& operator=(const OomCallbacks&) = delete;

  // An empty function is never called. Throw std::bad_alloc with nothing changed.
  CallbackId add_release(ReleaseCallback callback);
  CallbackId add_observer(OutOfMemoryObserver observer);
  // False: there is no such callback. Once it returns the callback is called no more and runs nowhere; from inside a
  // callback it waits for nothing, and what runs already goes on to its end.
  bool remove(CallbackId id);

  enum class Answer : std::uint8_t { nobody, no, yes };
  // Asks every release callback. nobody: none is registered, or this thread is inside of one, or too many calls run.
  Answer ask(const OutOfMemoryReport& report) noexcept;
  void tell(const OutOfMemoryReport& report) noexcept;

 private:
  struct Entry {
    CallbackId id = CallbackId::none;
    ReleaseCallback release;
    OutOfMemoryObserver observe;
    std::size_t calls = 0;  // in progress
    bool removed = false;
    bool awaited = false;  // by the thread that removes it, which then ends it
  };
  struct Call {  // a round in progress, on its thread's stack
    std::thread::id thread;
    Call* next = nullptr;
  };
  using Entries = std::list<Entry>;

  CallbackId insert(Entry entry);
  bool inside() const GMLAKE_REQUIRES(mutex_);
  // what(entry) for each one there is, with the lock let go meanwhile. False: this thread may call nobody now.
  template <class What>
  bool for_each(What&& what) noexcept GMLAKE_EXCLUDES(mutex_);

  Mutex mutex_;
  std::condition_variable_any left_;           // a call has ended
  Entries entries_ GMLAKE_GUARDED_BY(mutex_);  // in the order of registration
  Call* calls_ GMLAKE_GUARDED_BY(mutex_) = nullptr;
  std::size_t call_count_ GMLAKE_GUARDED_BY(mutex_) = 0;
  std::uint64_t last_id_ GMLAKE_GUARDED_BY(mutex_) = 0;
};

}  // namespace gmlake::alloc
