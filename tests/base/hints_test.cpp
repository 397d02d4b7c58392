// Tables that are read without a lock: exact for who changes them, and never more than hints for others.
#include "base/hints.hpp"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <map>
#include <random>
#include <thread>

namespace gmlake {
namespace {

TEST(HintRanges, FindNothingWhereThereIsNone) {
  const HintRanges<int> table;
  EXPECT_EQ(table.find(0), nullptr);
  EXPECT_EQ(table.find(UINT64_MAX), nullptr);
}

TEST(HintRanges, FindTheLastThatDoesNotBeginBehind) {
  std::mt19937_64 random(5);
  std::array<int, 100> values{};
  HintRanges<int> table;
  std::map<std::uint64_t, int*> expected;
  for (int step = 0; step < 20'000; ++step) {
    const std::uint64_t key = 1 + random() % 300;
    int* const value = &values[random() % values.size()];
    if (const auto found = expected.find(key); found == expected.end()) {
      if (expected.size() < 100 || random() % 8 == 0) {
        table.reserve_one();
        table.insert(key, value);
        expected.emplace(key, value);
      }
    } else if (random() % 2 == 0) {
      table.change(key, value);
      found->second = value;
    } else {
      table.erase(key);
      expected.erase(found);
    }
    ASSERT_EQ(table.size(), expected.size());
    if (expected.empty()) continue;
    const std::uint64_t asked = random() % 400;
    const auto above = expected.upper_bound(asked);
    ASSERT_EQ(table.find(asked), above == expected.begin() ? above->second : std::prev(above)->second);
  }
}

TEST(HintMap, FindsWhatWasPutIn) {
  std::mt19937_64 random(7);
  std::array<int, 100> values{};
  HintMap<int> table;
  std::map<std::uint64_t, int*> expected;
  for (int step = 0; step < 50'000; ++step) {
    const std::uint64_t key = random() % 2 == 0 ? random() % 300 : (random() % 30) << 59;
    if (const auto found = expected.find(key); found != expected.end()) {
      table.erase(key);
      expected.erase(found);
    } else if (expected.size() < 20 || random() % 4 == 0) {
      int* const value = &values[random() % values.size()];
      table.reserve_one();
      table.insert(key, value);
      expected.emplace(key, value);
    }
    ASSERT_EQ(table.size(), expected.size());
    const std::uint64_t asked = random() % 2 == 0 ? random() % 300 : (random() % 32) << 59;
    const auto there = expected.find(asked);
    if (there != expected.end()) {
      ASSERT_EQ(table.find(asked), there->second);
    } else if (expected.size() > 20) {  // of more than one value, that is
      ASSERT_EQ(table.find(asked), nullptr);
    }
  }
}

// One thread changes the table as fast as it can. What others read was put in at some time, as it was made.
template <class Table, class Value>
void read_while_it_changes(std::array<Value, 64>& values) {
  for (std::size_t i = 0; i < values.size(); ++i) values[i].key = i;
  Table table;
  std::atomic<bool> stop = false;
  std::atomic<std::uint64_t> strangers = 0;
  std::array<std::thread, 3> readers;
  for (std::thread& reader : readers) {
    reader = std::thread([&] {
      while (!stop) {
        for (std::uint64_t key = 0; key < values.size(); ++key) {
          const Value* value = table.find(key);
          if (value != nullptr && &values[value->key] != value) ++strangers;
        }
      }
    });
  }
  std::mt19937_64 random(6);
  std::array<bool, 64> there{};
  for (int step = 0; step < 20'000; ++step) {
    const std::size_t i = random() % values.size();
    if (there[i]) {
      table.erase(i);
    } else {
      table.reserve_one();
      table.insert(i, &values[i]);
    }
    there[i] = !there[i];
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(strangers, 0u);
}

struct Keyed {
  std::uint64_t key = 0;
};

TEST(HintMap, IsReadWhileItChanges) {
  std::array<Keyed, 64> values;
  read_while_it_changes<HintMap<Keyed>>(values);
}

TEST(HintRanges, AreReadWhileTheyChange) {
  std::array<Keyed, 64> values;
  read_while_it_changes<HintRanges<Keyed>>(values);
}

}  // namespace
}  // namespace gmlake
