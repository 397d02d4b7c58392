// The physical memory of one device: every PhyBlock that is held, and the ones of them that are spare.
// Protected by the device's `grow` lock; the counters may be read without it.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/intrusive_list.hpp"
#include "base/slab.hpp"
#include "driver/driver.hpp"
#include "memory/phy_block.hpp"

namespace gmlake::memory {

class PhyPool {
 public:
  using BlockList = IntrusiveList<PhyBlock, &PhyBlock::links>;

  // `properties` and its granularity are those of every block made here; a driver that refuses one of its flags is
  // asked without it from then on.
  PhyPool(driver::Driver& driver, driver::MemoryProperties properties, std::uint32_t granule_shift)
      : driver_(driver), properties_(properties), granule_shift_(granule_shift) {}
  PhyPool(const PhyPool&) = delete;
  PhyPool& operator=(const PhyPool&) = delete;

  // A spare block of that size. One driver call. Errors: as the driver's create; nothing changed.
  Result<PhyBlock*> create(std::uint32_t granules);
  // Gives a spare block without mappings back to the driver. On an error the block is never used again but stays held:
  // its bytes are lost, and counted so.
  Status release(PhyBlock* block);
  // Tries once more to give back what is lost. For shutdown.
  void release_lost();

  // A spare block becomes one with a home, and back.
  void leave_spare(PhyBlock* block);
  void join_spare(PhyBlock* block);

  const BlockList& spare() const { return spare_; }
  const BlockList& in_use() const { return in_use_; }

  std::uint64_t held_bytes() const { return held_.load(std::memory_order_relaxed); }
  std::uint64_t peak_held_bytes() const { return peak_held_.load(std::memory_order_relaxed); }
  std::uint64_t spare_bytes() const { return spare_bytes_.load(std::memory_order_relaxed); }
  std::uint64_t lost_bytes() const { return lost_bytes_.load(std::memory_order_relaxed); }
  std::uint64_t created_bytes() const { return created_bytes_.load(std::memory_order_relaxed); }  // ever
  std::uint64_t created_count() const { return created_.load(std::memory_order_relaxed); }
  std::uint64_t released_count() const { return released_.load(std::memory_order_relaxed); }
  // Of the host, for the records of blocks. Under `grow`.
  std::uint64_t metadata_bytes() const { return blocks_.bytes(); }
  void reset_peak() { peak_held_.store(held_bytes(), std::memory_order_relaxed); }

  // Recounts everything and compares. Aborts on a difference.
  void check() const;

 private:
  Result<driver::Handle> create_handle(std::uint64_t bytes);
  std::uint64_t bytes_of(const PhyBlock* block) const { return std::uint64_t{block->granules} << granule_shift_; }

  driver::Driver& driver_;
  driver::MemoryProperties properties_;
  const std::uint32_t granule_shift_;
  Slab<PhyBlock, 64> blocks_;
  BlockList in_use_;
  BlockList spare_;
  BlockList lost_;
  std::atomic<std::uint64_t> held_{0};
  std::atomic<std::uint64_t> peak_held_{0};
  std::atomic<std::uint64_t> spare_bytes_{0};
  std::atomic<std::uint64_t> lost_bytes_{0};
  std::atomic<std::uint64_t> created_bytes_{0};
  std::atomic<std::uint64_t> created_{0};
  std::atomic<std::uint64_t> released_{0};
};

}  // namespace gmlake::memory
