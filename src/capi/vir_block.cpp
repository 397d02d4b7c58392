// The C interface of VirBlock.
#include "gmlake/vir_block.hpp"

#include <algorithm>

#include "capi/objects.hpp"

using namespace gmlake;        // NOLINT: the functions of this file are outside every namespace
using namespace gmlake::capi;  // NOLINT

gmlake_status gmlake_vir_block_create(gmlake_allocator* allocator, size_t bytes, int device, void* stream,
                                      gmlake_vir_block** block) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) -> gmlake_status {
    if (block == nullptr) return null_argument(function);
    auto made = std::make_unique<VirBlockObject>();
    made->allocator = object.self;
    Result<std::unique_ptr<VirBlock>> created =
        try_create_vir_block(bytes, {.device = device, .stream = stream, .allocator = object.allocator});
    if (!created) return fail(created.error(), function);
    made->block = std::move(*created);
    *block = handle_for(made.get());
    (void)made.release();
    return GMLAKE_OK;
  });
}

gmlake_status gmlake_vir_block_get(gmlake_vir_block* block, void** address) {
  const char* const function = __func__;
  return with<VirBlockObject>(block, function, [&](VirBlockObject& object) -> gmlake_status {
    if (address == nullptr) return null_argument(function);
    *address = object.block->get_block();
    return GMLAKE_OK;
  });
}

gmlake_status gmlake_vir_block_size(gmlake_vir_block* block, size_t* bytes) {
  const char* const function = __func__;
  return with<VirBlockObject>(block, function, [&](VirBlockObject& object) -> gmlake_status {
    if (bytes == nullptr) return null_argument(function);
    *bytes = object.block->size();
    return GMLAKE_OK;
  });
}

gmlake_status gmlake_vir_block_device(gmlake_vir_block* block, int* device) {
  const char* const function = __func__;
  return with<VirBlockObject>(block, function, [&](VirBlockObject& object) -> gmlake_status {
    if (device == nullptr) return null_argument(function);
    *device = object.block->device_id();
    return GMLAKE_OK;
  });
}

gmlake_status gmlake_vir_block_phy_blocks(gmlake_vir_block* block, uint64_t* bytes, size_t capacity, size_t* count) {
  const char* const function = __func__;
  return with<VirBlockObject>(block, function, [&](VirBlockObject& object) -> gmlake_status {
    if (count == nullptr || (bytes == nullptr && capacity != 0)) return null_argument(function);
    const std::vector<PhyBlockInfo> under = object.block->phy_blocks();
    for (std::size_t i = 0; i < std::min(capacity, under.size()); ++i) bytes[i] = under[i].bytes;
    *count = under.size();
    return GMLAKE_OK;
  });
}

gmlake_status gmlake_vir_block_destroy(gmlake_vir_block* block) {
  const char* const function = __func__;
  if (block == nullptr) return GMLAKE_OK;
  return with<VirBlockObject>(block, function, [&](VirBlockObject& object) -> gmlake_status {
    if (!object.origin.intact()) return fail(Error{object.origin.lapse()}, function);
    if (handles.remove(Kind::vir_block, std::bit_cast<std::uint64_t>(block)) == nullptr) {
      return fail(GMLAKE_INVALID_VALUE, function, "destroyed by another thread at the same time");
    }
    const std::unique_ptr<VirBlockObject> gone(&object);
    return outcome(gone->block->release(), function);
  });
}
