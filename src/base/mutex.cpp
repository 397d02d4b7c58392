#include "base/mutex.hpp"

#include <algorithm>

namespace gmlake {
namespace {

// A waiter looks again after 1, 2, 4 pauses and so on, and at least every 64 (1.6 us on the machine of
// bench/results/threads.json). The first looks find out soon that a short hold has ended. The later ones leave the line
// of the lock, and with it all that the lock guards, where they are: threads that go on taking turns do so in batches
// of a hundred, not one by one with a dozen cache misses each time. One by one, 8 threads on 2 cores got half as much
// done as one thread. After 20 looks, some 25 us, whoever holds it was interrupted, or is in a driver call: sleep.
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
  int pauses = 1;
  for (int look = 0; look < kLooks; ++look) {
    for (int i = 0; i < pauses; ++i) pause();
    if (state_.load(std::memory_order_relaxed) == kFree && try_lock()) return;
    pauses = std::min(2 * pauses, kMostPauses);
  }
  // Whoever slept takes it as contended: others may be asleep still, and its unlock has to wake one.
  while (state_.exchange(kContended, std::memory_order_acquire) != kFree) {
    state_.wait(kContended, std::memory_order_relaxed);
  }
}

}  // namespace gmlake
