// The caching allocator: stream-ordered memory of every device of the process, stitched where it lies in pieces.
//
// Thread rules: any thread may call any function at any time. The lock that hits take is held across no driver call
// that maps, creates or waits. Nothing here waits for the device below the limit; near it, the last rungs before an
// out-of-memory error do, and with the option unmap_on_free every free. docs/architecture.md tells the whole.
//
// An allocator belongs to the process that made it. In the child of a fork every call that changes something fails with
// `forked` and every other finds nothing; no lock is taken, and the parent's memory is not there. Once the process
// exits (from where in the order of exit handlers, docs/process.md says), calls that change something fail with
// `shut_down`, frees do nothing, and the driver is not called. Destructors are silent in both. A device that the driver
// calls lost stays so: requests fail with `device_lost`, frees are taken, nothing is called.
//
// Memory is handed out in multiples of 512 B, aligned to 512 B, with unspecified contents; with
// the option zero_on_free, never with what an owner outside its private pool left there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <vector>

#include "gmlake/history.hpp"
#include "gmlake/mappings.hpp"
#include "gmlake/oom.hpp"
#include "gmlake/options.hpp"
#include "gmlake/placement.hpp"
#include "gmlake/result.hpp"
#include "gmlake/share.hpp"
#include "gmlake/snapshot.hpp"
#include "gmlake/stats.hpp"
#include "gmlake/streams.hpp"

namespace gmlake {

namespace driver {
class Driver;
}

// What the throwing forms throw, with describe(error) as what(); out of memory is OutOfMemoryError, of oom.hpp.
class AllocationError : public std::runtime_error {
 public:
  explicit AllocationError(const Error& error) : std::runtime_error(describe(error)), error_(error) {}
  const Error& error() const { return error_; }

 private:
  Error error_;
};

class Allocator {
 public:
  // On the driver that the options name: the GPUs of this machine where they say nothing. What a GPU needs is found at
  // run time. Errors: no_driver (cuda, and there is none or no GPU), not_supported (a driver that is older than CUDA
  // 12.0), invalid_option, shut_down (the process exits).
  static Result<std::unique_ptr<Allocator>> create(const Options& options = {});
  // On a driver of the caller's, which must outlive the allocator: for the project's own tools and tests, since the
  // driver's header is not installed; Options::driver counts for nothing. Errors: invalid_option (a value outside its
  // range), shut_down, and the driver's.
  static Result<std::unique_ptr<Allocator>> create(driver::Driver& driver, const Options& options = {});

  // Unmaps and releases everything, live blocks included: call it when all work on the memory is complete.
  ~Allocator();
  Allocator(const Allocator&) = delete;
  Allocator& operator=(const Allocator&) = delete;

  // `bytes` of `device` for work on `stream`. 0 bytes are a null pointer and no error. No driver call where a cached
  // run fits. Errors: out_of_memory, invalid_size (more than the device has), invalid_device, address_space,
  // too_many_mappings, and what the driver refuses.
  Result<void*> try_allocate(std::size_t bytes, int device = 0, StreamHandle stream = nullptr) noexcept;
  // The same; throws OutOfMemoryError, with the report, or AllocationError.
  void* allocate(std::size_t bytes, int device = 0, StreamHandle stream = nullptr);

  // The same with its memory where the placement says. Not from the cache, nor freed to it: it comes from the drivers
  // and goes back there, in whole granules, in an address range of its own. What lies on a GPU counts against the limit
  // of that GPU. Errors: also invalid_value (a stripe over no GPU that the device can use), out_of_memory with no
  // report.
  Result<void*> try_allocate(std::size_t bytes, const Placement& placement, int device = 0,
                             StreamHandle stream = nullptr) noexcept;

  // Shares a live block with other processes, and takes one that another process shares: share.hpp says what holds for
  // both. To export is one driver call a PhyBlock; to import, two, and three more. An imported block is freed like any
  // other; the descriptors stay the caller's. Errors of the first: invalid_pointer, not_supported (by the device, by
  // memory of the host, or more descriptors than the process may open). Of the second: invalid_value (what makes no
  // sense, or is no memory of this driver), invalid_device, and what the driver refuses.
  Result<SharedBlock> export_block(const void* pointer) noexcept;
  Result<void*> import_block(const SharedLayout& layout, std::span<const int> fds, int device = 0,
                             StreamHandle stream = nullptr) noexcept;

  // Lets GPU `peer` use the memory of `device`, what is handed out now and later. Errors: invalid_device, and what the
  // driver says where the two cannot (invalid_device, invalid_value or not_supported).
  Status enable_peer_access(int device, int peer) noexcept;

  // Ends a block's use. Work enqueued by now, on the stream that the block was allocated on, may still use it: that
  // stream may have it back at once, any other only when that work is complete. Null is nothing to do.
  // Errors: invalid_pointer (double free, or no start of a live block), with nothing changed.
  Status try_deallocate(void* pointer) noexcept;
  // The same where the block was last used on `stream`: its own stream gets it back once that work is complete too.
  Status try_deallocate(void* pointer, StreamHandle stream) noexcept;
  // The same two; an invalid pointer is counted (DeviceStats::invalid_frees) and otherwise ignored. Never throw.
  void deallocate(void* pointer) noexcept;
  void deallocate(void* pointer, StreamHandle stream) noexcept;

  // Work enqueued on `stream` by now uses the block: once freed, it is not handed out before that is complete. Any
  // number of streams, of the block's own device or of the one named. Errors: invalid_pointer, invalid_device.
  Status try_record_stream(void* pointer, StreamHandle stream) noexcept;
  Status try_record_stream(void* pointer, StreamHandle stream, int stream_device) noexcept;
  void record_stream(void* pointer, StreamHandle stream);  // throws AllocationError
  void record_stream(void* pointer, StreamHandle stream, int stream_device);

  // Call it before a stream of `device` is destroyed, when no other thread names it any more. What it has cached goes
  // to the others once its work is complete; its live blocks stay, and are freed without naming a stream. Afterwards
  // the handle is that of a new stream. A stream that is unknown here is nothing to do.
  // Errors: captured, or the driver's; the stream is known as before then.
  Status forget_stream(StreamHandle stream, int device = 0) noexcept;

  // Private pools: allocations that stay at their addresses. From begin_pool() to end_pool(), what is allocated on
  // `device` for streams that the filter chooses, by any thread, belongs to the pool `id`; where several filters choose
  // a stream, the one begun last has it. Nothing leaves a pool, not even for want of memory, while it has references:
  // one from each begin_pool() and retain_pool(), less one for each release_pool(). With the last one gone its live
  // blocks become ordinary ones, and what is free in it goes to the cache once the work that is enqueued by now, on
  // every stream known here, is complete; replays of a graph on other streams must be complete before.
  // A pool that has a filter cannot begin a second one. Errors: invalid_value, invalid_device.
  //
  // Before a stream is captured into a graph, begin a pool for it. During the capture nothing here waits, records or
  // asks in a way that breaks it; blocks that captured streams still use come back after it.
  Status begin_pool(PoolId id, int device, StreamFilter filter) noexcept;
  Status end_pool(PoolId id, int device) noexcept;
  Status retain_pool(PoolId id, int device) noexcept;
  Status release_pool(PoolId id, int device) noexcept;
  std::uint64_t pool_references(PoolId id, int device) const;

  // The most physical memory to hold on a device, live and cached: in bytes, where 0 is none of its own, and as a share
  // of the device's memory, from 0 to 1; the lower one holds. They begin as the options say. A new one is in force at
  // once for what is created from then on. One below what is held takes nothing away: trim() does, of what is cached.
  // Errors: invalid_device, invalid_option (no share), and what the driver says of a device that was never used.
  Status set_limit(std::uint64_t bytes, int device = 0) noexcept;
  Status set_limit_fraction(double fraction, int device = 0) noexcept;
  Result<std::uint64_t> limit(int device = 0) const noexcept;  // bytes, the lower of the two
  Result<double> limit_fraction(int device = 0) const noexcept;

  // The report of the last request on a device that ended for want of memory, mappings or addresses, whichever thread's
  // it was. None where none has, or the device was never used.
  std::optional<OutOfMemoryReport> last_oom(int device = 0) const;

  // Callbacks of an out-of-memory: oom.hpp says when they are called and what they may do. Adding throws std::bad_alloc
  // with nothing changed. Removing returns false where there is no such callback. Once it has returned, the callback is
  // called no more, runs on no thread, and is gone with all it holds; so a thread that a callback waits for must not
  // remove it. From inside any callback it waits for nothing, and calls in progress go on to their end. While the
  // process exits, and in a forked child, nothing is added (CallbackId::none) or removed.
  CallbackId add_release_callback(ReleaseCallback callback);
  CallbackId add_out_of_memory_observer(OutOfMemoryObserver observer);
  bool remove_callback(CallbackId id);

  // Tells of every mapping that is made or about to go from now on, as mappings.hpp says, as long as this allocator is
  // there. Throws std::bad_alloc with nothing changed. While the process exits, and in a forked child, none is added.
  void add_mapping_observer(MappingObserver observer);

  // Gives cached memory back to the driver, the least that leaves each device with at most `keep_bytes` held, or all
  // that can go. PhyBlocks go whole, so less may be left by up to the smallest of them. Waits for the streams.
  Status trim(std::uint64_t keep_bytes = 0) noexcept;

  // Does one small piece of the background worker's work on the calling thread, for programs that run without it
  // (option background_worker) and have idle time of their own: on each device, at most one driver call that changes
  // mappings. False: there is nothing more to do now. Does nothing where the worker has its thread.
  bool background_step() noexcept;

  // Zeroes for a device that was never used.
  DeviceStats stats(int device = 0) const;
  void reset_peaks(int device = 0);
  // Looks at every cached run under the lock of the hot path, and waits for requests that are stitching: for reports,
  // not for every step of a job. Zeroes for a device that was never used.
  Overhead overhead(int device = 0) const;
  Snapshot snapshot() const;
  // From now on keeps the last `events` events of each device, 40 bytes each; 0: none, as at the start. What was kept
  // so far is gone. Errors: out_of_memory (of the host), with some devices as they were.
  Status keep_history(std::size_t events) noexcept;
  // Up to `most` events of a device from number `from` on, and no more than 4,096 at a time: they are copied under the
  // lock of the hot path. Throws std::bad_alloc.
  HistoryPart history(int device, std::uint64_t from, std::size_t most) const;

  int device_count() const;
  // The device of a live block, -1 for any other pointer; its bytes as handed out, 0 for any other.
  int device_of(const void* pointer) const;
  std::size_t size_of(const void* pointer) const;
  // The PhyBlocks under a live block, in order of address. Empty for any other pointer.
  std::vector<PhyBlockInfo> phy_blocks(const void* pointer) const;

  // Recounts every counter and index and aborts on a difference. For tests.
  void check() const;

 private:
  struct State;
  explicit Allocator(std::unique_ptr<State> state);

  std::unique_ptr<State> state_;
};

// The process-wide allocator, made at first use with the options of GMLAKE_CONF and never destroyed, so that frees at
// exit are safe. Throws AllocationError where none can be made, as where there is no GPU and GMLAKE_CONF does not say
// "driver:host". In the child of a fork it is the parent's, of no use
// there, or one of the child's own where the parent had not made it yet.
Allocator& default_allocator();

}  // namespace gmlake
