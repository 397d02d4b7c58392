// The map of live addresses against std::unordered_map, and probe runs that wrap around the table's end.
#include "stitch/address_map.hpp"

#include <gtest/gtest.h>

#include <deque>
#include <new>
#include <random>
#include <unordered_map>
#include <vector>

#include "support/failing_new.hpp"

namespace gmlake::stitch {
namespace {

// Where an address wants to lie in a table of 64: the map's own hash.
std::size_t home_of(Address address) { return ((address / kAlignment) * 0x9E3779B97F4A7C15u) >> 58; }

// The first `count` addresses from `from` on that want to lie at `slot`.
std::vector<Address> addresses_at(std::size_t slot, std::size_t count, Address from = kAlignment) {
  std::vector<Address> found;
  for (Address address = from; found.size() < count; address += kAlignment) {
    if (home_of(address) == slot) found.push_back(address);
  }
  return found;
}

class AddressMapTest : public ::testing::Test {
 protected:
  Block* block(Address address) {
    Block& made = blocks_.emplace_back();
    made.address = address;
    return &made;
  }
  void insert(Address address) {
    Block* made = block(address);
    map_.insert(made);
    reference_[address] = made;
  }
  void take(Address address) {
    const auto found = reference_.find(address);
    ASSERT_EQ(map_.take(address), found == reference_.end() ? nullptr : found->second);
    if (found != reference_.end()) reference_.erase(found);
  }
  void compare() {
    ASSERT_EQ(map_.size(), reference_.size());
    for (const auto& [address, expected] : reference_) ASSERT_EQ(map_.find(address), expected) << address;
  }

  AddressMap map_;
  std::unordered_map<Address, Block*> reference_;
  std::deque<Block> blocks_;
};

TEST_F(AddressMapTest, FindsNothingWhereNothingIs) {
  EXPECT_EQ(map_.find(0), nullptr);
  EXPECT_EQ(map_.take(512), nullptr);
  insert(1024);
  EXPECT_EQ(map_.find(0), nullptr);
  EXPECT_EQ(map_.take(0), nullptr);
  EXPECT_EQ(map_.find(512), nullptr);
  EXPECT_EQ(map_.find(1025), nullptr);  // an address inside a block, which hashes as its begin
  EXPECT_EQ(map_.take(1025), nullptr);
  EXPECT_EQ(map_.find(UINT64_MAX), nullptr);
  compare();
}

TEST_F(AddressMapTest, ShiftsBackOverTheEndOfItsTable) {
  std::vector<Address> addresses = addresses_at(62, 3);
  for (const std::size_t slot : {63, 0, 1}) {
    for (const Address address : addresses_at(slot, 3)) addresses.push_back(address);
  }
  // Every order of removal of two, then one by one: 12 entries in slots 62 to 9.
  for (std::size_t i = 0; i < addresses.size(); ++i) {
    for (std::size_t j = 0; j < addresses.size(); ++j) {
      map_ = {};
      reference_.clear();
      for (const Address address : addresses) insert(address);
      take(addresses[i]);
      compare();
      take(addresses[j]);
      compare();
      for (const Address address : addresses) {
        take(address);
        compare();
      }
      ASSERT_EQ(map_.size(), 0u);
    }
  }
}

TEST_F(AddressMapTest, AgreesWithAnUnorderedMapUnderRandomPrograms) {
  for (const std::uint64_t seed : {1, 2, 3}) {
    std::mt19937_64 random(seed);
    map_ = {};
    reference_.clear();
    std::vector<Address> known;
    for (std::size_t slot = 56; slot < 72; ++slot) {  // crowded around the wrap of the first table
      for (const Address address : addresses_at(slot % 64, 4)) known.push_back(address);
    }
    for (int i = 0; i < 300; ++i) known.push_back((random() >> 17) / kAlignment * kAlignment);
    for (int step = 0; step < 20'000; ++step) {
      // First few entries, so that the table stays small; many later.
      const Address address = known[random() % (step < 10'000 ? 64 : known.size())];
      const bool full = step < 10'000 && reference_.size() >= 40;
      if (reference_.contains(address) || full) {
        take(address);
      } else if (random() % 4 == 0) {
        ASSERT_EQ(map_.take(address), nullptr);
      } else {
        insert(address);
      }
      if (step % 64 == 0) compare();
    }
    compare();
  }
}

TEST_F(AddressMapTest, TakesNoHeapOnceReserved) {
  for (Address address = 512; address <= 512 * 500; address += 512) {
    map_.reserve_one();
    Block* made = block(address);
    const gmlake::testing::FailingNew failing(1, true);
    map_.insert(made);
    ASSERT_FALSE(failing.reached()) << address;
  }
  EXPECT_EQ(map_.size(), 500u);
  EXPECT_GE(map_.metadata_bytes(), 500 * 16u);
  EXPECT_LE(map_.metadata_bytes(), 500 * 64u);
}

TEST_F(AddressMapTest, IsUnchangedWhereItCannotGrow) {
  int refused = 0;
  for (Address address = 512; address <= 512 * 200; address += 512) {
    bool threw = false;
    {
      const gmlake::testing::FailingNew failing(1);
      try {
        map_.reserve_one();
      } catch (const std::bad_alloc&) {
        threw = true;
      }
    }
    refused += threw ? 1 : 0;
    compare();
    insert(address);
  }
  EXPECT_EQ(refused, 4);  // to 64, 128, 256 and 512 entries
  compare();
}

}  // namespace
}  // namespace gmlake::stitch
