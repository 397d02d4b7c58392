// Forks: the child is told, takes no lock and makes no driver call, and the parent does not notice.
#include <gtest/gtest.h>

#include <atomic>
#include <semaphore>
#include <thread>
#include <vector>

#include "process/child.hpp"
#include "support/host_default.hpp"
#include "support/machine.hpp"

namespace gmlake::test {
namespace {

bool forked(const Status& status) { return !status.ok() && status.error().code == ErrorCode::forked; }
template <class T>
bool forked(const Result<T>& result) {
  return !result.ok() && result.error().code == ErrorCode::forked;
}

// Calls everything that an allocator of the parent has. 0, or the number of the first call that did not do as it must.
int call_all_in_child(Allocator& allocator, void* live) {
  if (!forked(allocator.try_allocate(1 << 20))) return 1;
  if (!forked(allocator.try_allocate(0))) return 2;
  if (!forked(allocator.try_allocate(1 << 20, 0, stream_handle(9)))) return 3;
  if (!forked(allocator.try_deallocate(live))) return 4;
  if (!forked(allocator.try_deallocate(live, stream_handle(3)))) return 5;
  if (!allocator.try_deallocate(nullptr).ok()) return 6;
  if (!forked(allocator.try_record_stream(live, stream_handle(2)))) return 7;
  if (!forked(allocator.trim())) return 8;
  allocator.deallocate(live);
  allocator.deallocate(live, stream_handle(3));
  allocator.reset_peaks();
  allocator.check();
  if (allocator.stats().all.allocation.current != 0 || allocator.stats().invalid_frees != 0) return 9;
  if (!allocator.snapshot().devices.empty()) return 10;
  if (allocator.device_of(live) != -1 || allocator.size_of(live) != 0) return 11;
  if (!allocator.phy_blocks(live).empty()) return 12;
  try {
    allocator.allocate(512);
    return 13;
  } catch (const AllocationError& error) {
    if (error.error().code != ErrorCode::forked) return 14;
  }
  if (!forked(try_create_vir_block(512, {.allocator = &allocator}))) return 15;
  if (!forked(allocator.set_limit(1 << 30)) || !forked(allocator.set_limit_fraction(0.5))) return 16;
  if (!forked(allocator.limit()) || !forked(allocator.limit_fraction())) return 17;
  if (allocator.last_oom() || allocator.pool_references({1, 0}, 0) != 0) return 18;
  const CallbackId asked = allocator.add_release_callback([](const OutOfMemoryReport&) { return false; });
  const CallbackId told = allocator.add_out_of_memory_observer([](const OutOfMemoryReport&) {});
  if (asked != CallbackId::none || told != CallbackId::none || allocator.remove_callback(asked)) return 19;
  if (!forked(allocator.keep_history(16)) || !forked(allocator.forget_stream(stream_handle(3)))) return 20;
  if (allocator.background_step()) return 21;
  return 0;
}

// An allocator on a model, whose calls are counted.
struct Counted {
  driver::ModelDriver model{small_model()};
  driver::RecordDriver calls{model};
  std::unique_ptr<Allocator> allocator = Allocator::create(calls).value();
};

TEST(Fork, IsToldToTheChildByEveryCallAndTheParentDoesNotNotice) {
  Counted machine;
  Allocator& allocator = *machine.allocator;
  void* live = allocator.allocate(5 << 20);
  void* cached = allocator.allocate(9 << 20);
  allocator.deallocate(cached);
  EXPECT_EQ(in_child([&] {
              const driver::CallCounts before = machine.calls.counts();
              if (const int failed = call_all_in_child(allocator, live)) return failed;
              machine.allocator.reset();
              return machine.calls.counts() == before ? 0 : 100;
            }),
            0);
  allocator.check();
  EXPECT_EQ(allocator.stats().all.allocation.current, 1u);
  EXPECT_EQ(allocator.stats().invalid_frees, 0u);
  EXPECT_EQ(allocator.allocate(9 << 20), cached);
  allocator.deallocate(cached);
  allocator.deallocate(live);
  EXPECT_TRUE(allocator.trim().ok());
  EXPECT_EQ(machine.model.usage().physical_bytes, 0u);
}

// On real memory: the child has none of it, and its destructors leave the pages alone.
TEST(Fork, LeavesTheBytesToTheParent) {
  std::unique_ptr<Allocator> allocator = Allocator::create({.driver = DriverKind::host}).value();
  constexpr std::size_t kWords = (8 << 20) / sizeof(std::uint64_t);
  auto* words = static_cast<std::uint64_t*>(allocator->allocate(kWords * sizeof(std::uint64_t)));
  for (std::size_t i = 0; i < kWords; ++i) words[i] = i;
  EXPECT_EQ(in_child([&] {
              if (const int failed = call_all_in_child(*allocator, words)) return failed;
              allocator.reset();
              return 0;
            }),
            0);
  for (std::size_t i = 0; i < kWords; ++i) ASSERT_EQ(words[i], i);
  allocator->deallocate(words);
}

TEST(Fork, LeavesVirBlocksToTheParent) {
  Counted machine;
  std::unique_ptr<VirBlock> block = create_vir_block(3 << 20, {.allocator = machine.allocator.get()});
  EXPECT_EQ(in_child([&] {
              if (!block->phy_blocks().empty()) return 1;
              if (!forked(block->release()) || block->released()) return 2;
              block.reset();
              return 0;
            }),
            0);
  EXPECT_FALSE(block->phy_blocks().empty());
  EXPECT_TRUE(block->release().ok());
}

TEST(Fork, OfAForkKnowsNeitherOfTheTwoAbove) {
  Counted first;
  void* live = first.allocator->allocate(4096);
  EXPECT_EQ(in_child([&] {
              Counted second;
              void* own = second.allocator->allocate(4096);
              const int failed = in_child([&] {
                if (const int failed_first = call_all_in_child(*first.allocator, live)) return failed_first;
                return call_all_in_child(*second.allocator, own);
              });
              if (failed != 0) return failed;
              return second.allocator->try_deallocate(own).ok() ? 0 : 101;
            }),
            0);
  first.allocator->deallocate(live);
}

TEST(Fork, LetsTheChildMakeAnAllocatorOfItsOwn) {
  std::unique_ptr<Allocator> parents = Allocator::create({.driver = DriverKind::host}).value();
  auto* word = static_cast<std::uint64_t*>(parents->allocate(2 << 20));
  *word = 41;
  EXPECT_EQ(in_child([] {
              const Result<std::unique_ptr<Allocator>> own = Allocator::create({.driver = DriverKind::host});
              if (!own) return 1;
              for (int round = 0; round < 3; ++round) {
                auto* mine = static_cast<std::uint64_t*>((*own)->allocate(2 << 20));
                *mine = 42;
                if (!(*own)->try_deallocate(mine).ok() || !(*own)->trim().ok()) return 2;
              }
              (*own)->check();
              return 0;
            }),
            0);
  EXPECT_EQ(*word, 41u);
  parents->deallocate(word);
}

// A thread stands in the driver, with the lock of whoever changes mappings held, while another one forks.
TEST(Fork, InheritsNoLockThatAnotherThreadHolds) {
  Counted machine;
  Allocator& allocator = *machine.allocator;
  void* live = allocator.allocate(5 << 20);
  machine.model.streams().hold({0, 7});
  void* used = allocator.allocate(2 << 20, 0, stream_handle(7));
  std::binary_semaphore inside{0};
  std::binary_semaphore go_on{0};
  ASSERT_TRUE(machine.model
                  .launch({0, 7}, {},
                          [&] {
                            inside.release();
                            go_on.acquire();
                          })
                  .ok());
  allocator.deallocate(used, stream_handle(7));
  std::thread waiter([&] { EXPECT_TRUE(allocator.trim().ok()); });  // for the work of stream 7
  inside.acquire();
  EXPECT_EQ(in_child([&] {
              if (const int failed = call_all_in_child(allocator, live)) return failed;
              machine.allocator.reset();
              return 0;
            }),
            0);
  go_on.release();
  waiter.join();
  allocator.check();
  allocator.deallocate(live);
}

// And threads that take the locks of the hot path all the time: some fork falls between lock and unlock.
// Not under a sanitizer, whose own malloc leaves a child the locks that other threads held.
TEST(Fork, ManyTimesInheritsNoLockOfTheHotPath) {
#if defined(GMLAKE_SANITIZED)
  GTEST_SKIP() << "the sanitizer's malloc may be locked in the child";
#endif
  Counted machine;
  Allocator& allocator = *machine.allocator;
  void* live = allocator.allocate(5 << 20);
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (std::uint64_t stream = 1; stream <= 3; ++stream) {
    threads.emplace_back([&, stream] {
      while (!stop.load()) {
        void* pointer = allocator.allocate(3 << 20, 0, stream_handle(stream));
        allocator.deallocate(pointer, stream_handle(stream % 3 + 1));
      }
    });
  }
  for (int round = 0; round < 100; ++round) {
    EXPECT_EQ(in_child([&] {
                if (const int failed = call_all_in_child(allocator, live)) return failed;
                machine.allocator.reset();
                return 0;
              }),
              0);
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  allocator.check();
  allocator.deallocate(live);
}

TEST(Fork, GivesTheDefaultAllocatorOfTheParentNoUse) {
  Allocator& allocator = default_allocator();
  void* live = allocator.allocate(1 << 20);
  EXPECT_EQ(in_child([&] {
              if (&default_allocator() != &allocator) return 50;
              return call_all_in_child(default_allocator(), live);
            }),
            0);
  EXPECT_TRUE(allocator.try_deallocate(live).ok());
}

}  // namespace
}  // namespace gmlake::test
