// Many threads on one allocator. ThreadSanitizer is the judge of races; here it is looked at that nothing is handed out
// twice, that the figures add up at the end, and that nobody waits for whom they need not.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include "base/mutex.hpp"
#include "support/machine.hpp"

namespace gmlake::test {
namespace {

constexpr std::uint64_t kThreads = 8;
constexpr std::uint64_t kStreams = 8;

#if defined(__SANITIZE_ADDRESS__) || (GMLAKE_CHECK_LEVEL >= 2)
constexpr int kOperations = 1'000;  // of each thread
#elif defined(__SANITIZE_THREAD__) || (GMLAKE_CHECK_LEVEL >= 1)
constexpr int kOperations = 20'000;
#else
constexpr int kOperations = 50'000;
#endif

// Every live block of every thread, by address: a range that overlaps another was handed out twice.
class LiveRanges {
 public:
  bool add(std::uint64_t begin, std::uint64_t bytes) {
    const MutexLock lock(mutex_);
    const auto next = ranges_.lower_bound(begin);
    if (next != ranges_.end() && next->first < begin + bytes) return false;
    if (next != ranges_.begin() && std::prev(next)->first + std::prev(next)->second > begin) return false;
    ranges_.emplace(begin, bytes);
    return true;
  }
  void remove(std::uint64_t begin) {
    const MutexLock lock(mutex_);
    ranges_.erase(begin);
  }

 private:
  Mutex mutex_;
  std::map<std::uint64_t, std::uint64_t> ranges_ GMLAKE_GUARDED_BY(mutex_);
};

struct Tally {
  std::atomic<std::uint64_t> allocated = 0;
  std::atomic<std::uint64_t> freed = 0;
  std::atomic<std::uint64_t> refused = 0;
  std::atomic<std::uint64_t> overlaps = 0;
  std::atomic<std::uint64_t> errors = 0;
};

// One thread's share: allocations of all sizes on all streams, frees, uses, now and then a trim or a look at the books.
void hammer(Allocator& allocator, std::uint64_t seed, std::uint64_t max_bytes, LiveRanges& ranges, Tally& tally) {
  std::mt19937_64 random(seed);
  struct Block {
    void* pointer;
    std::uint64_t stream;
  };
  std::vector<Block> blocks;
  const auto release = [&](std::size_t at) {
    ranges.remove(address_of(blocks[at].pointer));
    if (!allocator.try_deallocate(blocks[at].pointer, stream_handle(blocks[at].stream)).ok()) ++tally.errors;
    ++tally.freed;
    blocks[at] = blocks.back();
    blocks.pop_back();
  };
  for (int i = 0; i < kOperations; ++i) {
    const std::uint64_t dice = random() % 1000;
    if (dice < 2) {
      if (!allocator.trim(max_bytes).ok()) ++tally.errors;
    } else if (dice < 6) {
      (void)allocator.stats();
    } else if (dice < 8) {
      (void)allocator.snapshot();
    } else if (dice < 10) {
      allocator.reset_peaks();
    } else if (dice < 100 && !blocks.empty()) {
      const Block& block = blocks[random() % blocks.size()];
      if (!allocator.try_record_stream(block.pointer, stream_handle(random() % kStreams)).ok()) ++tally.errors;
      if (allocator.device_of(block.pointer) != 0 || allocator.size_of(block.pointer) == 0) ++tally.errors;
    } else if (blocks.size() < 24 && dice < 600) {
      const std::uint64_t bytes = 1 + (random() % max_bytes >> random() % 20);
      const std::uint64_t stream = random() % kStreams;
      const Result<void*> pointer = allocator.try_allocate(bytes, 0, stream_handle(stream));
      if (!pointer) {
        if (pointer.error().code != ErrorCode::out_of_memory) ++tally.errors;
        ++tally.refused;
        continue;
      }
      if (!ranges.add(address_of(*pointer), round_up(bytes, 512))) ++tally.overlaps;
      blocks.push_back({*pointer, stream});
      ++tally.allocated;
    } else if (!blocks.empty()) {
      release(random() % blocks.size());
    }
  }
  while (!blocks.empty()) release(0);
}

void run_threads(const std::function<void(std::uint64_t)>& body) {
  std::vector<std::thread> threads;
  for (std::uint64_t thread = 0; thread < kThreads; ++thread) threads.emplace_back(body, thread);
  for (std::thread& thread : threads) thread.join();
}

void expect_sane_after_hammering(std::uint64_t granules) {
  Machine machine(small_model(granules));
  LiveRanges ranges;
  Tally tally;
  run_threads([&](std::uint64_t thread) { hammer(machine.allocator(), 40 + thread, 16 * kGranule, ranges, tally); });
  machine.allocator().check();
  machine.device().check();
  EXPECT_EQ(tally.overlaps, 0u);
  EXPECT_EQ(tally.errors, 0u);
  EXPECT_EQ(tally.allocated, tally.freed);
  const DeviceStats stats = machine.stats();
  EXPECT_EQ(stats.all.allocation.current, 0u);
  EXPECT_EQ(stats.all.allocated_bytes.current, 0u);
  EXPECT_EQ(stats.all.requested_bytes.current, 0u);
  EXPECT_EQ(stats.all.allocation.allocated, tally.allocated);
  EXPECT_EQ(stats.all.allocation.freed, tally.freed);
  EXPECT_EQ(stats.num_ooms, tally.refused);
  EXPECT_EQ(stats.all.reserved_bytes.current, machine.device().usage().physical_bytes);
  EXPECT_EQ(stats.mappings, machine.device().usage().mappings);
  ASSERT_TRUE(machine.allocator().trim().ok());
  EXPECT_EQ(machine.device().usage(), driver::Usage{});
}

TEST(Threads, ShareOneAllocatorFarFromTheLimit) { expect_sane_after_hammering(4096); }

TEST(Threads, ShareOneAllocatorNearTheLimit) { expect_sane_after_hammering(100); }

TEST(Threads, FreeWhatOthersHaveAllocated) {
  Machine machine(small_model(4096));
  Mutex mutex;
  std::vector<void*> shared;
  std::atomic<std::uint64_t> refused = 0;
  run_threads([&](std::uint64_t thread) {
    std::mt19937_64 random(thread);
    for (int i = 0; i < kOperations / 4; ++i) {
      void* pointer = machine.allocator().allocate(1 + random() % (3 * kGranule), 0, stream_handle(thread));
      {
        const MutexLock lock(mutex);
        shared.push_back(pointer);
        std::swap(shared[random() % shared.size()], shared.back());
        pointer = shared.size() > 50 ? shared.back() : nullptr;
        if (pointer != nullptr) shared.pop_back();
      }
      if (!machine.allocator().try_deallocate(pointer, stream_handle(random() % kStreams)).ok()) ++refused;
    }
  });
  for (void* pointer : shared) machine.deallocate(pointer);
  EXPECT_EQ(refused, 0u);
  EXPECT_EQ(machine.stats().all.allocation.current, 0u);
}

// Two threads free the same pointer: one of them is told.
TEST(Threads, ThatFreeTheSamePointerAreToldOnce) {
  Machine machine;
  for (int round = 0; round < 200; ++round) {
    void* pointer = machine.allocator().allocate(kGranule);
    std::atomic<int> succeeded = 0;
    run_threads([&](std::uint64_t) {
      if (machine.allocator().try_deallocate(pointer, nullptr).ok()) ++succeeded;
    });
    EXPECT_EQ(succeeded, 1);
  }
}

TEST(Threads, MakeEachDeviceOnce) {
  driver::ModelOptions options = small_model();
  options.devices = 4;
  for (int round = 0; round < 50; ++round) {
    Machine machine(options);
    run_threads([&](std::uint64_t thread) {
      const int device = static_cast<int>(thread % 4);
      void* pointer = machine.allocator().allocate(kGranule, device, nullptr);
      EXPECT_EQ(machine.allocator().device_of(pointer), device);
      machine.allocator().deallocate(pointer, nullptr);
    });
    EXPECT_EQ(machine.allocator().snapshot().devices.size(), 4u);
  }
}

}  // namespace
}  // namespace gmlake::test
