// gmlake under the loop that PyTorch's own allocators run in too (peers/replay_loop.hpp), on a GPU; bench/gpu.py runs
// both and keeps the results.
//
//   peers_bench flatten TRACE OUT             the first device of a trace, as that loop reads it
//   peers_bench replay NAME FLAT SECONDS      one line of JSON; up to SECONDS go into the smallest limit
//   peers_bench pair                          nanoseconds of pairs of cached sizes
//   peers_bench --smoke                       flatten and replay on the model of the driver, with no GPU
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "gmlake/allocator.hpp"
#include "peers/replay_loop.hpp"
#include "replay/read_trace.hpp"
#include "support/gpu.hpp"

namespace {

using gmlake::Allocator;
using gmlake::test::Gpu;
using gmlake_peers::FlatEvent;
using gmlake_peers::FlatTrace;

[[noreturn]] void fail(const std::string& message) {
  std::fprintf(stderr, "peers_bench: %s\n", message.c_str());
  std::exit(1);
}

// As a program has it: default options, worker and all; a fresh one for each replay, so that none inherits a cache.
class GmlakeAllocator {
 public:
  GmlakeAllocator(Gpu* gpu, std::size_t streams) : gpu_(gpu) {
    for (std::size_t i = 0; i < streams; ++i) {
      streams_.push_back(i == 0 || gpu == nullptr ? reinterpret_cast<void*>(i) : gpu->make_stream());
    }
    reset(0);
  }

  void* allocate(std::uint64_t bytes, std::size_t stream) {
    const auto pointer = allocator_->try_allocate(bytes, 0, streams_[stream]);
    return pointer ? *pointer : nullptr;
  }
  void deallocate(void* pointer, std::size_t stream) { allocator_->deallocate(pointer, streams_[stream]); }
  void record(void* pointer, std::size_t stream) { allocator_->record_stream(pointer, streams_[stream]); }
  void trim() { (void)allocator_->trim().ok(); }

  void reset(std::uint64_t limit) {
    wait();
    allocator_.reset();
    gmlake::Options options;
    options.driver = gpu_ == nullptr ? gmlake::DriverKind::model : gmlake::DriverKind::cuda;
    options.limit_bytes = limit;
    auto made = Allocator::create(options);
    if (!made) fail(describe(made.error()));
    allocator_ = std::move(*made);
    allocator_->deallocate(allocator_->allocate(512, 0, streams_[0]),
                           streams_[0]);  // the device's context, and its own
    (void)allocator_->trim().ok();
    allocator_->reset_peaks();
  }
  std::uint64_t peak_reserved() const { return allocator_->stats().all.reserved_bytes.peak; }
  std::uint64_t driver_calls() const { return allocator_->stats().driver_calls; }
  void wait() {
    if (gpu_ != nullptr) (void)gpu_->wrong_words();
  }

 private:
  Gpu* gpu_;
  std::vector<void*> streams_;
  std::unique_ptr<Allocator> allocator_;
};

void flatten(const gmlake::replay::DeviceTrace& device, const char* path) {
  std::FILE* file = std::fopen(path, "wb");
  if (file == nullptr) fail(std::string("cannot write ") + path);
  static_assert(sizeof(FlatEvent) == sizeof(gmlake::replay::Event));
  const std::uint64_t counts[3] = {device.events.size(), device.block_count, device.streams.size()};
  bool whole = std::fwrite(counts, sizeof counts, 1, file) == 1;
  for (const gmlake::replay::Event& event : device.events) {
    const FlatEvent flat{static_cast<std::uint8_t>(event.op), 0, event.stream, event.id, event.bytes};
    whole = whole && std::fwrite(&flat, sizeof flat, 1, file) == 1;
  }
  if (std::fclose(file) != 0 || !whole) fail(std::string("cannot write ") + path);
}

void replay(Gpu* gpu, const std::string& name, const char* path, double fit_seconds) {
  FlatTrace trace;
  if (!gmlake_peers::read_flat(path, trace)) fail(std::string("cannot read ") + path);
  GmlakeAllocator allocator(gpu, trace.counts[2]);
  gmlake_peers::measure_trace("gmlake", name, trace, allocator, fit_seconds);
}

void pairs(Gpu* gpu, int count) {
  for (const std::uint64_t bytes :
       {std::uint64_t{512}, std::uint64_t{64} << 10, std::uint64_t{2} << 20, std::uint64_t{64} << 20}) {
    GmlakeAllocator allocator(gpu, 1);
    std::vector<void*> live;
    for (std::size_t i = 0; i < 1000; ++i) live.push_back(allocator.allocate(512 * (1 + i % 16), 0));
    for (std::size_t i = 0; i < 1000; i += 2) allocator.deallocate(live[i], 0);
    std::printf("{\"kind\": \"pair\", \"allocator\": \"gmlake\", \"bytes\": %llu, \"ns\": %.2f}\n",
                static_cast<unsigned long long>(bytes), gmlake_peers::pair_ns(allocator, bytes, count));
    for (std::size_t i = 1; i < 1000; i += 2) allocator.deallocate(live[i], 0);
  }
}

void smoke() {
  char path[] = "/tmp/gmlake-flat-XXXXXX";
  const int file = mkstemp(path);
  if (file < 0) fail("no temporary file");
  const auto trace = gmlake::replay::read_trace(GMLAKE_SOURCE_DIR "/examples/traces/gpt2_full.pickle.gz");
  if (!trace) fail(trace.error().text());
  flatten(trace->devices.front(), path);
  replay(nullptr, "gpt2_full", path, 1);
  pairs(nullptr, 1000);
  unlink(path);
  close(file);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() == 1 && arguments[0] == "--smoke") {
    smoke();
    return 0;
  }
  if (arguments.size() == 3 && arguments[0] == "flatten") {
    const auto trace = gmlake::replay::read_trace(arguments[1]);
    if (!trace) fail(trace.error().text());
    flatten(trace->devices.front(), argv[3]);
    return 0;
  }
  const bool replays = arguments.size() == 4 && arguments[0] == "replay";
  if (!replays && !(arguments.size() == 1 && arguments[0] == "pair")) {
    std::fprintf(stderr, "usage: peers_bench flatten TRACE OUT | replay NAME FLAT SECONDS | pair | --smoke\n");
    return 2;
  }
  const std::unique_ptr<Gpu> gpu = Gpu::make();
  if (gpu == nullptr) fail("no GPU here");
  if (replays) {
    replay(gpu.get(), arguments[1], argv[3], std::stod(arguments[3]));
  } else {
    pairs(gpu.get(), 200'000);
  }
  return 0;
}
