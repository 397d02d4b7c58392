#include "base/growing_array.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace gmlake {
namespace {

TEST(GrowingArray, GivesEveryIndexAPlaceOfItsOwn) {
  GrowingArray<std::size_t, 4> array;
  constexpr std::size_t kCount = 1000;
  array.grow_to(kCount);
  for (std::size_t i = 0; i < kCount; ++i) {
    EXPECT_EQ(array[i], 0u) << i;
    array[i] = i + 1;
  }
  for (std::size_t i = 0; i < kCount; ++i) EXPECT_EQ(array[i], i + 1);
}

TEST(GrowingArray, MovesNothingAsItGrows) {
  GrowingArray<int, 4> array;
  std::vector<int*> places;
  for (std::size_t count = 1; count < 300; ++count) {
    array.grow_to(count);
    places.push_back(&array[count - 1]);
    *places.back() = static_cast<int>(count);
  }
  for (std::size_t i = 0; i < places.size(); ++i) {
    EXPECT_EQ(places[i], &array[i]);
    EXPECT_EQ(*places[i], static_cast<int>(i) + 1);
  }
}

// ThreadSanitizer is the judge.
TEST(GrowingArray, IsReadWhileItGrows) {
  GrowingArray<std::atomic<std::size_t>, 4> array;
  std::atomic<std::size_t> count{0};
  std::thread reader([&] {
    for (std::size_t seen = 0; seen < 5000;) {
      seen = count.load(std::memory_order_acquire);
      for (std::size_t i = 0; i < seen; i += 97) EXPECT_EQ(array[i].load(std::memory_order_relaxed), i);
    }
  });
  for (std::size_t i = 0; i < 5000; ++i) {
    array.grow_to(i + 1);
    array[i].store(i, std::memory_order_relaxed);
    count.store(i + 1, std::memory_order_release);
  }
  reader.join();
}

}  // namespace
}  // namespace gmlake
