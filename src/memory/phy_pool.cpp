#include "memory/phy_pool.hpp"

#include "base/check.hpp"
#include "base/counter.hpp"

namespace gmlake::memory {

// What a device says it can do it may yet refuse: fabric handles want a service beside the driver.
Result<driver::Handle> PhyPool::create_handle(std::uint64_t bytes) {
  Result<driver::Handle> handle = driver_.create(bytes, properties_);
  for (bool driver::MemoryProperties::*flag :
       {&driver::MemoryProperties::fabric_handle, &driver::MemoryProperties::rdma_capable,
        &driver::MemoryProperties::posix_fd_handle}) {
    if (handle || handle.error().code != ErrorCode::not_supported) break;
    if (!(properties_.*flag)) continue;
    properties_.*flag = false;
    handle = driver_.create(bytes, properties_);
  }
  return handle;
}

Result<PhyBlock*> PhyPool::create(std::uint32_t granules) {
  PhyBlock* block = blocks_.take();
  block->granules = granules;
  Result<driver::Handle> handle = create_handle(bytes_of(block));
  if (!handle) {
    blocks_.put(block);
    return handle.error();
  }
  block->handle = *handle;
  spare_.push_back(block);
  add(held_, bytes_of(block));
  add(spare_bytes_, bytes_of(block));
  add(created_bytes_, bytes_of(block));
  add(created_, 1);
  if (held_bytes() > peak_held_bytes()) peak_held_.store(held_bytes(), std::memory_order_relaxed);
  return block;
}

Status PhyPool::release(PhyBlock* block) {
  GMLAKE_CHECK(block->home == nullptr && block->mappings == nullptr);
  const Status released = driver_.release(block->handle);
  spare_.erase(block);
  add(spare_bytes_, -bytes_of(block));
  if (!released.ok()) {
    lost_.push_back(block);
    add(lost_bytes_, bytes_of(block));
    return released;
  }
  add(held_, -bytes_of(block));
  add(released_, 1);
  blocks_.put(block);
  return released;
}

void PhyPool::release_lost() {
  for (PhyBlock* block = lost_.front(); block != nullptr;) {
    PhyBlock* next = BlockList::next(block);
    if (driver_.release(block->handle).ok()) {
      lost_.erase(block);
      add(lost_bytes_, -bytes_of(block));
      add(held_, -bytes_of(block));
      add(released_, 1);
      blocks_.put(block);
    }
    block = next;
  }
}

void PhyPool::leave_spare(PhyBlock* block) {
  spare_.erase(block);
  in_use_.push_back(block);
  add(spare_bytes_, -bytes_of(block));
}

void PhyPool::join_spare(PhyBlock* block) {
  in_use_.erase(block);
  spare_.push_back(block);
  add(spare_bytes_, bytes_of(block));
}

void PhyPool::check() const {
  std::uint64_t spare_bytes = 0;
  std::uint64_t lost_bytes = 0;
  std::uint64_t held = 0;
  std::uint64_t count = 0;
  for (const PhyBlock* b = lost_.front(); b != nullptr; b = BlockList::next(b)) {
    GMLAKE_CHECK(b->home == nullptr && b->mappings == nullptr);
    lost_bytes += bytes_of(b);
    ++count;
  }
  held += lost_bytes;
  for (const PhyBlock* b = spare_.front(); b != nullptr; b = BlockList::next(b)) {
    GMLAKE_CHECK(b->home == nullptr);
    spare_bytes += bytes_of(b);
    ++count;
  }
  held += spare_bytes;
  for (const PhyBlock* b = in_use_.front(); b != nullptr; b = BlockList::next(b)) {
    held += bytes_of(b);
    ++count;
  }
  GMLAKE_CHECK_EQ(spare_bytes, this->spare_bytes());
  GMLAKE_CHECK_EQ(lost_bytes, this->lost_bytes());
  GMLAKE_CHECK_EQ(held, held_bytes());
  GMLAKE_CHECK_EQ(count, blocks_.live_count());
}

}  // namespace gmlake::memory
