// Fitting, splitting and merging VirBlocks: bookkeeping alone.
#include <gtest/gtest.h>

#include <new>
#include <vector>

#include "stitch/rig.hpp"
#include "support/failing_new.hpp"

namespace gmlake::stitch::testing {
namespace {

class PoolTest : public ::testing::Test {
 protected:
  std::string blocks(const memory::VmmSegment* segment) const { return rig_.blocks(rig_.a, segment); }

  driver::ModelDriver model_;
  Rig rig_{model_, 21};
  Pool& pool_ = rig_.a;
};

TEST_F(PoolTest, TakesTheFirstBytesOfARunAndLeavesTheRest) {
  memory::VmmSegment* segment = rig_.lay(pool_, "F4");
  Block* run = pool_.find(512);
  ASSERT_NE(run, nullptr);
  Block* block = pool_.take(run, 512, 100);
  EXPECT_EQ(block->address, segment->base);
  EXPECT_EQ(block->bytes, 512u);
  EXPECT_EQ(block->tick_or_requested, 100u);
  EXPECT_EQ(block->state, State::live);
  EXPECT_EQ(pool_.free_bytes(), rig_.bytes(4) - 512);
  rig_.check();
}

TEST_F(PoolTest, TakesARunWhole) {
  (void)rig_.lay(pool_, "F4");
  Block* run = pool_.find(rig_.bytes(4));
  EXPECT_EQ(pool_.take(run, run->bytes, run->bytes), run);
  EXPECT_EQ(pool_.free_runs(), 0u);
  EXPECT_EQ(pool_.find(512), nullptr);
  rig_.check();
}

TEST_F(PoolTest, FindsNothingInHolesOrLiveBlocks) {
  (void)rig_.lay(pool_, "L4 H8 P2");
  EXPECT_EQ(pool_.find(512), nullptr);
}

// Whichever of them was freed last, and whichever of the ticks is the latest: deferred blocks bring old ones.
TEST_F(PoolTest, AMergedRunIsAsYoungAsTheYoungestOfItsParts) {
  for (const std::vector<int>& order : {std::vector{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}) {
    for (const std::vector<std::uint64_t>& ticks : {std::vector<std::uint64_t>{7, 8, 9}, {9, 8, 7}, {8, 9, 7}}) {
      Rig rig(model_, 21);
      (void)rig.lay(rig.a, "H1 L1 L1 L1 H1");
      for (std::size_t i = 0; i < order.size(); ++i) {
        rig.a.give_back(rig.live[static_cast<std::size_t>(order[i])], ticks[i]);
      }
      rig.a.settle();
      const Block* run = rig.a.find(rig.bytes(3));
      ASSERT_NE(run, nullptr);
      EXPECT_EQ(run->tick_or_requested, 9u) << "in order " << order[0] << order[1] << order[2];
    }
  }
}

TEST_F(PoolTest, MergesWithBothNeighbours) {
  for (const std::vector<int>& order : {std::vector{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}) {
    Rig rig(model_, 21);
    memory::VmmSegment* segment = rig.lay(rig.a, "H1 L1 L1 L1 H1");
    for (const int i : order) {
      rig.a.give_back(rig.live[static_cast<std::size_t>(i)], 1);
      rig.check();
    }
    rig.a.settle();
    rig.check();
    EXPECT_EQ(rig.blocks(rig.a, segment), "H1 F3 H1");
  }
}

TEST_F(PoolTest, KeepsTheLatestTickOfWhatItMerges) {
  memory::VmmSegment* segment = rig_.lay(pool_, "L1 L1 L1");
  pool_.give_back(rig_.live[0], 7);
  pool_.give_back(rig_.live[2], 9);
  pool_.give_back(rig_.live[1], 8);
  pool_.settle();
  EXPECT_EQ(pool_.first_block(segment)->tick_or_requested, 9u);
  // Both parts of a run that is split keep it.
  Block* taken = pool_.take(pool_.find(512), 512, 512);
  EXPECT_EQ(taken->next->tick_or_requested, 9u);
}

TEST_F(PoolTest, GivesPendingBlocksBackToo) {
  memory::VmmSegment* segment = rig_.lay(pool_, "P1 L1");
  rig_.live[0]->used_elsewhere = true;
  pool_.give_back(rig_.live[0], 3);
  EXPECT_FALSE(rig_.live[0]->used_elsewhere);
  EXPECT_EQ(blocks(segment), "F1 L1");
  rig_.check();
}

TEST_F(PoolTest, SplitsAndMergesAtEvery512Bytes) {
  memory::VmmSegment* segment = rig_.lay(pool_, "F1");
  const std::uint64_t count = rig_.bytes(1) / 512;
  std::vector<Block*> taken;
  for (std::uint64_t i = 0; i < count; ++i) taken.push_back(pool_.take(pool_.find(512), 512, 512));
  EXPECT_EQ(pool_.find(512), nullptr);
  EXPECT_EQ(taken.back()->end(), segment->end());
  rig_.check();
  for (std::uint64_t i = 0; i < count; i += 2) pool_.give_back(taken[i], 1);
  EXPECT_EQ(pool_.free_runs(), count / 2);
  rig_.check();
  for (std::uint64_t i = 1; i < count; i += 2) pool_.give_back(taken[i], 1);
  pool_.settle();
  EXPECT_EQ(blocks(segment), "F1");
  rig_.check();
}

TEST_F(PoolTest, TakesWhatWasFreedLastAgainWithoutJoiningIt) {
  memory::VmmSegment* segment = rig_.lay(pool_, "L1 F2 L1 F9 L1");
  pool_.give_back(rig_.live[0], 5);
  EXPECT_EQ(blocks(segment), "F1 F2 L1 F9 L1");
  EXPECT_EQ(pool_.free_runs(), 3u);
  EXPECT_EQ(pool_.free_bytes(), rig_.bytes(12));
  rig_.check();
  // Joined, the two would be the shortest run that fits.
  Block* again = pool_.find(rig_.bytes(1));
  EXPECT_EQ(again->address, segment->base);
  EXPECT_EQ(pool_.take(again, rig_.bytes(1), 1), again);
  EXPECT_EQ(blocks(segment), "L1 F2 L1 F9 L1");
  EXPECT_EQ(pool_.free_runs(), 2u);
  rig_.check();
}

TEST_F(PoolTest, JoinsWhatWasFreedLastWhereAnotherRunFitsBetter) {
  memory::VmmSegment* segment = rig_.lay(pool_, "L1 F9 L1 F2 L1");
  pool_.give_back(rig_.live[0], 5);
  EXPECT_EQ(pool_.find(rig_.bytes(1))->address, segment->base + rig_.bytes(11));
  EXPECT_EQ(blocks(segment), "F10 L1 F2 L1");
  rig_.check();
}

TEST_F(PoolTest, JoinsWhatWasFreedLastBehindAFreeRun) {
  memory::VmmSegment* segment = rig_.lay(pool_, "F2 L1 F1 L1");
  pool_.give_back(rig_.live[0], 5);
  Block* run = pool_.find(rig_.bytes(1));
  EXPECT_EQ(run->address, segment->base);
  EXPECT_EQ(run->tick_or_requested, 5u);
  EXPECT_EQ(blocks(segment), "F4 L1");
  rig_.check();
}

TEST_F(PoolTest, JoinsWhatWasFreedLastForRequestsOfOtherSizes) {
  memory::VmmSegment* segment = rig_.lay(pool_, "L1 F2 L1");
  pool_.give_back(rig_.live[0], 5);
  EXPECT_EQ(pool_.find(rig_.bytes(3))->address, segment->base);
  EXPECT_EQ(blocks(segment), "F3 L1");
  rig_.check();
}

TEST_F(PoolTest, ClaimsInASettledPoolAlone) {
  memory::VmmSegment* segment = rig_.lay(pool_, "L1 F2 L1");
  pool_.give_back(rig_.live[0], 5);
  Block* first = pool_.first_block(segment);
  EXPECT_DEATH((void)pool_.claim(first, segment->base, segment->base + rig_.bytes(1)), "recent_ == nullptr");
}

TEST_F(PoolTest, AdoptsSegmentsAsHolesAndAbandonsThemInAnyOrder) {
  memory::VmmSegment* first = rig_.lay(pool_, "H4");
  memory::VmmSegment* second = rig_.lay(pool_, "L1 H3");
  memory::VmmSegment* third = rig_.lay(pool_, "H2");
  EXPECT_EQ(first->owner, &pool_);
  EXPECT_TRUE(pool_.is_vacant(first));
  EXPECT_FALSE(pool_.is_vacant(second));
  pool_.abandon(first);
  EXPECT_EQ(first->owner, nullptr);
  EXPECT_EQ(pool_.segment_count(), 2u);
  EXPECT_EQ(pool_.first_block(second)->address, second->base);  // the last one took its place
  EXPECT_EQ(pool_.first_block(third)->address, third->base);
  rig_.check();
  pool_.abandon(third);
  EXPECT_EQ(pool_.segment_count(), 1u);
  EXPECT_EQ(pool_.segment(0), second);
  rig_.check();
}

TEST_F(PoolTest, IsNotVacantWhileAStaleMappingIsLeft) {
  memory::VmmSegment* segment = rig_.lay(pool_, "H1 S2x H1");
  EXPECT_FALSE(pool_.is_vacant(segment));
  EXPECT_EQ(rig_.table.retire(rig_.fences, 0), 2u);
  EXPECT_TRUE(pool_.is_vacant(segment));
}

TEST_F(PoolTest, TakingIsUndoneWhereTheHostIsOutOfMemory) {
  (void)rig_.lay(pool_, "F64");
  bool reached = false;
  while (!reached) {  // until the slab has to grow
    const std::string before = rig_.books();
    Block* run = pool_.find(512);
    ASSERT_NE(run, nullptr);
    bool threw = false;
    {
      const gmlake::testing::FailingNew failing(1);
      try {
        (void)pool_.take(run, 512, 512);
      } catch (const std::bad_alloc&) {
        threw = true;
      }
      reached = failing.reached();
    }
    EXPECT_EQ(threw, reached);
    if (threw) {
      EXPECT_EQ(rig_.books(), before);
    }
  }
  rig_.check();
}

TEST_F(PoolTest, SetsRecordsAsideAndTakesThemBack) {
  (void)rig_.lay(pool_, "F4");
  const std::size_t records = rig_.slab.live_count();
  Pool::Stash stash;
  pool_.set_aside(stash, 3, 2);
  EXPECT_EQ(rig_.slab.live_count(), records + 3);
  pool_.return_stash(stash);
  EXPECT_EQ(rig_.slab.live_count(), records);
  EXPECT_TRUE(stash.empty());
  rig_.check();
}

TEST_F(PoolTest, FindsWhatItSetAsideHoweverFullTheSlabIs) {
  (void)rig_.lay(pool_, "F4");
  std::vector<Block*> taken;
  for (int fill = 0; fill < 600; ++fill) {  // two chunks of the slab, and more
    Pool::Stash stash;
    pool_.set_aside(stash, 1, 2);
    {
      const gmlake::testing::FailingNew failing(1, true);
      Block* one = rig_.slab.take();
      Block* two = rig_.slab.take();
      rig_.slab.put(one);
      rig_.slab.put(two);
      ASSERT_FALSE(failing.reached());
    }
    pool_.return_stash(stash);
    taken.push_back(rig_.slab.take());
  }
  for (Block* block : taken) rig_.slab.put(block);
  rig_.check();
}

using PoolDeathTest = PoolTest;

TEST_F(PoolDeathTest, AbortsWhereASegmentInUseIsAbandoned) {
  memory::VmmSegment* segment = rig_.lay(pool_, "L1 H3");
  EXPECT_DEATH(pool_.abandon(segment), "is_vacant");
}

TEST_F(PoolDeathTest, AbortsWhereSomethingLiveIsClaimed) {
  memory::VmmSegment* segment = rig_.lay(pool_, "F1 L1 F1");
  Block* first = pool_.first_block(segment);
  EXPECT_DEATH((void)pool_.claim(first, segment->base, segment->end()), "State::free");
  EXPECT_DEATH((void)pool_.claim(first->next, segment->address_of(1), segment->address_of(2)), "State::free");
  EXPECT_DEATH((void)pool_.claim(first, segment->address_of(1), segment->address_of(2)), "begin < first->end\\(\\)");
}

TEST_F(PoolDeathTest, CheckFindsPlantedDamage) {
  memory::VmmSegment* segment = rig_.lay(pool_, "L1 F2 H2 L1");
  Block* live = pool_.first_block(segment);
  Block* run = live->next;
  Block* hole = run->next;
  pool_.check();
  EXPECT_DEATH((live->bytes -= 512, pool_.check()), "block->address == expected");
  EXPECT_DEATH((hole->next = nullptr, pool_.check()), "expected == space.segment->end\\(\\)");
  EXPECT_DEATH((run->prev = nullptr, pool_.check()), "prev == prev");
  EXPECT_DEATH((run->pool = nullptr, pool_.check()), "pool == this");
  EXPECT_DEATH((run->state = State::live, pool_.check()), "check failed");
  EXPECT_DEATH((live->state = State::free, pool_.check()), "check failed");
  EXPECT_DEATH((hole->state = State::live, pool_.check()), "is_home");
  EXPECT_DEATH((rig_.table.leave_home(segment->at(0)->block, {}), pool_.check()), "is_home");
  EXPECT_DEATH((run->bytes = 0, pool_.check()), "bytes > 0");
}

}  // namespace
}  // namespace gmlake::stitch::testing
