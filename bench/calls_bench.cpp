// What each driver call of a recorded job costs on a GPU, one line a call: the data that the model's costs are fitted
// to (tools/fit_costs.py), which calls made side by side do not give.
//
//   calls_bench replay TRACE      the first device's job on this machine's GPU; a CSV of its driver calls
//   calls_bench conditions        the same calls in situations that differ in one thing each; a CSV likewise
//   calls_bench --smoke           both on the model of the driver, with no GPU
//
// Columns: kind of call, when it began and how long it took (ns), address and size (MiB; 0 where it has none), handle
// (a number in the order of creation). What a range holds at a call follows from the calls before it.
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "driver/cuda.hpp"
#include "driver/model.hpp"
#include "or_exit.hpp"
#include "replay/engine.hpp"
#include "support/forwarding_driver.hpp"

namespace {

using gmlake::Result;
using gmlake::Status;
using gmlake::Step;
using gmlake::bench::done;
using gmlake::bench::first_device;
using gmlake::bench::value_of;
using gmlake::driver::Address;
using gmlake::driver::CudaDriver;
using gmlake::driver::Event;
using gmlake::driver::Handle;
using gmlake::driver::MemoryProperties;
using gmlake::driver::ModelDriver;
using gmlake::driver::Stream;

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

// Keeps every call with its time. One thread.
class CallLog final : public gmlake::test::ForwardingDriver {
 private:
  struct Call {
    Step step;
    Address address;
    std::uint64_t bytes;
    std::uint64_t handle;
    std::uint64_t begin_ns;
    std::uint64_t end_ns;
  };

  Call begin(Step step, Address address, std::uint64_t bytes) {
    return {step, address, bytes, 0, inner().clock_ns(), 0};
  }
  void end(Call call) {
    call.end_ns = inner().clock_ns();
    calls_.push_back(call);
  }
  template <class Make>
  auto kept(Step step, Address address, std::uint64_t bytes, Handle handle, Make make) {
    Call call = begin(step, address, bytes);
    auto result = make();
    call.end_ns = inner().clock_ns();
    if (handle != Handle::none) call.handle = numbers_[handle];
    calls_.push_back(call);
    return result;
  }

 public:
  explicit CallLog(gmlake::driver::Driver& inner) : ForwardingDriver(inner) { calls_.reserve(1 << 17); }

  Result<Address> reserve(std::uint64_t bytes, std::uint64_t alignment) override {
    const Call call = begin(Step::reserve, 0, bytes);
    Result<Address> address = inner().reserve(bytes, alignment);
    end(call);
    if (address) calls_.back().address = *address;
    return address;
  }
  Status address_free(Address address, std::uint64_t bytes) override {
    return kept(Step::address_free, address, bytes, {}, [&] { return inner().address_free(address, bytes); });
  }
  Result<Handle> create(std::uint64_t bytes, const MemoryProperties& properties) override {
    const Call call = begin(Step::create, 0, bytes);
    Result<Handle> handle = inner().create(bytes, properties);
    end(call);
    if (handle) calls_.back().handle = numbers_[*handle] = ++handles_;
    return handle;
  }
  Status release(Handle handle) override {
    return kept(Step::release, 0, 0, handle, [&] { return inner().release(handle); });
  }
  Status map(Address address, std::uint64_t bytes, Handle handle) override {
    return kept(Step::map, address, bytes, handle, [&] { return inner().map(address, bytes, handle); });
  }
  Status unmap(Address address, std::uint64_t bytes) override {
    return kept(Step::unmap, address, bytes, {}, [&] { return inner().unmap(address, bytes); });
  }
  Status set_access(Address address, std::uint64_t bytes, std::span<const int> devices) override {
    return kept(Step::set_access, address, bytes, {}, [&] { return inner().set_access(address, bytes, devices); });
  }
  Result<Event> event_create(int device) override {
    return kept(Step::event_create, 0, 0, {}, [&] { return inner().event_create(device); });
  }
  Status event_record(Event event, Stream stream) override {
    return kept(Step::event_record, 0, 0, {}, [&] { return inner().event_record(event, stream); });
  }
  Result<bool> event_query(Event event) override {
    return kept(Step::event_query, 0, 0, {}, [&] { return inner().event_query(event); });
  }
  Status event_synchronize(Event event) override {
    return kept(Step::event_synchronize, 0, 0, {}, [&] { return inner().event_synchronize(event); });
  }
  Status stream_wait(Stream stream, Event event) override {
    return kept(Step::stream_wait, 0, 0, {}, [&] { return inner().stream_wait(stream, event); });
  }
  Status event_destroy(Event event) override {
    return kept(Step::event_destroy, 0, 0, {}, [&] { return inner().event_destroy(event); });
  }

  // Names the part of the job that the next calls belong to, in a line of its own.
  void mark(std::string name) { marks_.emplace_back(calls_.size(), std::move(name)); }

  void print() const {
    std::size_t mark = 0;
    for (std::size_t i = 0; i < calls_.size(); ++i) {
      for (; mark < marks_.size() && marks_[mark].first == i; ++mark)
        std::printf("# %s\n", marks_[mark].second.c_str());
      const Call& call = calls_[i];
      std::printf("%s,%llu,%llu,%llu,%llu,%llu\n", to_string(call.step),
                  static_cast<unsigned long long>(call.begin_ns - calls_.front().begin_ns),
                  static_cast<unsigned long long>(call.end_ns - call.begin_ns),
                  static_cast<unsigned long long>(call.address / kMiB),
                  static_cast<unsigned long long>(call.bytes / kMiB), static_cast<unsigned long long>(call.handle));
    }
  }

 private:
  std::vector<Call> calls_;
  std::map<Handle, std::uint64_t> numbers_;
  std::uint64_t handles_ = 0;
  std::vector<std::pair<std::size_t, std::string>> marks_;
};

void replay(gmlake::driver::Driver& driver, gmlake::driver::StreamSimulator* simulator,
            const std::function<Result<Stream>()>& make_stream, const gmlake::replay::DeviceTrace& trace) {
  gmlake::replay::ReplayOptions options;
  for (std::size_t i = 0; make_stream && i < trace.streams.size(); ++i) {
    options.stream_handles.push_back(value_of(make_stream(), "make_stream").handle);
  }
  CallLog log(driver);
  gmlake::driver::RecordDriver record(log);
  const auto target = value_of(gmlake::replay::make_target("gmlake", record, {}), "make_target");
  const auto report = value_of(gmlake::replay::replay(trace, *target, record, simulator, options), "replay");
  log.print();
  std::fprintf(stderr, "%llu events, %.4f s in the driver\n", static_cast<unsigned long long>(report.events),
               report.driver_seconds);
}

// Situations that differ in one thing each: what the memory may be shared with, its size, and how it is mapped.
class Conditions {
 public:
  Conditions(gmlake::driver::Driver& driver, std::uint64_t count) : log_(driver), count_(count) {}

  void run() {
    for (const bool rdma : {false, true}) {
      for (const bool posix_fd : {false, true}) {
        properties_.rdma_capable = rdma;
        properties_.posix_fd_handle = posix_fd;
        for (const std::uint64_t mib : {2, 16}) one_size(mib * kMiB);
      }
    }
    log_.print();
  }

 private:
  Address range(std::uint64_t bytes) { return value_of(log_.reserve(bytes, 0), "reserve"); }
  Handle create(std::uint64_t bytes) { return value_of(log_.create(bytes, properties_), "create"); }
  void open(Address address, std::uint64_t bytes) {
    const int device = 0;
    done(log_.set_access(address, bytes, {&device, 1}), "set_access");
  }
  void map_all(Address base, const std::vector<Handle>& handles, std::uint64_t bytes) {
    for (std::size_t i = 0; i < handles.size(); ++i) done(log_.map(base + i * bytes, bytes, handles[i]), "map");
  }

  void one_size(std::uint64_t bytes) {
    const auto mark = [&](const char* what) {
      log_.mark(std::to_string(bytes / kMiB) + " MiB" + (properties_.rdma_capable ? ", for RDMA" : "") +
                (properties_.posix_fd_handle ? ", with a descriptor" : "") + ": " + what);
    };
    const std::uint64_t all = count_ * bytes;
    const Address base = range(80 * kGiB);
    mark("created, mapped and opened in turn");
    std::vector<Handle> first;
    for (std::uint64_t i = 0; i < count_; ++i) {
      first.push_back(create(bytes));
      done(log_.map(base + i * bytes, bytes, first.back()), "map");
      open(base + i * bytes, bytes);
    }
    mark("created and mapped in turn, opened at once");
    std::vector<Handle> second;
    for (std::uint64_t i = 0; i < count_; ++i) {
      second.push_back(create(bytes));
      done(log_.map(base + 8 * kGiB + i * bytes, bytes, second.back()), "map");
    }
    open(base + 8 * kGiB, all);
    mark("all created, all mapped, opened at once");
    std::vector<Handle> third;
    for (std::uint64_t i = 0; i < count_; ++i) third.push_back(create(bytes));
    map_all(base + 16 * kGiB, third, bytes);
    open(base + 16 * kGiB, all);
    mark("a second address for each, all opened at once");
    map_all(base + 24 * kGiB, first, bytes);
    open(base + 24 * kGiB, all);
    mark("a third, four opened at once");
    map_all(base + 32 * kGiB, first, bytes);
    for (std::uint64_t i = 0; i < count_; i += 4) open(base + 32 * kGiB + i * bytes, 4 * bytes);
    mark("a fourth, in steps of 1 GiB");
    for (std::uint64_t i = 0; i < std::min<std::uint64_t>(count_, 24); ++i) {
      done(log_.map(base + (48 + i) * kGiB, bytes, first[i]), "map");
      open(base + (48 + i) * kGiB, bytes);
    }
    mark("the second unmapped at once");
    done(log_.unmap(base + 24 * kGiB, all), "unmap");
    mark("the second again, where it was, opened at once");
    map_all(base + 24 * kGiB, first, bytes);
    open(base + 24 * kGiB, all);
    mark("the third unmapped by fours");
    for (std::uint64_t i = 0; i < count_; i += 4) done(log_.unmap(base + 32 * kGiB + i * bytes, 4 * bytes), "unmap");
    mark("the second unmapped one by one");
    for (std::uint64_t i = 0; i < count_; ++i) done(log_.unmap(base + 24 * kGiB + i * bytes, bytes), "unmap");
    mark("the fourth unmapped");
    for (std::uint64_t i = 0; i < std::min<std::uint64_t>(count_, 24); ++i) {
      done(log_.unmap(base + (48 + i) * kGiB, bytes), "unmap");
    }
    mark("the last mappings unmapped, and all released");
    for (const std::uint64_t at : {0, 8, 16}) done(log_.unmap(base + at * kGiB, all), "unmap");
    for (const auto* handles : {&first, &second, &third}) {
      for (const Handle handle : *handles) done(log_.release(handle), "release");
    }
    done(log_.address_free(base, 80 * kGiB), "address_free");
  }

  CallLog log_;
  const std::uint64_t count_;  // a multiple of 4
  MemoryProperties properties_;
};

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() == 1 && arguments[0] == "--smoke") {
    ModelDriver model;
    replay(model, &model.streams(), {}, first_device(GMLAKE_SOURCE_DIR "/examples/traces/gpt2_full.pickle.gz"));
    Conditions(model, 8).run();
    return 0;
  }
  const bool replays = arguments.size() == 2 && arguments[0] == "replay";
  if (!replays && !(arguments.size() == 1 && arguments[0] == "conditions")) {
    std::fprintf(stderr, "usage: calls_bench replay TRACE | conditions | --smoke\n");
    return 2;
  }
  const auto driver = value_of(CudaDriver::make(), "CudaDriver::make");
  (void)value_of(driver->memory_info(0), "memory_info");  // its context takes a while, which is no call's time
  if (replays) {
    replay(
        *driver, nullptr, [&] { return driver->make_stream(0); }, first_device(argv[2]));
  } else {
    Conditions(*driver, 256).run();
  }
  return 0;
}
