// Many threads on one allocator. ThreadSanitizer is the judge of races; here it is looked at that nothing is handed out
// twice, that what is written stays, and that the figures add up at the end.
#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "base/mutex.hpp"
#include "support/contents.hpp"
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

// A block of real memory with its owner's stamp in every granule of it, first and last bytes included.
struct Stamped {
  std::byte* begin = nullptr;
  std::uint64_t bytes = 0;
  std::uint64_t stamp = 0;

  template <class Visit>
  void for_each_place(Visit visit) const {
    for (std::uint64_t at = 0; at + sizeof(stamp) <= bytes; at += kGranule) visit(begin + at);
    visit(begin + bytes - sizeof(stamp));
  }
  void write() const {
    for_each_place([this](std::byte* place) { std::memcpy(place, &stamp, sizeof(stamp)); });
  }
  bool intact() const {
    bool all = true;
    for_each_place([&](const std::byte* place) { all = all && std::memcmp(place, &stamp, sizeof(stamp)) == 0; });
    return all;
  }
};

// Blocks on their way from the thread that has them to one that frees them.
class Exchange {
 public:
  std::optional<Stamped> swap(std::mt19937_64& random, const Stamped& block) {
    const MutexLock lock(mutex_);
    blocks_.push_back(block);
    std::swap(blocks_[random() % blocks_.size()], blocks_.back());
    return blocks_.size() > 2 * kThreads ? take_last() : std::nullopt;
  }
  std::optional<Stamped> take() {
    const MutexLock lock(mutex_);
    return blocks_.empty() ? std::nullopt : take_last();
  }

 private:
  std::optional<Stamped> take_last() GMLAKE_REQUIRES(mutex_) {
    const Stamped block = blocks_.back();
    blocks_.pop_back();
    return block;
  }

  Mutex mutex_;
  std::vector<Stamped> blocks_ GMLAKE_GUARDED_BY(mutex_);
};

struct Counts {
  std::atomic<std::uint64_t> allocated = 0;
  std::atomic<std::uint64_t> freed = 0;
  std::atomic<std::uint64_t> refused = 0;
  std::atomic<std::uint64_t> damaged = 0;
  std::atomic<std::uint64_t> errors = 0;
};

// One thread among others: its blocks lie on all streams, one of which it alone names and forgets now and then; some
// are in a private pool; others free some of them; and it looks at the books, and gives memory back, at any time.
class Citizen {
 public:
  // `expects_zeros`: in what it gets for the common cache.
  Citizen(Allocator& allocator, Exchange& exchange, Counts& counts, std::uint64_t number, bool expects_zeros)
      : allocator_(allocator),
        exchange_(exchange),
        counts_(counts),
        number_(number),
        expects_zeros_(expects_zeros),
        random_(70 + number) {}

  void live(int operations) {
    for (int i = 0; i < operations; ++i) step();
    while (!blocks_.empty()) free(take_one());
    if (pool_begun_) leave_pool();
  }

 private:
  void step() {
    const std::uint64_t dice = random_() % 1000;
    if (dice < 3) {
      expect(allocator_.trim(random_() % (64 * kGranule)));
    } else if (dice < 6) {
      (void)allocator_.stats();
      (void)allocator_.snapshot();
    } else if (dice < 10) {
      expect(allocator_.forget_stream(stream_handle(own_stream())));
    } else if (dice < 15) {
      pool_begun_ ? leave_pool() : enter_pool();
    } else if (dice < 100 && !blocks_.empty()) {
      expect(allocator_.try_record_stream(blocks_[random_() % blocks_.size()].begin, any_stream()));
    } else if (dice < 200 && !blocks_.empty()) {
      if (const std::optional<Stamped> other = exchange_.swap(random_, take_one())) free(*other);
    } else if (blocks_.size() < 12 && dice < 600) {
      allocate();
    } else if (!blocks_.empty()) {
      free(take_one());
    }
  }

  std::uint64_t own_stream() const { return 100 + number_; }
  StreamHandle any_stream() { return stream_handle(random_() % kStreams); }
  void expect(const Status& status) {
    if (!status.ok()) ++counts_.errors;
  }

  void enter_pool() {
    pool_ = {number_ + 1, ++pools_};
    expect(allocator_.begin_pool(pool_, 0,
                                 [own = stream_handle(own_stream())](StreamHandle asked) { return asked == own; }));
    pool_begun_ = true;
  }
  void leave_pool() {
    expect(allocator_.end_pool(pool_, 0));
    expect(allocator_.release_pool(pool_, 0));
    pool_begun_ = false;
  }

  void allocate() {
    const std::uint64_t words = 1 + (random_() % kGranule >> random_() % 16);  // up to 8 granules
    const std::uint64_t bytes = words * sizeof(Stamped::stamp);
    const StreamHandle stream = random_() % 4 == 0 ? stream_handle(own_stream()) : any_stream();
    const Result<void*> pointer = allocator_.try_allocate(bytes, 0, stream);
    if (!pointer) {
      if (pointer.error().code != ErrorCode::out_of_memory) ++counts_.errors;
      ++counts_.refused;
      return;
    }
    ++counts_.allocated;
    const bool in_pool = pool_begun_ && stream == stream_handle(own_stream());
    if (expects_zeros_ && !in_pool && !is_zero(address_of(*pointer), bytes)) ++counts_.damaged;
    blocks_.push_back({static_cast<std::byte*>(*pointer), bytes, number_ << 32 | ++stamps_});
    blocks_.back().write();
  }
  Stamped take_one() {
    std::swap(blocks_[random_() % blocks_.size()], blocks_.back());
    const Stamped block = blocks_.back();
    blocks_.pop_back();
    return block;
  }
  void free(const Stamped& block) {
    if (!block.intact()) ++counts_.damaged;
    expect(random_() % 4 == 0 ? allocator_.try_deallocate(block.begin, any_stream())
                              : allocator_.try_deallocate(block.begin));
    ++counts_.freed;
  }

  Allocator& allocator_;
  Exchange& exchange_;
  Counts& counts_;
  const std::uint64_t number_;
  const bool expects_zeros_;
  std::mt19937_64 random_;
  std::vector<Stamped> blocks_;
  std::uint64_t stamps_ = 0;
  PoolId pool_;
  std::uint64_t pools_ = 0;
  bool pool_begun_ = false;
};

// Real memory, near its end, with the background worker's thread: what is stitched is shared by nobody.
class ThreadsOnRealMemory : public testing::TestWithParam<bool> {};

TEST_P(ThreadsOnRealMemory, FindWhatTheyWroteWhileAllElseGoesOn) {
  Result<std::unique_ptr<driver::HostDriver>> device = driver::HostDriver::make({.capacity_bytes = 128 * kGranule});
  if (!device) GTEST_SKIP() << describe(device.error());
  Options options;
  options.zero_on_free = GetParam();
  Machine machine(std::move(*device), options, nullptr, Worker::thread);
  Exchange exchange;
  Counts counts;
  run_threads([&](std::uint64_t thread) {
    Citizen(machine.allocator(), exchange, counts, thread, GetParam()).live(kOperations / (GetParam() ? 40 : 5));
  });
  while (const std::optional<Stamped> block = exchange.take()) {
    counts.damaged += !block->intact();
    machine.deallocate(block->begin);
    ++counts.freed;
  }
  machine.allocator().check();
  machine.device().check();
  EXPECT_EQ(counts.damaged, 0u);
  EXPECT_EQ(counts.errors, 0u);
  EXPECT_GT(counts.allocated, 10 * counts.refused);
  const DeviceStats stats = machine.stats();
  EXPECT_EQ(stats.all.allocation.allocated, counts.allocated);
  EXPECT_EQ(stats.all.allocation.freed, counts.freed);
  EXPECT_EQ(stats.all.allocated_bytes.current, 0u);
  EXPECT_EQ(stats.all.reserved_bytes.current, machine.device().usage().physical_bytes);
  EXPECT_GT(stats.stitches, 0u);
  ASSERT_TRUE(machine.allocator().trim().ok());
  EXPECT_EQ(machine.device().usage(), driver::Usage{});
}

INSTANTIATE_TEST_SUITE_P(ZeroOnFree, ThreadsOnRealMemory, testing::Bool(), testing::PrintToStringParamName());

// All threads allocate, and then all free: what they hold peaks where the last has allocated, whoever that is.
TEST(Threads, LeaveThePeakOfWhatTheyHoldTogether) {
  Machine machine(small_model(4096));
  constexpr std::uint64_t kBlocks = 40;
  std::atomic<std::uint64_t> wrong = 0;
  std::atomic<std::uint64_t> held = 0;
  std::atomic<std::uint64_t> highest = 0;
  std::barrier<> everybody(kThreads);
  run_threads([&](std::uint64_t thread) {
    std::mt19937_64 random(90 + thread);
    for (int round = 0; round < kOperations / 500; ++round) {
      std::vector<void*> blocks;
      std::uint64_t bytes = 0;
      for (std::uint64_t i = 0; i < kBlocks; ++i) {
        const std::uint64_t wanted = 512 << random() % 11;
        blocks.push_back(machine.allocator().allocate(wanted, 0, stream_handle((thread + i) % (2 * kStreams))));
        bytes += wanted;
      }
      held += bytes;
      everybody.arrive_and_wait();
      if (thread == 0) {
        if (held > highest) highest = held.load();
        const PoolStats now = machine.stats().all;
        if (now.allocated_bytes.current != held || now.allocated_bytes.peak != highest) ++wrong;
        if (now.allocation.current != kThreads * kBlocks || now.allocation.peak != kThreads * kBlocks) ++wrong;
        if (round % 8 == 7) machine.allocator().check();
        if (round % 8 == 5) {
          machine.allocator().reset_peaks();
          highest = held.load();
        }
      }
      everybody.arrive_and_wait();
      held -= bytes;
      for (void* block : blocks) machine.allocator().deallocate(block);
      everybody.arrive_and_wait();
    }
  });
  EXPECT_EQ(wrong, 0u);
  EXPECT_EQ(machine.stats().all.allocated_bytes.current, 0u);
}

// Streams end, and their memory and live blocks go to others, while hits on all streams go on: some free what lies on a
// stream that ends, some pointers that are none, and each of them is told.
TEST(Threads, HitWhileStreamsAreForgotten) {
  Machine machine(small_model(4096));
  Allocator& allocator = machine.allocator();
  LiveRanges ranges;
  Mutex mutex;
  std::vector<void*> shared;
  std::atomic<std::uint64_t> errors = 0;
  std::atomic<std::uint64_t> overlaps = 0;
  run_threads([&](std::uint64_t thread) {
    std::mt19937_64 random(120 + thread);
    const auto free_one = [&](void* pointer) {
      ranges.remove(address_of(pointer));
      if (!allocator.try_deallocate(pointer).ok()) ++errors;
      if (random() % 4 != 0) return;
      // Into the middle of a block that may be live, and past every segment.
      if (allocator.try_deallocate(static_cast<std::byte*>(pointer) + 256).ok()) ++errors;
      if (allocator.try_deallocate(stream_handle(UINT64_MAX / 2 + random() % 1024)).ok()) ++errors;
    };
    std::uint64_t own = thread;
    for (int i = 0; i < kOperations / 4; ++i) {
      if (random() % 200 == 0) {
        if (!allocator.forget_stream(stream_handle(own)).ok()) ++errors;
        own = random() % 4 == 0 ? own : own + kThreads;  // the same handle again, or a new one
      }
      const std::uint64_t bytes = random() % 8 == 0 ? 1 + random() % (3 * kGranule) : 512 << random() % 8;
      const Result<void*> pointer = allocator.try_allocate(bytes, 0, stream_handle(own));
      if (!pointer) {
        ++errors;
        continue;
      }
      if (!ranges.add(address_of(*pointer), round_up(bytes, 512))) ++overlaps;
      void* old = nullptr;
      {
        const MutexLock lock(mutex);
        shared.push_back(*pointer);
        std::swap(shared[random() % shared.size()], shared.back());
        if (shared.size() > 64) {
          old = shared.back();
          shared.pop_back();
        }
      }
      if (old != nullptr) free_one(old);
    }
  });
  allocator.check();
  for (void* pointer : shared) {
    ASSERT_TRUE(allocator.try_deallocate(pointer).ok());
    allocator.check();
  }
  EXPECT_EQ(errors, 0u);
  EXPECT_EQ(overlaps, 0u);
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
