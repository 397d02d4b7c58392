// A model of PyTorch's allocator with expandable_segments:True: what to compare gmlake with.
// Each (stream, size class) has one long reserved range, into which pages of one handle each are mapped as it grows.
// When the driver, or the limit, refuses, the pages that lie whole inside free blocks are unmapped, after waiting for
// the stream, and the request is tried again.
// Source of the policy: c10/cuda/CUDACachingAllocator.cpp, PyTorch 2.11. Left out: graphs, private pools, IPC.
// Not thread-safe: one thread replays.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "replay/engine.hpp"
#include "replay/page_range.hpp"
#include "replay/pending_frees.hpp"
#include "replay/segment.hpp"
#include "replay/target.hpp"
#include "replay/torch_blocks.hpp"

namespace gmlake::replay {

class TorchExpandable final : public Target {
 public:
  // No settings. Errors: invalid_option; what granularity() and memory_info() return.
  static Result<std::unique_ptr<Target>> make(driver::Driver& driver, const TargetOptions& options);

  std::string_view name() const override { return "torch-expandable"; }
  // Per new page: create, map; one set_access per run of them. After a refusal also unmap and release, per page.
  Result<driver::Address> allocate(std::uint64_t bytes, driver::Stream stream) override;
  Status deallocate(driver::Address address, driver::Stream stream) override;
  Status record_stream(driver::Address address, driver::Stream stream) override;
  Status trim() override;  // empty_cache(): waits, then unmaps every page that lies whole inside a free block

  std::uint64_t reserved_bytes() const override { return held_.held(); }
  std::uint64_t peak_reserved_bytes() const override { return held_.peak(); }

  void check() const;

 private:
  TorchExpandable(driver::Driver& driver, const TargetOptions& options, std::uint64_t granularity,
                  std::uint64_t range_bytes);

  BlockIndex take_best_fit(std::uint32_t pool, std::uint64_t size);
  std::uint64_t size_with_room_behind(BlockIndex block) const;
  Result<BlockIndex> expand_or_reclaim(std::uint32_t pool, std::uint64_t size);
  Result<BlockIndex> expand(std::uint32_t pool, std::uint64_t size);
  BlockIndex find_room(std::uint32_t pool, std::uint64_t size) const;
  bool has_room(BlockIndex block, std::uint64_t size) const;
  Result<BlockIndex> add_range(std::uint32_t pool);
  Status map_block(BlockIndex block, std::uint64_t bytes);
  void free_block(BlockIndex block);
  void free_done();
  Status release_cached();
  Status unmap_block(BlockIndex block);
  void drop_range(BlockIndex block);
  void insert_unmapped(BlockIndex block);
  void merge_unmapped_neighbours(BlockIndex block);

  using Unmapped = std::map<driver::Address, BlockIndex>;
  Unmapped& unmapped(std::uint32_t pool);

  driver::Driver& driver_;
  int device_;
  std::uint64_t granularity_;
  std::uint64_t range_bytes_;
  HeldBytes held_;
  TorchBlocks blocks_;
  std::vector<Unmapped> unmapped_;  // by pool
  PendingFrees pending_;
  std::vector<std::unique_ptr<PageRange>> ranges_;  // by TorchBlock::segment; null: given back
  std::vector<BlockIndex> done_;                    // scratch: blocks whose last use has passed
};

}  // namespace gmlake::replay
