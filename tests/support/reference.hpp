// A reference for what an allocator may do. It lies between the allocator and the driver and knows three things: which
// physical bytes lie at which address, which of them belong to live blocks, and which work is ordered before which.
// There is no pool and no stitching in it: it says whether a result is legal, not which one is right.
// One thread, one device.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "driver/simulated.hpp"
#include "support/forwarding_driver.hpp"

namespace gmlake::test {

class Reference final : public ForwardingDriver {
 public:
  explicit Reference(driver::SimulatedDriver& device) : ForwardingDriver(device), device_(device) {}

  // What the allocator did for its callers. Each gives what was wrong with that, nothing where it was legal.
  // `pool`: of a private pool, whose memory nobody else gets while it is open; 0: none.
  std::string allocated(Address address, std::uint64_t bytes, Stream stream, std::uint32_t pool = 0);
  std::string recorded(Address address, Stream stream);
  std::string freed(Address address, std::optional<Stream> stream);
  // What is enqueued on the stream from now on has nothing to do with the blocks that were used on it.
  void forgotten(Stream stream);
  void open_pool(std::uint32_t pool) { open_pools_.insert(pool); }
  void close_pool(std::uint32_t pool) { open_pools_.erase(pool); }
  bool has_open_pools() const { return !open_pools_.empty(); }
  // The first rule that a driver call broke.
  const std::string& broken() const { return broken_; }

  // A kernel of the callers'.
  Status launch(Stream stream, std::vector<driver::Access> accesses, std::function<void()> run);

  std::uint64_t live_blocks() const { return live_.size(); }
  std::uint64_t live_bytes() const { return live_bytes_; }
  // The most granules that live blocks can keep from others, where physical memory comes in pieces of `piece` granules.
  std::uint64_t pinned_granules(std::uint64_t granule, std::uint64_t piece) const;

  Status release(Handle handle) override;
  Status map(Address address, std::uint64_t bytes, Handle handle) override;
  Status unmap(Address address, std::uint64_t bytes) override;
  Status event_record(Event event, Stream stream) override;
  Status stream_wait(Stream stream, Event event) override;
  Status clear(Stream stream, Address address, std::uint64_t bytes) override;

 private:
  using Clock = std::map<std::uint64_t, std::uint64_t>;  // by stream: how many of its operations are known to be before
  struct Piece {                                         // physical bytes
    Handle handle = Handle::none;
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    friend bool operator==(const Piece&, const Piece&) = default;
  };
  struct Extent {  // of one handle: who has it, or which work has to be over before anyone may
    std::uint64_t end = 0;
    bool live = false;
    Clock users;
    std::uint32_t pool = 0;
  };
  struct Use {
    std::uint64_t stream = 0;
    std::uint64_t point = 0;  // up to where, once the stream was forgotten; 0: up to the free
  };
  struct Live {
    std::uint64_t bytes = 0;
    std::vector<Piece> pieces;
    std::vector<Use> uses;
    std::uint32_t pool = 0;
  };
  struct Mapped {
    std::uint64_t bytes = 0;
    Handle handle = Handle::none;
  };

  std::vector<Piece> pieces_of(Address address, std::uint64_t bytes) const;  // fewer bytes where some are not mapped
  bool complete(std::uint64_t stream, std::uint64_t point) const;
  std::string conflict(const Piece& piece, std::uint64_t stream, std::uint32_t pool) const;
  void put(const Piece& piece, const Extent& extent);

  driver::SimulatedDriver& device_;
  std::map<Address, Mapped> mapped_;
  std::unordered_map<std::uint64_t, std::map<std::uint64_t, Extent>> extents_;  // by handle and begin
  std::map<Address, Live> live_;
  std::uint64_t live_bytes_ = 0;
  std::map<std::uint64_t, std::uint64_t> enqueued_;  // by stream: operations so far
  std::map<std::uint64_t, Clock> order_;             // by stream: what its next operation comes after
  std::unordered_map<std::uint64_t, Clock> events_;
  std::set<std::uint32_t> open_pools_;
  std::string broken_;
};

}  // namespace gmlake::test
