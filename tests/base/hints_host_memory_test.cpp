// Tables of hints that cannot grow for want of host memory.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <new>

#include "base/hints.hpp"
#include "support/failing_new.hpp"

namespace gmlake {
namespace {

TEST(HintRanges, AreUnchangedWhereTheyCannotGrow) {
  std::array<int, 9> values{};
  for (std::uint64_t nth = 1; nth <= 2; ++nth) {
    HintRanges<int> table;
    for (std::uint64_t key = 0; key < 8; ++key) table.insert(key, &values[key]);
    {
      bool threw = false;
      const testing::FailingNew failing(nth);
      try {
        table.reserve_one();
      } catch (const std::bad_alloc&) {
        threw = true;
      }
      EXPECT_TRUE(threw && failing.reached()) << nth;
    }
    for (std::uint64_t key = 0; key < 8; ++key) EXPECT_EQ(table.find(key), &values[key]);
    table.reserve_one();
    table.insert(8, &values[8]);
    EXPECT_EQ(table.find(9), &values[8]);
  }
}

TEST(HintMap, IsUnchangedWhereItCannotGrow) {
  std::array<int, 9> values{};
  for (std::uint64_t nth = 1; nth <= 3; ++nth) {
    HintMap<int> table;
    for (std::uint64_t key = 0; key < 8; ++key) table.insert(key, &values[key]);
    {
      bool threw = false;
      const testing::FailingNew failing(nth);
      try {
        table.reserve_one();
      } catch (const std::bad_alloc&) {
        threw = true;
      }
      EXPECT_TRUE(threw && failing.reached()) << nth;
    }
    for (std::uint64_t key = 0; key < 8; ++key) EXPECT_EQ(table.find(key), &values[key]);
    EXPECT_EQ(table.find(8), nullptr);
    EXPECT_EQ(table.size(), 8u);
    table.reserve_one();
    table.insert(8, &values[8]);
    for (std::uint64_t key = 0; key < 9; ++key) EXPECT_EQ(table.find(key), &values[key]);
  }
}

}  // namespace
}  // namespace gmlake
