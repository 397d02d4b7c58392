// The counters that PyTorch has too, against their meaning: peaks against the highest value seen, cached runs against
// the snapshot, names against PyTorch's.
#include <array>
#include <fstream>
#include <iterator>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "support/machine.hpp"

namespace gmlake::test {
namespace {

constexpr std::array kFields = {
    &PoolStats::allocation,      &PoolStats::segment,        &PoolStats::active,       &PoolStats::inactive_split,
    &PoolStats::allocated_bytes, &PoolStats::reserved_bytes, &PoolStats::active_bytes, &PoolStats::inactive_split_bytes,
    &PoolStats::requested_bytes,
};
constexpr std::array kNames = {"allocation",      "segment",        "active",       "inactive_split",
                               "allocated_bytes", "reserved_bytes", "active_bytes", "inactive_split_bytes",
                               "requested_bytes"};
constexpr std::array kPools = {&DeviceStats::all, &DeviceStats::small_pool, &DeviceStats::large_pool};

// The highest value of each counter that was ever read.
class Watch {
 public:
  void look(const DeviceStats& stats) {
    for (std::size_t pool = 0; pool < kPools.size(); ++pool) {
      for (std::size_t field = 0; field < kFields.size(); ++field) {
        const Stat& stat = stats.*kPools[pool].*kFields[field];
        std::uint64_t& highest = highest_[pool][field];
        Stat& last = last_[pool][field];
        highest = std::max(highest, stat.current);
        const std::string name = std::string(kNames[field]) + ", pool " + std::to_string(pool);
        ASSERT_EQ(stat.current, stat.allocated - stat.freed) << name;
        ASSERT_GE(stat.allocated, last.allocated) << name;
        ASSERT_GE(stat.freed, last.freed) << name;
        ASSERT_GE(stat.peak, highest) << name;
        last = stat;
      }
    }
  }
  // The peaks of the fields from `first` to `last` are the highest values read, to the byte.
  void expect_exact(std::initializer_list<std::size_t> fields) const {
    for (std::size_t pool = 0; pool < kPools.size(); ++pool) {
      for (const std::size_t field : fields) {
        EXPECT_EQ(last_[pool][field].peak, highest_[pool][field]) << kNames[field] << ", pool " << pool;
      }
    }
  }
  void forget() { highest_ = {}; }

 private:
  std::array<std::array<std::uint64_t, kFields.size()>, kPools.size()> highest_{};
  std::array<std::array<Stat, kFields.size()>, kPools.size()> last_{};
};

bool active(const BlockInfo& block) {
  return block.state == BlockInfo::State::live || block.state == BlockInfo::State::pending;
}

// The counters of what is held now, from the list of segments and blocks alone.
void expect_as_listed(const Machine& machine, Allocator& allocator) {
  std::array<PoolStats, 2> listed{};
  const Snapshot snapshot = allocator.snapshot();
  for (const SegmentInfo& segment : snapshot.devices.at(0).segments) {
    PoolStats& pool = listed[segment.small ? 0 : 1];
    pool.segment.current += 1;
    for (std::size_t i = 0; i < segment.blocks.size(); ++i) {
      const BlockInfo& block = segment.blocks[i];
      if (block.state == BlockInfo::State::hole) continue;
      pool.reserved_bytes.current += block.bytes;
      if (active(block)) {
        pool.active.current += 1;
        pool.active_bytes.current += block.bytes;
      }
      if (block.state == BlockInfo::State::live) {
        pool.allocation.current += 1;
        pool.allocated_bytes.current += block.bytes;
        pool.requested_bytes.current += block.requested_bytes;
      }
      if (block.state == BlockInfo::State::free) {
        pool.inactive_split.current += 1;
        pool.inactive_split_bytes.current += block.bytes;
      }
    }
  }
  const DeviceStats stats = machine.stats();
  for (std::size_t field = 0; field < kFields.size(); ++field) {
    const auto stat = kFields[field];
    ASSERT_EQ((stats.small_pool.*stat).current, (listed[0].*stat).current) << kNames[field];
    ASSERT_EQ((stats.large_pool.*stat).current, (listed[1].*stat).current) << kNames[field];
    ASSERT_EQ((stats.all.*stat).current, (listed[0].*stat).current + (listed[1].*stat).current) << kNames[field];
  }
}

// A job of both size classes: most blocks die young, all of them now and then.
void run_job(Machine& machine, std::uint64_t seed, std::uint64_t streams, Watch& watch) {
  std::mt19937_64 random(seed);
  struct Held {
    void* pointer;
    std::uint64_t stream;
  };
  std::vector<Held> held;
  Allocator& allocator = machine.allocator();
  for (std::uint64_t stream = 1; stream < streams; ++stream) machine.streams().hold({0, stream});
  for (int step = 0; step < 3000; ++step) {
    const std::uint64_t dice = random() % 100;
    if (held.size() < 4 || (dice < 52 && held.size() < 200)) {
      const std::uint64_t bytes = dice % 2 == 0 ? 1 + random() % (1 << 20) : 1 + random() % (8 * kGranule);
      const std::uint64_t stream = random() % streams;
      const Result<void*> pointer = allocator.try_allocate(bytes, 0, stream_handle(stream));
      ASSERT_TRUE(pointer.ok());
      held.push_back({*pointer, stream});
    } else if (dice < 98) {
      const std::size_t i = random() % held.size();
      if (streams > 1 && random() % 4 == 0) {
        ASSERT_TRUE(allocator.try_record_stream(held[i].pointer, stream_handle(random() % streams)).ok());
      }
      ASSERT_TRUE(allocator.try_deallocate(held[i].pointer, stream_handle(held[i].stream)).ok());
      held[i] = held.back();
      held.pop_back();
    } else if (dice == 98) {
      for (const Held& block : held) {
        ASSERT_TRUE(allocator.try_deallocate(block.pointer).ok());
        watch.look(machine.stats());
      }
      held.clear();
    } else {
      if (random() % 2 == 0) machine.streams().advance_all();
      if (random() % 8 == 0) {
        ASSERT_TRUE(allocator.trim(random() % (64 * kGranule)).ok());
      }
      if (random() % 16 == 0) {
        allocator.reset_peaks();
        watch.forget();
      }
    }
    watch.look(machine.stats());
    if (step % 16 == 0) {
      allocator.check();
      expect_as_listed(machine, allocator);
    }
    if (::testing::Test::HasFatalFailure()) return;
  }
  for (const Held& block : held) ASSERT_TRUE(allocator.try_deallocate(block.pointer).ok());
}

TEST(Stats, OfOneStreamHaveThePeaksThatWereSeen) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Machine machine(small_model(4096));
    Watch watch;
    run_job(machine, seed, 1, watch);
    watch.expect_exact({0, 1, 2, 3, 4, 5, 6, 7, 8});
  }
}

TEST(Stats, OfManyStreamsHaveThePeaksThatWereSeen) {
  for (std::uint64_t seed = 11; seed <= 15; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Machine machine(small_model(4096));
    Watch watch;
    run_job(machine, seed, 3, watch);
    // Blocks that waited for other streams come back in the middle of a request, where nobody looks: cached memory may
    // have peaked there.
    watch.expect_exact({0, 2, 4, 6, 8});
  }
}

// The books of these streams are in many shares, and nobody looks at them for hundreds of steps. Nothing is used on a
// second stream, so that what is live peaks where a request ends; nor borrowed, since no stream comes to a fence.
TEST(Stats, OfManyStreamsHaveTheirPeaksWhereNobodyLooksMeanwhile) {
  constexpr std::uint64_t kStreams = 12;
  for (std::uint64_t seed = 21; seed <= 24; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Machine machine(small_model(4096));
    for (std::uint64_t stream = 0; stream < kStreams; ++stream) machine.streams().hold({0, stream});
    Allocator& allocator = machine.allocator();
    std::mt19937_64 random(seed);
    struct Held {
      void* pointer;
      std::uint64_t bytes;
      std::uint64_t requested;
    };
    std::vector<Held> held;
    PoolStats seen;
    for (int step = 0; step < 20'000; ++step) {
      // A few streams at a time are busy; what they hold rises and falls.
      const std::uint64_t stream = (static_cast<std::uint64_t>(step) / 1'500 + random() % 3) % kStreams;
      const bool rising = step / 700 % 2 == 0;
      if (held.empty() || (held.size() < 400 && random() % 100 < (rising ? 60 : 40))) {
        const std::uint64_t requested = 1 + random() % (random() % 4 == 0 ? 4 * kGranule : 64 << 10);
        const std::uint64_t bytes = round_up(requested, 512);
        held.push_back({allocator.allocate(requested, 0, stream_handle(stream)), bytes, requested});
        seen.allocation.add(1);
        seen.allocated_bytes.add(bytes);
        seen.requested_bytes.add(requested);
      } else {
        std::swap(held[random() % held.size()], held.back());
        allocator.deallocate(held.back().pointer);
        seen.allocation.remove(1);
        seen.allocated_bytes.remove(held.back().bytes);
        seen.requested_bytes.remove(held.back().requested);
        held.pop_back();
      }
      if (random() % 1'000 == 0) {
        allocator.check();
        const PoolStats now = machine.stats().all;
        for (Stat PoolStats::*stat :
             {&PoolStats::allocation, &PoolStats::allocated_bytes, &PoolStats::requested_bytes}) {
          ASSERT_EQ((now.*stat).current, (seen.*stat).current);
          ASSERT_EQ((now.*stat).peak, (seen.*stat).peak);
          ASSERT_EQ((now.*stat).allocated, (seen.*stat).allocated);
        }
        ASSERT_EQ(now.active.peak, seen.allocation.peak);
        ASSERT_EQ(now.active_bytes.peak, seen.allocated_bytes.peak);
        if (random() % 4 == 0) {
          allocator.reset_peaks();
          for (Stat PoolStats::*stat :
               {&PoolStats::allocation, &PoolStats::allocated_bytes, &PoolStats::requested_bytes}) {
            (seen.*stat).peak = (seen.*stat).current;
          }
        }
      }
    }
    for (const Held& block : held) allocator.deallocate(block.pointer);
  }
}

TEST(Stats, CountCachedRunsAndTheirBytesAsInactive) {
  Machine machine;
  void* first = machine.allocate(2 * kGranule);
  void* second = machine.allocate(kGranule);
  EXPECT_EQ(machine.stats().all.inactive_split.current, 0u);
  EXPECT_EQ(machine.stats().all.inactive_split_bytes.peak, 0u) << "new memory was never seen as cached";
  machine.deallocate(first);
  EXPECT_EQ(machine.stats().large_pool.inactive_split.current, 1u);
  EXPECT_EQ(machine.stats().large_pool.inactive_split_bytes.current, 2 * kGranule);
  machine.deallocate(second);
  const PoolStats now = machine.stats().all;
  EXPECT_EQ(now.inactive_split.current, 1u);
  EXPECT_EQ(now.inactive_split.allocated, 3u) << "and the run that the two made";
  EXPECT_EQ(now.inactive_split_bytes.current, 3 * kGranule);
  EXPECT_EQ(now.inactive_split_bytes.allocated, 6 * kGranule) << "what was live had been cached before";
  EXPECT_EQ(now.reserved_bytes.current, 3 * kGranule);
}

TEST(Stats, CountWhatWaitsForAnotherStreamAsActive) {
  Machine machine;
  machine.streams().hold({0, 1});
  void* block = machine.allocate(kGranule);
  ASSERT_TRUE(machine.allocator().try_record_stream(block, stream_handle(1)).ok());
  ASSERT_TRUE(machine.device().launch({0, 1}, {{address_of(block), kGranule, true}}).ok());
  machine.deallocate(block);
  PoolStats now = machine.stats().all;
  EXPECT_EQ(now.allocation.current, 0u);
  EXPECT_EQ(now.active.current, 1u);
  EXPECT_EQ(now.active_bytes.current, kGranule);
  EXPECT_EQ(now.active_bytes.freed, 0u);
  machine.streams().advance_all();
  machine.deallocate(machine.allocate(2 * kGranule));  // a miss looks at the streams
  now = machine.stats().all;
  EXPECT_EQ(now.active.current, 0u);
  EXPECT_EQ(now.active.freed, 2u);
}

TEST(Stats, CountSmallAndLargeRequestsApart) {
  Machine machine;
  void* small = machine.allocate(1_MiB);
  void* large = machine.allocate(1_MiB + 1);
  const DeviceStats stats = machine.stats();
  EXPECT_EQ(stats.small_pool.allocated_bytes.current, 1_MiB);
  EXPECT_EQ(stats.small_pool.reserved_bytes.current, kGranule);
  EXPECT_EQ(stats.large_pool.allocated_bytes.current, 1_MiB + 512);
  EXPECT_EQ(stats.large_pool.requested_bytes.current, 1_MiB + 1);
  EXPECT_EQ(stats.all.reserved_bytes.current, 2 * kGranule);
  EXPECT_EQ(stats.small_pool.segment.current, 1u);
  EXPECT_EQ(stats.all.segment.current, 2u);
  machine.deallocate(small);
  machine.deallocate(large);
}

TEST(Stats, CountTheDriversCallsAndItsTime) {
  Machine machine;
  void* block = machine.allocate(4 * kGranule);
  const DeviceStats stats = machine.stats();
  EXPECT_EQ(stats.num_device_alloc, machine.calls().map);
  EXPECT_GT(stats.num_device_alloc, 0u);
  EXPECT_EQ(stats.driver_calls, machine.calls().total());
  EXPECT_GT(stats.driver_ns, 0u) << "the model charges for its calls";
  machine.deallocate(block);
  machine.deallocate(machine.allocate(4 * kGranule));
  EXPECT_EQ(machine.stats().driver_ns, stats.driver_ns) << "a hit makes no call";
  ASSERT_TRUE(machine.allocator().trim().ok());
  EXPECT_EQ(machine.stats().num_device_free, machine.calls().unmap);
  EXPECT_GT(machine.stats().num_device_free, 0u);
  EXPECT_EQ(machine.stats().num_sync_all_streams, 1u);
}

TEST(Stats, CountARequestThatRunsOutAsRetriedAndRefused) {
  Machine machine;
  void* block = machine.allocate(500 * kGranule);
  EXPECT_EQ(machine.stats().num_alloc_retries, 0u);
  (void)machine.refused(20 * kGranule);
  EXPECT_EQ(machine.stats().num_alloc_retries, 2u) << "once before waiting, and once after";
  EXPECT_EQ(machine.stats().num_ooms, 1u);
  machine.deallocate(block);
}

// The keys of torch.cuda.memory_stats(), as its documentation lists them.
std::set<std::string> documented_keys() {
  std::set<std::string> keys = {"num_alloc_retries", "num_ooms",        "num_sync_all_streams",
                                "num_device_alloc",  "num_device_free", "max_split_size"};
  for (const char* stat : {"allocated", "allocated_bytes", "segment", "reserved_bytes", "active", "active_bytes",
                           "inactive_split", "inactive_split_bytes", "requested_bytes"}) {
    for (const char* pool : {"all", "large_pool", "small_pool"}) {
      for (const char* part : {"current", "peak", "allocated", "freed"}) {
        const std::string name = std::string(stat) == "allocated" ? "allocation" : stat;  // as the key is in fact
        keys.insert(name + "." + pool + "." + part);
      }
    }
  }
  for (const char* stat : {"oversize_allocations", "oversize_segments"}) {
    for (const char* part : {"current", "peak", "allocated", "freed"}) {
      keys.insert(std::string(stat) + "." + part);
    }
  }
  return keys;
}

TEST(NamedStats, HaveEveryKeyOfPyTorchOnceAndMarkTheirOwn) {
  std::set<std::string> keys;
  for (const NamedStat& stat : named_stats({})) {
    EXPECT_TRUE(keys.insert(std::string(stat.name)).second) << stat.name << " comes twice";
  }
  for (const std::string& key : documented_keys()) EXPECT_EQ(keys.erase(key), 1u) << key << " is missing";
  for (const std::string& key : keys) EXPECT_TRUE(key.starts_with("gmlake.")) << key;
}

// docs/statistics.md lists several in a row with the prefix at the first alone, and those of pools by their first part.
TEST(NamedStats, AreDocumented) {
  std::ifstream file(GMLAKE_DOCS "/statistics.md");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  ASSERT_NE(text, "");
  const auto has = [&](std::string_view name) { return text.find("`" + std::string(name) + "`") != std::string::npos; };
  for (const NamedStat& stat : named_stats({})) {
    const std::string_view name = stat.name;
    const bool own = name.starts_with("gmlake.");
    const std::string_view first = name.substr(0, name.find('.'));
    EXPECT_TRUE(has(name) || (own ? has(name.substr(7)) : has(first) || has(std::string(first) + ".PART"))) << name;
  }
}

TEST(NamedStats, HaveTheValuesOfTheirFields) {
  Machine machine;
  void* block = machine.allocate(5 * kGranule);
  machine.deallocate(machine.allocate(100));
  const DeviceStats stats = machine.stats();
  std::int64_t allocated = -1, small_freed = -1, retries = -1, split = 0, mappings = -1;
  for (const NamedStat& stat : named_stats(stats)) {
    if (stat.name == "allocated_bytes.all.current") allocated = stat.value;
    if (stat.name == "requested_bytes.small_pool.freed") small_freed = stat.value;
    if (stat.name == "num_alloc_retries") retries = stat.value;
    if (stat.name == "max_split_size") split = stat.value;
    if (stat.name == "gmlake.mappings") mappings = stat.value;
  }
  EXPECT_EQ(allocated, static_cast<std::int64_t>(5 * kGranule));
  EXPECT_EQ(small_freed, 100);
  EXPECT_EQ(retries, 0);
  EXPECT_EQ(split, -1);
  EXPECT_EQ(mappings, static_cast<std::int64_t>(stats.mappings));
  machine.deallocate(block);
}

}  // namespace
}  // namespace gmlake::test
