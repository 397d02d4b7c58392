// What if this driver call fails? Asked of every call of every scenario, for failures that pass and failures that stay,
// and for three kinds of them (one of the three for each call on the host); then of two calls in one run. Each run has
// to end in success or in a clean error, with exact books; once the driver is well again, the same steps have to work;
// and at the end the driver is empty (Machine sees to that).
#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "driver/host.hpp"
#include "fault_scenarios.hpp"
#include "support/full_run.hpp"
#include "support/machine.hpp"

namespace gmlake::test {
namespace {

// Checked builds and sanitizers take one kind of failure for each call, the next kind for the next call.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || (GMLAKE_CHECK_LEVEL >= 1)
constexpr bool kEveryKind = false;
#else
constexpr bool kEveryKind = true;
#endif

constexpr ErrorCode kCodes[] = {ErrorCode::out_of_memory, ErrorCode::invalid_value, ErrorCode::unknown};

enum class Backend { model, host };

class FaultSweep : public testing::TestWithParam<Scenario> {
 protected:
  static std::uint64_t granule(Backend backend) {
    return backend == Backend::model ? kGranule : std::uint64_t{256} << 10;
  }

  static std::unique_ptr<Machine> make(Backend backend) {
    Options options;
    options.slack = 0;
    options.max_stale = 0.25;
    if (backend == Backend::model) return std::make_unique<Machine>(small_model(Stage::kGranules), options);
    driver::HostOptions host;
    host.granularity = granule(backend);
    host.capacity_bytes = Stage::kGranules * host.granularity;
    return std::make_unique<Machine>(std::move(driver::HostDriver::make(host)).value(), options);
  }

  // Plays the scenario, then everything is freed, and all of memory is had in one piece and given back.
  static void play(Machine& machine, Stage& stage) {
    GetParam().play(stage);
    stage.free_all();
    machine.streams().advance_all();
    stage.trim();
  }

  static std::uint64_t count_calls(Backend backend) {
    const auto machine = make(backend);
    Stage stage(*machine, granule(backend), backend == Backend::host);
    machine->fault().reset_counts();
    bool reached = false;
    stage.after_step = [&] { reached = reached || GetParam().reached(machine->stats()); };
    play(*machine, stage);
    EXPECT_EQ(stage.failures, 0);
    EXPECT_TRUE(reached) << "the scenario does not reach what it is there for";
    return machine->fault().calls();
  }

  // Gives the number of driver calls that the scenario came to.
  static std::uint64_t strike(Backend backend, const std::vector<driver::Fault>& faults) {
    const auto machine = make(backend);
    Stage stage(*machine, granule(backend), backend == Backend::host);
    const bool sticky = faults.back().sticky;
    stage.after_step = [&] {
      if (!sticky && machine->fault().reached()) machine->fault().heal();
      machine->allocator().check();
      machine->device().check();
    };
    machine->fault().arm(faults.front());
    for (std::size_t i = 1; i < faults.size(); ++i) machine->fault().arm_also(faults[i]);
    play(*machine, stage);
    EXPECT_TRUE(machine->fault().reached());
    const std::uint64_t calls = machine->fault().calls();
    machine->fault().heal();
    machine->streams().advance_all();
    stage.trim();
    // Nothing is left of it, unless the driver has kept something: that comes back at the end.
    stage.failures = 0;
    if (machine->stats().lost_bytes == 0 && machine->stats().quarantined_bytes == 0) {
      play(*machine, stage);
      EXPECT_EQ(stage.failures, 0);
      EXPECT_EQ(machine->stats().all.reserved_bytes.current, 0u);
    }
    return calls;
  }

  static void report(const char* what, std::uint64_t calls, std::uint64_t points) {
    std::printf("%s: %llu driver calls, %llu %s\n", GetParam().name, static_cast<unsigned long long>(calls),
                static_cast<unsigned long long>(points), what);
    RecordProperty("calls", std::to_string(calls));
    RecordProperty("points", std::to_string(points));
  }

  static void sweep(Backend backend) {
    const std::uint64_t calls = count_calls(backend);
    ASSERT_GT(calls, 0u);
    std::uint64_t points = 0;
    for (std::uint64_t nth = 1; nth <= calls && !HasFailure(); ++nth) {
      for (const bool sticky : {false, true}) {
        if (!kEveryKind && sticky != (nth % 2 == 0)) continue;
        for (const ErrorCode code : kCodes) {
          // The host costs system calls: there each call fails in one way, the next call in another.
          if ((backend == Backend::host || !kEveryKind) && code != kCodes[nth % std::size(kCodes)]) continue;
          SCOPED_TRACE("call " + std::to_string(nth) + " of " + std::to_string(calls) +
                       (sticky ? " and all after it: " : ": ") + to_string(code));
          (void)strike(backend, {{.kind = {}, .nth = nth, .sticky = sticky, .code = code}});
          ++points;
        }
      }
    }
    report("fault points", calls, points);
  }

  // Two calls fail in one run: in a full run all pairs on the model, 700,000 of them. The first changes what comes
  // after it, so the calls from which the second is chosen are counted anew for each first: those that follow at once,
  // where it is being undone and tried again, and some of the others. Kinds are mixed by number.
  static void sweep_pairs(Backend backend) {
    const std::uint64_t calls = count_calls(backend);
    ASSERT_GT(calls, 0u);
    const std::uint64_t every = backend == Backend::model ? (kEveryKind ? 1 : 17) : (kEveryKind ? 5 : 41);
    const std::uint64_t close = backend == Backend::model ? (calls <= 100 || full_run() ? UINT64_MAX : 8) : 2;
    const std::uint64_t others = backend == Backend::model ? 4 : 1;
    std::uint64_t points = 0;
    std::uint64_t random = 1;
    for (std::uint64_t first = 1; first <= calls && !HasFailure(); first += every) {
      const driver::Fault one{.kind = {}, .nth = first, .sticky = false, .code = kCodes[first % std::size(kCodes)]};
      const std::uint64_t came_to = strike(backend, {one});
      std::vector<std::uint64_t> seconds;
      for (std::uint64_t second = first + 1; second <= came_to && second - first <= close; ++second) {
        seconds.push_back(second);
      }
      for (std::uint64_t i = 0; i < others && came_to - first > close; ++i) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        seconds.push_back(first + close + 1 + (random >> 33) % (came_to - first - close));
      }
      for (const std::uint64_t second : seconds) {
        const std::uint64_t kind = first + second;
        const driver::Fault two{
            .kind = {}, .nth = second, .sticky = kind % 4 == 0, .code = kCodes[kind / 4 % std::size(kCodes)]};
        SCOPED_TRACE("call " + std::to_string(first) + ": " + to_string(one.code) + ", and call " +
                     std::to_string(second) + (two.sticky ? " and all after it: " : ": ") + to_string(two.code));
        (void)strike(backend, {one, two});
        ++points;
      }
    }
    report("pairs of faults", calls, points);
  }
};

TEST_P(FaultSweep, OnTheModelEveryFailureIsSurvived) { sweep(Backend::model); }
TEST_P(FaultSweep, OnTheHostEveryFailureLeavesTheContents) { sweep(Backend::host); }
TEST_P(FaultSweep, OnTheModelPairsOfFailuresAreSurvived) { sweep_pairs(Backend::model); }
TEST_P(FaultSweep, OnTheHostPairsOfFailuresLeaveTheContents) { sweep_pairs(Backend::host); }

INSTANTIATE_TEST_SUITE_P(Scenarios, FaultSweep, testing::ValuesIn(fault_scenarios().begin(), fault_scenarios().end()),
                         [](const auto& scenario) { return std::string(scenario.param.name); });

}  // namespace
}  // namespace gmlake::test
