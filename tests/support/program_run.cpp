// One run of a program: every operation goes to the allocator and to the reference, and what differs ends it.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "alloc/growth_policy.hpp"
#include "driver/fault.hpp"
#include "driver/host.hpp"
#include "driver/model.hpp"
#include "driver/per_thread_stream.hpp"
#include "gmlake/allocator.hpp"
#include "gmlake/bytes.hpp"
#include "support/contents.hpp"
#include "support/program.hpp"
#include "support/race_detector.hpp"
#include "support/reference.hpp"

namespace gmlake::test {
namespace {

// A fault as a program writes it: 4 codes, once or from then on.
driver::Fault fault_of(const Op& op) {
  constexpr std::array kCodes = {ErrorCode::out_of_memory, ErrorCode::invalid_value, ErrorCode::unknown,
                                 ErrorCode::too_many_mappings};
  return {.kind = {}, .nth = op.amount, .sticky = (op.stream & 4) != 0, .code = kCodes[op.stream & 3]};
}

// Of each four streams, two are the per-thread default streams of threads of their own.
bool is_of_thread(std::uint32_t stream) { return stream % 4 >= 2; }

// As the caller names a stream: its own always by the same handle.
StreamHandle handle_of(std::uint32_t stream) {
  return std::bit_cast<StreamHandle>(std::uintptr_t{is_of_thread(stream) ? driver::kPerThreadStream : stream});
}

class Run {
 public:
  explicit Run(const Conditions& conditions)
      : conditions_(conditions),
        device_(make_device(conditions)),
        reference_(*device_),
        races_(reference_),
        fault_(races_),
        limit_(conditions.options.limit_bytes) {
    threads_.resize(conditions.streams);
    for (std::uint32_t stream = 0; stream < conditions.streams; ++stream) {
      if (is_of_thread(stream)) threads_[stream] = std::make_unique<driver::ThreadStream>();
      if (stream % 2 == 1) device_->streams().hold(name_of(stream));
    }
    restart();
  }
  ~Run() { driver::ThreadStream::impersonate(nullptr); }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  Outcome run(const Program& program) {
    for (const Op& op : program) {
      step(op);
      be_caller_of(0);
      if (conditions_.options.background_worker) (void)allocator_->background_step();
      ++outcome_.operations;
      if (outcome_.failure.empty() && outcome_.operations % 64 == 0) compare();
      if (!outcome_.failure.empty()) {
        outcome_.failure = "operation " + std::to_string(outcome_.operations) + ": " + outcome_.failure;
        return outcome_;
      }
    }
    finish();
    return outcome_;
  }

 private:
  struct Block {
    driver::Address address = 0;
    std::uint64_t bytes = 0;
    std::uint32_t stream = 0;
    driver::Stream name = {};  // of the stream, whoever's it is by now
    bool orphan = false;       // its stream was forgotten: nothing of the block's is enqueued on it any more
  };
  struct Pool {
    std::uint64_t references = 0;
    std::optional<std::uint32_t> chosen;  // the stream of its filter, where it has one
    std::uint64_t begun = 0;              // the last begun has a stream that several choose
    std::uint32_t life = 0;               // released and begun again, it is another pool
  };

  static std::unique_ptr<driver::SimulatedDriver> make_device(const Conditions& conditions) {
    const std::uint64_t capacity = conditions.capacity_granules * conditions.granularity;
    if (!conditions.host) {
      driver::ModelOptions options;
      options.capacity_bytes = capacity;
      options.granularity = conditions.granularity;
      return std::make_unique<driver::ModelDriver>(options);
    }
    driver::HostOptions options;
    options.capacity_bytes = capacity;
    options.granularity = conditions.granularity;
    return std::move(driver::HostDriver::make(options)).value();
  }

  // The background worker's steps come between operations, by hand: the same each time.
  void restart() {
    Options options = conditions_.options;
    options.background_worker = false;
    allocator_ = std::move(Allocator::create(fault_, options)).value();
    (void)allocator_->add_release_callback([this](const OutOfMemoryReport&) { return spare_a_block(); });
  }

  // What the callback frees: the oldest of the live blocks, and as many as the program gave it.
  bool spare_a_block() {
    if (spare_ == 0 || live_.empty()) return false;
    --spare_;
    ++outcome_.spared;
    const driver::ThreadStream* const caller = caller_;
    release({Op::Kind::free, live_.begin()->first, 0, ~0u});
    driver::ThreadStream::impersonate(caller_ = caller);  // who goes on asking for memory
    return true;
  }

  // The thread that names the stream by handle_of(), which the caller is from here on: `main`, where it is nobody's
  // own.
  void be_caller_of(std::uint32_t stream) {
    const driver::ThreadStream* thread = threads_[stream].get();
    if (thread == caller_) return;
    driver::ThreadStream::impersonate(thread);
    caller_ = thread;
  }
  // The same for all threads.
  driver::Stream name_of(std::uint32_t stream) const {
    return {0, threads_[stream] ? threads_[stream]->number() : stream};
  }

  void fail(const std::string& what) {
    if (outcome_.failure.empty()) outcome_.failure = what;
  }

  std::uint64_t limit() const {
    const std::uint64_t capacity = conditions_.capacity_granules * conditions_.granularity;
    return limit_ == 0 ? capacity : std::min(capacity, limit_);
  }

  // A kernel of the block's owner: it sees what was written before, on the host.
  void work(std::uint32_t id, const Block& block, std::uint32_t stream, bool first) {
    const std::vector<driver::Access> accesses = {{block.address, block.bytes, first}};
    std::function<void()> kernel;
    const bool cleared = conditions_.options.zero_on_free && pool_of(stream) == 0;  // a pool's memory stays in it
    if (conditions_.host) {
      kernel = [this, id, block, first, cleared] {
        if (first) {
          if (cleared && !is_zero(block.address, block.bytes))
            fail("block " + std::to_string(id) + " holds what another left there");
          write_stamps(block.address, block.bytes, id);
        } else if (wrong_stamps(block.address, block.bytes, id) != 0) {
          fail("block " + std::to_string(id) + " does not hold what was written there");
        }
      };
    }
    races_.kernel(name_of(stream), accesses);
    if (!reference_.launch(name_of(stream), accesses, std::move(kernel)).ok())
      fail("a kernel could not touch its block");
  }

  // `waiter` waits for all that the block's stream has so far, as a caller who uses memory on two streams makes it.
  void order_after(std::uint32_t waiter, const Block& block) {
    const Result<driver::Event> event = races_.event_create(0);
    be_caller_of(block.stream);
    bool done = event && races_.event_record(*event, block.name).ok();
    be_caller_of(waiter);
    done = done && races_.stream_wait(name_of(waiter), *event).ok() && races_.event_destroy(*event).ok();
    if (!done) fail("an event of the caller's failed");
  }

  void allocate(const Op& op) {
    if (live_.count(op.block) != 0) return;
    const std::uint64_t waits = device_->streams().synchronizations();
    const std::uint64_t held = device_->usage().physical_bytes;
    be_caller_of(op.stream);
    const Result<void*> pointer = allocator_->try_allocate(op.amount, 0, handle_of(op.stream));
    if (!tainted() && device_->streams().synchronizations() != waits) {  // there has to be a reason to wait
      const std::uint64_t room = limit() - std::min(limit(), held);
      if (op.amount + std::min(conditions_.options.max_phy_block_bytes, alloc::kUsualBlockBytes) <= room)
        fail("waited with memory left to create");
    }
    if (!pointer) return refused(op, pointer.error());
    const Block block{std::bit_cast<std::uintptr_t>(*pointer), round_up(op.amount, 512), op.stream, name_of(op.stream)};
    if (std::string why = reference_.allocated(block.address, block.bytes, name_of(op.stream), pool_of(op.stream));
        !why.empty()) {
      return fail("block " + std::to_string(op.block) + " " + why);
    }
    live_.emplace(op.block, block);
    requested_ += op.amount;
    sizes_[op.block] = op.amount;
    work(op.block, block, op.stream, true);
  }

  // Where nothing was made to fail, memory runs out only when live blocks leave too little.
  void refused(const Op& op, const Error& error) {
    if (error.code == ErrorCode::out_of_memory) ++outcome_.ooms;
    if (tainted() || reference_.has_open_pools()) return;  // what is free in a pool is for nobody else
    const std::uint64_t granule = conditions_.granularity;
    const std::uint64_t piece = std::max<std::uint64_t>(
        std::min(conditions_.options.max_phy_block_bytes, alloc::kUsualBlockBytes) / granule, 1);
    const std::uint64_t wanted = (op.amount + granule - 1) / granule + piece;
    const std::uint64_t total = conditions_.capacity_granules * granule;
    if (op.amount > total && error.code == ErrorCode::invalid_size) return;
    if (error.code != ErrorCode::out_of_memory) return fail("refused without a reason: " + describe(error));
    if (reference_.pinned_granules(granule, piece) + wanted <= limit() / granule) {
      fail("ran out of memory with " + format_bytes(reference_.live_bytes()) + " live: " + describe(error));
    }
  }

  bool tainted() {
    if (fault_.reached()) tainted_ = true;
    return tainted_;
  }

  void release(const Op& op) {
    const auto found = live_.find(op.block);
    if (found == live_.end()) return;
    const Block block = found->second;
    std::optional<std::uint32_t> freed_on;
    std::optional<driver::Stream> name;
    if (!block.orphan) {
      const std::uint32_t stream = op.stream == ~0u ? block.stream : op.stream;
      be_caller_of(stream);
      if (stream != block.stream) order_after(stream, block);
      work(op.block, block, stream, false);
      freed_on = stream;
      name = name_of(stream);
    }
    if (std::string why = reference_.freed(block.address, name); !why.empty()) fail(why);
    const std::uint64_t waits = device_->streams().synchronizations();
    void* pointer = std::bit_cast<void*>(block.address);
    const Status freed =
        freed_on ? allocator_->try_deallocate(pointer, handle_of(*freed_on)) : allocator_->try_deallocate(pointer);
    if (device_->streams().synchronizations() != waits && !conditions_.options.unmap_on_free)
      fail("a free waited for the device");
    if (!freed.ok()) fail("a free was refused: " + describe(freed.error()));
    requested_ -= sizes_[op.block];
    sizes_.erase(op.block);
    live_.erase(found);
  }

  void record(const Op& op) {
    const auto found = live_.find(op.block);
    if (found == live_.end()) return;
    const Block& block = found->second;
    if (block.orphan && op.stream == block.stream) return;
    if (op.stream != block.stream) order_after(op.stream, block);
    work(op.block, block, op.stream, false);
    (void)reference_.recorded(block.address, name_of(op.stream));
    be_caller_of(op.stream);
    const Status status = allocator_->try_record_stream(std::bit_cast<void*>(block.address), handle_of(op.stream));
    if (!status.ok()) fail("record_stream was refused: " + describe(status.error()));
  }

  // Of the two threads in four one says so, and the other ends, which the allocator has to find out.
  void forget(std::uint32_t stream) {
    if (stream % 4 == 3) return end_thread(stream);
    be_caller_of(stream);
    const Status forgotten = allocator_->forget_stream(handle_of(stream));
    if (!forgotten.ok()) {
      if (!tainted()) fail("forget_stream failed: " + describe(forgotten.error()));
      return;
    }
    leave_orphans(stream);
  }

  void end_thread(std::uint32_t stream) {
    be_caller_of(0);
    leave_orphans(stream);
    ended_.push_back(name_of(stream));  // whose work goes on
    threads_[stream] = std::make_unique<driver::ThreadStream>();
    device_->streams().hold(name_of(stream));
  }

  void leave_orphans(std::uint32_t stream) {
    reference_.forgotten(name_of(stream));
    for (auto& [id, block] : live_) block.orphan = block.orphan || block.stream == stream;
  }

  void advance(std::uint32_t stream, std::uint64_t operations) {
    device_->streams().advance(name_of(stream), operations);
    for (const driver::Stream& ended : ended_) device_->streams().advance(ended, operations);
    std::erase_if(ended_, [this](const driver::Stream& ended) { return device_->streams().pending(ended) == 0; });
  }

  // Which pool an allocation on that stream belongs to, as the program's filters have it; 0: none.
  std::uint32_t pool_of(std::uint32_t stream) const {
    std::uint32_t chosen = 0;
    std::uint64_t begun = 0;
    for (const auto& [number, pool] : pools_) {
      if (!pool.chosen || handle_of(*pool.chosen) != handle_of(stream) || pool.begun < begun) continue;
      chosen = pool.life;
      begun = pool.begun;
    }
    return chosen;
  }

  void change_pool(const Op& op) {
    const PoolId id{op.block, 0};
    Pool& pool = pools_[op.block];
    Status changed;
    if (op.kind == Op::Kind::begin_pool && !pool.chosen) {
      changed =
          allocator_->begin_pool(id, 0, [stream = op.stream](StreamHandle of) { return of == handle_of(stream); });
      if (!changed.ok() && tainted()) return;  // what comes first asks the driver about the device
      pool.chosen = op.stream;
      pool.begun = ++pools_begun_;
      if (++pool.references == 1) reference_.open_pool(pool.life = static_cast<std::uint32_t>(pools_begun_));
    } else if (op.kind == Op::Kind::end_pool && pool.chosen) {
      changed = allocator_->end_pool(id, 0);
      pool.chosen.reset();
    } else if (op.kind == Op::Kind::release_pool && !pool.chosen && pool.references > 0) {
      changed = allocator_->release_pool(id, 0);
      if (--pool.references == 0) reference_.close_pool(pool.life);
    }
    if (!changed.ok()) fail("a pool was refused: " + describe(changed.error()));
    if (allocator_->pool_references(id, 0) != pool.references) fail("the references of a pool are counted wrong");
  }

  void close_pools() {
    for (std::uint32_t number = 1; number <= pools_.size(); ++number) {
      change_pool({Op::Kind::end_pool, number, 0, 0});
      while (pools_[number].references > 0) change_pool({Op::Kind::release_pool, number, 0, 0});
    }
  }

  // One below what is held takes nothing away, and lets nothing be added.
  void set_limit(std::uint64_t bytes) {
    const Status set = allocator_->set_limit(bytes);
    if (set.ok()) limit_ = bytes;
    if (!set.ok() && !tainted()) fail("the limit was refused: " + describe(set.error()));
  }

  void step(const Op& op) {
    switch (op.kind) {
      case Op::Kind::alloc:
        allocate(op);
        break;
      case Op::Kind::free:
        release(op);
        break;
      case Op::Kind::record:
        record(op);
        break;
      case Op::Kind::work:
        if (const auto found = live_.find(op.block); found != live_.end() && !found->second.orphan) {
          work(op.block, found->second, found->second.stream, false);
        }
        break;
      case Op::Kind::advance:
        advance(op.stream, op.amount);
        break;
      case Op::Kind::trim:
        if (Status trimmed = allocator_->trim(op.amount); !trimmed.ok() && !tainted()) fail("trim failed");
        break;
      case Op::Kind::fail:
        (void)tainted();
        fault_.arm(fault_of(op));
        break;
      case Op::Kind::heal:
        outcome_.faults += fault_.reached() ? 1 : 0;
        (void)tainted();
        fault_.arm({.nth = ~std::uint64_t{0}});
        break;
      case Op::Kind::limit:
        set_limit(op.amount);
        break;
      case Op::Kind::spare:
        spare_ = op.amount;
        break;
      case Op::Kind::forget:
        forget(op.stream);
        break;
      case Op::Kind::begin_pool:
      case Op::Kind::end_pool:
      case Op::Kind::release_pool:
        change_pool(op);
        break;
    }
    if (!reference_.broken().empty()) fail(reference_.broken());
    if (races_.race_count() != 0) fail("a race: " + describe(races_.races().front()));
    const std::uint64_t held = device_->usage().physical_bytes;
    allowed_ = std::max(limit(), std::min(allowed_, held));
    if (held > allowed_) fail("more memory is held than the limit allows");
  }

  // The books against the reference's, and against themselves.
  void compare() {
    allocator_->check();
    const DeviceStats stats = allocator_->stats();
    if (stats.all.allocation.current != live_.size()) fail("the count of live blocks is wrong");
    if (stats.all.allocated_bytes.current != reference_.live_bytes()) fail("the count of live bytes is wrong");
    if (stats.all.requested_bytes.current != requested_) fail("the count of requested bytes is wrong");
    if (!tainted() && stats.all.reserved_bytes.current != device_->usage().physical_bytes)
      fail("the memory held is counted wrong");
    if (!device_->streams().violations().empty()) fail("the streams report a violation");
  }

  void finish() {
    fault_.heal();
    set_limit(0);
    close_pools();
    while (!live_.empty() && outcome_.failure.empty()) {
      step({Op::Kind::free, live_.begin()->first, 0, ~0u});
    }
    device_->streams().advance_all();
    races_.synchronize();
    compare();
    outcome_.waits = device_->streams().synchronizations();
    const DeviceStats stats = allocator_->stats();
    outcome_.released = stats.rung_release_cached;
    outcome_.borrowed = stats.borrowed_blocks;
    const std::uint64_t lost = stats.lost_bytes + stats.quarantined_bytes;
    if (lost == 0 && outcome_.failure.empty()) {  // all of the memory can be had again, in one piece
      const Result<void*> all = allocator_->try_allocate(round_down(limit(), conditions_.granularity), 0, handle_of(0));
      if (!all) fail("the whole memory could not be had at the end: " + describe(all.error()));
    }
    allocator_.reset();
    if (!(device_->usage() == driver::Usage{})) fail("the driver still holds something at the end");
    if (device_->streams().live_events() != 0) fail("events are left at the end");
    if (!device_->streams().violations().empty()) fail("the streams report a violation");
  }

  const Conditions& conditions_;
  Outcome outcome_;
  std::vector<std::unique_ptr<driver::ThreadStream>> threads_;  // by stream; null where it is no thread's own
  const driver::ThreadStream* caller_ = nullptr;
  std::vector<driver::Stream> ended_;  // of threads that are no more, with work to do
  std::unique_ptr<driver::SimulatedDriver> device_;
  Reference reference_;
  RaceDetector races_;
  driver::FaultDriver fault_;
  std::unique_ptr<Allocator> allocator_;
  std::map<std::uint32_t, Block> live_;
  std::map<std::uint32_t, std::uint64_t> sizes_;
  std::map<std::uint32_t, Pool> pools_{{1, {}}, {2, {}}, {3, {}}};
  std::uint64_t pools_begun_ = 0;
  std::uint64_t requested_ = 0;
  std::uint64_t spare_ = 0;
  std::uint64_t limit_ = 0;
  std::uint64_t allowed_ = 0;  // to be held: the limit, or what was held when it was lowered
  bool tainted_ = false;
};

}  // namespace

Outcome run_program(const Conditions& conditions, const Program& program) { return Run(conditions).run(program); }

Outcome run_program_apart(const Conditions& conditions, const Program& program) {
  std::array<int, 2> ends{};
  Outcome outcome;
  if (pipe(ends.data()) != 0) {
    outcome.failure = "no pipe";
    return outcome;
  }
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    outcome = run_program(conditions, program);
    const std::array numbers = {outcome.operations, outcome.ooms,   outcome.waits,   outcome.faults,
                                outcome.released,   outcome.spared, outcome.borrowed};
    std::string message(sizeof numbers, '\0');
    std::memcpy(message.data(), numbers.data(), sizeof numbers);
    message += outcome.failure;
    const bool written = write(ends[1], message.data(), message.size()) == static_cast<ssize_t>(message.size());
    std::_Exit(written ? 0 : 1);
  }
  close(ends[1]);
  std::string message;
  std::array<char, 4096> buffer{};
  for (ssize_t got = 0; (got = read(ends[0], buffer.data(), buffer.size())) > 0;) {
    message.append(buffer.data(), static_cast<std::size_t>(got));
  }
  close(ends[0]);
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) status = -1;
  std::array<std::uint64_t, 7> numbers{};
  if (status != 0 || message.size() < sizeof numbers) {
    outcome.failure = "the process ended with status " + std::to_string(status);
    return outcome;
  }
  std::memcpy(numbers.data(), message.data(), sizeof numbers);
  return {message.substr(sizeof numbers),
          numbers[0],
          numbers[1],
          numbers[2],
          numbers[3],
          numbers[4],
          numbers[5],
          numbers[6]};
}

}  // namespace gmlake::test
