// What a hit costs: allocate and deallocate of a cached size on one thread, and the events of a recorded trace, through
// the public Allocator on the model driver. Prints nanoseconds; bench/hit.py runs it under callgrind and counts the
// instructions of the two functions named measured_*, which repeat exactly.
//
//   hit_bench pairs BYTES LIVE COUNT     COUNT pairs of BYTES, among LIVE live blocks and about as many free runs
//   hit_bench recorded BYTES LIVE COUNT  the same while a Recorder runs, whose own thread is not counted
//   hit_bench turns BYTES STREAMS COUNT  pairs of BYTES, each on another of STREAMS streams
//   hit_bench replay TRACE               all events; the second half is what is measured
//   hit_bench --smoke                    a little of everything
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "driver/model.hpp"
#include "driver/record.hpp"
#include "gmlake/allocator.hpp"
#include "gmlake/observe.hpp"
#include "replay/read_trace.hpp"

namespace {

using gmlake::Allocator;
using gmlake::replay::DeviceTrace;
using gmlake::replay::Event;
using gmlake::replay::Op;

[[noreturn]] void fail(const std::string& message) {
  std::fprintf(stderr, "hit_bench: %s\n", message.c_str());
  std::exit(1);
}

struct Rig {
  gmlake::driver::ModelDriver model;
  gmlake::driver::RecordDriver record{model};
  std::unique_ptr<Allocator> allocator;

  Rig() {
    auto made = Allocator::create(record, {.background_worker = false});  // its instructions are no hit's
    if (!made) fail(gmlake::describe(made.error()));
    allocator = std::move(*made);
  }
};

__attribute__((noinline)) void measured_pairs(Allocator& allocator, std::size_t bytes, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) allocator.deallocate(allocator.allocate(bytes));
}

// Live blocks of mixed small sizes with as many free runs between them.
std::vector<void*> populate(Allocator& allocator, std::uint64_t live) {
  std::mt19937_64 random(1);
  std::vector<void*> blocks;
  for (std::uint64_t i = 0; i < 2 * live; ++i) blocks.push_back(allocator.allocate(512 * (1 + random() % 16)));
  std::shuffle(blocks.begin(), blocks.end(), random);
  for (std::uint64_t i = live; i < 2 * live; ++i) allocator.deallocate(blocks[i]);
  blocks.resize(live);
  return blocks;
}

void run_pairs(std::size_t bytes, std::uint64_t live, std::uint64_t count, bool recorded) {
  Rig rig;
  const std::vector<void*> blocks = populate(*rig.allocator, live);
  for (int i = 0; i < 16; ++i) rig.allocator->deallocate(rig.allocator->allocate(bytes));  // the run they hit
  gmlake::FileError error;
  const auto recorder = recorded ? gmlake::Recorder::start(*rig.allocator, "/dev/null", error) : nullptr;
  if (!error.ok()) fail(error.message);
  const std::uint64_t calls = rig.record.counts().total();
  const auto start = std::chrono::steady_clock::now();
  measured_pairs(*rig.allocator, bytes, count);
  const std::chrono::duration<double, std::nano> elapsed = std::chrono::steady_clock::now() - start;
  if (rig.record.counts().total() != calls) fail("a hit made a driver call");
  std::printf("%s of %zu bytes, %llu live: %.1f ns a pair\n", recorded ? "recorded pairs" : "pairs", bytes,
              static_cast<unsigned long long>(live), elapsed.count() / static_cast<double>(count));
  for (void* block : blocks) rig.allocator->deallocate(block);
}

void* stream_of(std::uint64_t number) { return reinterpret_cast<void*>(static_cast<std::uintptr_t>(number)); }

__attribute__((noinline)) void measured_turns(Allocator& allocator, std::size_t bytes, std::uint64_t streams,
                                              std::uint64_t count) {
  std::uint64_t stream = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    stream = stream + 7 < streams ? stream + 7 : stream + 7 - streams;
    allocator.deallocate(allocator.allocate(bytes, 0, stream_of(stream)), stream_of(stream));
  }
}

void run_turns(std::size_t bytes, std::uint64_t streams, std::uint64_t count) {
  Rig rig;
  std::vector<void*> blocks(streams);  // all at a time, so that each stream has a run of its own
  for (std::uint64_t i = 0; i < streams; ++i) blocks[i] = rig.allocator->allocate(bytes, 0, stream_of(i));
  for (std::uint64_t i = 0; i < streams; ++i) rig.allocator->deallocate(blocks[i], stream_of(i));
  const std::uint64_t calls = rig.record.counts().total();
  const auto start = std::chrono::steady_clock::now();
  measured_turns(*rig.allocator, bytes, streams, count);
  const std::chrono::duration<double, std::nano> elapsed = std::chrono::steady_clock::now() - start;
  if (rig.record.counts().total() != calls) fail("a hit made a driver call");
  std::printf("pairs of %zu bytes on %llu streams in turn: %.1f ns a pair\n", bytes,
              static_cast<unsigned long long>(streams), elapsed.count() / static_cast<double>(count));
}

struct Player {
  Allocator& allocator;
  const DeviceTrace& trace;
  std::vector<void*> blocks;

  void* stream(const Event& event) const {
    return reinterpret_cast<void*>(static_cast<std::uintptr_t>(trace.streams[event.stream]));
  }
  void play(const Event& event) {
    switch (event.op) {
      case Op::alloc:
        blocks[event.id] = allocator.allocate(event.bytes, 0, stream(event));
        return;
      case Op::free:
        allocator.deallocate(blocks[event.id]);
        return;
      case Op::record_stream:
        allocator.record_stream(blocks[event.id], stream(event));
        return;
      case Op::advance:  // of a stream that lags behind: here none does
        return;
      case Op::trim:
        (void)allocator.trim().ok();
        return;
    }
  }
};

__attribute__((noinline)) void measured_events(Player& player, std::span<const Event> events) {
  for (const Event& event : events) player.play(event);
}

void run_replay(const std::string& path) {
  const auto trace = gmlake::replay::read_trace(path);
  if (!trace) fail(trace.error().text());
  const DeviceTrace& device = trace->devices.front();
  Rig rig;
  Player player{*rig.allocator, device, std::vector<void*>(device.block_count)};
  const std::span<const Event> events(device.events);
  const std::size_t half = events.size() / 2;
  for (const Event& event : events.first(half)) player.play(event);
  const auto start = std::chrono::steady_clock::now();
  measured_events(player, events.subspan(half));
  const std::chrono::duration<double, std::nano> elapsed = std::chrono::steady_clock::now() - start;
  std::printf("%s: %zu events in the second half, %.1f ns an event\n", path.c_str(), events.size() - half,
              elapsed.count() / static_cast<double>(events.size() - half));
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments == std::vector<std::string>{"--smoke"}) {
    for (const std::size_t bytes :
         {std::size_t{512}, std::size_t{64} << 10, std::size_t{2} << 20, std::size_t{64} << 20}) {
      run_pairs(bytes, 100, 1000, false);
      run_pairs(bytes, 100, 1000, true);
    }
    run_turns(512, 100, 1000);
  } else if (arguments.size() == 4 && (arguments[0] == "pairs" || arguments[0] == "recorded")) {
    run_pairs(std::stoull(arguments[1]), std::stoull(arguments[2]), std::stoull(arguments[3]),
              arguments[0] == "recorded");
  } else if (arguments.size() == 4 && arguments[0] == "turns" && std::stoull(arguments[2]) > 7) {
    run_turns(std::stoull(arguments[1]), std::stoull(arguments[2]), std::stoull(arguments[3]));
  } else if (arguments.size() == 2 && arguments[0] == "replay") {
    run_replay(arguments[1]);
  } else {
    std::fprintf(
        stderr,
        "usage: hit_bench pairs|recorded BYTES LIVE COUNT | turns BYTES STREAMS COUNT | replay TRACE | --smoke\n");
    return 2;
  }
  return 0;
}
