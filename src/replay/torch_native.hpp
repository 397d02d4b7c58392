// A model of PyTorch's native caching allocator (PYTORCH_CUDA_ALLOC_CONF unset): what to compare gmlake with.
// Each segment is one cudaMalloc; blocks are split off and merged inside it; a segment goes back to the driver only
// when it is free as a whole and the driver, or the limit, has refused a request. Source of the policy:
// c10/cuda/CUDACachingAllocator.cpp, PyTorch 2.11. Left out: graphs, private pools, IPC. Not thread-safe: one thread
// replays.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "replay/engine.hpp"
#include "replay/pending_frees.hpp"
#include "replay/segment.hpp"
#include "replay/target.hpp"
#include "replay/torch_blocks.hpp"

namespace gmlake::replay {

// The addresses that recorded segments had, to be given out again in the order of the recording, by stream and size.
class RecordedAddresses {
 public:
  explicit RecordedAddresses(const DeviceTrace* trace);
  // The next recorded address of a segment like this; `otherwise` where the recording has no more of them.
  driver::Address next(driver::Stream stream, std::uint64_t bytes, driver::Address otherwise);

 private:
  using Key = std::pair<std::uint64_t, std::uint64_t>;  // stream handle, bytes
  struct Queue {
    std::vector<driver::Address> addresses;
    std::size_t given = 0;
  };
  std::map<Key, Queue> queues_;
};

class TorchNative final : public Target {
 public:
  // Settings: max_split_size_mb (21 or more: blocks of that size are never split, as in PyTorch).
  // Errors: invalid_option; what granularity() returns.
  static Result<std::unique_ptr<Target>> make(driver::Driver& driver, const TargetOptions& options);
  ~TorchNative() override;

  std::string_view name() const override { return "torch-native"; }
  // At most one driver allocation, after a refusal two or three, and one query per pending event.
  Result<driver::Address> allocate(std::uint64_t bytes, driver::Stream stream) override;
  // No driver call but an event_record per other stream that uses the block.
  Status deallocate(driver::Address address, driver::Stream stream) override;
  Status record_stream(driver::Address address, driver::Stream stream) override;
  Status trim() override;  // empty_cache(): waits for all pending events, then frees every wholly free segment

  std::uint64_t reserved_bytes() const override { return held_.held(); }
  std::uint64_t peak_reserved_bytes() const override { return held_.peak(); }

  void check() const;

 private:
  TorchNative(driver::Driver& driver, const TargetOptions& options, std::uint64_t granularity,
              std::uint64_t max_split_size);

  BlockIndex take_best_fit(std::uint32_t pool, std::uint64_t size);
  bool should_split(const TorchBlock& block, std::uint64_t size) const;
  Result<BlockIndex> make_segment(std::uint32_t pool, std::uint64_t size);
  Result<BlockIndex> make_segment_or_reclaim(std::uint32_t pool, std::uint64_t size);
  void free_block(BlockIndex block);
  void free_done();
  bool release_oversize(std::uint32_t pool, std::uint64_t size);
  Status release_cached();
  Status release_segment(BlockIndex block);

  driver::Driver& driver_;
  int device_;
  std::uint64_t granularity_;
  std::uint64_t max_split_size_;
  HeldBytes held_;
  TorchBlocks blocks_;
  PendingFrees pending_;
  RecordedAddresses recorded_;
  std::vector<Segment> segments_;  // by TorchBlock::segment
  std::vector<std::uint32_t> idle_segments_;
  std::vector<BlockIndex> done_;  // scratch: blocks whose last use has passed
};

}  // namespace gmlake::replay
