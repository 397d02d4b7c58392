// Plans are made without the state lock, on what was free when it was looked at. Here that changes before the claim, as
// other threads would change it: a claim either takes all that the plan counts on, or says no and changes nothing.
#include <algorithm>
#include <stdexcept>

#include "stitch/rig.hpp"

namespace gmlake::stitch::testing {
namespace {

class Outdated : public ::testing::Test {
 protected:
  // Lays the text, plans `granules`, and has `meanwhile` happen before the claim.
  template <class Meanwhile>
  bool claims(std::string_view layout, double granules, Meanwhile&& meanwhile) {
    segment_ = rig_.lay(rig_.a, layout);
    const auto plan = rig_.plan(rig_.a, granules, {.headroom = 9});
    if (!plan) throw std::logic_error("no plan");
    meanwhile();
    rig_.a.settle();
    rig_.check();
    const std::string before = rig_.books();
    const bool claimed = rig_.stitcher.claim(*plan, rig_.steps);
    if (claimed) {
      const bool succeeded = rig_.stitcher.execute(*plan).ok();
      EXPECT_NE(rig_.publish(*plan, 0, succeeded), nullptr);
    } else {
      EXPECT_EQ(rig_.books(), before);
    }
    rig_.check();
    return claimed;
  }
  Block* at(double granules) {
    rig_.a.settle();
    const Address address = segment_->base + rig_.bytes(granules);
    Block* block = rig_.a.first_block(segment_);
    while (block != nullptr && block->end() <= address) block = block->next;
    return block;
  }
  Block* take(double from, double granules) { return rig_.a.take(at(from), rig_.bytes(granules), 1); }

  driver::ModelDriver model_;
  Rig rig_{model_, 21};
  const memory::VmmSegment* segment_ = nullptr;
};

TEST_F(Outdated, IsTakenWhereNothingChanged) {
  EXPECT_TRUE(claims("F4a L1 F2 H5", 6, [] {}));
}

TEST_F(Outdated, IsRefusedWhereTheWindowsRunWasTaken) {
  EXPECT_FALSE(claims("F4a L1 F2 H5", 6, [&] { take(5, 1); }));
}

TEST_F(Outdated, IsRefusedWhereARunInsideTheWindowWasTaken) {
  EXPECT_FALSE(claims("F1 H1 F1 H1 F1 L1", 5, [&] { take(2, 0.5); }));
}

TEST_F(Outdated, IsRefusedWhereADonorWasTaken) {
  EXPECT_FALSE(claims("F4a L1 F2 H5", 6, [&] { take(0, 0.5); }));
}

TEST_F(Outdated, IsTakenWhereTheRunOfADonorOnlyShrank) {
  EXPECT_TRUE(claims("F1+4a L1 F2 H5", 6, [&] { take(0, 1); }));
}

TEST_F(Outdated, IsTakenWhereTheRunOfADonorGrewToTheRight) {
  EXPECT_TRUE(claims("L1 F4a L1 L1 F2 H5", 6, [&] { rig_.a.give_back(at(5), 0); }));
}

TEST_F(Outdated, IsRefusedWhereTheRecordOfADonorsRunIsGone) {
  // Its neighbour's record stands for both now, though all of it is free as before: the next plan will have it.
  EXPECT_FALSE(claims("F1 L1 F4a L1 L1 F2 H5", 6, [&] { rig_.a.give_back(at(1), 0); }));
}

TEST_F(Outdated, IsRefusedWhereTheRecordOfADonorsRunIsAnothersNow) {
  EXPECT_FALSE(claims("L1 F4a L1 L1 F2 H5", 6, [&] {
    rig_.a.give_back(at(0), 0);  // the run's record is free to be used,
    take(0, 0.5);                // and is: for what is left of the longer run
    take(0.5, 4.5);
  }));
}

TEST_F(Outdated, IsTakenWhereTheRecordOfADonorsRunIsThatOfARunOverItAgain) {
  EXPECT_TRUE(claims("L1 F4a L1 L1 F2 H5", 6, [&] {
    rig_.a.give_back(at(0), 0);
    take(0, 0.5);
  }));
}

TEST_F(Outdated, IsRefusedWhereAnotherStreamsDonorWasFreedAgain) {
  (void)rig_.lay(rig_.b, "F4a L1");
  (void)rig_.lay(rig_.a, "L1 H8");
  const auto plan = rig_.plan(rig_.a, 4, {.donors = {&rig_.a, &rig_.b}});
  ASSERT_TRUE(plan.has_value());
  Block* again = rig_.b.take(rig_.b.find(rig_.bytes(4)), rig_.bytes(4), 1);
  rig_.b.give_back(again, kPending);  // work that may still run uses it
  const std::string before = rig_.books();
  EXPECT_FALSE(rig_.stitcher.claim(*plan, rig_.steps));
  EXPECT_EQ(rig_.books(), before);
  const std::vector<Donor> moves = plan->moves;
  EXPECT_TRUE(rig_.stitcher.vacate(moves, rig_.steps).empty());
  rig_.check();
}

TEST_F(Outdated, LeavesOutOfVacatingWhatWasTaken) {
  segment_ = rig_.lay(rig_.a, "F1a+1b L1 F1c L1 F1d");
  const std::vector<Pool*> donors{&rig_.a};
  const std::vector<Donor> all = rig_.planner.collect({.pool = &rig_.a, .bytes = 512, .donors = donors}, rig_.steps);
  ASSERT_EQ(all.size(), 4u);
  std::vector<Donor> by_address = all;
  std::sort(by_address.begin(), by_address.end(), [](const Donor& x, const Donor& y) { return x.begin() > y.begin(); });
  take(3, 1);
  std::string vacated;
  for (const memory::PhyBlock* block : rig_.stitcher.vacate(by_address, rig_.steps)) vacated += rig_.name_of(block);
  EXPECT_EQ(vacated, "dba");
  EXPECT_EQ(rig_.blocks(rig_.a, segment_), "H2 L1 L1 L1 H1");
  rig_.check();
}

// Of thousands of runs a plan looks at some, and at all of them where those are not enough.
TEST_F(Outdated, LooksAtEverythingRatherThanCreate) {
  std::string layout;
  for (int i = 0; i < 1100; ++i) layout += "[3 L0.5 F1.25 L1.25] ";  // long enough for a granule, with none whole
  segment_ = rig_.lay(rig_.a, layout + "F2a L1 F2b L1 H8");
  const auto plan = rig_.plan(rig_.a, 4, {.headroom = 9});
  EXPECT_EQ(rig_.describe(plan), "3306..3310 move b@3306 move a@3308");
}

TEST_F(Outdated, LooksAtNoRunsWhereTheSlackIsEnough) {
  segment_ = rig_.lay(rig_.a, "F2a L1 F2b L1 H8");
  rig_.steps.count = 0;
  const auto plan = rig_.plan(rig_.a, 4, {.headroom = 9, .slack = 4});
  EXPECT_EQ(rig_.describe(plan), "6..10 create 1@6 create 1@7 create 1@8 create 1@9");
  EXPECT_EQ(rig_.steps.count, 1u);  // for the holes
}

}  // namespace
}  // namespace gmlake::stitch::testing
