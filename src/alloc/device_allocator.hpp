// The allocator of one device: size classes, streams, the ladder that a request climbs, and the books of it all.
//
// Two locks. `state` covers the books of VirBlocks, and no driver call is made under it. It is in parts, one for each
// shard of the books (alloc/shard.hpp): the hot path takes the part of its stream's shard alone, all else takes all.
// `grow` covers mappings and physical memory; whoever changes these holds it across driver calls and takes it first.
// A request that no cached run fits goes the slow way: claim under both, call the driver under `grow` alone, publish
// under both. Any thread may call anything here.
#pragma once

#include <atomic>
#include <bitset>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "alloc/background_policy.hpp"
#include "alloc/background_worker.hpp"
#include "alloc/history.hpp"
#include "alloc/mapping_observers.hpp"
#include "alloc/oom_callbacks.hpp"
#include "alloc/private_pools.hpp"
#include "alloc/shard.hpp"
#include "alloc/usage.hpp"
#include "base/hints.hpp"
#include "base/intrusive_list.hpp"
#include "base/mutex.hpp"
#include "base/sharded_mutex.hpp"
#include "base/slab.hpp"
#include "driver/driver.hpp"
#include "driver/gate.hpp"
#include "driver/record.hpp"
#include "gmlake/oom.hpp"
#include "gmlake/options.hpp"
#include "gmlake/share.hpp"
#include "gmlake/snapshot.hpp"
#include "gmlake/stats.hpp"
#include "gmlake/streams.hpp"
#include "memory/fences.hpp"
#include "memory/mapping_table.hpp"
#include "memory/phy_pool.hpp"
#include "stitch/plan.hpp"
#include "stitch/pool.hpp"
#include "stitch/stitcher.hpp"

namespace gmlake::alloc {

using driver::Address;

class DeviceAllocator {
 public:
  // Asks the driver for the device's granularity and memory. Errors: invalid_device, not_supported, no_driver.
  static Result<std::unique_ptr<DeviceAllocator>> create(driver::Driver& driver, int device, const Options& options,
                                                         OomCallbacks& callbacks, const MappingObservers& observers);
  // Waits for nothing: what is live is unmapped with the rest. Destroy it when all work is done.
  ~DeviceAllocator();
  DeviceAllocator(const DeviceAllocator&) = delete;
  DeviceAllocator& operator=(const DeviceAllocator&) = delete;

  // The hot path: a cached run of a known stream, with no driver call and no heap call. 0 where it takes more than that
  // or is an error: then allocate() says.
  Address allocate_cached(std::uint64_t bytes, std::uint64_t stream) noexcept;
  // The hot path: a block used by its own stream alone, which is `stream` or, without one, taken to be. False where
  // nothing was done: then deallocate() says.
  bool deallocate_at_once(Address address, std::optional<std::uint64_t> stream) noexcept;
  // False: no block lies there that deallocate_at_once() is for. Takes no lock.
  bool may_free_at_once(Address address) const {
    return address >= begin_.load(std::memory_order_relaxed) && address < end_.load(std::memory_order_relaxed);
  }

  // The stream whose blocks lie in a segment, as its handle; 0 where the segment has no pool any more. Caller holds
  // `grow`, which covers who owns a segment.
  static std::uint64_t stream_of(const memory::VmmSegment& segment);

  // `bytes` > 0; rounded up to 512. Contents are unspecified. `report`, where given, receives that of a shortage.
  // Errors: device_lost, once any driver call has said so, with the step that did: from then on frees keep the books,
  // no block is handed out, and no call is made.
  Result<Address> allocate(std::uint64_t bytes, std::uint64_t stream,
                           std::optional<OutOfMemoryReport>* report = nullptr);
  // `stream`: the stream on which the caller used it last; none: the one it was allocated on. Errors: invalid_pointer.
  Status deallocate(Address address, std::optional<std::uint64_t> stream);
  // Work enqueued on `stream`, of any device, by now uses the block: it is not handed out again before that is
  // complete.
  Status record_stream(Address address, driver::Stream stream);
  // The stream, of any device, is about to be destroyed. One driver call. Errors: captured; the driver's, with the
  // stream known as before.
  Status forget_stream(driver::Stream stream);
  // Gives cached PhyBlocks back to the driver, the least that leaves at most `keep_bytes` held, or all that can go.
  // Waits for streams.
  Status trim(std::uint64_t keep_bytes);

  // The most physical memory to hold, in force at once for whatever is created from now on; what is held stays. Each
  // takes the place of its option: bytes, where 0 is no limit of its own, and a share of the device's memory, from 0 to
  // 1. The lower one holds. Errors: invalid_option.
  void set_limit(std::uint64_t bytes) { own_limit_bytes_.store(bytes, std::memory_order_relaxed); }
  Status set_limit_fraction(double fraction);
  std::uint64_t limit_bytes() const;

  // Room under the limit for memory of this device that is not in its pools (alloc/placed_blocks.hpp): taken, where
  // there is none left after cached memory has gone back to the driver too; and given back. `refused`: the limit has
  // room, the driver not.
  bool take_room(std::uint64_t bytes, bool refused) GMLAKE_EXCLUDES(grow_, state_);
  void return_room(std::uint64_t bytes) GMLAKE_EXCLUDES(grow_, state_);
  // Where requests of the common cache go that would end out of memory; before the first request.
  using Overflow = std::function<Result<Address>(std::uint64_t stream, std::uint64_t bytes)>;
  void set_overflow(Overflow overflow) { overflow_ = std::move(overflow); }
  // Memory of this device, mapped now or later, may be used by `peer` too. Errors: as the driver's set_access; what was
  // opened stays open.
  Status grant(int peer) GMLAKE_EXCLUDES(grow_, state_);
  double limit_fraction() const { return limit_fraction_.load(std::memory_order_relaxed); }

  // Private pools: see Allocator. Errors: invalid_value (no such pool, or one that has a filter already).
  Status begin_pool(PoolId id, StreamFilter filter);
  Status end_pool(PoolId id);
  Status retain_pool(PoolId id);
  Status release_pool(PoolId id);
  std::uint64_t pool_references(PoolId id) const;

  std::uint64_t block_bytes(Address address) const;  // of a live block; 0 for any other address
  // Which PhyBlocks lie under a live block, in order of address. Empty for any other address.
  std::vector<PhyBlockInfo> phy_blocks(Address address) const;
  // Descriptors for the PhyBlocks under a live block, into `fds`, whose owner closes them also where this fails.
  // Errors: invalid_pointer; the driver's: not_supported where the memory cannot be shared.
  Result<SharedLayout> share(Address address, std::vector<int>& fds) GMLAKE_EXCLUDES(grow_, state_);
  DeviceSnapshot snapshot() const;
  // See Allocator. The first throws std::bad_alloc with nothing changed.
  void keep_history(std::size_t events);
  HistoryPart history(std::uint64_t from, std::size_t most) const;
  void count_invalid_free();

  // One step of the background worker on the calling thread, where one is due and the worker has no thread of its own.
  // True: more can be done at once.
  bool step_by_hand() { return worker_.step(); }
  // Ends the worker's thread, if it has one, for good.
  void stop_worker() { worker_.stop(); }

  DeviceStats stats() const;
  Overhead overhead() const;
  void reset_peaks();
  // The report of the last request that ended in a shortage: of memory, mappings or addresses.
  std::optional<OutOfMemoryReport> last_oom() const;
  int device() const { return device_; }

  // Recounts every counter and index from nothing and compares. Aborts on a difference.
  void check() const;

 private:
  static constexpr std::uint64_t kForgotten = UINT64_MAX;  // no stream's handle, but of one that is forgotten

  // A block that was freed while other streams than its pool's were using it. It waits for one fence of each, in their
  // StreamStates.
  struct Deferred {
    stitch::Block* block = nullptr;      // null: its stream has it again (take_again())
    std::uint64_t own_tick = 0;          // of own_stream, at the free: what that enqueued on it came before
    memory::StreamIndex own_stream = 0;  // that it was allocated for
    std::uint32_t fences_left = 0;
    bool borrowed = false;
    ListLinks<Deferred> links = {};  // in uncleared_
  };
  struct Awaited {
    std::uint64_t tick = 0;
    Deferred* deferred = nullptr;
  };
  // The streams that a live block is used on beside the one that its pool is of; a borrowed one, on all that use it.
  struct Uses {
    std::vector<memory::StreamIndex> streams;
    bool borrowed = false;  // it was allocated for the first of these
  };
  // Lives as long as the allocator, on lines of its own: hits on different streams change different ones at a time.
  struct alignas(kCacheLine) StreamState {
    memory::StreamIndex index = 0;
    Shard* shard = nullptr;  // by its number; set with its first pools, and never changed
    driver::Stream stream;
    std::uint64_t tick = 0;  // advances at every free on it; begins past what its clock has passed
    std::unique_ptr<stitch::Pool> small;
    std::unique_ptr<stitch::Pool> large;  // both null for one that has only been recorded
    std::uint64_t uses = 0;               // entries of uses_ that name it
    std::uint64_t clearing = 0;           // blocks that are being cleared on it just now
    bool closing = false;                 // it is being forgotten, or was: no more are
    std::deque<Awaited> awaited;          // what waits for it, ticks ascending
  };
  struct StreamHash {
    std::size_t operator()(const driver::Stream& stream) const {
      return std::hash<std::uint64_t>()(stream.handle ^ static_cast<std::uint64_t>(stream.device) << 48);
    }
  };
  struct Request {
    StreamState& stream;
    stitch::Pool& pool;
    std::uint64_t bytes = 0;  // rounded
    std::uint64_t requested = 0;
    bool waits = false;  // for others' memory, on the device, rather than grow past the slack
  };

  // A request on the slow path: the worker stands back meanwhile, and is woken at the end if that left it something.
  class SlowRequest {
   public:
    explicit SlowRequest(DeviceAllocator& device);
    ~SlowRequest();
    SlowRequest(const SlowRequest&) = delete;
    SlowRequest& operator=(const SlowRequest&) = delete;

   private:
    DeviceAllocator& device_;
  };

  DeviceAllocator(driver::Driver& driver, const driver::MemoryProperties& memory, const Options& options,
                  std::uint32_t granule_shift, std::uint64_t total_bytes, OomCallbacks& callbacks,
                  const MappingObservers& observers);

  // A stream of this device, with pools to allocate from; and any stream, which may have none.
  StreamState& stream_state(std::uint64_t handle) GMLAKE_REQUIRES(state_);
  StreamState& named_stream(driver::Stream stream) GMLAKE_REQUIRES(state_);
  StreamState& open_stream(driver::Stream stream) GMLAKE_REQUIRES(state_);
  enum class Caller : std::uint8_t { request, worker };  // who stands back for the other
  void forget_ended_threads(Caller caller) GMLAKE_EXCLUDES(grow_, state_);
  // The stream that a live block was allocated for.
  memory::StreamIndex allocated_for(const stitch::Block& block) const GMLAKE_REQUIRES(state_);
  void drop_passed_uses(Uses& uses) GMLAKE_REQUIRES(state_);
  void drop_uses(const stitch::Block& block) GMLAKE_REQUIRES(state_);
  std::vector<memory::StreamIndex> uses_of(const stitch::Block& block, memory::StreamIndex freed_on) const
      GMLAKE_REQUIRES(state_);
  Result<Address> allocate_privately(PoolId id, std::uint64_t stream, std::uint64_t bytes, std::uint64_t requested,
                                     std::optional<OutOfMemoryReport>* wanted) GMLAKE_EXCLUDES(grow_, state_);
  Result<Address> allocate_slowly(std::optional<PoolId> id, std::uint64_t stream, std::uint64_t bytes,
                                  std::uint64_t requested, std::optional<OutOfMemoryReport>* wanted)
      GMLAKE_EXCLUDES(grow_, state_);
  Request make_request(std::optional<PoolId> id, std::uint64_t stream, std::uint64_t bytes, std::uint64_t requested)
      GMLAKE_REQUIRES(grow_, state_);
  // What streams that are forgotten and pools that are released have left, and may be used by others now, joins the
  // cache: of `heir`, where there is one, and of the pools' own streams.
  void settle_estates(StreamState* heir) GMLAKE_REQUIRES(grow_, state_);
  bool settle_stream(StreamState& gone, StreamState* heir) GMLAKE_REQUIRES(grow_, state_);
  StreamState* find_heir() GMLAKE_REQUIRES(grow_, state_);

  // What a shortage leads to: device_oom.cpp.
  void note_rung(Rung rung, OutOfMemoryReport& report) GMLAKE_REQUIRES(grow_);
  void complete(OutOfMemoryReport& report, const Error& error) GMLAKE_REQUIRES(grow_);
  Error give_up(const OutOfMemoryReport& report, std::optional<OutOfMemoryReport>* wanted)
      GMLAKE_EXCLUDES(grow_, state_);
  Error host_ran_out(std::uint64_t stream, std::uint64_t bytes, std::optional<OutOfMemoryReport>* wanted)
      GMLAKE_EXCLUDES(grow_, state_);

  // The ladder's rungs, first to last: device_ladder.cpp. Each returns an address, or nothing where it could not help;
  // refusal_ then may say why.
  using Found = std::optional<Address>;
  Result<Address> climb(std::optional<PoolId> id, std::uint64_t stream, std::uint64_t bytes, std::uint64_t requested,
                        OutOfMemoryReport& report) GMLAKE_EXCLUDES(grow_, state_);
  Found try_own_stream(const Request& request) GMLAKE_REQUIRES(grow_);
  Found try_passed_streams(const Request& request) GMLAKE_REQUIRES(grow_);
  Found try_stream_wait(const Request& request) GMLAKE_REQUIRES(grow_);
  bool may_wait(const Request& request) const;
  bool waits_rather_than_grow(const Request& request) GMLAKE_REQUIRES(grow_) GMLAKE_EXCLUDES(state_);
  Found try_release_cached(const Request& request) GMLAKE_REQUIRES(grow_);
  Found try_wait(const Request& request) GMLAKE_REQUIRES(grow_);
  void take_in(const Request& request) GMLAKE_REQUIRES(grow_) GMLAKE_EXCLUDES(state_);
  Found fit(const Request& request) GMLAKE_REQUIRES(grow_);
  Error final_error(const Request& request) GMLAKE_REQUIRES(grow_);

  // What they stitch with: device_stitch.cpp.
  enum class Reach : std::uint8_t { own_stream, passed_streams, all_streams };
  // How a plan looks at what is free: a little at a time, between which hits go on, or while they all wait.
  enum class Look : std::uint8_t { in_steps, at_once };
  // How much memory a plan may create: what is past the slack may first be looked for elsewhere.
  enum class Growth : std::uint8_t { any, within_slack };
  struct Manner {
    Reach reach = Reach::own_stream;
    Growth growth = Growth::any;
    Look look = Look::in_steps;
  };
  enum class Obstacle : std::uint8_t { none, memory, addresses, mappings, garbage, outdated };
  struct Attempt {
    std::optional<stitch::Plan> plan;
    Obstacle obstacle = Obstacle::none;
  };
  using Cleared = std::bitset<6>;  // obstacles, by number
  Found stitch(const Request& request, const Manner& manner) GMLAKE_REQUIRES(grow_);
  Attempt plan_and_claim(const Request& request, const Manner& manner, const Cleared& cleared) GMLAKE_REQUIRES(grow_)
      GMLAKE_EXCLUDES(state_);
  Attempt try_plan(const stitch::PlanRequest& wanted, Growth growth, bool may_collect, stitch::StateSteps& steps)
      GMLAKE_REQUIRES(grow_);
  void count_claim(const Attempt& attempt, bool may_collect) GMLAKE_REQUIRES(grow_, state_);
  bool clear_away(const Request& request, const Attempt& attempt, Cleared& cleared) GMLAKE_REQUIRES(grow_);
  Found carry_out(const Request& request, const stitch::Plan& plan) GMLAKE_REQUIRES(grow_);
  Found publish(const Request& request, const stitch::Plan& plan, bool succeeded) GMLAKE_REQUIRES(grow_, state_);
  void mark_stale(const memory::Fence& now) GMLAKE_REQUIRES(grow_);

  // What lies free in other streams' pools, used where it lies: device_borrow.cpp.
  using UsesEntry = std::unordered_map<const stitch::Block*, Uses>::node_type;
  Found borrow(const Request& request, Reach reach) GMLAKE_REQUIRES(grow_) GMLAKE_EXCLUDES(state_);
  Found borrow_passed(const Request& request, std::vector<memory::Fence>* fences) GMLAKE_REQUIRES(grow_)
      GMLAKE_EXCLUDES(state_);
  Found borrow_behind_wait(const Request& request, const std::vector<memory::Fence>& fences) GMLAKE_REQUIRES(grow_)
      GMLAKE_EXCLUDES(state_);
  Found take_again(const Request& request) GMLAKE_REQUIRES(grow_) GMLAKE_EXCLUDES(state_);
  stitch::Block* find_lendable(const stitch::Pool& pool, std::uint64_t bytes, std::uint64_t waited) const
      GMLAKE_REQUIRES(state_);
  Address lend(stitch::Pool& pool, stitch::Block* run, const Request& request, std::size_t runs_before)
      GMLAKE_REQUIRES(state_);
  Address hand_over(stitch::Block* block, UsesEntry uses, StreamState& borrower) GMLAKE_REQUIRES(state_);

  void note_refusal(const Error& error) GMLAKE_REQUIRES(grow_);
  Status add_segment(const Request& request) GMLAKE_REQUIRES(grow_);
  std::uint64_t address_budget() const;
  Status reserve_segment(const Request& request) GMLAKE_REQUIRES(grow_);

  // Touches no heap: the shard has room for the block. `runs_before`: the pool's, before it searched. The shard may be
  // short of room for its usage then: find_room(), or Usage::settle().
  Address hand_out(Shard& shard, stitch::Pool& pool, stitch::Block* run, std::uint64_t bytes, std::uint64_t requested,
                   std::size_t runs_before) GMLAKE_REQUIRES(shard.mutex);
  // The same for whoever holds all of `state`, all that it takes included. Throws std::bad_alloc with nothing changed.
  Address hand_out_slowly(stitch::Pool& pool, stitch::Block* run, std::uint64_t bytes, std::uint64_t requested,
                          std::size_t runs_before) GMLAKE_REQUIRES(state_);
  // The last thing in a hit that has made its shard short of room for its usage. Lets go of the lock meanwhile where
  // none can be borrowed.
  void find_room(Shard& shard) noexcept GMLAKE_REQUIRES(shard.mutex);
  Status free_block(Address address, std::optional<std::uint64_t> stream) GMLAKE_EXCLUDES(grow_, state_);
  stitch::Block* find_live(Address address) const GMLAKE_REQUIRES(state_);
  Shard& shard_for(memory::StreamIndex stream) GMLAKE_REQUIRES(state_);  // throws std::bad_alloc with nothing lost
  static Shard& shard_of(const stitch::Pool& pool) { return *static_cast<StreamState*>(pool.owner)->shard; }
  void inherit(stitch::Pool& heir, stitch::Pool& estate) GMLAKE_REQUIRES(grow_, state_);
  void settle_pools() const GMLAKE_REQUIRES(state_);  // before cached runs are counted for a reader
  // Calls visit(const stitch::Pool&) for every pool of the device.
  template <class Visit>
  void for_each_pool(Visit&& visit) const GMLAKE_REQUIRES(state_) {
    for (const StreamState* stream : allocating_) {
      visit(*stream->small);
      visit(*stream->large);
    }
    private_pools_.for_each([&visit](const PrivatePools::PrivatePool&, stitch::Pool& pool) { visit(pool); });
  }
  Usage::Totals cached_totals() const GMLAKE_REQUIRES(state_);
  DeviceStats stats_locked() const GMLAKE_REQUIRES(state_);
  // For the history: a block that is handed out, one that is freed at once, and what a plan changed.
  void note_alloc(const stitch::Block& block);
  void note_free(const stitch::Block& block);
  void note_completed(Address address, std::uint64_t bytes, memory::StreamIndex stream) GMLAKE_REQUIRES(state_);
  void note_moves(const stitch::Plan& plan) GMLAKE_REQUIRES(grow_, state_);
  void count(std::uint64_t DeviceStats::*counter) GMLAKE_EXCLUDES(state_);
  // A block that is freed while other streams are using it: device_deferred.cpp. The fences that it waits for are to be
  // marked once `state` is let go. Throws std::bad_alloc with nothing changed.
  Deferred* defer(stitch::Block* block, memory::StreamIndex freed_on, std::vector<memory::Fence>& fences)
      GMLAKE_REQUIRES(state_);
  // Gives freed blocks whose fences have passed back to their pools, or, with zero_on_free, to clear_freed(); how many
  // are back.
  std::uint64_t reclaim_deferred() GMLAKE_EXCLUDES(state_);
  // The same for a few fences, by what Fences knows, of the first `left` streams of awaited_. True: there may be more.
  bool reclaim_some(std::size_t& left, std::uint64_t& returned) GMLAKE_REQUIRES(state_);
  // Takes back, behind waits on the device, what one stream alone still uses after its free: what was borrowed; or,
  // where all else has failed, also what was freed on the request's stream.
  enum class Recall : std::uint8_t { loans, all };
  bool recall(const Request& request, Recall what) GMLAKE_REQUIRES(grow_) GMLAKE_EXCLUDES(state_);
  bool recall_from(const StreamState& user, const Request& request, Recall what) GMLAKE_REQUIRES(grow_)
      GMLAKE_EXCLUDES(state_);
  bool let_go(Deferred* deferred) GMLAKE_REQUIRES(state_);
  static std::uint64_t tick_after(const Deferred& deferred);
  // `tick`: of the stream whose pool it goes to.
  void complete(const Deferred& deferred, std::uint64_t tick) GMLAKE_REQUIRES(state_);
  // zero_on_free: device_clear.cpp. Clears what is freed and used by no other stream any more, at most so many blocks,
  // that freed last first. True: some are back in their pools.
  bool clear_freed(std::size_t most) GMLAKE_EXCLUDES(state_);
  bool clear_next(memory::StreamIndex& refused) GMLAKE_EXCLUDES(state_);
  void withdraw_free(stitch::Pool& pool) GMLAKE_REQUIRES(grow_, state_);
  memory::Fence stop_clearing(StreamState& stream) GMLAKE_REQUIRES(grow_) GMLAKE_EXCLUDES(state_);
  // Both go on past a stream that refuses, and keep its refusal for the request's error.
  void mark_all_streams() GMLAKE_REQUIRES(grow_);
  void wait_for_all_streams() GMLAKE_REQUIRES(grow_);
  std::vector<memory::Fence> stream_ticks() const GMLAKE_EXCLUDES(state_);
  // garbage_collection_threshold: device_garbage.cpp.
  // Whether what a plan creates would take what is held above it. Notes how old the streams' frees are.
  bool past_threshold(const stitch::Plan& plan) const GMLAKE_REQUIRES(grow_);
  void note_ages() GMLAKE_REQUIRES(grow_, state_);
  // Gives back what has been cached longest, behind passed fences, until the plan keeps the threshold; not what it will
  // use itself. The plan is void then. Waits for nothing.
  void collect_garbage(const stitch::Plan& plan) GMLAKE_REQUIRES(grow_);
  std::uint64_t past_threshold_bytes(const stitch::Plan& plan) const GMLAKE_REQUIRES(grow_);

  // What can be given back to the driver, and giving it back: device_trim.cpp.
  void give_back_cached(std::uint64_t keep_bytes) GMLAKE_REQUIRES(grow_);
  void unmap_freed() GMLAKE_EXCLUDES(grow_, state_);
  // Everything that is spare and at no address.
  void release_spare() GMLAKE_REQUIRES(grow_);
  // The least of the spare and cached PhyBlocks, behind passed fences, that makes `granules`; or all of them.
  // Returns the bytes that the driver took.
  std::uint64_t release_cached(std::uint64_t granules) GMLAKE_REQUIRES(grow_);
  struct Releasable {
    memory::PhyBlock* block = nullptr;
    std::optional<stitch::Donor> donor;  // the free run that it lies in; none: it is spare
    std::uint64_t growth = 0;            // of the device, before which it was free: for collect_garbage()
  };
  std::vector<Releasable> releasable(stitch::StateSteps& steps) GMLAKE_REQUIRES(grow_);
  // Those that are cached become spare, with stale mappings, unless other threads have taken them; all go to the
  // driver. Returns the bytes that it took.
  std::uint64_t give_back(const std::vector<Releasable>& chosen, stitch::StateSteps& steps) GMLAKE_REQUIRES(grow_)
      GMLAKE_EXCLUDES(state_);
  void release_vacant_segments() GMLAKE_REQUIRES(grow_);
  // Retires stale mappings until `more` new ones keep the bound. False: they cannot.
  bool make_room_for(std::uint64_t more) GMLAKE_REQUIRES(grow_);
  void bound_stale_mappings() GMLAKE_REQUIRES(grow_);
  std::uint64_t stale_granules_bound() const;
  BackgroundWorker::Next background_step() noexcept GMLAKE_EXCLUDES(grow_, state_);
  StaleMappings stale_mappings() const;
  // Over how many streams the free runs for large requests are spread, the request one of them; those of private pools
  // are of no use to others.
  double streams_that_share(const Request& request) const GMLAKE_REQUIRES(state_);
  std::uint32_t phy_block_granules(const Request& request) GMLAKE_REQUIRES(grow_, state_);
  std::uint64_t room_bytes() const GMLAKE_REQUIRES(grow_);
  std::uint64_t headroom_granules() const GMLAKE_REQUIRES(grow_);
  std::uint64_t slack_granules(const Request& request) const GMLAKE_REQUIRES(grow_, state_);
  std::vector<stitch::Pool*> donor_pools(const Request& request, Reach reach) const GMLAKE_REQUIRES(state_);
  std::uint64_t granule() const { return std::uint64_t{1} << granule_shift_; }
  PhyBlockInfo describe(const memory::PhyBlock& block) const GMLAKE_REQUIRES(grow_);
  void check_locked() const GMLAKE_REQUIRES(grow_, state_);
  void check_deferred(std::uint64_t pending_blocks) const GMLAKE_REQUIRES(state_);
  void check_shards(std::uint64_t live_blocks) const GMLAKE_REQUIRES(state_);

  driver::RecordDriver meter_;  // counts and times the calls that the gate lets through: slow paths alone make any
  driver::Gate driver_;
  const int device_;
  const Options options_;
  const std::uint32_t granule_shift_;
  const std::uint64_t total_bytes_;
  std::atomic<std::uint64_t> own_limit_bytes_;  // 0: none but the share
  std::atomic<double> limit_fraction_;

  // Every segment ever reserved lies between these, unless frees have more to do: zero_on_free, unmap_on_free. The one
  // only falls and the other only rises, so that whoever reads them without a lock misses nothing that was handed out
  // before. Written under `grow`.
  std::atomic<Address> begin_{UINT64_MAX};
  std::atomic<Address> end_{0};

  OomCallbacks& callbacks_;
  Overflow overflow_;

  mutable Mutex grow_ GMLAKE_ACQUIRED_BEFORE(state_);
  std::vector<std::unique_ptr<Shard>> shards_ GMLAKE_GUARDED_BY(state_);  // those in use, by number; at least one
  mutable ShardedMutex state_;

  memory::Fences fences_;
  memory::PhyPool phy_pool_;
  MappingTeller teller_;
  memory::MappingTable mappings_;
  stitch::Planner planner_ GMLAKE_GUARDED_BY(grow_);
  stitch::Stitcher stitcher_ GMLAKE_GUARDED_BY(grow_);
  // What the driver, not the limit, leaves to create: known only once it has refused during this request.
  std::optional<std::uint64_t> driver_headroom_ GMLAKE_GUARDED_BY(grow_);
  std::optional<Error> refusal_ GMLAKE_GUARDED_BY(grow_);  // its last refusal during this request
  // What the rung being climbed has come to.
  struct Tally {
    RungOutcome outcome = RungOutcome::not_tried;
    std::uint64_t movable_bytes = 0;   // within its reach
    std::uint64_t released_bytes = 0;  // to the driver
  };
  Tally tally_ GMLAKE_GUARDED_BY(grow_);
  // For each stream, its tick at some of the last growths of the device: so frees of different streams compare in age.
  struct Age {
    std::uint64_t tick = 0;
    std::uint64_t growth = 0;
  };
  std::vector<std::deque<Age>> ages_ GMLAKE_GUARDED_BY(grow_);
  std::uint64_t growths_ GMLAKE_GUARDED_BY(grow_) = 0;
  std::uint64_t settled_bytes_ GMLAKE_GUARDED_BY(grow_) = 0;  // held when memory began to be freed

  std::uint64_t placed_bytes_ GMLAKE_GUARDED_BY(grow_) = 0;  // see take_room()

  std::atomic<std::uint64_t> background_retired_{0};  // written under grow_
  std::atomic<std::uint32_t> slow_requests_{0};       // on the slow path, or waiting for it
  std::atomic<std::uint64_t> numbered_threads_{0};    // when streams of threads that have ended were last forgotten

  // Where the hot path looks for its shard without a lock. Changed with all of `state` held.
  HintMap<StreamState> stream_hints_;  // those that have pools, by handle
  HintRanges<Shard> address_hints_;    // of whose blocks each segment is, by where it begins
  std::vector<std::unique_ptr<StreamState>> streams_ GMLAKE_GUARDED_BY(state_);  // by StreamIndex
  std::unordered_map<driver::Stream, StreamState*, StreamHash> stream_by_handle_ GMLAKE_GUARDED_BY(state_);
  std::vector<StreamState*> allocating_ GMLAKE_GUARDED_BY(state_);  // those that have pools
  std::vector<StreamState*> forgotten_ GMLAKE_GUARDED_BY(state_);
  StreamState* last_stream_ GMLAKE_GUARDED_BY(state_) = nullptr;  // one that has pools
  PoolRoutes routes_;
  PrivatePools private_pools_ GMLAKE_GUARDED_BY(state_);
  std::unordered_map<const stitch::Block*, Uses> uses_ GMLAKE_GUARDED_BY(state_);
  Slab<Deferred> deferred_ GMLAKE_GUARDED_BY(state_);
  std::uint64_t pending_loans_ GMLAKE_GUARDED_BY(state_) = 0;  // of them, those that were borrowed
  std::uint64_t spoiled_ GMLAKE_GUARDED_BY(state_) = 0;        // and those that a graph clears: nobody's any more
  IntrusiveList<Deferred, &Deferred::links> uncleared_ GMLAKE_GUARDED_BY(state_);  // used by nobody, and to be cleared
  std::vector<StreamState*> awaited_ GMLAKE_GUARDED_BY(state_);                    // those that something waits for
  mutable Usage usage_ GMLAKE_GUARDED_BY(state_);  // a reader settles pools first: settle_pools()
  History history_;
  DeviceStats counts_ GMLAKE_GUARDED_BY(state_);  // what no other class counts; the rest of it stays zero

  mutable Mutex last_oom_mutex_;  // its own, so that reading never waits for a request that waits
  std::optional<OutOfMemoryReport> last_oom_ GMLAKE_GUARDED_BY(last_oom_mutex_);

  BackgroundWorker worker_;  // last: its thread uses all the rest
};

}  // namespace gmlake::alloc
