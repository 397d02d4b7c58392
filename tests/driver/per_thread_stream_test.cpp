#include "driver/per_thread_stream.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <thread>
#include <vector>

namespace gmlake::driver {
namespace {

bool lives(std::uint64_t number) {
  const std::vector<std::uint64_t> living = living_thread_streams();
  EXPECT_TRUE(std::is_sorted(living.begin(), living.end()));
  return std::binary_search(living.begin(), living.end(), number);
}

TEST(PerThreadStream, HasOneNumberForAsLongAsItsThreadLives) {
  const std::uint64_t own = thread_stream();
  EXPECT_TRUE(is_thread_stream(own));
  EXPECT_EQ(thread_stream(), own);
  EXPECT_TRUE(lives(own));
  std::uint64_t other = 0;
  const std::uint64_t ended = ended_threads();
  std::thread([&] {
    other = thread_stream();
    EXPECT_TRUE(lives(other));
    EXPECT_TRUE(lives(own));
    EXPECT_TRUE(is_of_another_thread(own));
  }).join();
  EXPECT_NE(other, own);
  EXPECT_EQ(ended_threads(), ended + 1);
  EXPECT_FALSE(lives(other));
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
  for (const std::uint64_t number : numbers) EXPECT_FALSE(lives(number));
}

TEST(PerThreadStream, OfAThreadThatNeverNamedItHasNone) {
  const std::uint64_t ended = ended_threads();
  std::thread([] { EXPECT_TRUE(is_of_another_thread(kThreadStreamBit)); }).join();
  EXPECT_EQ(ended_threads(), ended);
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

// Numbers are kept in doubles by what reads snapshots.
TEST(PerThreadStream, HasANumberThatADoubleHolds) {
  const std::uint64_t own = thread_stream();
  EXPECT_EQ(static_cast<std::uint64_t>(static_cast<double>(own)), own);
}

}  // namespace
}  // namespace gmlake::driver
