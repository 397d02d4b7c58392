#include "base/mutex.hpp"

namespace gmlake {
namespace {

// About a microsecond: longer than any lock of the hot path is held, shorter than a sleep in the kernel.
constexpr int kSpins = 100;

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

void Mutex::wait_and_lock() noexcept {
  for (int i = 0; i < kSpins; ++i) {
    if (state_.load(std::memory_order_relaxed) == kFree) {
      int expected = kFree;
      if (state_.compare_exchange_weak(expected, kHeld, std::memory_order_acquire, std::memory_order_relaxed)) return;
    }
    pause();
  }
  // Whoever slept takes it as contended: others may be asleep still, and its unlock has to wake one.
  while (state_.exchange(kContended, std::memory_order_acquire) != kFree) {
    state_.wait(kContended, std::memory_order_relaxed);
  }
}

}  // namespace gmlake
