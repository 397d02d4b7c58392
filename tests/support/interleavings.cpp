#include "support/interleavings.hpp"

#include <algorithm>
#include <bit>
#include <functional>
#include <map>
#include <memory>
#include <random>

#include "driver/host.hpp"
#include "driver/model.hpp"
#include "gmlake/allocator.hpp"
#include "gmlake/bytes.hpp"
#include "support/contents.hpp"
#include "support/race_detector.hpp"

namespace gmlake::test {
namespace {

constexpr std::uint64_t kGranule = std::uint64_t{64} << 10;
constexpr std::uint32_t kOwnStream = ~0u;  // of a free: the one that the block was allocated on

std::uint64_t mixed(std::uint64_t value) {
  value = (value ^ value >> 31) * 0x7FB5D329728EA185u;
  value = (value ^ value >> 27) * 0x81DADEF4BC2DD44Du;
  return value ^ value >> 33;
}

class PlantedDriver final : public ForwardingDriver {
 public:
  PlantedDriver(driver::Driver& inner, Planted planted) : ForwardingDriver(inner), planted_(planted) {}

  Status stream_wait(Stream stream, Event event) override {
    if (planted_ == Planted::no_device_waits) return {};
    return inner().stream_wait(stream, event);
  }
  Status event_synchronize(Event event) override {
    if (planted_ == Planted::no_host_waits) return {};
    return inner().event_synchronize(event);
  }
  Result<bool> event_query(Event event) override {
    if (planted_ == Planted::passed_at_once) return true;
    return inner().event_query(event);
  }
  Status event_record(Event event, Stream stream) override {
    if (planted_ == Planted::no_records) return {};
    return inner().event_record(event, stream);
  }

 private:
  const Planted planted_;
};

StreamHandle stream_handle(std::uint32_t stream) { return std::bit_cast<StreamHandle>(std::uintptr_t{stream}); }

class Stage {
 public:
  Stage(const Mix& mix, Tally& tally)
      : mix_(mix), tally_(tally), device_(make_device(mix)), detector_(*device_), driver_(detector_, mix.planted) {
    for (std::uint32_t stream = 1; stream <= mix.threads.size(); ++stream) device_->streams().hold({0, stream});
    Options options = mix.options;
    options.background_worker = false;  // these look at every order of operations, not at that of threads
    allocator_ = std::move(Allocator::create(driver_, options)).value();
  }

  void step(const Op& op) {
    ++tally_.operations;
    switch (op.kind) {
      case Op::Kind::alloc:
        return allocate(op);
      case Op::Kind::free:
        return release(op.block, op.stream);
      case Op::Kind::record:
        return record(op);
      case Op::Kind::work:
        return rewrite(op);
      case Op::Kind::advance:
        device_->streams().advance({0, op.stream}, op.amount);
        return;
      case Op::Kind::trim:
        if (!allocator_->trim(op.amount).ok()) fail("trim failed");
        return;
      case Op::Kind::limit:
        if (!allocator_->set_limit(op.amount).ok()) fail("the limit was refused");
        return;
      case Op::Kind::forget:
      case Op::Kind::begin_pool:
      case Op::Kind::end_pool:
      case Op::Kind::release_pool:
      case Op::Kind::fail:
      case Op::Kind::heal:
      case Op::Kind::spare:
        return fail("no operation of a mix");
    }
  }

  // One stream goes on by up to two of its operations.
  void advance(std::uint64_t salt) {
    const std::uint64_t chosen = mixed(salt);
    device_->streams().advance({0, 1 + chosen % mix_.threads.size()}, chosen / 64 % 3);
  }

  // Everything is freed and given back; then all of memory can be had in one piece, and the driver is empty.
  void finish() {
    while (!live_.empty()) release(live_.begin()->first, kOwnStream);
    if (!allocator_->set_limit(0).ok()) fail("the limit was refused");
    allocator_->check();
    if (mix_.planted == Planted::none) {
      const Result<void*> all = allocator_->try_allocate(mix_.capacity_granules * kGranule, 0, stream_handle(1));
      if (!all.ok()) fail("the whole memory could not be had at the end: " + gmlake::describe(all.error()));
    }
    const DeviceStats stats = allocator_->stats();
    device_->streams().advance_all();
    detector_.synchronize();
    allocator_.reset();
    tally_.stitches += stats.stitches;
    tally_.moved_bytes += stats.moved_bytes;
    tally_.stream_waits += stats.rung_stream_wait;
    tally_.host_waits += stats.rung_wait;
    tally_.released += stats.phy_blocks_released;
    tally_.retired += stats.mappings_retired;
    tally_.borrowed += stats.borrowed_blocks;
    tally_.races += detector_.race_count();
    for (const Race& race : detector_.races()) tally_.unmap_races += race.second.touch == Race::Touch::unmap ? 1 : 0;
    if (mix_.planted != Planted::none) return;  // then the driver has refused things that it never should be asked
    if (!(device_->usage() == driver::Usage{})) fail("the driver still holds something at the end");
    if (device_->streams().live_events() != 0) fail("events are left at the end");
    if (!device_->streams().violations().empty()) fail("the streams report a violation");
  }

  const std::string& failure() const { return failure_; }
  std::string first_race() const { return detector_.races().empty() ? "" : describe(detector_.races().front()); }

 private:
  struct Block {
    driver::Address address = 0;
    std::uint64_t bytes = 0;
    std::uint32_t stream = 0;
    std::vector<std::uint32_t> readers;  // other streams that use it
  };

  static std::unique_ptr<driver::SimulatedDriver> make_device(const Mix& mix) {
    if (!mix.host) {
      driver::ModelOptions options;
      options.granularity = kGranule;
      options.capacity_bytes = mix.capacity_granules * kGranule;
      return std::make_unique<driver::ModelDriver>(options);
    }
    driver::HostOptions options;
    options.granularity = kGranule;
    options.capacity_bytes = mix.capacity_granules * kGranule;
    return std::move(driver::HostDriver::make(options)).value();
  }

  void fail(const std::string& what) {
    if (failure_.empty()) failure_ = what;
  }

  // A kernel of the block's owner, who finds what was written there when it was allocated.
  void work(std::uint32_t id, const Block& block, std::uint32_t stream, bool write, bool first = false) {
    ++tally_.kernels;
    const std::vector<driver::Access> accesses = {{block.address, block.bytes, write}};
    detector_.kernel({0, stream}, accesses);
    const auto contents = [this, id, block, write, first] {
      if (!first && wrong_stamps(block.address, block.bytes, id) != 0) ++tally_.wrong_content;
      if (write) write_stamps(block.address, block.bytes, id);
    };
    const std::function<void()> run = mix_.host ? std::function<void()>(contents) : nullptr;
    if (!device_->launch({0, stream}, accesses, run).ok()) fail("a kernel could not touch its block");
  }

  // What a program that uses memory on two streams has to do itself.
  void order_after(std::uint32_t waiter, std::uint32_t other) {
    const driver::Event event = detector_.event_create(0).value();
    if (!detector_.event_record(event, {0, other}).ok() || !detector_.stream_wait({0, waiter}, event).ok() ||
        !detector_.event_destroy(event).ok()) {
      fail("an event failed");
    }
  }

  void allocate(const Op& op) {
    if (live_.count(op.block) != 0) return;
    const Result<void*> pointer = allocator_->try_allocate(op.amount, 0, stream_handle(op.stream));
    if (!pointer) {
      if (pointer.error().code != ErrorCode::out_of_memory) fail(gmlake::describe(pointer.error()));
      ++tally_.refused;
      return;
    }
    const Block block{std::bit_cast<std::uintptr_t>(*pointer), round_up(op.amount, 512), op.stream, {}};
    live_.emplace(op.block, block);
    work(op.block, block, op.stream, true, true);
  }

  // By its owner, once those who read it have done so.
  void rewrite(const Op& op) {
    const auto found = live_.find(op.block);
    if (found == live_.end()) return;
    for (const std::uint32_t reader : found->second.readers) order_after(found->second.stream, reader);
    work(op.block, found->second, found->second.stream, true);
  }

  void record(const Op& op) {
    const auto found = live_.find(op.block);
    if (found == live_.end()) return;
    Block& block = found->second;
    if (op.stream != block.stream) order_after(op.stream, block.stream);
    work(op.block, block, op.stream, false);
    if (op.stream != block.stream) block.readers.push_back(op.stream);
    if (mix_.planted == Planted::unrecorded_streams) return;
    if (!allocator_->try_record_stream(std::bit_cast<void*>(block.address), stream_handle(op.stream)).ok()) {
      fail("record_stream was refused");
    }
  }

  void release(std::uint32_t id, std::uint32_t named) {
    const auto found = live_.find(id);
    if (found == live_.end()) return;
    const Block block = found->second;
    const std::uint32_t stream = named == kOwnStream ? block.stream : named;
    if (stream != block.stream) order_after(stream, block.stream);
    work(id, block, stream, false);
    tally_.deferred += !block.readers.empty() || stream != block.stream ? 1 : 0;
    if (!allocator_->try_deallocate(std::bit_cast<void*>(block.address), stream_handle(stream)).ok()) {
      fail("a free was refused");
    }
    live_.erase(found);
  }

  const Mix& mix_;
  Tally& tally_;
  std::unique_ptr<driver::SimulatedDriver> device_;
  RaceDetector detector_;
  PlantedDriver driver_;
  std::unique_ptr<Allocator> allocator_;
  std::map<std::uint32_t, Block> live_;
  std::string failure_;
};

std::vector<std::uint8_t> first_order(const Mix& mix) {
  std::vector<std::uint8_t> order;
  for (std::size_t thread = 0; thread < mix.threads.size(); ++thread) {
    order.insert(order.end(), mix.threads[thread].size(), static_cast<std::uint8_t>(thread));
  }
  return order;
}

}  // namespace

void run_interleaving(const Mix& mix, const std::vector<std::uint8_t>& order, std::uint64_t salt, Tally& tally) {
  Stage stage(mix, tally);
  std::vector<std::size_t> done(mix.threads.size());
  for (std::size_t choice = 0; choice < order.size(); ++choice) {
    const std::size_t thread = order[choice];
    stage.step(mix.threads[thread][done[thread]++]);
    stage.advance(salt * 64 + choice);
  }
  stage.finish();
  ++tally.interleavings;
  const auto name = [&] {
    std::string text = mix.name + ", order ";
    for (const std::uint8_t thread : order) text += static_cast<char>('1' + thread);
    return text + ", salt " + std::to_string(salt) + ": ";
  };
  if (tally.first_race.empty() && !stage.first_race().empty()) tally.first_race = name() + stage.first_race();
  if (tally.failure.empty() && !stage.failure().empty()) tally.failure = name() + stage.failure();
}

Tally run_all_interleavings(const Mix& mix, std::uint64_t every) {
  Tally tally;
  std::vector<std::uint8_t> order = first_order(mix);
  std::uint64_t number = 0;
  do {
    if (number % every == 0) run_interleaving(mix, order, number, tally);
    ++number;
  } while (std::next_permutation(order.begin(), order.end()));
  return tally;
}

Tally run_some_interleavings(const Mix& mix, std::uint64_t seed, std::uint64_t count) {
  Tally tally;
  std::vector<std::uint8_t> order = first_order(mix);
  std::mt19937_64 random(seed);
  for (std::uint64_t i = 0; i < count; ++i) {
    // std::shuffle differs between libraries; this does not.
    for (std::size_t left = order.size(); left > 1; --left) std::swap(order[left - 1], order[random() % left]);
    run_interleaving(mix, order, random(), tally);
  }
  return tally;
}

Mix random_mix(std::uint64_t seed, std::uint32_t threads, std::size_t operations) {
  std::mt19937_64 random(seed);
  const auto below = [&random](std::uint64_t bound) { return random() % bound; };
  Mix mix;
  mix.name = "seed " + std::to_string(seed);
  mix.capacity_granules = 4 + below(16);
  mix.options.slack = below(2) == 0 ? 0 : 0.2;
  mix.options.max_stale = static_cast<double>(below(3)) / 4;
  mix.options.stream_wait = static_cast<StreamWait>(2 - below(4) % 3);
  mix.options.zero_on_free = below(6) == 0;
  mix.threads.resize(threads);
  const std::uint64_t blocks = threads * operations / 3 + 1;
  for (std::uint32_t thread = 0; thread < threads; ++thread) {
    for (std::size_t i = 0; i < operations; ++i) {
      const auto block = static_cast<std::uint32_t>(below(blocks));
      const auto stream = static_cast<std::uint32_t>(1 + below(threads));
      const std::uint64_t dice = below(100);
      Op op;
      if (dice < 45) {
        op = {Op::Kind::alloc, block, 1 + below(mix.capacity_granules * kGranule / 2), thread + 1};
      } else if (dice < 70) {
        op = {Op::Kind::free, block, 0, below(5) == 0 ? stream : kOwnStream};
      } else if (dice < 82) {
        op = {Op::Kind::record, block, 0, stream};
      } else if (dice < 92) {
        op = {Op::Kind::work, block, 0, 0};
      } else if (dice < 97) {
        op = {Op::Kind::advance, 0, 1 + below(4), stream};
      } else {
        op = {Op::Kind::trim, 0, below(2) * kGranule, 0};
      }
      mix.threads[thread].push_back(op);
    }
  }
  return mix;
}

}  // namespace gmlake::test
