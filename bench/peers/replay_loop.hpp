// One loop over the events of a trace, the same for every allocator that is compared, so that what differs is theirs.
// A flat trace is a file of 64-bit counts (events, blocks, streams) and then the events, 16 bytes each: made by
// `gpu_bench flatten`. Standalone, C++17: it is compiled into gpu_bench and into the module that PyTorch loads.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace gmlake_peers {

struct FlatEvent {
  std::uint8_t op;  // as gmlake::replay::Op
  std::uint8_t reserved;
  std::uint16_t stream;
  std::uint32_t id;
  std::uint64_t bytes;
};
static_assert(sizeof(FlatEvent) == 16);
enum : std::uint8_t { kAlloc = 0, kFree = 1, kRecordStream = 2, kAdvance = 3, kTrim = 4 };

struct FlatTrace {
  std::uint64_t counts[3] = {};  // events, blocks, streams
  std::vector<FlatEvent> events;
};

inline bool read_flat(const char* path, FlatTrace& trace) {
  std::FILE* file = std::fopen(path, "rb");
  if (file == nullptr) return false;
  bool whole = std::fread(trace.counts, sizeof trace.counts, 1, file) == 1;
  if (whole) trace.events.resize(trace.counts[0]);
  whole = whole && std::fread(trace.events.data(), sizeof(FlatEvent), trace.events.size(), file) == trace.events.size();
  std::fclose(file);
  return whole;
}

struct Measured {
  std::uint64_t peak_allocated = 0;  // of sizes rounded up to 512
  double first_ns = 0;               // an event, in each half
  double second_ns = 0;
  double worst_ns = 0;  // the worst call, where each is timed
  bool finished = false;
};

inline double now_ns() {
  return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Allocator: void* allocate(bytes, stream index), null where it has no memory; deallocate(pointer, stream index);
// record(pointer, stream index); trim(). Ends at the first request that finds no memory; frees what is left.
template <bool kTimeEach, class Allocator>
Measured replay(const FlatTrace& trace, Allocator& allocator) {
  struct Block {
    void* pointer = nullptr;
    std::uint64_t bytes = 0;
    std::uint16_t stream = 0;
  };
  std::vector<Block> blocks(trace.counts[1]);
  Measured measured;
  std::uint64_t allocated = 0;
  const std::size_t half = trace.events.size() / 2;
  double start = now_ns();
  measured.finished = true;
  for (std::size_t i = 0; i < trace.events.size() && measured.finished; ++i) {
    const FlatEvent& event = trace.events[i];
    if (i == half) {
      const double now = now_ns();
      measured.first_ns = (now - start) / static_cast<double>(half);
      start = now;
    }
    const double begin = kTimeEach ? now_ns() : 0;
    switch (event.op) {
      case kAlloc: {
        const std::uint64_t bytes = std::max<std::uint64_t>(event.bytes, 1);
        Block& block = blocks[event.id];
        block = {allocator.allocate(bytes, event.stream), (bytes + 511) & ~std::uint64_t{511}, event.stream};
        if (block.pointer == nullptr) measured.finished = false;
        allocated += block.pointer == nullptr ? 0 : block.bytes;
        measured.peak_allocated = std::max(measured.peak_allocated, allocated);
        break;
      }
      case kFree: {
        Block& block = blocks[event.id];
        allocator.deallocate(block.pointer, block.stream);
        block.pointer = nullptr;
        allocated -= block.bytes;
        break;
      }
      case kRecordStream:
        allocator.record(blocks[event.id].pointer, event.stream);
        break;
      case kTrim:
        allocator.trim();
        break;
      default:  // kAdvance: of a stream that lags behind; on a device that does nothing else, none does
        break;
    }
    if (kTimeEach) measured.worst_ns = std::max(measured.worst_ns, now_ns() - begin);
  }
  measured.second_ns = (now_ns() - start) / static_cast<double>(std::max<std::size_t>(trace.events.size() - half, 1));
  for (const Block& block : blocks) {
    if (block.pointer != nullptr) allocator.deallocate(block.pointer, block.stream);
  }
  return measured;
}

// Nanoseconds of an allocate and a deallocate of a cached size.
template <class Allocator>
double pair_ns(Allocator& allocator, std::uint64_t bytes, int count) {
  for (int i = 0; i < 16; ++i) allocator.deallocate(allocator.allocate(bytes, 0), 0);
  const double start = now_ns();
  for (int i = 0; i < count; ++i) allocator.deallocate(allocator.allocate(bytes, 0), 0);
  return (now_ns() - start) / count;
}

// What the allocator is asked for of itself: bytes held at most since reset(), calls to the driver, and a new limit.
//   reset(limit bytes, 0: none), peak_reserved(), driver_calls(), wait()
template <class Allocator>
void measure_trace(const char* name, const std::string& trace_name, const FlatTrace& trace, Allocator& allocator,
                   double fit_seconds) {
  allocator.reset(0);
  const std::uint64_t calls = allocator.driver_calls();
  const Measured whole = replay<false>(trace, allocator);
  allocator.wait();
  const std::uint64_t peak_reserved = allocator.peak_reserved();
  const std::uint64_t calls_after = allocator.driver_calls();
  allocator.reset(0);
  const Measured timed = replay<true>(trace, allocator);
  allocator.wait();
  // The smallest limit that it finishes with, by bisection; 0 where there was no time for it.
  const double until = now_ns() + fit_seconds * 1e9;
  double failed = static_cast<double>(whole.peak_allocated) * 0.9999;
  double fits = 0;
  double high = static_cast<double>(peak_reserved);
  for (int step = 0; fit_seconds > 0 && now_ns() < until && step < 12; ++step) {
    const double limit = step == 0 ? high : step == 1 ? failed * 1.005 : (failed + fits) / 2;
    if (fits != 0 && (limit >= fits || fits / failed < 1.001)) continue;
    allocator.reset(static_cast<std::uint64_t>(limit));
    const bool finished = replay<false>(trace, allocator).finished;
    allocator.wait();
    if (finished) {
      fits = limit;
    } else if (step == 0) {
      high *= 1.02;
      failed = limit;
      step = -1;
      if (high > 2.5 * static_cast<double>(whole.peak_allocated)) break;
    } else {
      failed = limit;
    }
  }
  const auto allocated = static_cast<double>(whole.peak_allocated);
  std::printf(
      "{\"kind\": \"replay-peers\", \"what\": \"%s\", \"allocator\": \"%s\", \"events\": %llu, \"finished\": %s, "
      "\"peak_allocated\": %llu, \"peak_reserved\": %llu, \"ratio\": %.5f, \"first_half_ns\": %.1f, "
      "\"second_half_ns\": %.1f, \"driver_calls\": %llu, \"worst_call_us\": %.1f, \"smallest_limit_ratio\": %.5f}\n",
      trace_name.c_str(), name, static_cast<unsigned long long>(trace.counts[0]), whole.finished ? "true" : "false",
      static_cast<unsigned long long>(whole.peak_allocated), static_cast<unsigned long long>(peak_reserved),
      static_cast<double>(peak_reserved) / allocated, whole.first_ns, whole.second_ns,
      static_cast<unsigned long long>(calls_after - calls), timed.worst_ns / 1000, fits / allocated);
  std::fflush(stdout);
}

}  // namespace gmlake_peers
