// Every driver call, and every allocation of host memory, of a stitch fails in turn: the books are as before, what
// could not be undone is quarantined and counted, and the same request succeeds once all is well.
#include <gtest/gtest.h>

#include <memory>
#include <new>
#include <string>

#include "driver/host.hpp"
#include "stitch/rig.hpp"
#include "support/failing_new.hpp"

namespace gmlake::stitch::testing {
namespace {

struct Scenario {
  const char* name;
  const char* own;    // the first stream's segment
  const char* other;  // the second's; may be empty
  double granules;
  Ask ask;
};

const Scenario kScenarios[] = {
    {"Grow", "L4 F2 H10", "", 5, {.headroom = 9, .unit = 2}},
    {"Move", "F4a+2b+1c L1 F2d L1 H2 F1 H2 F1 H12", "", 8, {.headroom = 0}},
    {"Revive", "F2a L1 F1b L1 S2a S1b H2 L1", "", 5, {.headroom = 2}},
    {"Retire", "L2a+1b L1 S2a S1b H1 S1c L1c H1", "", 5, {.headroom = 9}},
    {"AllAtOnce", "F4a+1b L1e F1 H1 S1e H2 F1 S4a S1b H9", "", 12, {.headroom = 5, .unit = 2}},
    {"OtherStreams", "L1 H8 F1", "f2x+2y L1 f1z", 6, {.headroom = 1, .stream_wait = true}},
};

// The same on each backend: what fails and heals is above it.
struct Backend {
  std::string name;
  std::unique_ptr<driver::SimulatedDriver> (*make)();
};

void PrintTo(const Backend& backend, std::ostream* out) { *out << backend.name; }

class StitcherFault : public ::testing::TestWithParam<Backend> {
 protected:
  struct Machine {
    explicit Machine(const Scenario& scenario) : inner(GetParam().make()), rig(*inner, 16) {
      segment = rig.lay(rig.a, scenario.own);
      if (*scenario.other != '\0') (void)rig.lay(rig.b, scenario.other);
    }
    std::optional<Plan> plan(const Scenario& scenario) {
      Ask ask = scenario.ask;
      if (rig.table.quarantined_bytes() != 0) ask.headroom = 64;
      ask.donors = {&rig.a, &rig.b};
      return rig.plan(rig.a, scenario.granules, ask);
    }
    std::unique_ptr<driver::SimulatedDriver> inner;
    Rig rig;
    memory::VmmSegment* segment = nullptr;
  };

  // Heals, plans again and carries that out; then takes the request. Quarantined addresses are lost: others and new
  // memory have to do.
  static void expect_success(Machine& machine, const Scenario& scenario) {
    machine.rig.driver.heal();
    if (machine.rig.table.quarantined_bytes() != 0) (void)machine.rig.lay(machine.rig.a, "H64");
    const auto again = machine.plan(scenario);
    ASSERT_TRUE(again.has_value());
    Block* run = machine.rig.carry_out(*again);
    ASSERT_NE(run, nullptr);
    machine.rig.check();
    const Block* taken = machine.rig.a.take(run, machine.rig.bytes(scenario.granules), 1);
    EXPECT_TRUE(machine.inner->has_access(taken->address, taken->bytes, 0));
    machine.rig.check();
  }
};

std::unique_ptr<driver::SimulatedDriver> make_model() {
  return std::make_unique<driver::ModelDriver>(driver::ModelOptions{.granularity = std::uint64_t{1} << 16});
}
std::unique_ptr<driver::SimulatedDriver> make_host() {
  return driver::HostDriver::make({.granularity = std::uint64_t{1} << 16}).value();
}
INSTANTIATE_TEST_SUITE_P(Backends, StitcherFault,
                         ::testing::Values(Backend{"Model", make_model}, Backend{"Host", make_host}),
                         [](const auto& backend) { return backend.param.name; });

TEST_P(StitcherFault, EveryDriverCallMayFail) {
  for (const Scenario& scenario : kScenarios) {
    for (const bool sticky : {false, true}) {
      for (const ErrorCode code : {ErrorCode::out_of_memory, ErrorCode::invalid_value, ErrorCode::unknown}) {
        bool reached = true;
        std::uint64_t nth = 1;
        for (; reached; ++nth) {
          ASSERT_LT(nth, 100u);
          SCOPED_TRACE(::testing::Message() << scenario.name << ", call " << nth << (sticky ? " and all after it" : "")
                                            << ": " << to_string(code));
          Machine machine(scenario);
          Rig& rig = machine.rig;
          const auto plan = machine.plan(scenario);
          ASSERT_TRUE(plan.has_value());
          const std::string before = rig.books();
          const std::string blocks = rig.blocks(rig.a, machine.segment);
          ASSERT_TRUE(rig.stitcher.claim(*plan, rig.steps));
          rig.driver.arm({.nth = nth, .sticky = sticky, .code = code});
          const Status executed = rig.stitcher.execute(*plan);
          reached = rig.driver.reached();
          ASSERT_EQ(executed.ok(), !reached);
          Block* run = rig.publish(*plan, 0, executed.ok());
          ASSERT_EQ(run != nullptr, executed.ok());
          rig.check();
          if (executed.ok()) break;
          EXPECT_EQ(executed.error().code, code);
          EXPECT_EQ(rig.blocks(rig.a, machine.segment), blocks);
          // Past the first step of a plan that retires, stale mappings are gone; what would not go is quarantined.
          if (plan->retire.empty() && rig.table.quarantined_bytes() == 0) {
            EXPECT_EQ(rig.books(), before);
          }
          EXPECT_TRUE(rig.table.quarantined_bytes() == 0 || sticky || executed.error().step == Step::unmap);
          expect_success(machine, scenario);
        }
        EXPECT_GT(nth, 3u) << scenario.name << " is too short to say anything";
      }
    }
  }
}

TEST_P(StitcherFault, TheErrorIsTheFirstRefusal) {
  Machine machine(kScenarios[1]);
  const auto plan = machine.plan(kScenarios[1]);
  machine.rig.driver.arm({.kind = Step::set_access, .code = ErrorCode::too_many_mappings});
  ASSERT_TRUE(machine.rig.stitcher.claim(*plan, machine.rig.steps));
  const Status executed = machine.rig.stitcher.execute(*plan);
  ASSERT_FALSE(executed.ok());
  EXPECT_EQ(executed.error().code, ErrorCode::too_many_mappings);
  EXPECT_EQ(executed.error().step, Step::set_access);
  EXPECT_EQ(machine.rig.publish(*plan, 0, false), nullptr);
  machine.rig.check();
}

TEST_P(StitcherFault, BlocksThatWereCreatedStaySpareAndAreUsedNext) {
  Machine machine(kScenarios[0]);
  const auto plan = machine.plan(kScenarios[0]);
  machine.rig.driver.arm({.kind = Step::map, .nth = 2});
  EXPECT_EQ(machine.rig.carry_out(*plan), nullptr);
  EXPECT_EQ(machine.rig.phy.spare().size(), 2u);
  machine.rig.check();
  machine.rig.driver.heal();
  Ask ask = kScenarios[0].ask;
  ask.headroom = 0;  // nothing more may be created
  const auto again = machine.rig.plan(machine.rig.a, 5, ask);
  ASSERT_TRUE(again.has_value());
  EXPECT_NE(machine.rig.carry_out(*again), nullptr);
  EXPECT_TRUE(machine.rig.phy.spare().empty());
  machine.rig.check();
}

TEST_P(StitcherFault, HostMemoryMayRunOutAnywhere) {
  for (const Scenario& scenario : kScenarios) {
    bool reached = true;
    for (std::uint64_t nth = 1; reached; ++nth) {
      ASSERT_LT(nth, 500u);
      SCOPED_TRACE(::testing::Message() << scenario.name << ", allocation " << nth);
      Machine machine(scenario);
      Rig& rig = machine.rig;
      const auto plan = machine.plan(scenario);
      ASSERT_TRUE(plan.has_value());
      while (rig.slab.live_count() % 256 != 0) (void)rig.slab.take();  // so that the next record takes a chunk
      const std::size_t padding = rig.slab.live_count();
      const std::string before = rig.books();
      bool claimed = false;
      bool succeeded = false;
      {
        const gmlake::testing::FailingNew failing(nth);
        try {
          claimed = rig.stitcher.claim(*plan, rig.steps);
          succeeded = rig.stitcher.execute(*plan).ok();
        } catch (const std::bad_alloc&) {
        }
        reached = failing.reached();
      }
      EXPECT_TRUE(claimed || reached);
      if (claimed) {
        const gmlake::testing::FailingNew failing(1, true);  // publishing takes none
        (void)rig.publish(*plan, 0, succeeded);
        EXPECT_FALSE(failing.reached());
      }
      rig.a.check();
      rig.b.check();
      rig.table.check();
      rig.phy.check();
      rig.simulated.check();
      if (!claimed || (!succeeded && plan->retire.empty())) {
        EXPECT_EQ(rig.books(), before);
      }
      if (!claimed) {
        EXPECT_EQ(rig.slab.live_count(), padding);
      }
    }
  }
}

}  // namespace
}  // namespace gmlake::stitch::testing
