// A VirBlock: one contiguous address range over whatever PhyBlocks were free. Owns its memory; gives it back on
// release() or destruction. A VirBlock is used by one thread at a time; different ones by any threads.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "gmlake/allocator.hpp"
#include "gmlake/result.hpp"
#include "gmlake/snapshot.hpp"

namespace gmlake {

struct VirBlockOptions {
  int device = 0;
  StreamHandle stream = nullptr;   // the stream whose work will use it
  Allocator* allocator = nullptr;  // null: default_allocator()
  Placement placement = {};        // other than local: an address range of its own, see Allocator::try_allocate
};

class VirBlock {
 public:
  ~VirBlock();
  VirBlock(const VirBlock&) = delete;
  VirBlock& operator=(const VirBlock&) = delete;

  void* get_block() const { return address_; }  // its address; null once released
  std::size_t size() const { return bytes_; }   // as asked for
  int device_id() const { return device_; }
  // What lies under it, in order of address. Empty once released.
  std::vector<PhyBlockInfo> phy_blocks() const;

  // Its PhyBlocks for another process, which import_vir_block() takes. Errors: as Allocator::export_block.
  Result<SharedBlock> share() const { return allocator_.export_block(address_); }

  // Of the last release: an error where the allocator did not know the block any more.
  Status status() const { return status_; }
  bool released() const { return address_ == nullptr; }
  // Gives the memory back, to be used again on the block's stream at once. A second call does nothing.
  Status release() noexcept;

 private:
  friend Result<std::unique_ptr<VirBlock>> try_create_vir_block(std::size_t bytes, const VirBlockOptions& options);
  friend Result<std::unique_ptr<VirBlock>> import_vir_block(const SharedBlock& shared, const VirBlockOptions& options);
  friend std::unique_ptr<VirBlock> create_vir_block(std::size_t bytes, const VirBlockOptions& options);
  VirBlock(Allocator& allocator, std::size_t bytes, int device)
      : allocator_(allocator), bytes_(bytes), device_(device) {}

  Allocator& allocator_;
  void* address_ = nullptr;
  std::size_t bytes_;
  int device_;
  Status status_;
};

// `bytes` > 0. Errors: invalid_size for 0 bytes, else as Allocator::try_allocate. Throws where default_allocator()
// does, or std::bad_alloc for want of host memory.
Result<std::unique_ptr<VirBlock>> try_create_vir_block(std::size_t bytes, const VirBlockOptions& options = {});
// A block that another process shares, at an address of this one. Errors: as Allocator::import_block; options.placement
// counts for nothing.
Result<std::unique_ptr<VirBlock>> import_vir_block(const SharedBlock& shared, const VirBlockOptions& options = {});
// The same as try_create_vir_block; throws OutOfMemoryError or AllocationError.
std::unique_ptr<VirBlock> create_vir_block(std::size_t bytes, const VirBlockOptions& options = {});

}  // namespace gmlake
