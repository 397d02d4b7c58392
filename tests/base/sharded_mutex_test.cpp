// Several mutexes as one: who holds a share keeps out who wants all, and not who wants another share.
#include "base/sharded_mutex.hpp"

#include <gtest/gtest.h>

#include <deque>
#include <thread>
#include <vector>

namespace gmlake {
namespace {

bool is_free(Mutex& mutex) {
  if (!mutex.try_lock()) return false;
  mutex.unlock();
  return true;
}

TEST(ShardedMutex, HoldsEveryShareThatWasAdded) {
  std::deque<Mutex> mutexes(ShardedMutex::kMost);
  ShardedMutex all(mutexes[0]);
  for (std::size_t i = 1; i < mutexes.size(); ++i) {
    const MutexLock lock(all);
    all.add(mutexes[i]);
    EXPECT_FALSE(is_free(mutexes[i]));
  }
  for (Mutex& mutex : mutexes) EXPECT_TRUE(is_free(mutex));
  const MutexLock lock(all);
  for (Mutex& mutex : mutexes) EXPECT_FALSE(is_free(mutex));
}

// Each thread counts under a share, now and then under all of them, and one adds shares meanwhile.
TEST(ShardedMutex, CoversWhatItsSharesCover) {
  constexpr int kTurns = 20'000;
  std::deque<Mutex> mutexes(ShardedMutex::kMost);
  std::deque<std::uint64_t> counts(ShardedMutex::kMost);  // not atomic: a lost update shows
  ShardedMutex all(mutexes[0]);
  std::size_t shares = 1;
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < ShardedMutex::kMost; ++t) {
    threads.emplace_back([&, t] {
      {
        const MutexLock lock(all);
        while (shares <= t) all.add(mutexes[shares++]);
      }
      for (int i = 0; i < kTurns; ++i) {
        if (i % 64 == 0) {
          const MutexLock lock(all);
          for (std::size_t share = 0; share < shares; ++share) ++counts[share];
          for (std::size_t share = 0; share < shares; ++share) counts[share] -= share == t ? 0 : 1;
        } else {
          const MutexLock lock(mutexes[t]);
          ++counts[t];
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::uint64_t count : counts) EXPECT_EQ(count, static_cast<std::uint64_t>(kTurns));
}

}  // namespace
}  // namespace gmlake
