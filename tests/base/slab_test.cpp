// The slab: addresses stay, what was put back is used again, and running out of host memory changes nothing.
#include "base/slab.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <set>
#include <vector>

#include "support/failing_new.hpp"

namespace gmlake {
namespace {

struct Object {
  std::uint64_t number = 5;
  void* pointer = nullptr;
  std::uint32_t tail = 0;
};

struct alignas(64) Aligned {
  char bytes[3] = {};
};

struct Small {
  char byte = 'a';
};

TEST(Slab, GivesFreshObjects) {
  Slab<Object, 4> slab;
  Object* first = slab.take();
  first->number = 9;
  first->tail = 9;
  slab.put(first);
  const Object* again = slab.take();
  EXPECT_EQ(again, first);  // the last one put back comes first
  EXPECT_EQ(again->number, 5u);
  EXPECT_EQ(again->tail, 0u);
}

TEST(Slab, KeepsAddressesStableWhileItGrows) {
  Slab<Object, 4> slab;
  std::vector<Object*> objects;
  for (std::uint64_t i = 0; i < 100; ++i) {
    objects.push_back(slab.take());
    objects.back()->number = i;
  }
  EXPECT_EQ(std::set<Object*>(objects.begin(), objects.end()).size(), 100u);
  for (std::uint64_t i = 0; i < 100; ++i) EXPECT_EQ(objects[i]->number, i);
  EXPECT_EQ(slab.live_count(), 100u);
}

TEST(Slab, UsesWhatWasPutBackBeforeItGrows) {
  Slab<Object, 4> slab;
  std::mt19937_64 random(7);
  std::vector<Object*> live;
  for (int i = 0; i < 40; ++i) live.push_back(slab.take());
  const std::size_t bytes = slab.bytes();
  for (int i = 0; i < 1000; ++i) {
    const std::size_t victim = random() % live.size();
    slab.put(live[victim]);
    live[victim] = slab.take();
    EXPECT_EQ(slab.bytes(), bytes);
  }
  EXPECT_EQ(std::set<Object*>(live.begin(), live.end()).size(), 40u);
}

TEST(Slab, KeepsTheAlignmentOfItsObjectsAndTakesSmallOnes) {
  Slab<Aligned, 8> aligned;
  for (int i = 0; i < 20; ++i) EXPECT_EQ(reinterpret_cast<std::uintptr_t>(aligned.take()) % 64, 0u);
  Slab<Small, 8> small;  // smaller than the free list's links
  std::vector<Small*> objects;
  for (int i = 0; i < 20; ++i) objects.push_back(small.take());
  for (Small* object : objects) EXPECT_EQ(object->byte, 'a');
  for (Small* object : objects) small.put(object);
  EXPECT_EQ(small.live_count(), 0u);
}

TEST(Slab, TellsWhetherAnObjectIsStillThere) {
  struct Record {
    std::uint64_t first = 0;
    std::uint64_t second = 0;
  };
  Slab<Record, 4> slab;
  Record* kept = slab.take();
  Record* other = slab.take();
  EXPECT_TRUE(slab.is_live(kept) && slab.is_live(other));
  slab.put(kept);
  EXPECT_FALSE(slab.is_live(kept));
  EXPECT_TRUE(slab.is_live(other));
  EXPECT_EQ(slab.take(), kept);  // another object now, at the same address
  EXPECT_TRUE(slab.is_live(kept));
}

TEST(Slab, TakesFromTheHeapNoMoreOnceReserved) {
  Slab<Object, 4> slab;
  slab.reserve(10);
  const std::size_t bytes = slab.bytes();
  const testing::FailingNew failing(1, true);
  for (int i = 0; i < 10; ++i) (void)slab.take();
  EXPECT_FALSE(failing.reached());
  EXPECT_EQ(slab.bytes(), bytes);
}

TEST(Slab, TakesBackWhatAnotherHandedOver) {
  Slab<Object, 4> from;
  Slab<Object, 4> to;
  std::vector<Object*> objects;
  for (int i = 0; i < 6; ++i) objects.push_back(from.take());
  from.hand_over(to, 5);
  EXPECT_EQ(from.live_count(), 1u);
  EXPECT_EQ(to.live_count(), 5u);
  for (int i = 0; i < 5; ++i) to.put(objects[static_cast<std::size_t>(i)]);
  from.put(objects[5]);
  EXPECT_EQ(from.live_count() + to.live_count(), 0u);
  to.reserve(5);
  EXPECT_EQ(to.bytes(), 0u) << "it has what came over";
  EXPECT_EQ(to.take(), objects[4]);
  EXPECT_EQ(to.live_count(), 1u);
}

TEST(Slab, IsUnchangedWhereAChunkCannotBeHad) {
  for (std::uint64_t nth = 1; nth <= 2; ++nth) {
    Slab<Object, 4> slab;
    std::vector<Object*> live;
    for (int i = 0; i < 4; ++i) live.push_back(slab.take());
    const std::size_t bytes = slab.bytes();
    {
      bool threw = false;
      const testing::FailingNew failing(nth);
      try {
        (void)slab.take();
      } catch (const std::bad_alloc&) {
        threw = true;
      }
      EXPECT_TRUE(threw && failing.reached()) << nth;
    }
    EXPECT_EQ(slab.live_count(), 4u);
    EXPECT_EQ(slab.bytes(), bytes);
    EXPECT_NE(slab.take(), nullptr);
    EXPECT_EQ(slab.live_count(), 5u);
  }
}

}  // namespace
}  // namespace gmlake
