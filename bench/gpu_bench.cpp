// What stitching costs on a real GPU. Prints one JSON object a line; bench/gpu.py runs it all and keeps the results.
//
//   gpu_bench driver          the cost of each driver call, by size of handle
//   gpu_bench hit             pairs of allocate and deallocate of cached sizes, and of cuMemAllocAsync and its free
//   gpu_bench stitch          blocks of 64 MiB to 8 GiB out of scattered free memory, against their driver calls alone
//   gpu_bench peers-memory    kernels on blocks that lie on other GPUs and on the host
//   gpu_bench busy            the same while a kernel of 300 ms runs: what waits for it?
//   gpu_bench --smoke         a little of everything. All say so, and end with 0, where there is no GPU.
#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "driver/cuda.hpp"
#include "gmlake/allocator.hpp"
#include "or_exit.hpp"
#include "support/gpu.hpp"

namespace {

using gmlake::Allocator;
using gmlake::bench::done;
using gmlake::bench::value_of;
using gmlake::driver::Address;
using gmlake::driver::CudaDriver;
using gmlake::driver::Handle;
using gmlake::driver::Location;
using gmlake::driver::MemoryProperties;
using gmlake::test::Gpu;

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

double now_us() {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// One line of JSON: a text, and numbers.
void print(const char* kind, const std::string& what, std::initializer_list<std::pair<const char*, double>> numbers) {
  std::printf("{\"kind\": \"%s\", \"what\": \"%s\"", kind, what.c_str());
  for (const auto& [name, number] : numbers) std::printf(", \"%s\": %.4f", name, number);
  std::printf("}\n");
  std::fflush(stdout);
}

std::unique_ptr<Allocator> make_allocator(const gmlake::Options& options = {}) {
  return value_of(Allocator::create(options), "Allocator::create");
}

// Handles of one size, `total` bytes of them side by side: microseconds a handle for each call.
void measure_calls(CudaDriver& driver, std::uint64_t handle_bytes, std::uint64_t total) {
  const MemoryProperties properties;
  const std::uint64_t count = std::max<std::uint64_t>(total / handle_bytes, 1);
  const int device = 0;
  std::vector<std::vector<double>> rounds(8);
  for (int round = 0; round < 3; ++round) {
    std::size_t step = 0;
    double start = now_us();
    const auto lap = [&] {
      const double end = now_us();
      rounds[step++].push_back((end - start) / static_cast<double>(count));
      start = now_us();
    };
    std::vector<Handle> handles(count);
    const Address base = value_of(driver.reserve(count * handle_bytes, 0), "reserve");
    rounds[step++].push_back(now_us() - start);
    start = now_us();
    for (Handle& handle : handles) handle = value_of(driver.create(handle_bytes, properties), "create");
    lap();
    for (std::uint64_t i = 0; i < count; ++i)
      done(driver.map(base + i * handle_bytes, handle_bytes, handles[i]), "map");
    lap();
    done(driver.set_access(base, count * handle_bytes, {&device, 1}), "set_access");
    lap();
    done(driver.set_access(base, count * handle_bytes, {&device, 1}), "set_access again");
    lap();
    done(driver.unmap(base, count * handle_bytes), "unmap");
    lap();
    for (const Handle handle : handles) done(driver.release(handle), "release");
    lap();
    done(driver.address_free(base, count * handle_bytes), "address_free");
    rounds[step].push_back(now_us() - start);
  }
  print("driver", std::to_string(handle_bytes / kMiB) + " MiB handles",
        {{"handle_bytes", static_cast<double>(handle_bytes)},
         {"handles", static_cast<double>(count)},
         {"reserve_us", median(rounds[0])},
         {"create_us", median(rounds[1])},
         {"map_us", median(rounds[2])},
         {"set_access_us", median(rounds[3])},
         {"set_access_again_us", median(rounds[4])},
         {"unmap_us", median(rounds[5])},
         {"release_us", median(rounds[6])},
         {"address_free_us", median(rounds[7])}});
}

void run_driver(Gpu& gpu, bool smoke) {
  const std::unique_ptr<CudaDriver> driver = value_of(CudaDriver::make(), "CudaDriver::make");
  for (const std::uint64_t mib : {2, 4, 8, 16, 32, 64, 256, 1024}) {
    if (!smoke || mib == 64) measure_calls(*driver, mib * kMiB, smoke ? 4 * mib * kMiB : 4 * kGiB);
  }
  const gmlake::driver::Event event = value_of(driver->event_create(0), "event_create");
  const auto stream = value_of(driver->make_stream(0), "make_stream");
  constexpr int kCalls = 2000;
  double start = now_us();
  for (int i = 0; i < kCalls; ++i) done(driver->event_record(event, stream), "event_record");
  const double record = (now_us() - start) / kCalls;
  gpu.wrong_words();
  start = now_us();
  for (int i = 0; i < kCalls; ++i) (void)value_of(driver->event_query(event), "event_query");
  const double query = (now_us() - start) / kCalls;
  done(driver->event_destroy(event), "event_destroy");
  // In batches that the stream's queue holds: past that, a call waits for the device.
  std::vector<double> clear_us;
  void* cleared = gpu.allocate(2 * kMiB);
  for (int batch = 0; batch < 20; ++batch) {
    constexpr int kBatch = 100;
    start = now_us();
    for (int i = 0; i < kBatch; ++i)
      done(driver->clear(stream, std::bit_cast<std::uintptr_t>(cleared), 2 * kMiB), "clear");
    clear_us.push_back((now_us() - start) / kBatch);
    gpu.wrong_words();
  }
  gpu.free(cleared);
  std::vector<double> malloc_us;
  std::vector<double> free_us;
  for (const std::uint64_t mib : {2, 64, 1024}) {
    for (int i = 0; i < 9; ++i) {
      start = now_us();
      void* block = gpu.allocate(mib * kMiB);
      malloc_us.push_back(now_us() - start);
      start = now_us();
      gpu.free(block);
      free_us.push_back(now_us() - start);
    }
    print("driver", "cuMemAlloc of " + std::to_string(mib) + " MiB",
          {{"allocate_us", median(malloc_us)}, {"free_us", median(free_us)}});
    malloc_us.clear();
    free_us.clear();
  }
  print("driver", "events", {{"record_us", record}, {"query_us", query}});
  print("driver", "clear", {{"clear_us", median(clear_us)}});
}

void run_hit(Gpu& gpu, bool smoke) {
  const Gpu::Stream stream = gpu.make_stream();
  gpu.keep_async_memory();
  const int count = smoke ? 200 : 200'000;
  for (const std::size_t bytes : {std::size_t{512}, std::size_t{64} << 10, 2 * kMiB, 64 * kMiB}) {
    const std::unique_ptr<Allocator> allocator = make_allocator();
    std::vector<void*> live;
    for (int i = 0; i < 1000; ++i) live.push_back(allocator->allocate(512 * (1 + i % 16), 0, stream));
    for (int i = 0; i < 1000; i += 2) allocator->deallocate(live[i], stream);
    std::vector<double> own;
    std::vector<double> async;
    for (int round = 0; round < 5; ++round) {
      double start = now_us();
      for (int i = 0; i < count; ++i) allocator->deallocate(allocator->allocate(bytes, 0, stream), stream);
      own.push_back((now_us() - start) * 1000 / count);
      gpu.synchronize(stream);
      const int fewer = count / 20 + 1;
      start = now_us();
      for (int i = 0; i < fewer; ++i) gpu.free_async(gpu.allocate_async(bytes, stream), stream);
      async.push_back((now_us() - start) * 1000 / fewer);
      gpu.synchronize(stream);
    }
    print("hit", std::to_string(bytes) + " B",
          {{"bytes", static_cast<double>(bytes)},
           {"gmlake_ns", median(own)},
           {"cudaMallocAsync_ns", median(async)},
           {"gmlake_min_ns", *std::min_element(own.begin(), own.end())},
           {"gmlake_max_ns", *std::max_element(own.begin(), own.end())}});
  }
}

struct Stitched {
  double total_us = 0;
  double driver_us = 0;
  double moved = 0;
  double pieces = 0;
};

// One block of `bytes` out of free memory in pieces of `piece` bytes, between live ones. `ballast` bytes more are live,
// since PhyBlocks grow with what is held.
Stitched stitch_once(std::uint64_t bytes, std::uint64_t piece, std::uint64_t ballast, Gpu* gpu, Gpu::Stream busy) {
  const std::unique_ptr<Allocator> allocator = make_allocator({.slack = 0});
  std::vector<void*> live;
  for (std::uint64_t made = 0; made < ballast; made += kGiB) live.push_back(allocator->allocate(kGiB));
  std::vector<void*> freed;
  for (std::uint64_t made = 0; made < bytes; made += piece) {
    freed.push_back(allocator->allocate(piece));
    live.push_back(allocator->allocate(piece));
  }
  // The first stitch of all meets cold code; what is measured is the next.
  for (std::size_t i = 0; i < 2; ++i) allocator->deallocate(std::exchange(freed[i], nullptr));
  live.push_back(allocator->allocate(2 * piece));
  for (std::size_t i = 0; i < 2; ++i) {
    freed[i] = allocator->allocate(piece);
    live.push_back(allocator->allocate(piece));
  }
  for (void* block : freed) allocator->deallocate(block);
  if (gpu != nullptr) gpu->spin(300'000'000, busy);
  const gmlake::DeviceStats before = allocator->stats();
  const double start = now_us();
  void* block = allocator->allocate(bytes);
  const double end = now_us();
  const gmlake::DeviceStats after = allocator->stats();
  Stitched result;
  result.total_us = end - start;
  result.driver_us = static_cast<double>(after.driver_ns - before.driver_ns) / 1000;
  result.moved = static_cast<double>(after.moved_bytes - before.moved_bytes) / static_cast<double>(bytes);
  result.pieces = static_cast<double>(allocator->phy_blocks(block).size());
  if (gpu != nullptr) gpu->synchronize(busy);
  return result;
}

void run_stitch(Gpu& gpu, bool smoke, bool busy) {
  const Gpu::Stream stream = nullptr;  // the blocks' own: its work is what a careless allocator would wait for
  for (const std::uint64_t piece : {2 * kMiB, 16 * kMiB}) {
    for (const std::uint64_t mib : {64, 256, 1024, 2048, 4096, 8192}) {
      if (smoke && mib > 64) continue;
      if (busy && mib > 1024) continue;
      std::vector<double> totals;
      std::vector<double> drivers;
      std::vector<double> ratios;
      Stitched one;
      for (int round = 0; round < (smoke ? 1 : busy ? 3 : 5); ++round) {
        one = stitch_once(mib * kMiB, piece, piece > 2 * kMiB && !smoke ? 16 * kGiB : 0, busy ? &gpu : nullptr, stream);
        totals.push_back(one.total_us);
        drivers.push_back(one.driver_us);
        ratios.push_back(one.total_us / one.driver_us);
      }
      print(busy ? "busy" : "stitch", std::to_string(mib) + " MiB out of " + std::to_string(piece / kMiB) + " MiB",
            {{"bytes", static_cast<double>(mib * kMiB)},
             {"piece_bytes", static_cast<double>(piece)},
             {"phy_blocks", one.pieces},
             {"moved_share", one.moved},
             {"total_us", median(totals)},
             {"driver_us", median(drivers)},
             {"ratio", median(ratios)},
             {"worst_total_us", *std::max_element(totals.begin(), totals.end())}});
    }
  }
  if (!busy) return;
  // What others do meanwhile: the driver's own free waits for the kernel.
  void* block = gpu.allocate(64 * kMiB);
  gpu.spin(300'000'000, stream);
  const double start = now_us();
  gpu.free(block);
  print("busy", "cuMemFree of 64 MiB", {{"total_us", now_us() - start}});
}

// How fast kernels of device 0 write and read what lies at an address.
void print_bandwidth(Gpu& gpu, const std::string& what, void* block, std::uint64_t bytes, int rounds) {
  std::vector<double> writes;
  std::vector<double> reads;
  for (int round = 0; round < rounds; ++round) {
    double start = now_us();
    gpu.fill(block, bytes, 1, nullptr);
    gpu.synchronize(nullptr);
    writes.push_back(static_cast<double>(bytes) / 1000 / (now_us() - start));
    start = now_us();
    gpu.check(block, bytes, 1, nullptr);
    gpu.synchronize(nullptr);
    reads.push_back(static_cast<double>(bytes) / 1000 / (now_us() - start));
  }
  print("peers-memory", what,
        {{"write_gb_s", median(writes)},
         {"read_gb_s", median(reads)},
         {"wrong_words", static_cast<double>(gpu.wrong_words())}});
}

// What there is to reach: a range that driver calls alone made, its first half on device 0, the other on its peer.
void run_by_hand(Gpu& gpu, std::uint64_t bytes, int rounds) {
  constexpr std::uint64_t kPiece = 32 * kMiB;
  const std::unique_ptr<CudaDriver> driver = value_of(CudaDriver::make(), "CudaDriver::make");
  const Address base = value_of(driver->reserve(bytes, 0), "reserve");
  std::vector<Handle> handles;
  for (std::uint64_t at = 0; at < bytes; at += kPiece) {
    const int device = at < bytes / 2 ? 0 : 1;
    handles.push_back(value_of(driver->create(kPiece, {.location = {Location::Kind::device, device}}), "create"));
    done(driver->map(base + at, kPiece, handles.back()), "map");
  }
  const int user = 0;
  done(driver->set_access(base, bytes, {&user, 1}), "set_access");
  print_bandwidth(gpu, "half local, half on the peer, by hand", reinterpret_cast<void*>(base), bytes, rounds);
  done(driver->unmap(base, bytes), "unmap");
  for (const Handle handle : handles) done(driver->release(handle), "release");
  done(driver->address_free(base, bytes), "address_free");
}

// By where a block lies. What this machine has no place for is left out.
void run_peers_memory(Gpu& gpu, bool smoke) {
  const std::uint64_t bytes = smoke ? 64 * kMiB : 4 * kGiB;
  const int rounds = smoke ? 1 : 5;
  const std::unique_ptr<Allocator> probe = make_allocator();
  struct Layout {
    std::string what;
    gmlake::Placement placement;
    std::uint64_t limit = 0;  // of each device: what makes it spill
  };
  std::vector<Layout> layouts = {{"local", gmlake::Placement::stripe({0}), 0},
                                 {"half local, half on the host", gmlake::Placement::spill({}), bytes / 2}};
  if (probe->device_count() > 1) {
    layouts.push_back({"on the peer", gmlake::Placement::stripe({1}), 0});
    layouts.push_back({"half local, half on the peer", gmlake::Placement::spill({1}, false), bytes / 2});
    layouts.push_back({"striped over both", gmlake::Placement::stripe({0, 1}), 0});
  }
  for (const Layout& layout : layouts) {
    const std::unique_ptr<Allocator> allocator = make_allocator({.limit_bytes = layout.limit});
    void* block = value_of(allocator->try_allocate(bytes, layout.placement), layout.what.c_str());
    print_bandwidth(gpu, layout.what, block, bytes, rounds);
    allocator->deallocate(block);
  }
  if (probe->device_count() > 1) run_by_hand(gpu, bytes, rounds);
}

int run(const std::string& what, bool smoke) {
  const std::unique_ptr<Gpu> gpu = Gpu::make();
  if (gpu == nullptr) {
    std::printf("{\"kind\": \"none\", \"what\": \"no GPU here\"}\n");
    return 0;
  }
  if (what == "driver" || smoke) run_driver(*gpu, smoke);
  if (what == "hit" || smoke) run_hit(*gpu, smoke);
  if (what == "stitch" || smoke) run_stitch(*gpu, smoke, false);
  if (what == "peers-memory" || smoke) run_peers_memory(*gpu, smoke);
  if (what == "busy") run_stitch(*gpu, smoke, true);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc == 2 ? argv[1] : "";
  for (const char* known : {"driver", "hit", "stitch", "busy", "peers-memory", "--smoke"}) {
    if (what == known) return run(what, what == "--smoke");
  }
  std::fprintf(stderr, "usage: gpu_bench driver | hit | stitch | busy | peers-memory | --smoke\n");
  return 2;
}
