// Blocks in address ranges of their own: memory laid out over several GPUs and the host as a placement says, and what a
// request spills. Nothing here is cached, split or stitched: slow memory must not end up under requests that did not
// ask for it. What is freed goes back to the drivers as soon as the streams that used it have passed, at the next call
// here.
//
// Any thread may call. `mutex_` covers the books and is held across no driver call; `settling_` is held across those
// that give memory back, and is taken first.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/mutex.hpp"
#include "driver/driver.hpp"
#include "driver/gate.hpp"
#include "gmlake/placement.hpp"
#include "gmlake/result.hpp"
#include "gmlake/share.hpp"
#include "gmlake/snapshot.hpp"

namespace gmlake::alloc {

using driver::Address;

// The limits of devices, as their allocators keep them.
class Room {
 public:
  virtual ~Room() = default;
  // False: the device's limit has no such room, cached memory given back. `refused`: the limit had, but the driver not.
  virtual bool take(int device, std::uint64_t bytes, bool refused) = 0;
  virtual void give_back(int device, std::uint64_t bytes) = 0;
};

class PlacedBlocks {
 public:
  // What the blocks of one device hold, wherever it lies.
  struct Totals {
    std::uint64_t blocks = 0;  // live, and freed ones that streams still use
    std::uint64_t device_bytes = 0;
    std::uint64_t peer_bytes = 0;
    std::uint64_t host_bytes = 0;
    std::uint64_t imported_bytes = 0;  // another process's: none of the three above
    std::uint64_t lost_bytes = 0;      // of these, what the driver would not take back

    friend bool operator==(const Totals&, const Totals&) = default;
  };

  struct Freeing {  // the options zero_on_free and unmap_on_free
    bool zeroes = false;
    bool waits = false;
  };

  PlacedBlocks(driver::Driver& driver, Room& room, std::uint64_t max_piece_bytes, Freeing freeing)
      : driver_(driver), room_(room), max_piece_bytes_(max_piece_bytes), freeing_(freeing) {}
  ~PlacedBlocks();  // gives everything back, live blocks included; tells no Room
  PlacedBlocks(const PlacedBlocks&) = delete;
  PlacedBlocks& operator=(const PlacedBlocks&) = delete;

  // A block of the device for work on `stream`, in pieces of a power of two of granules up to the bound. `bytes` > 0.
  // Three calls and one a piece; a probe of each place that a device has not used before. Errors: out_of_memory (at
  // every place, or at one that a stripe goes over), invalid_device, invalid_value (a stripe over nothing), and what
  // the driver refuses. Nothing changed then. Throws std::bad_alloc, likewise.
  Result<Address> create(std::uint64_t bytes, driver::Stream stream, const Placement& placement);
  // A block of memory that another process has exported, for work on `stream`. The descriptors stay the caller's.
  // Errors: invalid_value (a layout that makes no sense, or what is no memory of this driver), and what the driver
  // refuses. Nothing changed then.
  Result<Address> import(const SharedLayout& layout, std::span<const int> fds, driver::Stream stream);
  // See DeviceAllocator::share().
  Result<SharedLayout> share(Address address, std::vector<int>& fds);
  // Of a live block here; invalid_pointer for any other. `stream`: as DeviceAllocator::deallocate().
  Status deallocate(Address address, std::optional<std::uint64_t> stream);
  Status record_stream(Address address, driver::Stream stream);
  // The stream is about to be destroyed: what it has done to blocks here is marked now. Errors: captured, the driver's.
  Status forget_stream(driver::Stream stream);
  // Memory of a device's blocks, of now and of later, may be used by `peer` too.
  Status grant(int device, int peer);
  // Gives back what is freed and passed; and, where `wait`, what is not passed yet. False: some is left.
  bool settle(bool wait);

  std::uint64_t block_bytes(Address address) const;  // of a live block; 0 for any other address
  int device_of(Address address) const;              // -1 likewise
  std::vector<PhyBlockInfo> phy_blocks(Address address) const;
  Totals totals(int device) const;
  void check() const;  // recounts, and aborts on a difference

 private:
  struct Piece {
    driver::Handle handle = driver::Handle::none;
    std::uint64_t bytes = 0;
    driver::Location location;
    bool imported = false;
  };
  struct Mark {
    driver::Event event = driver::Event::none;
    int device = 0;  // of the stream that it was recorded on
  };
  struct Events {  // of one device: a driver that refuses to destroy one must not make us lose it
    std::vector<driver::Event> idle;
    std::size_t made = 0;
  };
  struct Block {
    Address address = 0;             // of the range
    std::uint64_t offset = 0;        // of the block in it: other than 0 in imported ones alone
    std::uint64_t range_bytes = 0;   // reserved; 0: not yet, or no more
    std::uint64_t mapped_bytes = 0;  // from its begin
    std::uint64_t requested = 0;
    driver::Stream stream;
    std::vector<driver::Stream> uses;  // by other streams; once freed, every stream that is yet to be marked
    std::vector<Mark> marks;           // of streams that were marked, and have not passed
    std::vector<Piece> pieces;         // in order of address
    bool dirty = false;                // once freed: to be cleared before it is given back
    bool spoiled = false;              // a graph may clear it at any time: it is never given back
    Address begin() const { return address + offset; }
    std::uint64_t imported_bytes() const;
    std::uint64_t bytes_at(driver::Location::Kind kind, int device, bool equal) const;
  };
  using Blocks = std::map<Address, std::unique_ptr<Block>>;
  struct Place {
    driver::MemoryProperties memory;
    std::uint64_t granularity = 0;  // 0: the device cannot use memory there
  };

  Result<std::vector<Place>> places_of(int device, const Placement& placement) GMLAKE_REQUIRES(settling_);
  bool try_place(int device, Place& place) GMLAKE_REQUIRES(settling_);
  Status take_piece(Block& block, const Place& place, std::uint64_t bytes);
  Status spill(Block& block, std::span<const Place> places, std::uint64_t piece, std::uint64_t granularity,
               std::uint64_t bytes);
  Status stripe(Block& block, std::span<const Place> places, std::uint64_t piece, std::uint64_t bytes);
  Status join(Block& block) GMLAKE_EXCLUDES(mutex_);
  void expect_one(int device, std::size_t probes) GMLAKE_EXCLUDES(mutex_);
  Address publish(std::unique_ptr<Block>&& block) GMLAKE_EXCLUDES(mutex_);
  void give_up(std::unique_ptr<Block> block) GMLAKE_EXCLUDES(mutex_);
  bool dismantle(Block& block, bool tell_room) noexcept;
  bool has_passed(Block& block, bool wait) GMLAKE_REQUIRES(settling_);
  bool clear(Block& block) GMLAKE_REQUIRES(settling_);
  Result<Mark> mark(driver::Stream stream) GMLAKE_REQUIRES(settling_);
  bool settle_locked(bool wait) GMLAKE_REQUIRES(settling_) GMLAKE_EXCLUDES(mutex_);
  template <class Visit>
  void for_each_block(Visit&& visit) const GMLAKE_REQUIRES(mutex_) {
    for (const Blocks* blocks : {&live_, &freed_}) {
      for (const auto& [address, block] : *blocks) visit(*block);
    }
    for (const auto& block : lost_) visit(*block);
  }
  Block* find(Address address) const GMLAKE_REQUIRES(mutex_);
  void count(const Block& block, bool more) GMLAKE_REQUIRES(mutex_);
  std::vector<int> access_of(int device) const GMLAKE_REQUIRES(mutex_);

  driver::Gate driver_;
  Room& room_;
  const std::uint64_t max_piece_bytes_;
  const Freeing freeing_;

  mutable Mutex settling_ GMLAKE_ACQUIRED_BEFORE(mutex_);
  // By device and place: the GPUs from 0 up, the host's nodes from -1 down.
  std::map<std::pair<int, int>, Place> probed_ GMLAKE_GUARDED_BY(settling_);
  std::map<int, Events> events_ GMLAKE_GUARDED_BY(settling_);  // by device
  mutable Mutex mutex_;
  Blocks live_ GMLAKE_GUARDED_BY(mutex_);
  Blocks freed_ GMLAKE_GUARDED_BY(mutex_);
  // What the driver would not take back; has room for every block there is.
  std::vector<std::unique_ptr<Block>> lost_ GMLAKE_GUARDED_BY(mutex_);
  std::map<int, Totals> totals_ GMLAKE_GUARDED_BY(mutex_);
  std::map<int, std::vector<int>> access_ GMLAKE_GUARDED_BY(mutex_);  // by device: who else may use its blocks
};

}  // namespace gmlake::alloc
