// A mutex that clang's thread-safety analysis understands. Every shared field names its lock with GMLAKE_GUARDED_BY,
// and a function that wants the lock held says GMLAKE_REQUIRES: the compiler then checks each access (-Wthread-safety).
// Under other compilers the macros are empty. Any thread may lock; the one that locked unlocks.
//
// Not std::mutex: an uncontended lock and unlock of that are two calls into the C library, about 110 instructions, a
// third of all that a cached allocation may cost; these are a dozen, inlined. And where many threads want it at once,
// at most one of those who wait is awake, looking at short intervals, and none of the others is woken while it does:
// eight that look take the processors from the one that holds it. The state is that of Go's sync.Mutex without its
// fairness: who comes while it is free takes it. Whoever destroys one knows that no unlock() of it is still under way.
#pragma once

#include <atomic>
#include <cstdint>

#if defined(__clang__)
#define GMLAKE_THREAD_ATTRIBUTE(x) __attribute__((x))
#else
#define GMLAKE_THREAD_ATTRIBUTE(x)
#endif

#define GMLAKE_CAPABILITY(name) GMLAKE_THREAD_ATTRIBUTE(capability(name))
#define GMLAKE_SCOPED_CAPABILITY GMLAKE_THREAD_ATTRIBUTE(scoped_lockable)
#define GMLAKE_GUARDED_BY(mutex) GMLAKE_THREAD_ATTRIBUTE(guarded_by(mutex))        // the field itself
#define GMLAKE_PT_GUARDED_BY(mutex) GMLAKE_THREAD_ATTRIBUTE(pt_guarded_by(mutex))  // what the pointer points to
#define GMLAKE_ACQUIRED_BEFORE(...) GMLAKE_THREAD_ATTRIBUTE(acquired_before(__VA_ARGS__))
#define GMLAKE_ACQUIRED_AFTER(...) GMLAKE_THREAD_ATTRIBUTE(acquired_after(__VA_ARGS__))
#define GMLAKE_REQUIRES(...) GMLAKE_THREAD_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define GMLAKE_ACQUIRE(...) GMLAKE_THREAD_ATTRIBUTE(acquire_capability(__VA_ARGS__))
#define GMLAKE_RELEASE(...) GMLAKE_THREAD_ATTRIBUTE(release_capability(__VA_ARGS__))
#define GMLAKE_TRY_ACQUIRE(...) GMLAKE_THREAD_ATTRIBUTE(try_acquire_capability(__VA_ARGS__))
#define GMLAKE_EXCLUDES(...) GMLAKE_THREAD_ATTRIBUTE(locks_excluded(__VA_ARGS__))  // the caller must not hold it
#define GMLAKE_RETURN_CAPABILITY(mutex) GMLAKE_THREAD_ATTRIBUTE(lock_returned(mutex))
#define GMLAKE_ASSERT_CAPABILITY(...) GMLAKE_THREAD_ATTRIBUTE(assert_capability(__VA_ARGS__))
// For the few functions that lock in a way the analysis cannot follow; say why where it is used.
#define GMLAKE_NO_THREAD_SAFETY_ANALYSIS GMLAKE_THREAD_ATTRIBUTE(no_thread_safety_analysis)

namespace gmlake {

// Named as the standard names it, so that std::condition_variable_any can wait on it.
class GMLAKE_CAPABILITY("mutex") Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void lock() GMLAKE_ACQUIRE() {
    if (!try_lock()) wait_and_lock();
  }
  void unlock() GMLAKE_RELEASE() {
    const std::uint32_t before = state_.fetch_sub(kHeld, std::memory_order_release);
    if (before >= kSleeper && (before & kAwake) == 0) wake_one();
  }
  bool try_lock() GMLAKE_TRY_ACQUIRE(true) { return (state_.fetch_or(kHeld, std::memory_order_acquire) & kHeld) == 0; }

 private:
  static constexpr std::uint32_t kHeld = 1;
  static constexpr std::uint32_t kAwake = 2;    // one of those who wait is, and will take it or go to sleep
  static constexpr std::uint32_t kSleeper = 4;  // times the number of those who sleep, or are about to

  void wait_and_lock() noexcept;  // mutex.cpp: out of the way of those who need not wait
  void sleep() noexcept;
  void wake_one() noexcept;

  std::atomic<std::uint32_t> state_{0};
  std::atomic<std::uint32_t> woken_{0};  // how many have been told to wake up and have not yet
};

// Holds a Mutex, or what else is locked and unlocked, from here to the end of the scope.
template <class Lockable>
class GMLAKE_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Lockable& mutex) GMLAKE_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~MutexLock() GMLAKE_RELEASE() { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Lockable& mutex_;
};

}  // namespace gmlake
