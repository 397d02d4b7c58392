#include "base/mutex.hpp"

#include <algorithm>

namespace gmlake {
namespace {

// Who waits looks again after 1, 2, 4 pauses and so on, and at least every 64 (1.6 us where it was measured). The first
// looks find out soon that a short hold has ended. The later ones leave the line of the lock, and with it all that the
// lock guards, where they are: threads that go on taking turns do so in batches of a hundred, not one by one with a
// dozen cache misses each time. After 20 looks, some 25 us, whoever holds it was interrupted, or is in a driver call.
constexpr int kMostPauses = 64;
constexpr int kLooks = 20;

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

// Returns with the lock, as lock() says, whose callers the analysis follows.
GMLAKE_NO_THREAD_SAFETY_ANALYSIS void Mutex::wait_and_lock() noexcept {
  bool awake = (state_.fetch_or(kAwake, std::memory_order_relaxed) & kAwake) == 0;  // it is this thread that is
  for (;;) {
    for (int look = 0, pauses = 1; awake && look < kLooks; ++look, pauses = std::min(2 * pauses, kMostPauses)) {
      for (int i = 0; i < pauses; ++i) pause();
      if ((state_.load(std::memory_order_relaxed) & kHeld) == 0 && try_lock()) {
        state_.fetch_and(~kAwake, std::memory_order_relaxed);
        return;
      }
    }
    // In one step with the look that finds it held: who holds it then sees at the unlock that there is one to wake.
    std::uint32_t seen = state_.load(std::memory_order_relaxed);
    for (bool done = false; !done;) {
      const bool held = (seen & kHeld) != 0;
      const std::uint32_t others = awake ? seen & ~kAwake : seen;
      done = state_.compare_exchange_weak(seen, held ? others + kSleeper : others | kHeld, std::memory_order_acquire,
                                          std::memory_order_relaxed);
      if (done && !held) return;
    }
    sleep();
    awake = true;  // said by whoever woke it
  }
}

void Mutex::sleep() noexcept {
  std::uint32_t woken = woken_.load(std::memory_order_relaxed);
  while (woken == 0 || !woken_.compare_exchange_weak(woken, woken - 1, std::memory_order_relaxed)) {
    if (woken != 0) continue;
    woken_.wait(0, std::memory_order_relaxed);
    woken = woken_.load(std::memory_order_relaxed);
  }
}

// Unless another has taken it since: that one's unlock will.
void Mutex::wake_one() noexcept {
  std::uint32_t seen = state_.load(std::memory_order_relaxed);
  do {
    if (seen < kSleeper || (seen & (kHeld | kAwake)) != 0) return;
  } while (!state_.compare_exchange_weak(seen, (seen - kSleeper) | kAwake, std::memory_order_relaxed));
  woken_.fetch_add(1, std::memory_order_relaxed);
  woken_.notify_one();
}

}  // namespace gmlake
