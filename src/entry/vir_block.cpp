#include "gmlake/vir_block.hpp"

namespace gmlake {

VirBlock::~VirBlock() { (void)release().ok(); }

Status VirBlock::release() noexcept {
  if (address_ == nullptr) return status_;
  status_ = allocator_.try_deallocate(address_);
  // Only for want of host memory may it be tried again: else it is freed, or not ours.
  if (status_.ok() || status_.error().code == ErrorCode::invalid_pointer) address_ = nullptr;
  return status_;
}

std::vector<PhyBlockInfo> VirBlock::phy_blocks() const {
  return address_ == nullptr ? std::vector<PhyBlockInfo>() : allocator_.phy_blocks(address_);
}

Result<std::unique_ptr<VirBlock>> try_create_vir_block(std::size_t bytes, const VirBlockOptions& options) {
  if (bytes == 0) return Error{ErrorCode::invalid_size, Step::allocate, 0};
  Allocator& allocator = options.allocator != nullptr ? *options.allocator : default_allocator();
  std::unique_ptr<VirBlock> block(new VirBlock(allocator, bytes, options.device));  // first: it may throw
  const Result<void*> address = allocator.try_allocate(bytes, options.placement, options.device, options.stream);
  if (!address) return address.error();
  block->address_ = *address;
  return block;
}

Result<std::unique_ptr<VirBlock>> import_vir_block(const SharedBlock& shared, const VirBlockOptions& options) {
  Allocator& allocator = options.allocator != nullptr ? *options.allocator : default_allocator();
  std::unique_ptr<VirBlock> block(new VirBlock(allocator, shared.layout().bytes, options.device));
  const Result<void*> address = allocator.import_block(shared.layout(), shared.fds(), options.device, options.stream);
  if (!address) return address.error();
  block->address_ = *address;
  return block;
}

std::unique_ptr<VirBlock> create_vir_block(std::size_t bytes, const VirBlockOptions& options) {
  if (bytes == 0) throw AllocationError({ErrorCode::invalid_size, Step::allocate, 0});
  Allocator& allocator = options.allocator != nullptr ? *options.allocator : default_allocator();
  std::unique_ptr<VirBlock> block(new VirBlock(allocator, bytes, options.device));
  if (options.placement.kind == Placement::Kind::local) {
    block->address_ = allocator.allocate(bytes, options.device, options.stream);
    return block;
  }
  const Result<void*> placed = allocator.try_allocate(bytes, options.placement, options.device, options.stream);
  if (!placed) throw AllocationError(placed.error());
  block->address_ = *placed;
  return block;
}

}  // namespace gmlake
