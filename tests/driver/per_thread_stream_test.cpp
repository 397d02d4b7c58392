#include "driver/per_thread_stream.hpp"

#include <gtest/gtest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <set>
#include <thread>
#include <vector>

namespace gmlake::driver {
namespace {

bool lives(std::uint64_t number) { return !LivingThreads().lack(number); }

// A thread that was joined is gone for the system a moment later.
void wait_for_end(std::uint64_t number) {
  while (lives(number)) std::this_thread::yield();
}

// Of a thread, to be destroyed after what gives the thread its number.
struct LateObject {
  std::function<void()> at_end;
  ~LateObject() {
    if (at_end) at_end();
  }
};
thread_local LateObject late;

TEST(PerThreadStream, HasOneNumberForAsLongAsItsThreadLives) {
  const std::uint64_t own = thread_stream();
  EXPECT_TRUE(is_thread_stream(own));
  EXPECT_EQ(thread_stream(), own);
  EXPECT_TRUE(lives(own));
  std::uint64_t other = 0;
  const std::uint64_t threads = numbered_threads();
  std::thread([&] {
    other = thread_stream();
    EXPECT_TRUE(lives(other));
    EXPECT_TRUE(lives(own));
    EXPECT_TRUE(is_of_another_thread(own));
  }).join();
  EXPECT_NE(other, own);
  EXPECT_EQ(numbered_threads(), threads + 1);
  wait_for_end(other);
  EXPECT_TRUE(lives(own));
}

TEST(PerThreadStream, HasANumberThatNoThreadGetsLater) {
  std::set<std::uint64_t> numbers;
  for (int round = 0; round < 50; ++round) {
    std::vector<std::uint64_t> of_round(4);
    std::vector<std::thread> threads;
    for (std::uint64_t& number : of_round) threads.emplace_back([&number] { number = thread_stream(); });
    for (std::thread& thread : threads) thread.join();
    numbers.insert(of_round.begin(), of_round.end());
  }
  EXPECT_EQ(numbers.size(), 200u);
  for (const std::uint64_t number : numbers) wait_for_end(number);
}

// The last objects of a thread may enqueue work, and free what it uses.
TEST(PerThreadStream, LivesUntilItsThreadIsGone) {
  std::uint64_t number = 0;
  std::thread([&] {
    late.at_end = [&] {
      EXPECT_TRUE(lives(number));
      EXPECT_EQ(thread_stream(), number);
      std::thread([&] { EXPECT_TRUE(lives(number)); }).join();
    };
    number = thread_stream();
  }).join();
  wait_for_end(number);
}

TEST(PerThreadStream, OfAThreadThatNeverNamedItHasNone) {
  const std::uint64_t threads = numbered_threads();
  std::thread([] { EXPECT_TRUE(is_of_another_thread(kThreadStreamBit)); }).join();
  EXPECT_EQ(numbered_threads(), threads);
}

TEST(PerThreadStream, IsMeantByOneHandleAlone) {
  for (const std::uint64_t handle :
       {std::uint64_t{0}, kLegacyStream, std::uint64_t{3}, std::uint64_t{0x7f0000001000}}) {
    EXPECT_EQ(stream_meant_by(handle), handle);
    EXPECT_EQ(handle_of_stream(handle), handle);
    EXPECT_FALSE(is_thread_stream(handle));
    EXPECT_FALSE(is_of_another_thread(handle));
  }
  EXPECT_EQ(stream_meant_by(kPerThreadStream), thread_stream());
  EXPECT_FALSE(is_thread_stream(UINT64_MAX));
}

// Nobody can name another thread's: the legacy stream, which comes after it, stands for it.
TEST(PerThreadStream, HasTheHandleThatTheCallingThreadCanGiveTheDriver) {
  const std::uint64_t own = thread_stream();
  EXPECT_EQ(handle_of_stream(own), kPerThreadStream);
  EXPECT_FALSE(is_of_another_thread(own));
  std::thread([own] {
    EXPECT_EQ(handle_of_stream(own), kLegacyStream);
    EXPECT_EQ(handle_of_stream(thread_stream()), kPerThreadStream);
  }).join();
}

TEST(PerThreadStream, GoesWithWhomTheThreadPassesFor) {
  const std::uint64_t own = thread_stream();
  {
    const ThreadStream other;
    ThreadStream::impersonate(&other);
    EXPECT_EQ(thread_stream(), other.number());
    EXPECT_TRUE(is_of_another_thread(own));
    EXPECT_TRUE(lives(other.number()));
    ThreadStream::impersonate(nullptr);
    EXPECT_EQ(thread_stream(), own);
  }
  EXPECT_TRUE(lives(own));
}

// In the child of a fork the thread that forked goes on with its number; others of the parent are not looked for.
TEST(PerThreadStream, GoesOnInTheChildOfAFork) {
  const std::uint64_t own = thread_stream();
  const pid_t child = ::fork();
  if (child == 0) {
    bool right = thread_stream() == own && lives(own);
    std::uint64_t other = 0;
    std::thread([&] { right = right && lives(other = thread_stream()) && lives(own); }).join();
    wait_for_end(other);
    std::_Exit(right && lives(own) && thread_stream() == own ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

// Threads come and go while others look: nobody who lives is missed.
TEST(PerThreadStream, IsNeverMissedByThoseWhoLook) {
  std::atomic<bool> done{false};
  std::atomic<int> missed{0};
  const std::uint64_t own = thread_stream();
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      while (!done) missed += lives(own) && lives(thread_stream()) ? 0 : 1;
    });
  }
  for (int i = 0; i < 300; ++i) {
    std::thread([&] { missed += lives(thread_stream()) ? 0 : 1; }).join();
    const ThreadStream other;
    missed += lives(other.number()) ? 0 : 1;
  }
  done = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(missed, 0);
}

// Numbers are kept in doubles by what reads snapshots.
TEST(PerThreadStream, HasANumberThatADoubleHolds) {
  const std::uint64_t own = thread_stream();
  EXPECT_EQ(static_cast<std::uint64_t>(static_cast<double>(own)), own);
}

}  // namespace
}  // namespace gmlake::driver
