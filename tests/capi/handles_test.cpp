// The table of handles: each stands for its object until it is removed, and for nothing ever after.
#include "capi/handles.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <thread>
#include <vector>

namespace gmlake::capi {
namespace {

class Handles : public testing::Test {
 protected:
  // As the one of the process, a table is never destroyed: it is kept where a search for leaks finds it.
  static HandleTable* kept_table() {
    static auto* const tables = new std::vector<std::unique_ptr<HandleTable>>();
    return tables->emplace_back(std::make_unique<HandleTable>()).get();
  }

  HandleTable* const table_ = kept_table();
};

TEST_F(Handles, StandForTheirObjectsUntilTheyAreRemoved) {
  int objects[3];
  const std::uint64_t first = table_->add(Kind::allocator, &objects[0]);
  const std::uint64_t second = table_->add(Kind::vir_block, &objects[1]);
  EXPECT_EQ(table_->find(Kind::allocator, first), &objects[0]);
  EXPECT_EQ(table_->find(Kind::vir_block, second), &objects[1]);
  EXPECT_EQ(table_->find(Kind::vir_block, first), nullptr) << "of another kind";
  EXPECT_EQ(table_->remove(Kind::vir_block, first), nullptr);
  EXPECT_EQ(table_->remove(Kind::allocator, first), &objects[0]);
  EXPECT_EQ(table_->find(Kind::allocator, first), nullptr);
  EXPECT_EQ(table_->remove(Kind::allocator, first), nullptr);
  const std::uint64_t third = table_->add(Kind::allocator, &objects[2]);  // in the same slot
  EXPECT_NE(third, first);
  EXPECT_EQ(table_->find(Kind::allocator, first), nullptr);
  EXPECT_EQ(table_->find(Kind::allocator, third), &objects[2]);
}

TEST_F(Handles, AreNeverUsedAgain) {
  std::set<std::uint64_t> seen;
  int object = 0;
  for (int round = 0; round < 10'000; ++round) {
    const std::uint64_t handle = table_->add(Kind::vir_block, &object);
    EXPECT_NE(handle, 0u);
    EXPECT_TRUE(seen.insert(handle).second);
    EXPECT_EQ(table_->remove(Kind::vir_block, handle), &object);
  }
}

TEST_F(Handles, ThatWereNeverGivenAreFoundOut) {
  int object = 0;
  const std::uint64_t handle = table_->add(Kind::allocator, &object);
  EXPECT_EQ(table_->find(Kind::allocator, 0), nullptr);
  for (int bit = 0; bit < 64; ++bit) {
    EXPECT_EQ(table_->find(Kind::allocator, handle ^ std::uint64_t{1} << bit), nullptr) << bit;
    EXPECT_EQ(table_->find(Kind::vir_block, handle ^ std::uint64_t{1} << bit), nullptr) << bit;
  }
  EXPECT_EQ(table_->find(Kind::allocator, ~std::uint64_t{0}), nullptr);
}

TEST_F(Handles, AreManyAtATime) {
  std::vector<int> objects(20'000);  // several chunks
  std::vector<std::uint64_t> handles;
  handles.reserve(objects.size());
  for (int& object : objects) handles.push_back(table_->add(Kind::vir_block, &object));
  for (std::size_t i = 0; i < objects.size(); ++i) ASSERT_EQ(table_->find(Kind::vir_block, handles[i]), &objects[i]);
  for (std::size_t i = 0; i < objects.size(); ++i) ASSERT_EQ(table_->remove(Kind::vir_block, handles[i]), &objects[i]);
}

// Threads that take and put slots at the same time never get one slot at once: each finds its own object in its handle.
TEST_F(Handles, OfManyThreadsAreKeptApart) {
  std::vector<std::thread> threads;
  for (int number = 0; number < 4; ++number) {
    threads.emplace_back([this] {
      std::vector<int> objects(50);
      for (int round = 0; round < 400; ++round) {
        std::vector<std::uint64_t> handles;
        for (int& object : objects) handles.push_back(table_->add(Kind::vir_block, &object));
        for (std::size_t i = 0; i < objects.size(); ++i) {
          ASSERT_EQ(table_->find(Kind::vir_block, handles[i]), &objects[i]);
          ASSERT_EQ(table_->remove(Kind::vir_block, handles[i]), &objects[i]);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(Handles, RemovedByManyThreadsGiveTheirObjectToOne) {
  int object = 0;
  for (int round = 0; round < 200; ++round) {
    const std::uint64_t handle = table_->add(Kind::allocator, &object);
    std::atomic<int> got{0};
    std::vector<std::thread> threads;
    for (int number = 0; number < 3; ++number) {
      threads.emplace_back([&] { got += table_->remove(Kind::allocator, handle) != nullptr ? 1 : 0; });
    }
    for (std::thread& thread : threads) thread.join();
    ASSERT_EQ(got, 1);
  }
}

}  // namespace
}  // namespace gmlake::capi
