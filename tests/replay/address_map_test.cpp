// The hash table of live blocks against std::unordered_map.
#include "replay/address_map.hpp"

#include <gtest/gtest.h>

#include <random>
#include <unordered_map>

namespace gmlake::replay {
namespace {

TEST(AddressMap, FindsTakesAndMissesAsAnOrdinaryMapDoes) {
  std::mt19937_64 random(20261123);
  AddressMap map;
  std::unordered_map<driver::Address, std::uint32_t> expected;
  // Few distinct addresses, in runs as blocks have them, so that chains of probes form and are cut.
  const auto address = [&] { return (random() % 6000 + 1) * 512; };
  for (std::uint32_t step = 0; step < 200'000; ++step) {
    const driver::Address key = address();
    const auto known = expected.find(key);
    const std::uint32_t value = known == expected.end() ? AddressMap::kNone : known->second;
    ASSERT_EQ(map.find(key), value);
    if (known == expected.end()) {
      map.insert(key, step);
      expected[key] = step;
    } else {
      ASSERT_EQ(map.take(key), value);
      expected.erase(known);
    }
    ASSERT_EQ(map.size(), expected.size());
  }
  for (const auto& [key, value] : expected) ASSERT_EQ(map.take(key), value);
  EXPECT_EQ(map.size(), 0u);
  EXPECT_EQ(map.take(512), AddressMap::kNone);
}

}  // namespace
}  // namespace gmlake::replay
