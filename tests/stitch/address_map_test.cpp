// The map of live addresses against std::unordered_map, and chunks that are full, up to the end of the table and over.
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

// The chunk of 16, and the 7 bits of the hash beside it, that an address has in the first table: the map's own hash.
std::uint64_t hash_of(Address address) { return address * 0x9E3779B97F4A7C15u; }
std::size_t home_of(Address address) { return hash_of(address) >> 60; }
std::uint64_t tag_of(Address address) { return hash_of(address) >> 32 & 127; }

// The first `count` addresses that want to lie in a chunk; all with one tag, where one is given.
std::vector<Address> addresses_at(std::size_t chunk, std::size_t count, std::uint64_t tag = 128) {
  std::vector<Address> found;
  for (Address address = kAlignment; found.size() < count; address += kAlignment) {
    if (home_of(address) == chunk && (tag == 128 || tag_of(address) == tag)) found.push_back(address);
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
  EXPECT_EQ(map_.find(1025), nullptr);  // an address inside a block
  EXPECT_EQ(map_.take(1025), nullptr);
  EXPECT_EQ(map_.find(UINT64_MAX), nullptr);
  compare();
}

// 40 blocks of the last two chunks and the first: they fill 6 chunks, round the end of the table.
TEST_F(AddressMapTest, FindsWhatItsChunkHadNoPlaceFor) {
  std::vector<Address> addresses = addresses_at(14, 16);
  for (const std::size_t chunk : {15, 0}) {
    for (const Address address : addresses_at(chunk, 12)) addresses.push_back(address);
  }
  // Every order of removal of two, then one by one.
  for (std::size_t i = 0; i < addresses.size(); ++i) {
    for (std::size_t j = 0; j < addresses.size(); ++j) {
      map_ = {};
      reference_.clear();
      for (const Address address : addresses) insert(address);
      take(addresses[i]);
      compare();
      take(addresses[j]);
      compare();
      for (const Address address : addresses) take(address);
      ASSERT_EQ(map_.size(), 0u);
    }
  }
}

TEST_F(AddressMapTest, TellsBlocksOfOneTagApart) {
  const std::vector<Address> addresses = addresses_at(3, 12, 77);
  for (std::size_t i = 0; i < addresses.size(); ++i) {
    map_ = {};
    reference_.clear();
    for (const Address address : addresses) {
      if (address != addresses[i]) insert(address);
    }
    EXPECT_EQ(map_.find(addresses[i]), nullptr);
    compare();
  }
}

// Where 300 blocks have passed a chunk, it has lost count of them: what is there is found all the same, and a search
// for what is not ends, though it may go all round.
TEST_F(AddressMapTest, LosesCountAndNothingElse) {
  for (int round = 0; round < 3; ++round) {
    map_ = {};
    reference_.clear();
    map_.reserve(80);
    for (std::size_t chunk = 0; chunk < 16; ++chunk) {  // each of them, in turn, with the rest of the table empty
      const std::vector<Address> addresses = addresses_at(chunk, 80);
      for (int again = 0; again < 5; ++again) {
        for (const Address address : addresses) insert(address);
        compare();
        if (again < 4 || chunk % 3 != static_cast<std::size_t>(round)) {
          for (const Address address : addresses) take(address);
        } else {
          for (std::size_t i = 0; i < 78; ++i) take(addresses[i]);
        }
      }
    }
    compare();
    for (Address address = 1 << 30; address < (1 << 30) + 100 * kAlignment; address += kAlignment) {
      EXPECT_EQ(map_.find(address), nullptr);
    }
  }
}

TEST_F(AddressMapTest, AgreesWithAnUnorderedMapUnderRandomPrograms) {
  for (const std::uint64_t seed : {1, 2, 3}) {
    std::mt19937_64 random(seed);
    map_ = {};
    reference_.clear();
    std::vector<Address> known;
    for (std::size_t chunk = 14; chunk < 18; ++chunk) {  // crowded around the end of the first table
      for (const Address address : addresses_at(chunk % 16, 16)) known.push_back(address);
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
  EXPECT_GE(map_.metadata_bytes(), 500 * 12u);
  EXPECT_LE(map_.metadata_bytes(), 500 * 26u);
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
  EXPECT_EQ(refused, 3);  // to 80, 160 and 320 blocks
  compare();
}

}  // namespace
}  // namespace gmlake::stitch
