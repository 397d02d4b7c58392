// What the model of the driver says that a job's driver calls take, against a GPU. Prints one JSON object a trace.
//
//   clock_bench TRACE...     the first device's job of each, on this machine's GPU and on the model
//   clock_bench --smoke      a short job on the model alone, with no GPU
//
// A virtual machine's driver calls take half as long again from one half minute to the next, whoever makes them. So a
// few handles are made, mapped and opened beside the job about a hundred times a replay: how long that takes against
// the model is the pace of the moment, by which the model's cost of the job's calls since the last time is multiplied.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "driver/cuda.hpp"
#include "driver/model.hpp"
#include "driver/record.hpp"
#include "or_exit.hpp"
#include "replay/engine.hpp"

namespace {

using gmlake::bench::done;
using gmlake::bench::exit_with;
using gmlake::bench::first_device;
using gmlake::bench::value_of;
using gmlake::driver::Address;
using gmlake::driver::CallCounts;
using gmlake::driver::CudaDriver;
using gmlake::driver::Driver;
using gmlake::driver::Handle;
using gmlake::driver::MemoryProperties;
using gmlake::driver::ModelDriver;
using gmlake::driver::StreamSimulator;
using gmlake::replay::DeviceTrace;

constexpr int kRounds = 5;

// The calls of a job that grows, a few of them: seconds by the driver's clock.
class Probe {
 public:
  explicit Probe(Driver& driver) : driver_(driver) {
    properties_.rdma_capable = value_of(driver.device_properties(0), "device_properties").rdma_supported;  // as a job's
    base_ = value_of(driver.reserve(kCount * kBytes, 0), "reserve");
    (void)seconds();  // the driver's own memory is cold the first time
  }
  ~Probe() { done(driver_.address_free(base_, kCount * kBytes), "address_free"); }
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;

  double seconds() {
    const int device = 0;
    std::array<Handle, kCount> handles{};
    const std::uint64_t start = driver_.clock_ns();
    for (std::uint64_t i = 0; i < kCount; ++i) {
      handles[i] = value_of(driver_.create(kBytes, properties_), "create");
      done(driver_.map(base_ + i * kBytes, kBytes, handles[i]), "map");
    }
    done(driver_.set_access(base_, kCount * kBytes, {&device, 1}), "set_access");
    const double taken = static_cast<double>(driver_.clock_ns() - start) / 1e9;
    done(driver_.unmap(base_, kCount * kBytes), "unmap");
    for (const Handle handle : handles) done(driver_.release(handle), "release");
    return taken;
  }

 private:
  static constexpr std::uint64_t kCount = 16;
  static constexpr std::uint64_t kBytes = std::uint64_t{4} << 20;

  Driver& driver_;
  MemoryProperties properties_;
  Address base_ = 0;
};

// A replay, cut where the probe was made: what the job's calls took up to there, and the probe.
struct Replayed {
  std::vector<double> job_seconds;
  std::vector<double> probe_seconds;
  CallCounts calls;
};

Replayed replay(Driver& driver, StreamSimulator* simulator, std::vector<std::uint64_t> streams,
                const DeviceTrace& trace) {
  gmlake::driver::RecordDriver record(driver);
  Probe probe(driver);
  const auto target = value_of(gmlake::replay::make_target("gmlake", record, {}), "make_target");
  Replayed replayed;
  const auto look = [&] {
    replayed.job_seconds.push_back(record.seconds());
    replayed.probe_seconds.push_back(probe.seconds());
  };
  gmlake::replay::ReplayOptions options;
  options.stream_handles = std::move(streams);
  options.progress = [&](std::uint64_t, std::uint64_t) { look(); };
  look();
  const auto report = value_of(gmlake::replay::replay(trace, *target, record, simulator, options), "replay");
  if (report.ooms != 0) exit_with("replay", "ran out of memory");  // less work than on the other driver
  replayed.calls = report.driver_calls;
  return replayed;
}

Replayed replay_on_model(const DeviceTrace& trace) {
  ModelDriver model;
  return replay(model, &model.streams(), {}, trace);
}

struct Comparison {
  double measured = 0;
  double expected = 0;
  double off() const { return expected / measured - 1; }
};

Comparison compare(const Replayed& real, const Replayed& model) {
  Comparison result{real.job_seconds.back() - real.job_seconds.front(), 0};
  const auto pace = [&](std::size_t i) { return real.probe_seconds[i] / model.probe_seconds[i]; };
  for (std::size_t i = 1; i < real.job_seconds.size(); ++i) {
    result.expected += (model.job_seconds[i] - model.job_seconds[i - 1]) * (pace(i - 1) + pace(i)) / 2;
  }
  return result;
}

// But for events. What a plan may use depends on how far the GPU has come, so even these need not be the same on it.
bool same_calls(const CallCounts& a, const CallCounts& b) {
  const auto vmm = [](const CallCounts& calls) {
    return std::array{calls.reserve, calls.address_free, calls.create,    calls.release,
                      calls.map,     calls.unmap,        calls.set_access};
  };
  return vmm(a) == vmm(b);
}

void print(const std::string& what, std::vector<Comparison> rounds, const Replayed& model, bool same) {
  std::sort(rounds.begin(), rounds.end(), [](const Comparison& a, const Comparison& b) { return a.off() < b.off(); });
  const Comparison& middle = rounds[rounds.size() / 2];
  const double model_seconds = model.job_seconds.back() - model.job_seconds.front();
  std::printf(
      "{\"kind\": \"model\", \"what\": \"%s\", \"model_seconds\": %.6f, \"pace\": %.4f, \"measured_seconds\": %.6f, "
      "\"least_off\": %.4f, \"most_off\": %.4f, \"same_calls\": %s}\n",
      what.c_str(), model_seconds, middle.expected / model_seconds, middle.measured, rounds.front().off(),
      rounds.back().off(), same ? "true" : "false");
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "--smoke") {
    const DeviceTrace job = first_device(GMLAKE_SOURCE_DIR "/examples/traces/gpt2_full.pickle.gz");
    const Replayed once = replay_on_model(job);
    const Replayed again = replay_on_model(job);
    const Comparison same = compare(again, once);
    print("gpt2_full", {same}, once, once.calls == again.calls);
    return once.calls == again.calls && std::abs(same.off()) < 0.01 ? 0 : 1;
  }
  if (argc < 2 || argv[1][0] == '-') {
    std::fprintf(stderr, "usage: clock_bench TRACE... | --smoke\n");
    return 2;
  }
  const auto driver = value_of(CudaDriver::make(), "CudaDriver::make");
  (void)value_of(driver->memory_info(0), "memory_info");  // its context takes a while, which is no call's time
  for (int i = 1; i < argc; ++i) {
    const DeviceTrace job = first_device(argv[i]);
    const Replayed model = replay_on_model(job);
    std::vector<std::uint64_t> streams;
    for (std::size_t stream = 0; stream < job.streams.size(); ++stream) {
      streams.push_back(value_of(driver->make_stream(0), "make_stream").handle);
    }
    bool same = true;
    std::vector<Comparison> rounds;
    for (int round = 0; round < kRounds; ++round) {
      const Replayed real = replay(*driver, nullptr, streams, job);
      rounds.push_back(compare(real, model));
      same &= same_calls(real.calls, model.calls);
    }
    const std::string file = std::filesystem::path(argv[i]).filename();
    print(file.substr(0, file.find('.')), rounds, model, same);
  }
  return 0;
}
