// The table of granules against a plain map, and its memory.
#include "driver/granule_table.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace gmlake::driver {
namespace {

TEST(GranuleTable, IsEmptyAtFirst) {
  const GranuleTable table;
  EXPECT_EQ(table.at(0), 0u);
  EXPECT_EQ(table.at(~std::uint64_t{0} >> 12), 0u);
  EXPECT_TRUE(table.empty(0, 1 << 20));
  EXPECT_EQ(table.used(), 0u);
}

TEST(GranuleTable, FillsAcrossLeaves) {
  GranuleTable table;
  table.fill(500, 1500, 7);
  EXPECT_EQ(table.at(499), 0u);
  EXPECT_EQ(table.at(500), 7u);
  EXPECT_EQ(table.at(1999), 7u);
  EXPECT_EQ(table.at(2000), 0u);
  EXPECT_TRUE(table.empty(0, 500));
  EXPECT_FALSE(table.empty(0, 501));
  EXPECT_FALSE(table.empty(1999, 10'000));
  EXPECT_TRUE(table.empty(2000, 10'000));
  table.clear(500, 1500);
  EXPECT_TRUE(table.empty(0, 10'000));
}

TEST(GranuleTable, AgreesWithAMap) {
  GranuleTable table;
  std::map<std::uint64_t, std::uint32_t> model;
  std::map<std::uint64_t, std::uint64_t> ranges;
  std::mt19937_64 random(7);
  for (std::uint32_t step = 1; step <= 4000; ++step) {
    const std::uint64_t first = random() % 6000, count = random() % 700 + 1;
    const auto next = model.lower_bound(first);
    const bool empty = next == model.end() || next->first >= first + count;
    ASSERT_EQ(table.empty(first, count), empty);
    if (empty) {
      table.fill(first, count, step);
      for (std::uint64_t at = first; at < first + count; ++at) model[at] = step;
      ranges[first] = count;
    } else if (!ranges.empty()) {
      auto range = ranges.lower_bound(first);
      if (range == ranges.end()) range = ranges.begin();
      table.clear(range->first, range->second);
      for (std::uint64_t at = range->first; at < range->first + range->second; ++at) model.erase(at);
      ranges.erase(range);
    }
    const std::uint64_t probe = random() % 7000;
    ASSERT_EQ(table.at(probe), model.contains(probe) ? model[probe] : 0u);
    ASSERT_EQ(table.used(), model.size());
  }
}

}  // namespace
}  // namespace gmlake::driver
