// The host runs out of memory while the device does, or instead: the report is made all the same, and the books stand.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "support/failing_new.hpp"
#include "support/machine.hpp"
#include "support/race_detector.hpp"
#include "support/sheltered_driver.hpp"

namespace gmlake::test {
namespace {

using gmlake::testing::FailingNew;
using gmlake::testing::NoFailingNew;

// An allocator on a driver that has host memory whatever happens, as real ones do.
struct Rig {
  explicit Rig(std::uint64_t granules) : model(small_model(granules)), sheltered(model) {
    allocator = std::move(Allocator::create(sheltered, {.background_worker = false})).value();
  }
  void* allocate(std::uint64_t bytes, std::uint64_t stream) {
    void* pointer = allocator->allocate(bytes, 0, stream_handle(stream));
    allocator->check();
    return pointer;
  }
  void deallocate(void* pointer, std::uint64_t stream) {
    EXPECT_TRUE(allocator->try_deallocate(pointer, stream_handle(stream)).ok());
    allocator->check();
  }

  driver::ModelDriver model;
  testing::ShelteredDriver sheltered;
  std::unique_ptr<Allocator> allocator;
};

TEST(OomOfTheHost, IsReportedAsThat) {
  Rig rig(100);
  void* live = rig.allocate(10 * kGranule, 0);
  std::optional<OutOfMemoryReport> report;
  {
    const FailingNew failing(1, true);
    try {
      (void)rig.allocator->allocate(20 * kGranule, 0, stream_handle(5));
    } catch (const OutOfMemoryError& error) {
      const NoFailingNew none;
      report = error.report();
      EXPECT_EQ(describe(error.report()), error.what());
    }
  }
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(report->remedy, Remedy::host_memory);
  EXPECT_EQ(report->requested_bytes, 20 * kGranule);
  EXPECT_EQ(report->allocated_bytes, 10 * kGranule);
  EXPECT_EQ(rig.allocator->stats().num_ooms, 1u);
  rig.allocator->check();
  rig.deallocate(rig.allocate(20 * kGranule, 5), 5);
  rig.deallocate(live, 0);
}

// A request that the device cannot meet, with each allocation of the host failing in turn, and all after it: each time
// there is an error and its report, observers are told, and the same request succeeds once there is room.
TEST(OomOfTheHost, LosesNoReportOfTheDevices) {
  std::uint64_t failed = 0;
  for (std::uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE("allocation " + std::to_string(nth));
    Rig rig(60);
    std::vector<void*> blocks;
    for (int i = 0; i < 6; ++i) blocks.push_back(rig.allocate(8 * kGranule, static_cast<std::uint64_t>(i % 2)));
    for (std::size_t i = 0; i < blocks.size(); i += 3) rig.deallocate(blocks[i], i % 2);
    std::uint64_t told = 0;
    std::uint64_t asked = 0;
    rig.allocator->add_out_of_memory_observer([&](const OutOfMemoryReport&) { ++told; });
    rig.allocator->add_release_callback([&](const OutOfMemoryReport&) {
      ++asked;
      return false;
    });
    bool reached = false;
    bool thrown = false;
    {
      const FailingNew failing(nth, nth % 2 == 0);
      try {
        (void)rig.allocator->allocate(50 * kGranule, 0, stream_handle(2));
      } catch (const OutOfMemoryError& error) {
        thrown = error.report().requested_bytes == 50 * kGranule;
      }
      reached = failing.reached();
    }
    EXPECT_TRUE(thrown);
    EXPECT_EQ(told, 1u);
    EXPECT_LE(asked, 1u);
    const std::optional<OutOfMemoryReport> report = rig.allocator->last_oom();
    ASSERT_TRUE(report.has_value());
    EXPECT_EQ(report->requested_bytes, 50 * kGranule);
    rig.allocator->check();
    rig.model.check();
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      if (i % 3 != 0) rig.deallocate(blocks[i], i % 2);
    }
    rig.deallocate(rig.allocate(50 * kGranule, 2), 2);
    if (!reached) break;
    ++failed;
  }
  EXPECT_GT(failed, 3u) << "nothing was made to fail";
}

TEST(OomOfTheHost, AddsACallbackOrDoesNot) {
  for (std::uint64_t nth = 1;; ++nth) {
    Machine machine(small_model(10));
    int asked = 0;
    bool added = false;
    bool reached = false;
    {
      const FailingNew failing(nth);
      try {
        machine.allocator().add_release_callback([&](const OutOfMemoryReport&) { return ++asked > 100; });
        added = true;
      } catch (const std::bad_alloc&) {
      }
      reached = failing.reached();
    }
    (void)machine.refused(10 * kGranule + 1);
    EXPECT_NE(added, reached);
    if (!reached) break;
  }
}

// A window that was made out of another stream's memory, behind a wait for it, and that is left free for want of a
// record: every event recorded up to then says nothing about it. Whoever takes it next has to come after that wait too.
TEST(OomOfTheHost, LeavesAWindowBehindAStreamsWaitToThoseWhoComeAfterIt) {
  constexpr std::uint64_t kBytes = 30 * kGranule;
  std::uint64_t left_free = 0;
  for (std::uint64_t live = 79; live < 82 && !HasFailure(); ++live) {  // the table of live blocks grows at 80
    bool reached = true;
    for (std::uint64_t nth = 1; reached && !HasFailure(); ++nth) {
      SCOPED_TRACE(std::to_string(live) + " live blocks, allocation " + std::to_string(nth));
      driver::ModelDriver model(small_model(40));
      RaceDetector races(model);
      testing::ShelteredDriver sheltered(races);
      const auto allocator = std::move(Allocator::create(sheltered, {.background_worker = false})).value();
      const auto use = [&](const void* block, std::uint64_t stream) {
        const std::vector<driver::Access> accesses = {{address_of(block), kBytes, true}};
        races.kernel({0, stream}, accesses);
        EXPECT_TRUE(model.launch({0, stream}, accesses).ok());
      };
      model.streams().hold({0, 1});
      void* first = allocator->allocate(kBytes, 0, stream_handle(1));
      use(first, 1);
      ASSERT_TRUE(allocator->try_deallocate(first, stream_handle(1)).ok());
      for (std::uint64_t i = 0; i < live; ++i) (void)allocator->allocate(512, 0, stream_handle(4));
      const std::uint64_t stitches = allocator->stats().stitches;
      bool refused = false;
      {
        const FailingNew failing(nth);
        refused = !allocator->try_allocate(kBytes, 0, stream_handle(2)).ok();
        reached = failing.reached();
      }
      allocator->check();
      if (refused) {
        left_free += allocator->stats().stitches - stitches;
        const Result<void*> next = allocator->try_allocate(kBytes, 0, stream_handle(3));
        ASSERT_TRUE(next.ok()) << describe(next.error());
        use(*next, 3);
        EXPECT_TRUE(races.races().empty()) << describe(races.races().front());
        allocator->check();
      }
      model.streams().advance_all();
      races.synchronize();
    }
  }
  EXPECT_GT(left_free, 0u) << "no window was left free";
}

// A record_stream that the host had no memory for leaves a block that no other stream is known to use: freed, it is
// free.
TEST(OomOfTheHost, LosesNoBlockWhoseUseCouldNotBeNoted) {
  bool reached = true;
  std::uint64_t refused = 0;
  for (std::uint64_t nth = 1; reached; ++nth) {
    SCOPED_TRACE("allocation " + std::to_string(nth));
    Rig rig(60);
    void* block = rig.allocate(4 * kGranule, 1);
    rig.deallocate(rig.allocate(512, 2), 2);  // the stream is known
    Status recorded;
    {
      const FailingNew failing(nth);
      recorded = rig.allocator->try_record_stream(block, stream_handle(2));
      reached = failing.reached();
    }
    rig.allocator->check();
    refused += recorded.ok() ? 0 : 1;
    rig.deallocate(block, 1);
    EXPECT_EQ(rig.allocator->stats().all.active_bytes.current, recorded.ok() ? 4 * kGranule : 0u);
  }
  EXPECT_GT(refused, 0u);
}

}  // namespace
}  // namespace gmlake::test
