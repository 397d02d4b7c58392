// Fences when event calls, or the host's memory, fail: nothing passes early, and no event is lost.
#include <gtest/gtest.h>

#include <new>

#include "driver/fault.hpp"
#include "driver/model.hpp"
#include "memory/fences.hpp"
#include "support/sheltered_driver.hpp"

namespace gmlake::memory {
namespace {

constexpr driver::Stream kFirst{0, 1};
constexpr driver::Stream kSecond{0, 2};

struct Rig {
  driver::ModelDriver model;
  gmlake::testing::ShelteredDriver sheltered{model};
  driver::FaultDriver fault{sheltered};
};

TEST(FencesFault, NothingStandsForATickWhoseRecordFailed) {
  for (const Step step : {Step::event_create, Step::event_record}) {
    Rig rig;
    {
      Fences fences(rig.fault);
      const StreamIndex a = fences.open(kFirst);
      rig.model.streams().hold(kFirst);
      rig.fault.arm({.kind = step, .code = ErrorCode::unknown});
      const Status marked = fences.mark(a, 1);
      ASSERT_FALSE(marked.ok());
      EXPECT_EQ(marked.error().step, step);
      EXPECT_EQ(fences.events_pending(), 0u);
      rig.fault.heal();
      rig.model.streams().resume(kFirst);
      EXPECT_TRUE(fences.poll().ok());
      EXPECT_FALSE(fences.passed({a, 1})) << "it never passes by itself";
      EXPECT_TRUE(fences.mark(a, 1).ok());
      EXPECT_TRUE(fences.poll().ok());
      EXPECT_TRUE(fences.passed({a, 1}));
    }
    EXPECT_EQ(rig.model.streams().live_events(), 0u);
  }
}

TEST(FencesFault, NothingPassesByAQueryOrAWaitThatFailed) {
  Rig rig;
  Fences fences(rig.fault);
  const StreamIndex a = fences.open(kFirst);
  ASSERT_TRUE(fences.mark(a, 1).ok());
  rig.fault.arm({.kind = Step::event_query, .code = ErrorCode::device_lost});
  EXPECT_EQ(fences.poll().error().code, ErrorCode::device_lost);
  EXPECT_FALSE(fences.passed({a, 1}));
  rig.fault.arm({.kind = Step::event_synchronize, .sticky = true});
  EXPECT_FALSE(fences.wait({a, 1}).ok());
  EXPECT_FALSE(fences.passed({a, 1}));
  EXPECT_EQ(fences.events_pending(), 1u);
  rig.fault.heal();
  EXPECT_TRUE(fences.wait({a, 1}).ok());
  EXPECT_TRUE(fences.passed({a, 1}));
}

// Every call of a scenario fails in turn: whatever is said to have passed has passed, and nothing leaks.
TEST(FencesFault, EveryCallMayFailAndNothingPassesEarly) {
  const auto scenario = [](Rig& rig) {
    driver::StreamSimulator& streams = rig.model.streams();
    Fences fences(rig.fault);
    const StreamIndex a = fences.open(kFirst);
    const StreamIndex b = fences.open(kSecond);
    streams.hold(kFirst);
    EXPECT_TRUE(streams.enqueue(kFirst, {}).ok());
    (void)fences.mark(a, 1).ok();
    (void)fences.mark(b, 1).ok();
    (void)fences.poll().ok();
    EXPECT_FALSE(fences.passed({a, 1}));
    const Status waits = fences.make_stream_wait(b, {a, 2});
    EXPECT_TRUE(streams.enqueue(kSecond, {}).ok());
    EXPECT_EQ(streams.pending(kSecond) != 0, waits.ok());
    if (fences.wait({a, 1}).ok()) {
      EXPECT_LE(streams.pending(kFirst), 1u);
      EXPECT_TRUE(fences.passed({a, 1}));
    } else {
      EXPECT_FALSE(fences.passed({a, 1}));
    }
    streams.resume(kFirst);
    (void)fences.poll().ok();
    rig.fault.heal();
    EXPECT_TRUE(fences.wait({a, 3}).ok());
    EXPECT_TRUE(fences.wait({b, 3}).ok());
    EXPECT_EQ(fences.events_pending(), 0u);
  };
  std::uint64_t calls = 0;
  {
    Rig rig;
    scenario(rig);
    calls = rig.fault.calls();
  }
  for (std::uint64_t nth = 1; nth <= calls; ++nth) {
    for (const bool sticky : {false, true}) {
      Rig rig;
      rig.fault.arm({.nth = nth, .sticky = sticky});
      scenario(rig);
      // Destroying the events and the way down after healing are not part of the sweep.
      if (!rig.fault.reached()) continue;
      EXPECT_EQ(rig.model.streams().live_events(), 0u) << nth << (sticky ? " from then on" : " once");
    }
  }
}

// What another thread may do between the end of a wait and the books of it.
class PollsAfterWaiting final : public gmlake::testing::ShelteredDriver {
 public:
  using ShelteredDriver::ShelteredDriver;
  Status event_synchronize(driver::Event event) override {
    const Status waited = ShelteredDriver::event_synchronize(event);
    EXPECT_TRUE(fences->poll().ok());
    return waited;
  }
  Fences* fences = nullptr;
};

TEST(FencesFault, AWaitThatAPollOvertookPassesNothingElse) {
  driver::ModelDriver model;
  PollsAfterWaiting driver(model);
  Fences fences(driver);
  driver.fences = &fences;
  const StreamIndex a = fences.open(kFirst);
  model.streams().hold(kFirst);
  ASSERT_TRUE(fences.mark(a, 1).ok());
  ASSERT_TRUE(model.streams().enqueue(kFirst, {}).ok());
  ASSERT_TRUE(fences.mark(a, 2).ok());
  ASSERT_TRUE(fences.wait({a, 1}).ok());
  EXPECT_TRUE(fences.passed({a, 1}));
  EXPECT_FALSE(fences.passed({a, 2}));
  EXPECT_EQ(fences.events_pending(), 1u);
}

TEST(FencesFault, LosesNoEventWhereTheHostIsOutOfMemory) {
  std::uint64_t nth = 1;
  for (bool reached = true; reached; ++nth) {
    ASSERT_LT(nth, 200u);
    Rig rig;
    rig.model.streams().hold(kFirst);
    (void)rig.model.streams().enqueue(kFirst, {}).ok();
    {
      Fences fences(rig.fault);
      const StreamIndex a = fences.open(kFirst);
      {
        const gmlake::testing::FailingNew failing(nth);
        for (std::uint64_t tick = 1; tick <= 12; ++tick) {
          try {
            (void)fences.mark(a, tick).ok();
          } catch (const std::bad_alloc&) {
          }
        }
        reached = failing.reached();
      }
      EXPECT_FALSE(fences.passed({a, 1}));
      ASSERT_TRUE(fences.wait({a, 12}).ok());
      EXPECT_TRUE(fences.passed({a, 12}));
    }
    EXPECT_EQ(rig.model.streams().live_events(), 0u) << nth;
  }
}

}  // namespace
}  // namespace gmlake::memory
