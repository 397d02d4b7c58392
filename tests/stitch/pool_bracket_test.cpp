// The bracket of the slow path: claim() takes a range out of the books, publish() puts back what lies there then.
#include <gtest/gtest.h>

#include <vector>

#include "stitch/rig.hpp"

namespace gmlake::stitch::testing {
namespace {

class PoolBracket : public ::testing::Test {
 protected:
  // The block of the first pool that holds the address so many granules from the segment's begin.
  static Block* at(Rig& rig, const memory::VmmSegment* segment, double granules) {
    Block* block = rig.a.first_block(segment);
    while (block->end() <= segment->base + rig.bytes(granules)) block = block->next;
    return block;
  }
  static Block* claim(Rig& rig, const memory::VmmSegment* segment, double begin, double end) {
    return rig.a.claim(at(rig, segment, begin), segment->base + rig.bytes(begin), segment->base + rig.bytes(end));
  }
  // Nothing of the claimed range is found, and the rest of the books is right.
  static void expect_claimed(Rig& rig, const Block* claimed) {
    rig.a.check();
    rig.a.for_each_free(
        512, [&](const Block* run) { EXPECT_TRUE(run->end() <= claimed->address || run->address >= claimed->end()); });
  }

  driver::ModelDriver model_;
};

TEST_F(PoolBracket, CutsAFreeRunOnTheLeftOnTheRightAndOnBothSides) {
  const struct {
    double begin, end;
    const char* claimed;
  } cases[] = {{1, 5, "L1 C4 L1"},
               {1, 3, "L1 C2 F2 L1"},
               {3, 5, "L1 F2 C2 L1"},
               {2, 4, "L1 F1 C2 F1 L1"},
               {1.5, 2, "L1 F0.5 C0.5 F3 L1"}};
  for (const auto& [begin, end, expected] : cases) {
    Rig rig(model_, 21);
    const memory::VmmSegment* segment = rig.lay(rig.a, "L1 F4 L1");
    const std::string before = rig.books();
    Block* run = at(rig, segment, 1);
    Block* claimed = claim(rig, segment, begin, end);
    EXPECT_EQ(rig.blocks(rig.a, segment), expected);
    EXPECT_EQ(claimed == run, begin == 1) << "what is left of a cut stays the run's record";
    expect_claimed(rig, claimed);
    Block* published = rig.a.publish(claimed, 0);
    EXPECT_EQ(published->address, segment->address_of(1));
    EXPECT_EQ(rig.books(), before);
    rig.check();
  }
}

TEST_F(PoolBracket, PutsEveryRangeOfALayoutBackAsItWas) {
  const char* layouts[] = {"F2 H2 F1 H3",
                           "H2 F2 H2",
                           "L1 H3 F2 H1 F1 L1",
                           "F1 S2a H1 F2 S1b F1",
                           "H1 Q2q F1 H2 S1a",
                           "F4 S4a F4",
                           "[4 L0.5 F3.5] H2 [2 F1.5 L0.5]",
                           "H8",
                           "F1 H1 F1 H1 F1 H1",
                           "S1a S1b H1 S1c F1",
                           "[2 F0.5 L1 F0.5] H2 F2"};
  for (const char* layout : layouts) {
    Rig rig(model_, 21);
    const memory::VmmSegment* segment = rig.lay(rig.a, layout);
    const std::string before = rig.books();
    int ranges = 0;
    const auto claimable = [&](double from, double to) {
      for (double granules = from; granules < to; granules += 0.5) {
        const State state = at(rig, segment, granules)->state;
        if (state != State::free && state != State::hole) return false;
      }
      // Holes are cut at slots alone.
      const auto whole = [](double granules) { return granules == static_cast<double>(static_cast<int>(granules)); };
      return (whole(from) || at(rig, segment, from)->state == State::free) &&
             (whole(to) || at(rig, segment, to - 0.5)->state == State::free);
    };
    for (double begin = 0; begin < segment->slot_count; begin += 0.5) {
      for (double end = begin + 0.5; end <= segment->slot_count; end += 0.5) {
        if (!claimable(begin, end)) continue;
        Block* claimed = claim(rig, segment, begin, end);
        ASSERT_EQ(claimed->address, segment->base + rig.bytes(begin));
        ASSERT_EQ(claimed->end(), segment->base + rig.bytes(end));
        expect_claimed(rig, claimed);
        (void)rig.a.publish(claimed, 0);
        ASSERT_EQ(rig.books(), before) << layout << " " << begin << ".." << end;
        ++ranges;
      }
    }
    EXPECT_GE(ranges, 20) << layout;
    rig.check();
  }
}

TEST_F(PoolBracket, PublishesWhatLiesThereThen) {
  Rig rig(model_, 21);
  memory::VmmSegment* segment = rig.lay(rig.a, "F2a H2 F1b+1c H1 L1");
  Block* claimed = claim(rig, segment, 0, 7);
  EXPECT_EQ(rig.blocks(rig.a, segment), "C7 L1");
  rig.table.leave_home(rig.named["a"], {});
  memory::Mapping* mapping = rig.table.map(segment, 3, rig.spare("d", 1)).value();
  rig.table.settle(mapping);
  rig.table.leave_home(rig.named["c"], {});
  Block* begin = rig.a.publish(claimed, 5);
  EXPECT_EQ(rig.blocks(rig.a, segment), "H3 F2 H2 L1");
  EXPECT_EQ(begin->address, segment->base);
  EXPECT_EQ(begin->next->tick_or_requested, 5u);
  rig.check();
}

TEST_F(PoolBracket, MergesWithHolesAndRunsAround) {
  Rig rig(model_, 21);
  memory::VmmSegment* segment = rig.lay(rig.a, "H2 F1a H2 F1 L1");
  Block* claimed = claim(rig, segment, 2, 3);
  rig.table.leave_home(rig.named["a"], {});
  Block* begin = rig.a.publish(claimed, 0);
  EXPECT_EQ(rig.blocks(rig.a, segment), "H5 F1 L1");
  EXPECT_EQ(begin->address, segment->base);  // of what it became a part of
  rig.check();
}

TEST_F(PoolBracket, KeepsClaimedNeighboursApartInAnyOrderOfPublishing) {
  for (const std::vector<std::size_t>& order :
       {std::vector<std::size_t>{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}) {
    Rig rig(model_, 21);
    const memory::VmmSegment* segment = rig.lay(rig.a, "F1 H2 F3 H1");
    const std::string before = rig.books();
    // By descending address, as donors of one run are claimed.
    std::vector<Block*> claimed = {claim(rig, segment, 4, 7), claim(rig, segment, 2, 4), claim(rig, segment, 0, 2)};
    EXPECT_EQ(rig.blocks(rig.a, segment), "C2 C2 C3");
    rig.a.check();
    for (const std::size_t i : order) {
      (void)rig.a.publish(claimed[i], 0);
      rig.a.check();
    }
    EXPECT_EQ(rig.books(), before);
    rig.check();
  }
}

TEST_F(PoolBracket, KeepsTheTicksOfWhatIsCutOff) {
  Rig rig(model_, 21);
  const memory::VmmSegment* segment = rig.lay(rig.a, "f4 L1 F2");
  Block* claimed = claim(rig, segment, 1, 2);
  EXPECT_EQ(at(rig, segment, 0)->tick_or_requested, kPending);
  EXPECT_EQ(at(rig, segment, 3)->tick_or_requested, kPending);
  (void)rig.a.publish(claimed, 2);
  EXPECT_EQ(rig.blocks(rig.a, segment), "F4 L1 F2");
  EXPECT_EQ(at(rig, segment, 0)->tick_or_requested, kPending);  // the latest of the parts
  claimed = claim(rig, segment, 5, 7);
  (void)rig.a.publish(claimed, 3);
  EXPECT_EQ(at(rig, segment, 5)->tick_or_requested, 3u);
}

TEST_F(PoolBracket, KeepsTheTickOfTheLastOfSeveralRunsWhereItIsCut) {
  Rig rig(model_, 21);
  const memory::VmmSegment* segment = rig.lay(rig.a, "F1 H1 f2 L1");
  Block* claimed = claim(rig, segment, 0, 3);
  EXPECT_EQ(rig.blocks(rig.a, segment), "C3 F1 L1");
  EXPECT_EQ(at(rig, segment, 3)->tick_or_requested, kPending);
  (void)rig.a.publish(claimed, 0);
  EXPECT_EQ(at(rig, segment, 2)->tick_or_requested, kPending);
  EXPECT_EQ(at(rig, segment, 0)->tick_or_requested, 0u);
}

TEST_F(PoolBracket, MakesTheRunBeforeItAsYoungAsWhatIsPublished) {
  Rig rig(model_, 21);
  const memory::VmmSegment* segment = rig.lay(rig.a, "F4 L1");
  Block* claimed = claim(rig, segment, 2, 4);
  (void)rig.a.publish(claimed, 3);
  EXPECT_EQ(rig.blocks(rig.a, segment), "F4 L1");
  EXPECT_EQ(at(rig, segment, 0)->tick_or_requested, 3u);
}

TEST_F(PoolBracket, LeavesOthersToTakeAndGiveBackBesideAClaim) {
  Rig rig(model_, 21);
  const memory::VmmSegment* segment = rig.lay(rig.a, "F2 L1 F2 L1");
  Block* claimed = claim(rig, segment, 1, 2);
  Block* other = rig.a.take(rig.a.find(rig.bytes(1)), rig.bytes(1), 1);
  EXPECT_EQ(other->address, segment->base);
  rig.a.give_back(rig.live[0], 0);
  rig.a.check();
  EXPECT_EQ(rig.blocks(rig.a, segment), "L1 C1 F1 F2 L1");
  rig.a.settle();
  rig.a.check();
  EXPECT_EQ(rig.blocks(rig.a, segment), "L1 C1 F3 L1");
  rig.a.give_back(other, 0);
  (void)rig.a.publish(claimed, 0);
  EXPECT_EQ(rig.blocks(rig.a, segment), "F5 L1");
  rig.check();
}

}  // namespace
}  // namespace gmlake::stitch::testing
