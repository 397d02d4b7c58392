// Many threads on one allocator: how much they get done, and how long hits wait while another thread stitches. The
// driver under it is the model, whose calls take what they cost on an H200 in real time: the caller spins for it, as
// the real driver works on its caller's thread. Hits make no driver call, so the first figure is the allocator's alone.
//
//   threads_bench --json FILE    measures; results as JSON ("-": standard output), which bench/threads.py keeps
//   threads_bench --smoke        the same, short, with no verdict: for CI
//
// Both figures are ratios of what one run measures, in turns, since the machine is shared: medians over repetitions.
#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "driver/model.hpp"
#include "gmlake/allocator.hpp"
#include "support/forwarding_driver.hpp"

namespace {

using gmlake::Allocator;
using gmlake::Status;
using Clock = std::chrono::steady_clock;

constexpr int kThreads = 8;
constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

[[noreturn]] void fail(const std::string& message) {
  std::fprintf(stderr, "threads_bench: %s\n", message.c_str());
  std::exit(1);
}

// Makes each call that changes mappings or memory last as long as the model's clock says.
class RealTimeDriver final : public gmlake::test::ForwardingDriver {
 public:
  explicit RealTimeDriver(gmlake::driver::Driver& inner) : ForwardingDriver(inner) {}

  gmlake::Result<Handle> create(std::uint64_t bytes, const gmlake::driver::MemoryProperties& properties) override {
    return lasting([&] { return inner().create(bytes, properties); });
  }
  Status release(Handle handle) override {
    return lasting([&] { return inner().release(handle); });
  }
  Status map(Address address, std::uint64_t bytes, Handle handle) override {
    return lasting([&] { return inner().map(address, bytes, handle); });
  }
  Status unmap(Address address, std::uint64_t bytes) override {
    return lasting([&] { return inner().unmap(address, bytes); });
  }
  Status set_access(Address address, std::uint64_t bytes, std::span<const int> devices) override {
    return lasting([&] { return inner().set_access(address, bytes, devices); });
  }

 private:
  template <class Call>
  auto lasting(Call call) -> decltype(call()) {
    const auto begin = Clock::now();
    const std::uint64_t before = inner().clock_ns();
    auto result = call();
    const auto end = begin + std::chrono::nanoseconds(inner().clock_ns() - before);
    while (Clock::now() < end) {
    }
    return result;
  }
};

struct Rig {
  gmlake::driver::ModelDriver model;
  RealTimeDriver driver{model};
  std::unique_ptr<Allocator> allocator;

  Rig() {
    auto made = Allocator::create(driver);
    if (!made) fail(gmlake::describe(made.error()));
    allocator = std::move(*made);
  }
  void expect_nothing_live() const {
    const gmlake::Stat live = allocator->stats().all.allocation;
    if (live.current != 0 || live.allocated != live.freed) fail("an update of the books was lost");
    allocator->check();
  }
};

gmlake::StreamHandle stream(int number) {
  return std::bit_cast<gmlake::StreamHandle>(static_cast<std::uintptr_t>(number + 1));
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Hits of mixed sizes on the thread's own stream, 16 live at a time, until `stop`. Returns the pairs.
std::uint64_t churn(Allocator& allocator, int thread, const std::atomic<bool>& stop) {
  std::mt19937_64 random(static_cast<std::uint64_t>(thread));
  std::vector<void*> blocks(16);
  std::uint64_t pairs = 0;
  while (!stop.load(std::memory_order_relaxed)) {
    for (void*& block : blocks) {
      allocator.deallocate(block);
      block = allocator.allocate(512 << (random() % 13), 0, stream(thread));
      ++pairs;
    }
  }
  for (void* block : blocks) allocator.deallocate(block);
  return pairs;
}

// Pairs a second of `threads` threads, each on a stream of its own.
double throughput(Allocator& allocator, int threads, std::chrono::milliseconds duration) {
  std::atomic<bool> stop = false;
  std::atomic<std::uint64_t> pairs = 0;
  std::vector<std::thread> running;
  const auto begin = Clock::now();
  for (int thread = 0; thread < threads; ++thread) {
    running.emplace_back([&, thread] { pairs += churn(allocator, thread, stop); });
  }
  std::this_thread::sleep_for(duration);
  stop = true;
  for (std::thread& thread : running) thread.join();
  return static_cast<double>(pairs) / std::chrono::duration<double>(Clock::now() - begin).count();
}

// The 99.9th percentile of what a hit takes, allocate and deallocate, in nanoseconds.
double hit_p999(Allocator& allocator, std::size_t hits) {
  std::vector<std::uint32_t> times(hits);
  for (std::uint32_t& time : times) {
    const auto begin = Clock::now();
    allocator.deallocate(allocator.allocate(64 << 10, 0, stream(0)));
    const auto took = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - begin).count();
    time = static_cast<std::uint32_t>(std::min<std::int64_t>(took, UINT32_MAX));
  }
  const auto at = times.begin() + static_cast<std::ptrdiff_t>(hits / 1000 * 999);
  std::nth_element(times.begin(), at, times.end());
  return *at;
}

// Stitches blocks of 256 to 768 MiB out of what lies free between 64 others, which change meanwhile: milliseconds of
// driver calls each time.
void stitch(Allocator& allocator, const std::atomic<bool>& stop) {
  std::mt19937_64 random(1);
  std::vector<void*> blocks(64);
  while (!stop) {
    for (void*& block : blocks) {
      if (random() % 2 == 0) continue;
      allocator.deallocate(block);
      block = allocator.allocate((1 + random() % 24) * kMiB, 0, stream(1));
    }
    allocator.deallocate(allocator.allocate((256 + random() % 512) * kMiB, 0, stream(1)));
  }
  for (void* block : blocks) allocator.deallocate(block);
}

// The same time taken by a thread that computes: what a second busy thread alone does to the first.
std::uint64_t spin(const std::atomic<bool>& stop) {
  std::uint64_t turns = 0;
  while (!stop.load(std::memory_order_relaxed)) ++turns;
  return turns;
}

struct Latency {
  double alone = 0;
  double beside_spinning = 0;
  double beside_stitching = 0;
  double stitch_ms = 0;  // of driver calls, for each request that stitched
};

Latency latency(Rig& rig, std::size_t hits) {
  Allocator& allocator = *rig.allocator;
  const auto beside = [&](const std::function<void(const std::atomic<bool>&)>& other) {
    std::atomic<bool> stop = false;
    std::thread running([&] { other(stop); });
    const double p999 = hit_p999(allocator, hits);
    stop = true;
    running.join();
    return p999;
  };
  Latency result;
  result.alone = hit_p999(allocator, hits);
  result.beside_spinning = beside([](const std::atomic<bool>& stop) { (void)spin(stop); });
  const std::uint64_t stitches = allocator.stats().stitches;
  const std::uint64_t clock = rig.model.clock_ns();
  result.beside_stitching = beside([&](const std::atomic<bool>& stop) { stitch(allocator, stop); });
  const std::uint64_t made = allocator.stats().stitches - stitches;
  if (made != 0) result.stitch_ms = static_cast<double>(rig.model.clock_ns() - clock) / 1e6 / static_cast<double>(made);
  return result;
}

std::string list(const std::vector<double>& values) {
  std::string text = "[";
  for (const double value : values) text += (text.size() > 1 ? ", " : "") + std::to_string(value);
  return text + "]";
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const bool smoke = arguments == std::vector<std::string>{"--smoke"};
  if (!smoke && (arguments.size() != 2 || arguments[0] != "--json")) {
    std::fprintf(stderr, "usage: threads_bench --json FILE | --smoke\n");
    return 2;
  }
  const int repetitions = smoke ? 1 : 61;  // short ones: what else runs on the machine is the same for all of one
  const std::chrono::milliseconds duration(smoke ? 20 : 60);
  const std::size_t hits = smoke ? 20'000 : 500'000;

  std::vector<double> one;
  std::vector<double> eight;
  std::vector<double> speed_up;
  std::vector<Latency> latencies;
  Rig rig;
  for (int repetition = -1; repetition < repetitions; ++repetition) {  // the first warms the cache up
    const double single = throughput(*rig.allocator, 1, duration);
    const double many = throughput(*rig.allocator, kThreads, duration);
    const Latency measured = latency(rig, hits);
    if (repetition < 0) continue;
    one.push_back(single);
    eight.push_back(many);
    speed_up.push_back(many / single);
    latencies.push_back(measured);
  }
  rig.expect_nothing_live();

  std::vector<double> alone;
  std::vector<double> spinning;
  std::vector<double> stitching;
  std::vector<double> slow_down;
  std::vector<double> stitch_ms;
  for (const Latency& measured : latencies) {
    alone.push_back(measured.alone);
    spinning.push_back(measured.beside_spinning);
    stitching.push_back(measured.beside_stitching);
    slow_down.push_back(measured.beside_stitching / measured.alone);
    stitch_ms.push_back(measured.stitch_ms);
  }
  std::printf("pairs a second: %.2f million with 1 thread, %.2f million with %d; ratio %.2f\n", median(one) / 1e6,
              median(eight) / 1e6, kThreads, median(speed_up));
  std::printf(
      "p99.9 of a hit: %.0f ns alone, %.0f ns beside a thread that computes, %.0f ns beside one that stitches "
      "(%.2f ms a stitch); ratio %.2f\n",
      median(alone), median(spinning), median(stitching), median(stitch_ms), median(slow_down));
  if (smoke) return 0;
  std::FILE* out = arguments[1] == "-" ? stdout : std::fopen(arguments[1].c_str(), "w");
  if (out == nullptr) fail("cannot write " + arguments[1]);
  std::fprintf(
      out,
      "{\"one_thread_pairs_per_second\": %s,\n \"eight_threads_pairs_per_second\": %s,\n \"throughput_ratio\": "
      "%.4f,\n \"hit_p999_ns_alone\": %s,\n \"hit_p999_ns_beside_spinning\": %s,\n "
      "\"hit_p999_ns_beside_stitching\": %s,\n \"milliseconds_a_stitch\": %s,\n \"latency_ratio\": %.4f}\n",
      list(one).c_str(), list(eight).c_str(), median(speed_up), list(alone).c_str(), list(spinning).c_str(),
      list(stitching).c_str(), list(stitch_ms).c_str(), median(slow_down));
  if (out != stdout) std::fclose(out);
  return 0;
}
