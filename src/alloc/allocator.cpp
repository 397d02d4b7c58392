// The C++ edge: devices by number, pointers for addresses, exceptions for errors. Everything else is DeviceAllocator's.
#include "gmlake/allocator.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <optional>

#include "alloc/device_allocator.hpp"
#include "alloc/growth_policy.hpp"
#include "alloc/hot_path.hpp"
#include "alloc/oom_callbacks.hpp"
#include "alloc/open_driver.hpp"
#include "alloc/placed_blocks.hpp"
#include "base/check.hpp"
#include "base/mutex.hpp"
#include "base/process.hpp"
#include "driver/driver.hpp"
#include "driver/per_thread_stream.hpp"

namespace gmlake {

using alloc::DeviceAllocator;

namespace {

std::uint64_t bits(const void* pointer) { return std::bit_cast<std::uintptr_t>(pointer); }
std::uint64_t meant_by(StreamHandle stream) { return driver::stream_meant_by(bits(stream)); }
void* to_pointer(driver::Address address) { return std::bit_cast<void*>(static_cast<std::uintptr_t>(address)); }

// Runs what only running out of host memory can make throw.
template <class Call>
auto guarded(Step step, std::uint64_t value, Call&& call) noexcept -> decltype(call()) {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::out_of_memory, step, value};
  }
}

}  // namespace

struct Allocator::State final : public alloc::Room {
  const process::Origin origin;           // in the child of a fork nothing else here is touched: books may be half
                                          // written, and locks held by threads that are not there
  std::unique_ptr<driver::Driver> owned;  // where the allocator opened the driver itself
  driver::Driver* driver = nullptr;
  Options options;
  alloc::OomCallbacks callbacks;
  alloc::MappingObservers mapping_observers;
  std::size_t history_events GMLAKE_GUARDED_BY(making) = 0;  // for devices that are yet to be used
  Mutex making;                                              // one thread makes a device's allocator
  std::vector<std::atomic<DeviceAllocator*>> devices;        // by number; null until first used
  const std::size_t device_count = devices.size();           // at hand for hits
  std::optional<alloc::PlacedBlocks> placed;
  State* next_abandoned = nullptr;

  State(driver::Driver* used, const Options& given, std::size_t count) : driver(used), options(given), devices(count) {
    placed.emplace(*driver, *this, std::min(options.max_phy_block_bytes, alloc::kUsualBlockBytes),
                   alloc::PlacedBlocks::Freeing{.zeroes = options.zero_on_free, .waits = options.unmap_on_free});
  }
  ~State() override {
    placed.reset();
    for (auto& device : devices) delete device.load();
  }

  // What a call ends in that comes too late, or in the wrong process: where the origin is not intact.
  Error late(Step step, std::uint64_t value) const { return {origin.lapse(), step, value}; }

  // Errors: forked, shut_down, invalid_device, and those of making it.
  Result<DeviceAllocator*> device(int number) {
    if (!origin.intact()) [[unlikely]]
      return late(Step::allocate, static_cast<std::uint64_t>(number));
    if (number < 0 || static_cast<std::size_t>(number) >= devices.size()) {
      return Error{ErrorCode::invalid_device, Step::allocate, static_cast<std::uint64_t>(number)};
    }
    std::atomic<DeviceAllocator*>& slot = devices[static_cast<std::size_t>(number)];
    if (DeviceAllocator* made = slot.load(std::memory_order_acquire)) return made;
    const MutexLock lock(making);
    if (DeviceAllocator* made = slot.load(std::memory_order_relaxed)) return made;
    Result<std::unique_ptr<DeviceAllocator>> fresh =
        DeviceAllocator::create(*driver, number, options, callbacks, mapping_observers);
    if (!fresh) return fresh.error();
    (*fresh)->keep_history(history_events);
    if (options.spill != SpillTo::nowhere) {
      (*fresh)->set_overflow([this, number, placement = spill_of(number)](std::uint64_t stream, std::uint64_t bytes) {
        return placed->create(bytes, {number, stream}, placement);
      });
    }
    slot.store((*fresh).get(), std::memory_order_release);
    return (*fresh).release();
  }

  // Where a device's requests go by the option `spill`.
  Placement spill_of(int number) const {
    std::vector<int> peers;
    for (int peer = 0; options.spill != SpillTo::host && peer < static_cast<int>(devices.size()); ++peer) {
      if (peer != number) peers.push_back(peer);
    }
    return Placement::spill(std::move(peers), options.spill != SpillTo::peers);
  }

  // Room: the limits of devices.
  bool take(int number, std::uint64_t bytes, bool refused) override {
    const Result<DeviceAllocator*> allocator = device(number);
    return allocator && (*allocator)->take_room(bytes, refused);
  }
  void give_back(int number, std::uint64_t bytes) override { made(number)->return_room(bytes); }

  Result<void*> allocate_placed(std::size_t bytes, const Placement& placement, int number,
                                StreamHandle stream) noexcept {
    return guarded(Step::allocate, bytes, [&]() -> Result<void*> {
      const Result<DeviceAllocator*> allocator = device(number);
      if (!allocator) return allocator.error();
      if (bytes == 0) return nullptr;
      const Result<driver::Address> address = placed->create(bytes, {number, meant_by(stream)}, placement);
      audit();
      if (!address) return address.error();
      return to_pointer(*address);
    });
  }

  // The device's allocator where it was used before; null otherwise, and for a number that is none.
  DeviceAllocator* made(int number) const noexcept {
    const auto index = static_cast<std::size_t>(number);
    return index < device_count ? devices[index].load(std::memory_order_acquire) : nullptr;
  }

  // The hot path of allocate(): null where it takes more than a cached run, or is an error.
  [[gnu::always_inline]] void* allocate_cached(std::size_t bytes, int device, std::uint64_t stream) noexcept {
    if constexpr (GMLAKE_CHECK_LEVEL >= 2) return nullptr;  // the other way audits
    DeviceAllocator* allocator = origin.intact() ? made(device) : nullptr;
    return allocator == nullptr ? nullptr : to_pointer(allocator->allocate_cached(bytes, stream));
  }

  // The hot path of deallocate(): false where nothing was done.
  [[gnu::always_inline]] bool deallocate_at_once(const void* pointer, std::optional<std::uint64_t> stream) noexcept {
    if (GMLAKE_CHECK_LEVEL >= 2 || !origin.intact()) return false;  // the other way audits, and says why
    for (const auto& slot : devices) {
      DeviceAllocator* made = slot.load(std::memory_order_acquire);
      if (made != nullptr && made->may_free_at_once(bits(pointer)) && made->deallocate_at_once(bits(pointer), stream)) {
        return true;
      }
    }
    return false;
  }

  // The other way: whatever takes more than a cached run, and every error.
  Result<void*> allocate(std::size_t bytes, int device_number, StreamHandle stream,
                         std::optional<OutOfMemoryReport>* report) noexcept {
    return guarded(Step::allocate, bytes, [&]() -> Result<void*> {
      const Result<DeviceAllocator*> allocator = device(device_number);
      if (!allocator) return allocator.error();
      if (bytes == 0) return nullptr;
      const Result<driver::Address> address = (*allocator)->allocate(bytes, meant_by(stream), report);
      audit();
      if (!address) return address.error();
      return to_pointer(*address);
    });
  }

  Status deallocate(const void* pointer, std::optional<std::uint64_t> stream) noexcept {
    if (pointer == nullptr || deallocate_at_once(pointer, stream)) return {};
    if (!origin.intact()) [[unlikely]]
      return late(Step::deallocate, bits(pointer));
    return guarded(Step::deallocate, bits(pointer), [&]() -> Status {
      Status status = Error{ErrorCode::invalid_pointer, Step::deallocate, bits(pointer)};
      any([&](DeviceAllocator& device) {  // a pointer is of one device: addresses are unique in the process
        status = device.deallocate(bits(pointer), stream);
        return status.ok() || status.error().code != ErrorCode::invalid_pointer;
      });
      if (!status.ok() && status.error().code == ErrorCode::invalid_pointer) {
        status = placed->deallocate(bits(pointer), stream);
      }
      audit();
      return status;
    });
  }

  // `stream_device`: none where the stream is one of the block's own device.
  Status record_stream(const void* pointer, StreamHandle stream, std::optional<int> stream_device) noexcept {
    if (!origin.intact()) [[unlikely]]
      return late(Step::record_stream, bits(pointer));
    return guarded(Step::record_stream, bits(pointer), [&]() -> Status {
      Status status = Error{ErrorCode::invalid_pointer, Step::record_stream, bits(pointer)};
      any([&](DeviceAllocator& device) {
        status = device.record_stream(bits(pointer), {stream_device.value_or(device.device()), meant_by(stream)});
        return status.ok();
      });
      if (!status.ok() && status.error().code == ErrorCode::invalid_pointer) {
        const int of = placed->device_of(bits(pointer));
        if (of >= 0) status = placed->record_stream(bits(pointer), {stream_device.value_or(of), meant_by(stream)});
      }
      audit();
      return status;
    });
  }

  // Errors: forked, shut_down, invalid_device.
  Status check_device(int number, Step step) const {
    if (!origin.intact()) return late(step, static_cast<std::uint64_t>(number));
    if (number >= 0 && static_cast<std::size_t>(number) < devices.size()) return {};
    return Error{ErrorCode::invalid_device, step, static_cast<std::uint64_t>(number)};
  }

  template <class Call>
  Status on_device(int number, Step step, Call&& call) noexcept {
    return guarded(step, static_cast<std::uint64_t>(number), [&]() -> Status {
      const Result<DeviceAllocator*> allocator = device(number);
      if (!allocator) return allocator.error();
      Status status = call(**allocator);
      audit();
      return status;
    });
  }

  // A pointer that no device knows is counted on the first that was used.
  void count_invalid(const Status& freed) noexcept {
    if (freed.ok() || freed.error().code != ErrorCode::invalid_pointer) return;
    any([](DeviceAllocator& device) {
      device.count_invalid_free();
      return true;
    });
  }

  // After each public call that changes something, at check level 2.
  void audit() const {
    any([](const DeviceAllocator& device) {
      GMLAKE_AUDIT(device.check());
      return GMLAKE_CHECK_LEVEL < 2;
    });
    if (!origin.forked()) GMLAKE_AUDIT(placed->check());
  }

  // Calls what(DeviceAllocator&) for each device that was used until it returns true.
  template <class What>
  bool any(What&& what) const {
    if (origin.forked()) [[unlikely]]
      return false;
    for (const auto& slot : devices) {
      DeviceAllocator* made = slot.load(std::memory_order_acquire);
      if (made != nullptr && what(*made)) return true;
    }
    return false;
  }

  // The same, for who only reads: in the child of a fork there is nothing to see.
  template <class What>
  bool see(What&& what) const {
    return !origin.forked() && any(what);
  }
};

Allocator::Allocator(std::unique_ptr<State> state) : state_(std::move(state)) {}

Allocator::~Allocator() {
  if (state_->origin.intact()) return;
  // A child of a fork may touch neither the books nor the driver, and at exit other threads may still be in here: the
  // end of the process gives everything back. Kept in a list, so that nothing looks lost to who searches for leaks.
  // Only threads of its own end here, where there are any: the driver may be gone next.
  state_->any([](DeviceAllocator& device) {
    device.stop_worker();
    return false;
  });
  static constinit std::atomic<State*> abandoned{nullptr};
  State* const state = state_.release();
  state->next_abandoned = abandoned.load();
  while (!abandoned.compare_exchange_weak(state->next_abandoned, state)) {
  }
}

Result<std::unique_ptr<Allocator>> Allocator::create(const Options& options) {
  if (process::exiting()) return Error{ErrorCode::shut_down};  // before the driver is touched
  Result<std::unique_ptr<driver::Driver>> driver = alloc::open_driver(options.driver);
  if (!driver) return driver.error();
  Result<std::unique_ptr<Allocator>> made = create(**driver, options);
  if (made) (*made)->state_->owned = std::move(*driver);
  return made;
}

Result<std::unique_ptr<Allocator>> Allocator::create(driver::Driver& driver, const Options& options) {
  // Options are plain numbers: check them as if they had been written out.
  Options checked;
  for (const OptionInfo& option : option_table()) {
    if (Status valid = apply_option(checked, option.key, option_value(options, option.key)); !valid.ok()) {
      return valid.error();
    }
  }
  const Result<int> count = driver.device_count();
  if (!count) return count.error();
  if (Status watched = process::watch(); !watched.ok())
    return watched.error();  // now, when the driver has its handlers
  return std::unique_ptr<Allocator>(
      new Allocator(std::make_unique<State>(&driver, options, static_cast<std::size_t>(*count))));
}

Result<void*> Allocator::try_allocate(std::size_t bytes, int device, StreamHandle stream) noexcept {
  if (void* cached = state_->allocate_cached(bytes, device, meant_by(stream))) return cached;
  return state_->allocate(bytes, device, stream, nullptr);
}

Result<void*> Allocator::try_allocate(std::size_t bytes, const Placement& placement, int device,
                                      StreamHandle stream) noexcept {
  if (placement.kind == Placement::Kind::local) return try_allocate(bytes, device, stream);
  return state_->allocate_placed(bytes, placement, device, stream);
}

Result<SharedBlock> Allocator::export_block(const void* pointer) noexcept {
  if (!state_->origin.intact()) return state_->late(Step::share, bits(pointer));
  return guarded(Step::share, bits(pointer), [&]() -> Result<SharedBlock> {
    std::vector<int> fds;
    Result<SharedLayout> layout = Error{ErrorCode::invalid_pointer, Step::share, bits(pointer)};
    try {
      state_->any([&](DeviceAllocator& device) {
        layout = device.share(bits(pointer), fds);
        return layout.ok() || layout.error().code != ErrorCode::invalid_pointer;
      });
      if (!layout && layout.error().code == ErrorCode::invalid_pointer) {
        layout = state_->placed->share(bits(pointer), fds);
      }
    } catch (const std::bad_alloc&) {
      layout = Error{ErrorCode::out_of_memory, Step::share, bits(pointer)};
    }
    SharedBlock block(layout ? std::move(*layout) : SharedLayout{}, std::move(fds));  // closes what there is
    if (!layout) return layout.error();
    return block;
  });
}

Result<void*> Allocator::import_block(const SharedLayout& layout, std::span<const int> fds, int device,
                                      StreamHandle stream) noexcept {
  return guarded(Step::share, layout.bytes, [&]() -> Result<void*> {
    const Result<DeviceAllocator*> allocator = state_->device(device);
    if (!allocator) return allocator.error();
    const Result<driver::Address> address = state_->placed->import(layout, fds, {device, meant_by(stream)});
    state_->audit();
    if (!address) return address.error();
    return to_pointer(*address);
  });
}

Status Allocator::enable_peer_access(int device, int peer) noexcept {
  if (Status known = state_->check_device(peer, Step::set_access); !known.ok()) return known;
  return state_->on_device(device, Step::set_access, [&](DeviceAllocator& each) -> Status {
    if (Status granted = each.grant(peer); !granted.ok()) return granted;
    return state_->placed->grant(device, peer);
  });
}

void* Allocator::allocate(std::size_t bytes, int device, StreamHandle stream) {
  if (void* cached = state_->allocate_cached(bytes, device, meant_by(stream))) return cached;
  std::optional<OutOfMemoryReport> report;
  const Result<void*> pointer = state_->allocate(bytes, device, stream, &report);
  if (pointer) return *pointer;
  if (pointer.error().code != ErrorCode::out_of_memory) throw AllocationError(pointer.error());
  if (!report) {  // host memory ran out before there was a device to report of
    report.emplace();
    report->error = pointer.error();
    report->device = device;
    report->requested_bytes = bytes;
    report->remedy = Remedy::host_memory;
  }
  throw OutOfMemoryError(*report);
}

Status Allocator::try_deallocate(void* pointer) noexcept { return state_->deallocate(pointer, std::nullopt); }

Status Allocator::try_deallocate(void* pointer, StreamHandle stream) noexcept {
  return state_->deallocate(pointer, meant_by(stream));
}

void Allocator::deallocate(void* pointer) noexcept {
  if (!state_->deallocate_at_once(pointer, std::nullopt)) state_->count_invalid(try_deallocate(pointer));
}

void Allocator::deallocate(void* pointer, StreamHandle stream) noexcept {
  if (!state_->deallocate_at_once(pointer, meant_by(stream))) state_->count_invalid(try_deallocate(pointer, stream));
}

Status Allocator::try_record_stream(void* pointer, StreamHandle stream) noexcept {
  return state_->record_stream(pointer, stream, std::nullopt);
}

Status Allocator::try_record_stream(void* pointer, StreamHandle stream, int stream_device) noexcept {
  if (Status known = state_->check_device(stream_device, Step::record_stream); !known.ok()) return known;
  return state_->record_stream(pointer, stream, stream_device);
}

void Allocator::record_stream(void* pointer, StreamHandle stream) {
  if (const Status status = try_record_stream(pointer, stream); !status.ok()) throw AllocationError(status.error());
}

void Allocator::record_stream(void* pointer, StreamHandle stream, int stream_device) {
  const Status status = try_record_stream(pointer, stream, stream_device);
  if (!status.ok()) throw AllocationError(status.error());
}

Status Allocator::forget_stream(StreamHandle stream, int device) noexcept {
  if (Status known = state_->check_device(device, Step::forget_stream); !known.ok()) return known;
  return guarded(Step::forget_stream, bits(stream), [&]() -> Status {
    const driver::Stream gone{device, meant_by(stream)};
    Status first;
    state_->any([&](DeviceAllocator& each) {  // blocks of any device may be in use on it
      if (Status status = each.forget_stream(gone); !status.ok() && first.ok()) first = status;
      return false;
    });
    if (Status status = state_->placed->forget_stream(gone); !status.ok() && first.ok()) first = status;
    state_->audit();
    return first;
  });
}

Status Allocator::begin_pool(PoolId id, int device, StreamFilter filter) noexcept {
  return state_->on_device(device, Step::pool, [&](DeviceAllocator& each) -> Status {
    return filter == nullptr ? Error{ErrorCode::invalid_value, Step::pool, 0} : each.begin_pool(id, std::move(filter));
  });
}

Status Allocator::end_pool(PoolId id, int device) noexcept {
  return state_->on_device(device, Step::pool, [id](DeviceAllocator& each) { return each.end_pool(id); });
}

Status Allocator::retain_pool(PoolId id, int device) noexcept {
  return state_->on_device(device, Step::pool, [id](DeviceAllocator& each) { return each.retain_pool(id); });
}

Status Allocator::release_pool(PoolId id, int device) noexcept {
  return state_->on_device(device, Step::pool, [id](DeviceAllocator& each) { return each.release_pool(id); });
}

std::uint64_t Allocator::pool_references(PoolId id, int device) const {
  if (device < 0 || device >= device_count() || state_->origin.forked()) return 0;
  const DeviceAllocator* made = state_->devices[static_cast<std::size_t>(device)].load(std::memory_order_acquire);
  return made == nullptr ? 0 : made->pool_references(id);
}

Status Allocator::set_limit(std::uint64_t bytes, int device) noexcept {
  return guarded(Step::options, bytes, [&]() -> Status {
    const Result<DeviceAllocator*> allocator = state_->device(device);
    if (!allocator) return allocator.error();
    (*allocator)->set_limit(bytes);
    return {};
  });
}

Status Allocator::set_limit_fraction(double fraction, int device) noexcept {
  return guarded(Step::options, 0, [&]() -> Status {
    const Result<DeviceAllocator*> allocator = state_->device(device);
    if (!allocator) return allocator.error();
    return (*allocator)->set_limit_fraction(fraction);
  });
}

Result<std::uint64_t> Allocator::limit(int device) const noexcept {
  return guarded(Step::options, 0, [&]() -> Result<std::uint64_t> {
    const Result<DeviceAllocator*> allocator = state_->device(device);
    if (!allocator) return allocator.error();
    return (*allocator)->limit_bytes();
  });
}

Result<double> Allocator::limit_fraction(int device) const noexcept {
  return guarded(Step::options, 0, [&]() -> Result<double> {
    const Result<DeviceAllocator*> allocator = state_->device(device);
    if (!allocator) return allocator.error();
    return (*allocator)->limit_fraction();
  });
}

std::optional<OutOfMemoryReport> Allocator::last_oom(int device) const {
  if (!state_->origin.intact() || device < 0 || device >= device_count()) return std::nullopt;
  const DeviceAllocator* made = state_->devices[static_cast<std::size_t>(device)].load(std::memory_order_acquire);
  return made == nullptr ? std::nullopt : made->last_oom();
}

CallbackId Allocator::add_release_callback(ReleaseCallback callback) {
  if (!state_->origin.intact()) return CallbackId::none;
  return state_->callbacks.add_release(std::move(callback));
}

CallbackId Allocator::add_out_of_memory_observer(OutOfMemoryObserver observer) {
  if (!state_->origin.intact()) return CallbackId::none;
  return state_->callbacks.add_observer(std::move(observer));
}

void Allocator::add_mapping_observer(MappingObserver observer) {
  if (state_->origin.intact()) state_->mapping_observers.add(std::move(observer));
}

bool Allocator::remove_callback(CallbackId id) { return state_->origin.intact() && state_->callbacks.remove(id); }

Status Allocator::trim(std::uint64_t keep_bytes) noexcept {
  if (!state_->origin.intact()) return state_->late(Step::trim, keep_bytes);
  return guarded(Step::trim, keep_bytes, [&]() -> Status {
    Status first;
    state_->any([&](DeviceAllocator& device) {
      if (Status status = device.trim(keep_bytes); !status.ok() && first.ok()) first = status;
      return false;
    });
    (void)state_->placed->settle(true);
    state_->audit();
    return first;
  });
}

bool Allocator::background_step() noexcept {
  bool more = false;
  state_->any([&](DeviceAllocator& device) {
    more = device.step_by_hand() || more;
    return false;
  });
  state_->audit();
  return more;
}

DeviceStats Allocator::stats(int device) const {
  if (state_->origin.forked()) return {};
  const DeviceAllocator* made = state_->made(device);
  if (made == nullptr) return {};
  DeviceStats stats = made->stats();
  const alloc::PlacedBlocks::Totals placed = state_->placed->totals(device);
  stats.placed_blocks = placed.blocks;
  stats.placed_device_bytes = placed.device_bytes;
  stats.placed_peer_bytes = placed.peer_bytes;
  stats.placed_host_bytes = placed.host_bytes;
  stats.imported_bytes = placed.imported_bytes;
  stats.placed_lost_bytes = placed.lost_bytes;
  return stats;
}

Overhead Allocator::overhead(int device) const {
  if (state_->origin.forked()) return {};
  const DeviceAllocator* made = state_->made(device);
  return made == nullptr ? Overhead{} : made->overhead();
}

void Allocator::reset_peaks(int device) {
  if (state_->origin.forked()) return;
  if (DeviceAllocator* made = state_->made(device)) made->reset_peaks();
}

Snapshot Allocator::snapshot() const {
  Snapshot snapshot;
  state_->see([&](const DeviceAllocator& device) {
    snapshot.devices.push_back(device.snapshot());
    return false;
  });
  return snapshot;
}

Status Allocator::keep_history(std::size_t events) noexcept {
  return guarded(Step::allocate, events, [&]() -> Status {
    if (!state_->origin.intact()) return state_->late(Step::allocate, events);
    if (events > std::size_t{1} << 32) return Error{ErrorCode::invalid_size, Step::allocate, events};
    const MutexLock lock(state_->making);  // no device may come into use unnoticed
    state_->any([&](DeviceAllocator& device) {
      device.keep_history(events);
      return false;
    });
    state_->history_events = events;
    return {};
  });
}

HistoryPart Allocator::history(int device, std::uint64_t from, std::size_t most) const {
  HistoryPart part;
  state_->see([&](const DeviceAllocator& each) {
    if (each.device() != device) return false;
    part = each.history(from, most);
    return true;
  });
  return part;
}

int Allocator::device_count() const { return static_cast<int>(state_->devices.size()); }

int Allocator::device_of(const void* pointer) const {
  int number = -1;
  state_->see([&](const DeviceAllocator& device) {
    if (device.block_bytes(bits(pointer)) != 0) number = device.device();
    return number >= 0;
  });
  if (number < 0 && !state_->origin.forked()) number = state_->placed->device_of(bits(pointer));
  return number;
}

std::size_t Allocator::size_of(const void* pointer) const {
  std::size_t bytes = 0;
  state_->see([&](const DeviceAllocator& device) { return (bytes = device.block_bytes(bits(pointer))) != 0; });
  if (bytes == 0 && !state_->origin.forked()) bytes = state_->placed->block_bytes(bits(pointer));
  return bytes;
}

std::vector<PhyBlockInfo> Allocator::phy_blocks(const void* pointer) const {
  std::vector<PhyBlockInfo> blocks;
  state_->see([&](const DeviceAllocator& device) { return !(blocks = device.phy_blocks(bits(pointer))).empty(); });
  if (blocks.empty() && !state_->origin.forked()) blocks = state_->placed->phy_blocks(bits(pointer));
  return blocks;
}

void Allocator::check() const {
  state_->see([](const DeviceAllocator& device) {
    device.check();
    return false;
  });
  if (!state_->origin.forked()) state_->placed->check();
}

}  // namespace gmlake
