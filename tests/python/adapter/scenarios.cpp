// The adapter on the host driver beside PyTorch's own allocator, one scenario a process: scenarios NAME. What the two
// hold and refuse together, and what is told of it. Prints what did not hold, and then exits 1.
#include <cstdio>
#include <cstring>
#include <set>

#include "interface.cpp"  // for the one allocator that it installs

namespace c10::cuda::_internal {
void setHasPrimaryContext(bool (*has)(DeviceIndex));  // libtorch_cuda's part, which is not loaded here
}

namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::uint64_t kPage = 2 * kMiB;
const c10::MempoolId_t kNone{0, 0};
int failures = 0;

#define EXPECT(what) \
  if (!(what)) std::printf("line %d: %s\n", __LINE__, #what), ++failures

TorchAllocator& start(const char* settings, void* (*before)(native::CUDAAllocator&) = nullptr, void** made = nullptr) {
  gmlake::Options options;
  EXPECT(gmlake::parse_options(settings, options).ok());
  options.driver = gmlake::DriverKind::host;
  native::CUDAAllocator* inner = native::allocator.load();
  c10::cuda::_internal::setHasPrimaryContext([](c10::DeviceIndex) { return true; });
  if (before != nullptr) {
    inner->init(1);
    *made = before(*inner);
  }
  auto* adapter = new TorchAllocator(*inner, options);
  the_allocator.store(adapter);
  native::allocator.store(adapter);
  adapter->init(1);
  EXPECT(adapter->lake() != nullptr);
  return *adapter;
}

void* take(TorchAllocator& adapter, std::size_t mib, cudaStream_t stream = nullptr) {  // null: out of memory
  try {
    return adapter.allocate_on(0, mib * kMiB, stream);
  } catch (const c10::OutOfMemoryError&) {
    return nullptr;
  }
}

void* take_in_pool(TorchAllocator& adapter, std::size_t mib) {  // a pool of its own, which ends with what is in it
  static c10::CaptureId_t last = 0;
  const c10::MempoolId_t pool{0, ++last};
  adapter.beginAllocateToPool(0, pool, [](cudaStream_t) { return true; });
  void* pointer = take(adapter, mib);
  adapter.endAllocateToPool(0, pool);
  adapter.releasePool(0, pool);
  return pointer;
}

std::int64_t reserved(TorchAllocator& adapter) { return adapter.getDeviceStats(0).reserved_bytes[0].current; }
std::int64_t allocated(TorchAllocator& adapter) { return adapter.getDeviceStats(0).allocated_bytes[0].current; }

TorchSnapshot snapshot(TorchAllocator& adapter) {
#if GMLAKE_TORCH_AT_LEAST(11)
  return adapter.snapshot(kNone, true);
#else
  return adapter.snapshot(kNone);
#endif
}

struct Followed {
  std::set<std::uint64_t> pages;
  int mapped = 0, unmapped = 0, segments = 0, elsewhere = 0;
  std::uint64_t stream = 0;

  void operator()(const TorchEvent& event) {
    const auto address = static_cast<std::uint64_t>(event.addr_);
    const bool map = event.action_ == TorchEvent::SEGMENT_MAP;
    const bool unmap = event.action_ == TorchEvent::SEGMENT_UNMAP;
    mapped += map;
    unmapped += unmap;
    segments += event.action_ == TorchEvent::SEGMENT_ALLOC;
    elsewhere += event.device_ != 0;
    if (map) stream = reinterpret_cast<std::uint64_t>(event.stream_);
    for (std::uint64_t page = address; (map || unmap) && page < address + event.size_; page += kPage) {
      map ? (void)pages.insert(page) : (void)pages.erase(page);
    }
  }
  bool cover(const void* pointer, std::size_t mib) const {
    const auto address = reinterpret_cast<std::uint64_t>(pointer);
    for (std::uint64_t page = address / kPage * kPage; page < address + mib * kMiB; page += kPage) {
      if (pages.count(page) == 0) return false;
    }
    return true;
  }
};

void trackers() {
  TorchAllocator& adapter = start("");
  static Followed followed;
  adapter.attachAllocatorTraceTracker([](const TorchEvent& event) { followed(event); });
  void* pieces[10];
  for (void*& piece : pieces) piece = take(adapter, 20);
  for (int i = 0; i < 10; i += 2) adapter.deallocate(pieces[i]);
  void* whole = take(adapter, 100);  // stitched of those five
  EXPECT(adapter.lake()->stats(0).stitches > 0 && adapter.lake()->stats(0).moved_bytes > 0);
  EXPECT(followed.cover(whole, 100));
  for (int i = 1; i < 10; i += 2) EXPECT(followed.cover(pieces[i], 20));
  EXPECT(followed.mapped > 0 && followed.segments == 0 && followed.elsewhere == 0 && followed.stream == 0);
  const auto side = reinterpret_cast<cudaStream_t>(std::uintptr_t{0x70});
  adapter.deallocate(take(adapter, 64, side));
  EXPECT(followed.stream == 0x70);
  void* pooled = take_in_pool(adapter, 32);
  EXPECT(pooled != nullptr && followed.segments == 1);
  adapter.deallocate(pooled);
  adapter.deallocate(whole);
  adapter.emptyCache(kNone);
  EXPECT(followed.unmapped > 0 && !followed.cover(whole, 2));
  for (int i = 1; i < 10; i += 2) EXPECT(followed.cover(pieces[i], 20));
}

void snapshots() {
  TorchAllocator& adapter = start("");
#if GMLAKE_TORCH_AT_LEAST(11)
  adapter.recordHistory(true, nullptr, 10000, native::RecordContext::NEVER, false, {"free_requested"});
#else
  adapter.recordHistory(true, nullptr, 10000, native::RecordContext::NEVER, false);
#endif
  void* first = take(adapter, 30);
  void* second = take(adapter, 5);
  void* third = take_in_pool(adapter, 7);
  adapter.deallocate(first);
  const TorchSnapshot seen = snapshot(adapter);
  std::size_t active = 0;
  for (const TorchSegment& segment : seen.segments) {
    std::size_t bytes = 0;
    std::size_t live = 0;
    for (const TorchBlock& block : segment.blocks) {
      bytes += block.size;
      live += block.allocated ? block.size : 0;
    }
    EXPECT(bytes == segment.total_size && live == segment.allocated_size && !segment.blocks.empty());
    active += segment.active_size;
  }
  EXPECT(active == 12 * kMiB);  // gmlake's and native's
  int allocs = 0, requested = 0, completed = 0, maps = 0;
  EXPECT(seen.device_traces.size() == 1);
  for (const TorchEvent& event : seen.device_traces[0]) {
    allocs += event.action_ == TorchEvent::ALLOC;
    requested += event.action_ == TorchEvent::FREE_REQUESTED;
    completed += event.action_ == TorchEvent::FREE_COMPLETED;
    maps += event.action_ == TorchEvent::SEGMENT_MAP;
  }
  EXPECT(allocs == 3 && completed == 1 && maps > 0);
  EXPECT(requested == (GMLAKE_TORCH_AT_LEAST(11) ? 0 : 1));  // skipped, where that can be asked for
  adapter.deallocate(second);
  adapter.deallocate(third);
}

void limit_in_bytes() {
  TorchAllocator& adapter = start("limit:1GiB");
  void* own = take(adapter, 600);
  EXPECT(own != nullptr && take_in_pool(adapter, 600) == nullptr);
  adapter.deallocate(own);
  void* pooled = take_in_pool(adapter, 600);  // what gmlake has cached goes back first
  EXPECT(pooled != nullptr);
  EXPECT(take(adapter, 600) == nullptr);
  void* rest = take(adapter, 300);
  EXPECT(rest != nullptr && reserved(adapter) <= std::int64_t{1} << 30);
  adapter.deallocate(rest);
  adapter.deallocate(pooled);
  adapter.emptyCache(kNone);
  void* all = take(adapter, 1024);  // to the byte
  EXPECT(all != nullptr && reserved(adapter) == std::int64_t{1} << 30);
}

void limit_as_a_fraction() {
  TorchAllocator& adapter = start("");
  adapter.setMemoryFraction(1.0 / 32, 0);  // 2 GiB
  void* pooled = take_in_pool(adapter, 1500);
  EXPECT(pooled != nullptr && take(adapter, 600) == nullptr);
  EXPECT(adapter.getDeviceStats(0).num_ooms == 1);
  adapter.deallocate(pooled);
  adapter.emptyCache(kNone);
  void* own = take(adapter, 1900);
  EXPECT(own != nullptr && adapter.getMemoryFraction(0) == 1.0 / 32);
  adapter.deallocate(own);
  EXPECT((pooled = take_in_pool(adapter, 1200)) != nullptr && adapter.getDeviceStats(0).num_ooms == 1);
  adapter.setMemoryFraction(1.0, 0);
  EXPECT(take(adapter, 4000) != nullptr);
}

void memory_of_before() {
  void* old = nullptr;
  TorchAllocator& adapter = start(
      "", [](native::CUDAAllocator& inner) { return inner.raw_alloc(8 * kMiB); }, &old);
  EXPECT(allocated(adapter) == 8 * std::int64_t{kMiB});
  void* own = take(adapter, 4);
  EXPECT(allocated(adapter) == 12 * std::int64_t{kMiB});
  std::size_t bytes = 0;
  EXPECT(adapter.getBaseAllocation(own, &bytes) == own && bytes == 4 * kMiB);
  adapter.deallocate(old);
  adapter.deallocate(own);
  EXPECT(allocated(adapter) == 0);
  adapter.emptyCache(kNone);
  EXPECT(reserved(adapter) == 0);
}

struct Scenario {
  const char* name;
  void (*run)();
};
constexpr Scenario kScenarios[] = {{"trackers", trackers},
                                   {"snapshots", snapshots},
                                   {"limit_in_bytes", limit_in_bytes},
                                   {"limit_as_a_fraction", limit_as_a_fraction},
                                   {"memory_of_before", memory_of_before}};

}  // namespace

int main(int count, char** arguments) {
  for (const Scenario& scenario : kScenarios) {
    if (count == 1) std::printf("%s\n", scenario.name);
    if (count == 2 && std::strcmp(arguments[1], scenario.name) == 0) {
      scenario.run();
      return failures == 0 ? 0 : 1;
    }
  }
  return count == 1 ? 0 : 2;
}
