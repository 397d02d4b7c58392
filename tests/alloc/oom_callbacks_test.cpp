// Release callbacks and observers: when they are called, what they may do, and that none of it can hang or recurse.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

#include "support/machine.hpp"

namespace gmlake::test {
namespace {

constexpr std::uint64_t kDevice = 40;  // granules

class OomCallbacks : public testing::Test {
 protected:
  OomCallbacks() : machine_(small_model(kDevice)) {}
  Allocator& allocator() { return machine_.allocator(); }

  Machine machine_;
};

TEST_F(OomCallbacks, AreAskedOnceEverythingElseHasFailed) {
  void* cache = machine_.allocate(30 * kGranule);
  machine_.deallocate(machine_.allocate(5 * kGranule, 1), 1);
  OutOfMemoryReport seen;
  int asked = 0;
  allocator().add_release_callback([&](const OutOfMemoryReport& report) {
    seen = report;
    ++asked;
    allocator().deallocate(cache);
    return true;
  });
  void* block = machine_.allocate(20 * kGranule);
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(seen.requested_bytes, 20 * kGranule);
  EXPECT_EQ(seen.allocated_bytes, 30 * kGranule);
  EXPECT_EQ(seen.remedy, Remedy::free_memory);
  EXPECT_EQ(seen.rung(Rung::wait).outcome, RungOutcome::too_little) << "waiting comes before asking";
  EXPECT_EQ(machine_.stats().rung_callbacks, 1u);
  EXPECT_EQ(machine_.stats().num_ooms, 0u);
  EXPECT_FALSE(allocator().last_oom().has_value());
  machine_.deallocate(block);
}

TEST_F(OomCallbacks, AreNotAskedWhereAnythingElseHelps) {
  int asked = 0;
  allocator().add_release_callback([&](const OutOfMemoryReport&) {
    ++asked;
    return true;
  });
  void* block = machine_.allocate(30 * kGranule);
  for (const std::uint64_t stream : {1, 2}) {
    machine_.streams().hold({0, stream});
    ASSERT_TRUE(machine_.device().launch({0, stream}, {{address_of(block), 30 * kGranule, false}}).ok());
    ASSERT_TRUE(allocator().try_record_stream(block, stream_handle(stream)).ok());
  }
  machine_.deallocate(block);
  machine_.deallocate(machine_.allocate(30 * kGranule));
  EXPECT_EQ(machine_.stats().rung_wait, 1u);
  EXPECT_EQ(asked, 0);
}

TEST_F(OomCallbacks, AreAllAskedInTheOrderOfTheirRegistration) {
  void* cache = machine_.allocate(30 * kGranule);
  std::vector<int> order;
  allocator().add_release_callback([&](const OutOfMemoryReport&) {
    order.push_back(1);
    return true;
  });
  allocator().add_release_callback([&](const OutOfMemoryReport&) {
    order.push_back(2);
    allocator().deallocate(cache);
    return true;
  });
  allocator().add_release_callback([&](const OutOfMemoryReport&) {
    order.push_back(3);
    return false;
  });
  machine_.deallocate(machine_.allocate(40 * kGranule));
  EXPECT_EQ(order, (std::vector{1, 2, 3}));
}

TEST_F(OomCallbacks, AreAskedAgainAsLongAsTheyFreeSomething) {
  std::vector<void*> cache;
  for (std::uint64_t i = 0; i < kDevice; ++i) cache.push_back(machine_.allocate(kGranule));
  std::uint32_t asked = 0;
  allocator().add_release_callback([&](const OutOfMemoryReport& report) {
    EXPECT_EQ(report.callback_rounds, asked);
    EXPECT_EQ(report.rung(Rung::callbacks).found_bytes, asked * kGranule);
    ++asked;
    allocator().deallocate(cache.back());
    cache.pop_back();
    return true;
  });
  void* block = machine_.allocate(10 * kGranule);
  EXPECT_EQ(asked, 10u);
  machine_.deallocate(block);
  for (void* pointer : cache) machine_.deallocate(pointer);
}

TEST_F(OomCallbacks, ThatClaimToFreeAndDoNotEndInTheError) {
  void* live = machine_.allocate(30 * kGranule);
  std::uint32_t asked = 0;
  allocator().add_release_callback([&](const OutOfMemoryReport&) {
    ++asked;
    return true;
  });
  EXPECT_EQ(machine_.refused(20 * kGranule).code, ErrorCode::out_of_memory);
  EXPECT_EQ(asked, kMaxCallbackRounds);
  const OutOfMemoryReport report = *allocator().last_oom();
  EXPECT_EQ(report.callback_rounds, kMaxCallbackRounds);
  EXPECT_EQ(report.rung(Rung::callbacks).outcome, RungOutcome::too_little);
  EXPECT_EQ(report.rung(Rung::callbacks).found_bytes, 0u);
  EXPECT_EQ(machine_.stats().num_ooms, 1u);
  machine_.deallocate(live);
}

TEST_F(OomCallbacks, ThatThrowCountAsNo) {
  void* live = machine_.allocate(30 * kGranule);
  int asked = 0;
  allocator().add_release_callback([&](const OutOfMemoryReport&) -> bool {
    ++asked;
    throw std::runtime_error("no");
  });
  allocator().add_release_callback([&](const OutOfMemoryReport&) -> bool {
    ++asked;
    throw 7;
  });
  EXPECT_EQ(machine_.refused(20 * kGranule).code, ErrorCode::out_of_memory);
  EXPECT_EQ(asked, 2);
  machine_.deallocate(live);
}

TEST_F(OomCallbacks, ThatRunOutThemselvesAreNotEnteredAgain) {
  void* live = machine_.allocate(30 * kGranule);
  int asked = 0;
  int told = 0;
  allocator().add_release_callback([&](const OutOfMemoryReport&) {
    ++asked;
    EXPECT_FALSE(allocator().try_allocate(25 * kGranule).ok());
    EXPECT_EQ(allocator().last_oom()->requested_bytes, 25 * kGranule);
    return false;
  });
  allocator().add_out_of_memory_observer([&](const OutOfMemoryReport& report) {
    ++told;
    EXPECT_EQ(report.requested_bytes, 20 * kGranule);
    EXPECT_FALSE(allocator().try_allocate(26 * kGranule).ok());
  });
  EXPECT_EQ(machine_.refused(20 * kGranule).code, ErrorCode::out_of_memory);
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(told, 1);
  EXPECT_EQ(machine_.stats().num_ooms, 3u);
  machine_.deallocate(live);
}

TEST_F(OomCallbacks, MayCallEverything) {
  void* live = machine_.allocate(30 * kGranule);
  allocator().add_release_callback([&](const OutOfMemoryReport& report) {
    void* own = allocator().allocate(2 * kGranule);
    allocator().record_stream(own, stream_handle(3));
    allocator().deallocate(own);
    EXPECT_TRUE(allocator().trim().ok());
    EXPECT_EQ(allocator().stats().num_ooms, 0u);
    EXPECT_EQ(allocator().snapshot().devices.size(), 1u);
    allocator().reset_peaks();
    allocator().check();
    EXPECT_EQ(allocator().size_of(live), 30 * kGranule);
    return report.limit_bytes == 35 * kGranule && allocator().set_limit(0).ok();  // the limit gives way
  });
  ASSERT_TRUE(allocator().set_limit(35 * kGranule).ok());
  machine_.deallocate(machine_.allocate(10 * kGranule));
  machine_.deallocate(live);
}

TEST_F(OomCallbacks, MayWaitForAnotherThreadThatUsesTheDevice) {
  void* cache = machine_.allocate(30 * kGranule);
  allocator().add_release_callback([&](const OutOfMemoryReport&) {
    std::thread other([&] {
      allocator().deallocate(allocator().allocate(5 * kGranule));
      EXPECT_TRUE(allocator().trim().ok());
      allocator().deallocate(cache);
    });
    other.join();
    return true;
  });
  void* block = machine_.allocate(35 * kGranule);
  EXPECT_NE(block, nullptr);
  machine_.deallocate(block);
}

TEST_F(OomCallbacks, MayRemoveThemselvesAndOthers) {
  void* live = machine_.allocate(30 * kGranule);
  int first = 0;
  int second = 0;
  CallbackId own = CallbackId::none;
  CallbackId other = CallbackId::none;
  auto held = std::make_shared<int>(5);
  const std::weak_ptr<int> watched = held;
  own = allocator().add_release_callback([&, held = std::move(held)](const OutOfMemoryReport&) {
    ++first;
    EXPECT_TRUE(allocator().remove_callback(own));
    EXPECT_FALSE(allocator().remove_callback(own)) << "it is gone already";
    EXPECT_TRUE(allocator().remove_callback(other));
    EXPECT_EQ(*held, 5) << "what it holds lives as long as it runs";
    return true;
  });
  other = allocator().add_release_callback([&](const OutOfMemoryReport&) {
    ++second;
    return true;
  });
  EXPECT_EQ(machine_.refused(20 * kGranule).code, ErrorCode::out_of_memory);
  EXPECT_EQ(first, 1);
  EXPECT_EQ(second, 0);
  EXPECT_TRUE(watched.expired());
  machine_.deallocate(live);
}

TEST_F(OomCallbacks, ThatAddOthersDoNotRunThemInTheSameRound) {
  void* live = machine_.allocate(30 * kGranule);
  int added = 0;
  int asked = 0;
  allocator().add_release_callback([&](const OutOfMemoryReport&) {
    ++added;
    allocator().add_release_callback([&](const OutOfMemoryReport&) {
      ++asked;
      return false;
    });
    return false;
  });
  EXPECT_EQ(machine_.refused(20 * kGranule).code, ErrorCode::out_of_memory);
  EXPECT_EQ(added, 1);
  EXPECT_EQ(asked, 0);
  EXPECT_EQ(machine_.refused(20 * kGranule).code, ErrorCode::out_of_memory);
  EXPECT_EQ(asked, 1);
  machine_.deallocate(live);
}

TEST_F(OomCallbacks, RunNoMoreOnceTheyAreRemoved) {
  void* live = machine_.allocate(30 * kGranule);
  std::atomic<bool> entered = false;
  std::atomic<bool> removing = false;
  std::atomic<bool> ended = false;
  const CallbackId id = allocator().add_release_callback([&](const OutOfMemoryReport&) {
    entered = true;
    while (!removing) std::this_thread::yield();
    for (int i = 0; i < 1000; ++i) std::this_thread::yield();
    ended = true;
    return true;
  });
  std::thread requester([&] { EXPECT_FALSE(allocator().try_allocate(20 * kGranule).ok()); });
  while (!entered) std::this_thread::yield();
  removing = true;
  EXPECT_TRUE(allocator().remove_callback(id));
  EXPECT_TRUE(ended) << "it was still running";
  entered = false;
  requester.join();
  EXPECT_FALSE(entered) << "it ran once more";
  EXPECT_FALSE(allocator().remove_callback(id));
  EXPECT_FALSE(allocator().remove_callback(CallbackId::none));
  machine_.deallocate(live);
}

// Each call starts a thread that runs out in turn: bounded, and every one of them gets its error.
TEST_F(OomCallbacks, ThatPassTheirWantToNewThreadsEnd) {
  void* live = machine_.allocate(30 * kGranule);
  std::atomic<std::size_t> depth = 0;
  allocator().add_release_callback([&](const OutOfMemoryReport&) {
    ++depth;
    std::thread next([&] { EXPECT_FALSE(allocator().try_allocate(20 * kGranule).ok()); });
    next.join();
    return false;
  });
  EXPECT_EQ(machine_.refused(20 * kGranule).code, ErrorCode::out_of_memory);
  EXPECT_EQ(depth, kMaxCallbackCalls);
  EXPECT_EQ(machine_.stats().num_ooms, kMaxCallbackCalls + 1);
  machine_.deallocate(live);
}

TEST_F(OomCallbacks, AreAskedForWantOfMappingsToo) {
  driver::ModelOptions device = small_model();
  device.granularity = 64_KiB;
  device.capacity_bytes = 2000 * device.granularity;
  Options options;
  options.max_mappings = 1024;
  options.max_phy_block_bytes = 64_KiB;
  Machine machine(device, options);
  void* cache = machine.allocate(1000 * device.granularity);
  machine.allocator().add_release_callback([&](const OutOfMemoryReport& report) {
    EXPECT_EQ(report.error.code, ErrorCode::too_many_mappings);
    machine.allocator().deallocate(cache);
    return true;
  });
  machine.deallocate(machine.allocate(100 * device.granularity));
}

TEST_F(OomCallbacks, AreNotAskedForWhatMemoryDoesNotMend) {
  int asked = 0;
  allocator().add_release_callback([&](const OutOfMemoryReport&) { return ++asked > 0; });
  allocator().add_out_of_memory_observer([&](const OutOfMemoryReport&) { ++asked; });
  machine_.fault().arm({.kind = Step::create, .nth = 1, .sticky = true, .code = ErrorCode::invalid_value});
  (void)machine_.refused(kGranule);
  machine_.fault().heal();
  (void)machine_.refused(UINT64_MAX);
  (void)machine_.refused(kGranule, 0, 5);
  EXPECT_EQ(asked, 0);
}

TEST_F(OomCallbacks, TellObserversOfTheErrorOnce) {
  void* live = machine_.allocate(30 * kGranule);
  std::vector<OutOfMemoryReport> told;
  allocator().add_out_of_memory_observer([](const OutOfMemoryReport&) { throw std::runtime_error("ignored"); });
  const CallbackId id =
      allocator().add_out_of_memory_observer([&](const OutOfMemoryReport& report) { told.push_back(report); });
  allocator().add_release_callback([](const OutOfMemoryReport&) { return true; });
  EXPECT_THROW(allocator().allocate(20 * kGranule), OutOfMemoryError);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].callback_rounds, kMaxCallbackRounds);
  EXPECT_EQ(describe(told[0]), describe(*allocator().last_oom()));
  machine_.deallocate(machine_.allocate(10 * kGranule));
  EXPECT_EQ(told.size(), 1u);
  EXPECT_TRUE(allocator().remove_callback(id));
  EXPECT_THROW(allocator().allocate(20 * kGranule), OutOfMemoryError);
  EXPECT_EQ(told.size(), 1u);
  machine_.deallocate(live);
}

// Threads that run out, free, add and remove, all at once: ThreadSanitizer and the books are the judges.
TEST_F(OomCallbacks, MayComeAndGoWhileManyThreadsRunOut) {
  std::atomic<std::uint64_t> asked = 0;
  std::atomic<std::uint64_t> refused = 0;
  allocator().add_release_callback([&](const OutOfMemoryReport& report) {
    ++asked;
    return report.callback_rounds < 2;
  });
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 100; ++i) {
        const CallbackId id = allocator().add_release_callback([&asked](const OutOfMemoryReport&) {
          ++asked;
          return false;
        });
        if (const Result<void*> pointer = allocator().try_allocate(15 * kGranule, 0, stream_handle(t))) {
          std::this_thread::yield();
          EXPECT_TRUE(allocator().try_deallocate(*pointer, stream_handle(t)).ok());
        } else {
          ++refused;
          EXPECT_EQ(allocator().last_oom()->requested_bytes, 15 * kGranule);
        }
        EXPECT_TRUE(allocator().remove_callback(id));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  allocator().check();
  EXPECT_EQ(machine_.stats().num_ooms, refused);
  EXPECT_EQ(machine_.stats().all.allocation.current, 0u);
}

}  // namespace
}  // namespace gmlake::test
