// The C interface of private pools.
#include "capi/objects.hpp"

using namespace gmlake;        // NOLINT: the functions of this file are outside every namespace
using namespace gmlake::capi;  // NOLINT

namespace {

PoolId id_of(gmlake_pool_id pool) { return {pool.first, pool.second}; }

}  // namespace

gmlake_status gmlake_begin_pool(gmlake_allocator* allocator, int device, gmlake_pool_id pool,
                                gmlake_stream_filter filter, void* context) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) -> gmlake_status {
    if (filter == nullptr) return null_argument(function);
    const auto chooses = [filter, context](StreamHandle stream) { return filter(stream, context) != 0; };
    return outcome(object.allocator->begin_pool(id_of(pool), device, chooses), function);
  });
}

gmlake_status gmlake_end_pool(gmlake_allocator* allocator, int device, gmlake_pool_id pool) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) {
    return outcome(object.allocator->end_pool(id_of(pool), device), function);
  });
}

gmlake_status gmlake_retain_pool(gmlake_allocator* allocator, int device, gmlake_pool_id pool) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) {
    return outcome(object.allocator->retain_pool(id_of(pool), device), function);
  });
}

gmlake_status gmlake_release_pool(gmlake_allocator* allocator, int device, gmlake_pool_id pool) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) {
    return outcome(object.allocator->release_pool(id_of(pool), device), function);
  });
}

gmlake_status gmlake_pool_references(gmlake_allocator* allocator, int device, gmlake_pool_id pool,
                                     uint64_t* references) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) -> gmlake_status {
    if (references == nullptr) return null_argument(function);
    if (!has_device(*object.allocator, device)) return fail(no_device(device), function);
    *references = object.allocator->pool_references(id_of(pool), device);
    return GMLAKE_OK;
  });
}
