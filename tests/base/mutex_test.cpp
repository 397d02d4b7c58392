#include "base/mutex.hpp"

#include <gtest/gtest.h>

#include <condition_variable>
#include <thread>
#include <vector>

namespace gmlake {
namespace {

TEST(Mutex, IsHeldByOneThreadAtATime) {
  Mutex mutex;
  std::uint64_t count = 0;  // not atomic: a lost update shows, and ThreadSanitizer says so
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20'000; ++i) {
        const MutexLock lock(mutex);
        ++count;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(count, 160'000u);
}

TEST(Mutex, TriesWithoutWaiting) {
  Mutex mutex;
  const auto try_once = [&mutex] {
    if (!mutex.try_lock()) return false;
    mutex.unlock();
    return true;
  };
  mutex.lock();
  std::thread([&] { EXPECT_FALSE(try_once()); }).join();
  mutex.unlock();
  EXPECT_TRUE(try_once());
  EXPECT_TRUE(try_once());  // it left nothing held
}

TEST(Mutex, WakesEachOfManyThatSleep) {
  // Held until all are likely to sleep in the kernel; each then has to be woken by the one before.
  Mutex mutex;
  std::atomic<int> started{0};
  int passed = 0;
  std::vector<std::thread> threads;
  mutex.lock();
  for (int t = 0; t < 16; ++t) {
    threads.emplace_back([&] {
      started.fetch_add(1);
      const MutexLock lock(mutex);
      ++passed;
    });
  }
  while (started.load() < 16) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  mutex.unlock();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(passed, 16);
}

TEST(Mutex, ServesConditionVariables) {
  Mutex mutex;
  std::condition_variable_any changed;
  int turn = 0;
  std::thread other([&] {
    for (int i = 0; i < 1000; ++i) {
      mutex.lock();
      while (turn != 1) changed.wait(mutex);
      turn = 0;
      mutex.unlock();
      changed.notify_one();
    }
  });
  for (int i = 0; i < 1000; ++i) {
    mutex.lock();
    while (turn != 0) changed.wait(mutex);
    turn = 1;
    mutex.unlock();
    changed.notify_one();
  }
  other.join();
  EXPECT_EQ(turn, 0);
}

}  // namespace
}  // namespace gmlake
