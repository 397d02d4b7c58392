// Every address range that is reserved and every mapping that the driver has: making, moving and ending them.
//
// Moving a PhyBlock makes its old mapping stale. A stale mapping keeps its addresses out of use and waits in the retire
// queue, oldest first, until it is revived as the home again, or retired: unmapped, once its fence has passed.
//
// Protected by the device's `grow` lock; the counters may be read without it. All driver calls that change mappings are
// made here, and here alone. Neither this class nor PhyPool knows the lock, and their owner cannot say GUARDED_BY of
// them, since that would cover the counters too: who calls anything else holds `grow`, as their callers' REQUIRES say.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/intrusive_list.hpp"
#include "base/slab.hpp"
#include "driver/driver.hpp"
#include "memory/fences.hpp"
#include "memory/mapping_watcher.hpp"
#include "memory/phy_block.hpp"
#include "memory/phy_pool.hpp"

namespace gmlake::memory {

class MappingTable {
 public:
  // `watcher`: who is told of mappings; null for nobody.
  MappingTable(driver::Driver& driver, PhyPool& pool, std::uint32_t granule_shift, std::vector<int> access,
               MappingWatcher* watcher = nullptr)
      : driver_(driver), pool_(pool), granule_shift_(granule_shift), access_(std::move(access)), watcher_(watcher) {}
  MappingTable(const MappingTable&) = delete;
  MappingTable& operator=(const MappingTable&) = delete;

  // A new segment. One driver call. Errors: as the driver's reserve.
  Result<VmmSegment*> reserve(std::uint32_t slot_count);
  // Gives a segment without mappings back. On an error its addresses are lost until shutdown, and counted so.
  Status address_free(VmmSegment* segment);

  // Maps a PhyBlock at empty slots, without access yet and not as its home. One driver call.
  Result<Mapping*> map(VmmSegment* segment, std::uint32_t slot, PhyBlock* block);
  // Grants every device of the access list access to a range that is mapped throughout. One driver call.
  Status set_access(VmmSegment* segment, std::uint32_t slot, std::uint32_t granules);
  // Puts a device on the access list, and grants it access to all that is mapped. One driver call a run of mappings. An
  // error leaves the list as it was; what was granted stays so. Throws std::bad_alloc with nothing changed.
  Status grant(int device);
  // Ends mappings that lie next to each other, none of them a home. One driver call. On an error each is quarantined.
  Status unmap(std::span<Mapping* const> adjacent);

  // The block leaves its home, which becomes stale until `fence`; it has none then. A spare block stays as it is.
  void leave_home(PhyBlock* block, Fence fence);
  // Makes `mapping`, one of its block's own, the home. The block has none now.
  void settle(Mapping* mapping);

  // Unmaps stale mappings whose fence has passed, oldest first, until at most `keep` granules' worth are left.
  // Neighbours in the queue that are neighbours in address go in one call. Returns the granules unmapped.
  std::uint64_t retire(const Fences& fences, std::uint64_t keep_granules);
  // Unmaps at most `most` stale mappings, the oldest whose fence has passed and those that lie next to it in the queue
  // and in address: one driver call. Returns how many; 0 where none of the oldest has passed, or the driver refuses.
  std::uint64_t retire_oldest(const Fences& fences, std::uint64_t most);
  // Unmaps every mapping of a spare block. Its fences must have passed. An error leaves the rest quarantined.
  Status retire_all_of(PhyBlock* block);

  // Unmaps everything, releases every block and frees every range, trying again what was refused before.
  void shut_down();

  std::uint64_t mapping_count() const { return mapping_count_.load(std::memory_order_relaxed); }
  std::uint64_t stale_granules() const { return stale_granules_.load(std::memory_order_relaxed); }
  std::uint64_t reserved_address_bytes() const { return reserved_bytes_.load(std::memory_order_relaxed); }
  std::uint64_t quarantined_bytes() const { return quarantined_bytes_.load(std::memory_order_relaxed); }
  std::uint64_t retired_count() const { return retired_.load(std::memory_order_relaxed); }
  const std::vector<std::unique_ptr<VmmSegment>>& segments() const { return segments_; }
  // Of the host, for the records of mappings and segments.
  std::uint64_t metadata_bytes() const;

  // Recounts everything and compares. Aborts on a difference.
  void check() const;

 private:
  using RetireQueue = IntrusiveList<Mapping, &Mapping::links>;

  Status unmap_slots(const VmmSegment& segment, std::uint32_t begin, std::uint32_t end);  // one driver call
  void forget(Mapping* mapping);

  driver::Driver& driver_;
  PhyPool& pool_;
  const std::uint32_t granule_shift_;
  std::vector<int> access_;
  MappingWatcher* const watcher_;
  std::vector<std::unique_ptr<VmmSegment>> segments_;
  std::vector<std::unique_ptr<VmmSegment>> lost_segments_;  // empty ones that the driver would not take back
  Slab<Mapping, 64> mappings_;
  RetireQueue stale_;
  std::vector<Mapping*> scratch_;
  std::atomic<std::uint64_t> mapping_count_{0};
  std::atomic<std::uint64_t> stale_granules_{0};
  std::atomic<std::uint64_t> reserved_bytes_{0};
  std::atomic<std::uint64_t> quarantined_bytes_{0};
  std::atomic<std::uint64_t> retired_{0};
};

}  // namespace gmlake::memory
