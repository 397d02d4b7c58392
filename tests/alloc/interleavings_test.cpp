// All 34,650 interleavings of 3 streams of 4 operations each, for programs that make the streams take each other's
// memory: no kernel may touch bytes that another stream's may still touch, through whatever address. And bugs planted
// below the allocator: the detector has to find each.
#include "support/interleavings.hpp"

#include <gtest/gtest.h>

#include <cstdio>

#include "support/full_run.hpp"

namespace gmlake::test {
namespace {

// Release runs every interleaving on the model and one in 15 on the host, where a full run has all of them too;
// sanitizers and checks that recount everything, some of them.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || (GMLAKE_CHECK_LEVEL >= 1)
constexpr std::uint64_t kEvery = 35;
#else
constexpr std::uint64_t kEvery = 1;
#endif

constexpr std::uint64_t kGranule = std::uint64_t{64} << 10;
constexpr std::uint64_t kInterleavings = 34'650;
constexpr std::uint32_t kOwn = ~0u;

Op alloc(std::uint32_t block, std::uint64_t tenths, std::uint32_t stream) {
  return {Op::Kind::alloc, block, kGranule * tenths / 10, stream};
}
Op free(std::uint32_t block, std::uint32_t stream = kOwn) { return {Op::Kind::free, block, 0, stream}; }
Op record(std::uint32_t block, std::uint32_t stream) { return {Op::Kind::record, block, 0, stream}; }
Op work(std::uint32_t block) { return {Op::Kind::work, block, 0, 0}; }
Op trim(std::uint64_t granules = 0) { return {Op::Kind::trim, 0, granules * kGranule, 0}; }
Op advance(std::uint32_t stream, std::uint64_t count) { return {Op::Kind::advance, 0, count, stream}; }

Op limit(std::uint64_t granules) { return {Op::Kind::limit, 0, granules * kGranule, 0}; }

Options tight(bool stream_wait = true, double max_stale = 4) {
  Options options;
  options.slack = 0;
  options.max_stale = max_stale;
  options.stream_wait = stream_wait ? StreamWait::before_growth : StreamWait::never;
  return options;
}

// Each stream wants more than the others leave.
std::vector<Program> taking_turns() {
  std::vector<Program> threads;
  for (std::uint32_t stream = 1; stream <= 3; ++stream) {
    threads.push_back({alloc(stream, 30, stream), free(stream), alloc(10 + stream, 40, stream), free(10 + stream)});
  }
  return threads;
}

std::vector<Program> recording() {
  return {{alloc(1, 30, 1), record(1, 2), free(1), alloc(11, 50, 1)},
          {alloc(2, 20, 2), record(2, 3), free(2), alloc(12, 40, 2)},
          {alloc(3, 25, 3), free(3), alloc(13, 45, 3), free(13)}};
}

// A mix, and what it is there for.
struct Case {
  Mix mix;
  bool (*reached)(const Tally& tally);
};

std::vector<Case> cases() {
  return {
      {{.name = "TakingTurns", .threads = taking_turns(), .options = tight()},
       [](const Tally& tally) { return tally.stream_waits > 0 && tally.moved_bytes > 0; }},
      {{.name = "TakingTurnsWithoutStreamWaits", .threads = taking_turns(), .options = tight(false)},
       [](const Tally& tally) { return tally.host_waits > 0 && tally.stream_waits == 0; }},
      {{.name = "RecordedUses", .threads = recording(), .options = tight()},
       [](const Tally& tally) { return tally.deferred > 0 && tally.stream_waits > 0; }},
      {{.name = "RecordedUsesNearTheLimit", .threads = recording(), .capacity_granules = 6, .options = tight()},
       [](const Tally& tally) { return tally.deferred > 0 && tally.host_waits > 0; }},
      {{.name = "FreedOnOtherStreams",
        .threads = {{alloc(1, 30, 1), free(2, 1), alloc(11, 40, 1), free(13, 1)},
                    {alloc(2, 30, 2), free(3, 2), alloc(12, 40, 2), free(11, 2)},
                    {alloc(3, 20, 3), free(1, 3), alloc(13, 40, 3), free(12, 3)}},
        .options = tight()},
       [](const Tally& tally) { return tally.deferred > 0 && tally.moved_bytes > 0; }},
      {{.name = "PiecesStitched",
        .threads = {{alloc(1, 10, 1), alloc(11, 10, 1), free(1), alloc(21, 35, 1)},
                    {alloc(2, 10, 2), alloc(12, 10, 2), free(2), alloc(22, 35, 2)},
                    {alloc(3, 10, 3), alloc(13, 10, 3), free(13), alloc(23, 35, 3)}},
        .options = tight()},
       [](const Tally& tally) { return tally.moved_bytes > 0 && tally.stream_waits > 0; }},
      {{.name = "PartsOfGranules",
        .threads = {{alloc(1, 4, 1), alloc(11, 14, 1), free(1), alloc(21, 22, 1)},
                    {alloc(2, 6, 2), alloc(12, 16, 2), free(12), alloc(22, 31, 2)},
                    {alloc(3, 9, 3), free(3), alloc(13, 27, 3), free(13)}},
        .capacity_granules = 6,
        .options = tight()},
       [](const Tally& tally) { return tally.moved_bytes > 0 && tally.stream_waits > 0; }},
      {{.name = "MappingsRetiredAtOnce",
        .threads = {{alloc(1, 30, 1), free(1), alloc(11, 50, 1), free(11)},
                    {alloc(2, 20, 2), record(2, 1), free(2), alloc(12, 60, 2)},
                    {alloc(3, 10, 3), advance(1, 3), advance(2, 3), free(3)}},
        .options = tight(true, 0)},
       [](const Tally& tally) { return tally.retired > 0 && tally.deferred > 0; }},
      {{.name = "TrimmedMeanwhile",
        .threads = {{alloc(1, 30, 1), record(1, 2), free(1), alloc(11, 60, 1)},
                    {alloc(2, 30, 2), free(2), alloc(12, 50, 2), free(12)},
                    {trim(), alloc(3, 20, 3), trim(2), free(3)}},
        .options = tight()},
       [](const Tally& tally) { return tally.released > 0 && tally.deferred > 0; }},
      {{.name = "LimitChangedMeanwhile",
        .threads = {{alloc(1, 30, 1), record(1, 2), free(1), alloc(11, 40, 1)},
                    {alloc(2, 30, 2), free(2), alloc(12, 50, 2), free(12)},
                    {limit(5), alloc(3, 20, 3), limit(7), free(3)}},
        .options = tight()},
       [](const Tally& tally) { return tally.released > 0 && tally.deferred > 0 && tally.host_waits > 0; }},
      {{.name = "LargeAndSmall",
        .threads = {{alloc(1, 170, 1), free(1), alloc(11, 30, 1), free(11)},
                    {alloc(2, 90, 2), free(2), alloc(12, 200, 2), free(12)},
                    {alloc(3, 5, 3), free(3), alloc(13, 220, 3), work(13)}},
        .capacity_granules = 28,
        .options = tight()},
       [](const Tally& tally) { return tally.moved_bytes > 0 && tally.stream_waits > 0; }},
      {{.name = "UsedByEveryStream",
        .threads = {{alloc(1, 20, 1), record(2, 1), record(3, 1), free(1)},
                    {alloc(2, 20, 2), record(1, 2), record(3, 2), free(2)},
                    {alloc(3, 20, 3), free(3), alloc(13, 60, 3), alloc(23, 20, 3)}},
        .options = tight()},
       [](const Tally& tally) { return tally.deferred > 0 && tally.host_waits > 0; }},
      {{.name = "TakenAgainByItsOwnStream",
        .threads = {{alloc(1, 30, 1), free(1), alloc(11, 60, 1), free(11)},
                    {record(1, 2), advance(2, 9), alloc(12, 10, 2), free(12)},
                    {record(1, 3), advance(3, 9), alloc(13, 10, 3), free(13)}},
        .options = tight()},
       [](const Tally& tally) { return tally.deferred > 0 && tally.host_waits > 0; }},
      {{.name = "Borrowing",
        .threads = {{alloc(1, 190, 1), free(1), alloc(11, 180, 1), free(11)},
                    {advance(1, 9), alloc(2, 170, 2), free(2), alloc(12, 170, 2)},
                    {advance(1, 9), alloc(3, 180, 3), record(2, 1), free(3)}},
        .capacity_granules = 80,
        .options = tight()},
       [](const Tally& tally) { return tally.borrowed > 0; }},
      // Nothing here is as long as a granule, so no memory can move: what a stream gets of another, it borrows.
      {{.name = "BorrowingAtTheLimit",
        .threads = {{alloc(1, 5, 1), alloc(11, 5, 1), free(1), alloc(21, 5, 1)},
                    {alloc(2, 5, 2), free(2), alloc(12, 5, 2), free(12)},
                    {alloc(3, 5, 3), free(3, 1), alloc(13, 5, 3), free(13)}},
        .capacity_granules = 1,
        .options = tight()},
       [](const Tally& tally) { return tally.borrowed > 0 && tally.stream_waits > 0; }},
      {{.name = "GrowingPastTheSlack",
        .threads = {{alloc(1, 20, 1), free(1), alloc(11, 30, 1), free(11)},
                    {alloc(2, 20, 2), free(2), alloc(12, 30, 2), free(12)},
                    {advance(1, 4), alloc(3, 40, 3), advance(2, 4), alloc(13, 40, 3)}},
        .capacity_granules = 12,
        .options = {.slack = 0.5}},
       [](const Tally& tally) { return tally.moved_bytes > 0; }},
  };
}

void print(const std::string& name, const Tally& tally) {
  const auto number = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
  std::printf(
      "%s: %llu interleavings, %llu operations, %llu kernels; %llu stitches, %llu behind a stream's wait, %llu behind "
      "the host's, %llu refused; %llu races, %llu of them with an unmap\n",
      name.c_str(), number(tally.interleavings), number(tally.operations), number(tally.kernels),
      number(tally.stitches), number(tally.stream_waits), number(tally.host_waits), number(tally.refused),
      number(tally.races), number(tally.unmap_races));
}

void report(const Tally& tally) {  // for the raw log
  testing::Test::RecordProperty("interleavings", std::to_string(tally.interleavings));
  testing::Test::RecordProperty("operations", std::to_string(tally.operations));
  testing::Test::RecordProperty("kernels", std::to_string(tally.kernels));
  testing::Test::RecordProperty("races", std::to_string(tally.races));
}

class Interleavings : public testing::TestWithParam<Case> {};

void expect_no_race(const Case& tested, std::uint64_t every) {
  const Tally tally = run_all_interleavings(tested.mix, every);
  print(tested.mix.name, tally);
  report(tally);
  EXPECT_EQ(tally.races, 0u) << tally.first_race;
  EXPECT_EQ(tally.wrong_content, 0u);
  EXPECT_EQ(tally.failure, "");
  EXPECT_TRUE(tested.reached(tally)) << "the program does not reach what it is there for";
  EXPECT_EQ(tally.interleavings, kInterleavings / every);
}

TEST_P(Interleavings, HaveNoRaceOnTheModel) {
  Case tested = GetParam();
  tested.mix.host = false;
  expect_no_race(tested, kEvery);
}

TEST_P(Interleavings, HaveNoRaceOnTheHostAndKeepTheContents) {
  expect_no_race(GetParam(), full_run() ? 1 : kEvery == 1 ? 15 : 525);
}

INSTANTIATE_TEST_SUITE_P(Mixes, Interleavings, testing::ValuesIn(cases()),
                         [](const auto& tested) { return tested.param.mix.name; });

TEST(RandomInterleavings, HaveNoRace) {
  Tally sum;
  constexpr std::uint64_t kFirstSeed = 1;
  constexpr std::uint64_t kMixes = kEvery == 1 ? 600 : 60;
  for (std::uint64_t seed = kFirstSeed; seed < kFirstSeed + kMixes; ++seed) {
    // From as small as the others to streams and operations of which no list of all orders can be made.
    Mix mix = random_mix(seed, static_cast<std::uint32_t>(2 + seed % 4), 4 + seed % 29);
    mix.host = full_run() || seed % 4 == 0;
    const Tally tally = run_some_interleavings(mix, seed, 20);
    ASSERT_EQ(tally.races, 0u) << tally.first_race;
    ASSERT_EQ(tally.wrong_content, 0u) << mix.name;
    ASSERT_EQ(tally.failure, "");
    sum.interleavings += tally.interleavings;
    sum.operations += tally.operations;
    sum.kernels += tally.kernels;
    sum.stitches += tally.stitches;
    sum.stream_waits += tally.stream_waits;
    sum.host_waits += tally.host_waits;
    sum.refused += tally.refused;
  }
  print("seeds 1 to " + std::to_string(kMixes), sum);
  report(sum);
  EXPECT_GT(sum.stream_waits, 0u);
  EXPECT_GT(sum.host_waits, 0u);
}

// A planted bug, the mix that meets it, and whether it has to end in an unmap of what may be in use too.
struct Bug {
  const char* name;
  Planted planted;
  const char* mix;
  bool unmaps = false;
};

class PlantedBugs : public testing::TestWithParam<Bug> {};

TEST_P(PlantedBugs, AreFoundByTheDetector) {
  const Bug& bug = GetParam();
  for (Case& found : cases()) {
    if (found.mix.name != bug.mix) continue;
    ASSERT_EQ(run_some_interleavings(found.mix, 2, 200).races, 0u);
    found.mix.planted = bug.planted;
    const Tally tally = run_some_interleavings(found.mix, 2, 200);
    print(bug.name, tally);
    report(tally);
    EXPECT_GT(tally.races, 0u);
    EXPECT_NE(tally.first_race, "");
    EXPECT_TRUE(!bug.unmaps || tally.unmap_races > 0);
    return;
  }
  FAIL() << "no mix of that name";
}

constexpr Bug kBugs[] = {
    {"DroppedStreamWait", Planted::no_device_waits, "TakingTurns"},
    {"MissingFenceWait", Planted::no_host_waits, "TakingTurnsWithoutStreamWaits"},
    {"MissingFenceWaitBeforeTrim", Planted::no_host_waits, "TrimmedMeanwhile", true},
    {"MissingRecordStream", Planted::unrecorded_streams, "RecordedUses"},
    {"RetireBeforeFence", Planted::passed_at_once, "MappingsRetiredAtOnce", true},
    {"EarlyReuseOfADeferredBlock", Planted::passed_at_once, "UsedByEveryStream"},
    {"FenceOfAnEarlierMoment", Planted::no_records, "FreedOnOtherStreams"},
    {"BorrowedBeforeTheOwnersFence", Planted::passed_at_once, "Borrowing"},
    {"BorrowedBehindADroppedWait", Planted::no_device_waits, "BorrowingAtTheLimit"},
};
INSTANTIATE_TEST_SUITE_P(Bugs, PlantedBugs, testing::ValuesIn(kBugs),
                         [](const auto& bug) { return std::string(bug.param.name); });

}  // namespace
}  // namespace gmlake::test
