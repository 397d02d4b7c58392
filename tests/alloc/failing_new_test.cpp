// What if the host has no memory at this point? Asked of every `operator new` inside every call of every scenario, once
// for that allocation alone and once for it and all that follow in the same call. The call has to end in success or in
// an out-of-memory error that changed nothing: the books are exact, the same steps work afterwards, and at the end the
// driver is empty (Machine sees to that).
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <memory>
#include <optional>
#include <vector>

#include "driver/host.hpp"
#include "driver/per_thread_stream.hpp"
#include "fault_scenarios.hpp"
#include "support/failing_new.hpp"
#include "support/machine.hpp"
#include "support/sheltered_driver.hpp"

namespace gmlake::test {
namespace {

// Checks that recount everything take every seventh point.
#if defined(__SANITIZE_ADDRESS__) || (GMLAKE_CHECK_LEVEL >= 1)
constexpr std::uint64_t kEvery = 7;
#else
constexpr std::uint64_t kEvery = 1;
#endif

class FailingHostMemory : public ::testing::TestWithParam<Scenario> {
 protected:
  static std::unique_ptr<Machine> make(bool host) {
    Options options;
    options.slack = 0;
    options.max_stale = 0.25;
    const auto sheltered = [](driver::Driver& inner) -> std::unique_ptr<driver::Driver> {
      return std::make_unique<gmlake::testing::ShelteredDriver>(inner);
    };
    if (!host) {
      return std::make_unique<Machine>(std::make_unique<driver::ModelDriver>(small_model(Stage::kGranules)), options,
                                       sheltered);
    }
    driver::HostOptions device;
    device.granularity = granule(host);
    device.capacity_bytes = Stage::kGranules * device.granularity;
    return std::make_unique<Machine>(std::move(driver::HostDriver::make(device)).value(), options, sheltered);
  }
  static std::uint64_t granule(bool host) { return host ? std::uint64_t{256} << 10 : kGranule; }

  static void play(Machine& machine, Stage& stage) {
    GetParam().play(stage);
    stage.free_all();
    machine.streams().advance_all();
    stage.trim();
  }

  struct Run {
    std::uint64_t allocations = 0;
    bool reached = false;
    int failures = 0;
  };
  static Run strike(bool host, std::uint64_t nth, bool rest_of_the_call) {
    const auto machine = make(host);
    Stage stage(*machine, granule(host), host);
    stage.host_memory_fails = true;
    Run run;
    std::optional<gmlake::testing::FailingNew> failing;
    stage.before_call = [&] {
      if (!run.reached) failing.emplace(nth - run.allocations, rest_of_the_call);
    };
    stage.after_call = [&] {
      if (!failing) return;
      run.reached = failing->reached();
      run.allocations = nth - failing->left();
      failing.reset();
    };
    stage.after_step = [&] {
      machine->allocator().check();
      machine->device().check();
    };
    play(*machine, stage);
    run.failures = stage.failures;
    stage.failures = 0;
    stage.before_call = stage.after_call = [] {};
    stage.trim();  // the first may have been what failed
    play(*machine, stage);
    EXPECT_EQ(stage.failures, 0);
    EXPECT_EQ(machine->stats().all.reserved_bytes.current, 0u);
    EXPECT_EQ(machine->stats().quarantined_bytes, 0u);
    return run;
  }

  static void sweep(bool host) {
    (void)driver::thread_stream();  // which a thread has for good once it has named it
    const Run undisturbed = strike(host, UINT64_MAX, false);
    EXPECT_FALSE(undisturbed.reached);
    EXPECT_EQ(undisturbed.failures, 0);
    ASSERT_GT(undisturbed.allocations, 0u);
    std::uint64_t points = 0;
    std::uint64_t errors = 0;
    for (std::uint64_t nth = 1; nth <= undisturbed.allocations && !HasFailure(); nth += kEvery) {
      for (const bool rest_of_the_call : {false, true}) {
        SCOPED_TRACE("operator new " + std::to_string(nth) + " of " + std::to_string(undisturbed.allocations) +
                     (rest_of_the_call ? ", to the end of the call" : ""));
        const Run run = strike(host, nth, rest_of_the_call);
        EXPECT_TRUE(run.reached);
        errors += static_cast<std::uint64_t>(run.failures);
        ++points;
      }
    }
    EXPECT_GT(errors, 0u);
    std::printf("%s: %llu allocations of host memory, %llu points, %llu errors\n", GetParam().name,
                static_cast<unsigned long long>(undisturbed.allocations), static_cast<unsigned long long>(points),
                static_cast<unsigned long long>(errors));
    RecordProperty("calls", std::to_string(undisturbed.allocations));
    RecordProperty("points", std::to_string(points));
  }
};

TEST_P(FailingHostMemory, OnTheModelIsSurvived) { sweep(false); }
TEST_P(FailingHostMemory, OnTheHostLeavesTheContents) { sweep(true); }

// A thread whose number could not be kept counts as one that lives, for good.
TEST(FailingHostMemoryOfAThread, LeavesItsOwnStreamAsItIs) {
  Machine machine(small_model());
  std::array<std::optional<driver::ThreadStream>, 64> threads;  // more than ended before
  {
    const gmlake::testing::FailingNew none(1, true);
    for (auto& thread : threads) thread.emplace();
    EXPECT_TRUE(none.reached());
  }
  const std::uint64_t number = threads.back()->number();
  EXPECT_FALSE(driver::LivingThreads().lack(number));
  driver::ThreadStream::impersonate(&*threads.back());
  void* pointer = machine.allocate(3 * kGranule, driver::kPerThreadStream);
  driver::ThreadStream::impersonate(nullptr);
  const driver::ThreadStream another;  // that comes: those before are looked at
  machine.deallocate(machine.allocate(9 * kGranule, 5), 5);
  driver::ThreadStream::impersonate(&*threads.back());
  machine.streams().hold({0, number});
  ASSERT_TRUE(machine.device().launch({0, number}, {{address_of(pointer), 3 * kGranule, true}}).ok());
  machine.deallocate(pointer, driver::kPerThreadStream);
  EXPECT_EQ(machine.allocate(3 * kGranule, driver::kPerThreadStream), pointer);
  machine.deallocate(pointer, driver::kPerThreadStream);
  driver::ThreadStream::impersonate(nullptr);
  EXPECT_NE(machine.allocate(3 * kGranule, 5), pointer);
}

// The allocator goes with everything still in place, and not one allocation succeeds meanwhile.
TEST_P(FailingHostMemory, IsNotNeededToShutDown) {
  for (const bool host : {false, true}) {
    const auto machine = make(host);
    Stage stage(*machine, granule(host), host);
    GetParam().play(stage);
    machine->streams().advance_all();
    const gmlake::testing::FailingNew failing(1, true);
    machine->destroy_allocator();
  }
}

INSTANTIATE_TEST_SUITE_P(Scenarios, FailingHostMemory,
                         ::testing::ValuesIn(fault_scenarios().begin(), fault_scenarios().end()),
                         [](const auto& scenario) { return std::string(scenario.param.name); });

}  // namespace
}  // namespace gmlake::test
