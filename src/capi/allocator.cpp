// The C interface of Allocator. Each function finds its object, looks at its pointers, and says what the library said.
#include <atomic>

#include "capi/objects.hpp"
#include "entry/recording.hpp"

using namespace gmlake;        // NOLINT: the functions of this file are outside every namespace
using namespace gmlake::capi;  // NOLINT

namespace {

gmlake_status make_allocator(const char* function, const char* driver, const char* options, gmlake_allocator** out) {
  if (out == nullptr) return null_argument(function);
  Options parsed;
  if (const OptionsError refused = parse_options(options == nullptr ? "" : options, parsed); !refused.ok()) {
    return fail(GMLAKE_INVALID_OPTION, function, refused.message);
  }
  if (process::exiting()) return fail(Error{ErrorCode::shut_down}, function);  // before the driver is touched
  if (driver != nullptr && !apply_option(parsed, "driver", driver).ok()) {
    return fail(Error{ErrorCode::not_supported, Step::properties}, function);
  }
  auto object = std::make_shared<AllocatorObject>();
  Result<std::unique_ptr<Allocator>> made = Allocator::create(parsed);
  if (!made) return fail(made.error(), function);
  object->owned = std::move(*made);
  object->allocator = object->owned.get();
  FileError unwritable;
  object->recorder = entry::start_recording(*object->allocator, parsed, unwritable);
  if (!unwritable.ok()) return outcome(unwritable, function);
  gmlake_allocator* const handle = handle_for(object.get());
  object->self = object;
  *out = handle;
  return GMLAKE_OK;
}

gmlake_stat shown(const Stat& stat) { return {stat.current, stat.peak, stat.allocated, stat.freed}; }

gmlake_stats shown(const DeviceStats& stats) {
  gmlake_stats out{};
  out.allocated_bytes = shown(stats.all.allocated_bytes);
  out.requested_bytes = shown(stats.all.requested_bytes);
  out.active_bytes = shown(stats.all.active_bytes);
  out.reserved_bytes = shown(stats.all.reserved_bytes);
  out.allocations = shown(stats.all.allocation);
  out.alloc_retries = stats.num_alloc_retries;
  out.ooms = stats.num_ooms;
  out.spare_bytes = stats.spare_bytes;
  out.lost_bytes = stats.lost_bytes;
  out.address_bytes = stats.address_bytes;
  out.quarantined_bytes = stats.quarantined_bytes;
  out.stale_bytes = stats.stale_bytes;
  out.mappings = stats.mappings;
  out.events_pending = stats.events_pending;
  out.driver_calls = stats.driver_calls;
  out.driver_ns = stats.driver_ns;
  out.stitches = stats.stitches;
  out.moved_bytes = stats.moved_bytes;
  out.revived_bytes = stats.revived_bytes;
  out.grown_bytes = stats.grown_bytes;
  return out;
}

}  // namespace

gmlake_status gmlake_allocator_create(const char* options, gmlake_allocator** allocator) {
  return guarded(__func__, [&] { return make_allocator("gmlake_allocator_create", nullptr, options, allocator); });
}

gmlake_status gmlake_allocator_create_on(const char* driver, const char* options, gmlake_allocator** allocator) {
  return guarded(__func__, [&] {
    if (driver == nullptr) return null_argument("gmlake_allocator_create_on");
    return make_allocator("gmlake_allocator_create_on", driver, options, allocator);
  });
}

gmlake_status gmlake_allocator_default(gmlake_allocator** allocator) {
  const char* const function = __func__;
  return guarded(function, [&]() -> gmlake_status {
    static constinit std::atomic<gmlake_allocator*> handle{nullptr};
    if (allocator == nullptr) return null_argument(function);
    if (gmlake_allocator* const made = handle.load(std::memory_order_acquire)) {
      *allocator = made;
      return GMLAKE_OK;
    }
    auto object = std::make_unique<AllocatorObject>();
    try {
      object->allocator = &default_allocator();
    } catch (const AllocationError& error) {
      return fail(error.error(), function);
    }
    gmlake_allocator* const fresh = handle_for(object.get());
    gmlake_allocator* first = nullptr;
    if (handle.compare_exchange_strong(first, fresh)) {
      (void)object.release();  // for good, as the allocator itself
      *allocator = fresh;
    } else {
      handles.remove(Kind::allocator, std::bit_cast<std::uint64_t>(fresh));
      *allocator = first;
    }
    return GMLAKE_OK;
  });
}

gmlake_status gmlake_allocator_destroy(gmlake_allocator* allocator) {
  const char* const function = __func__;
  if (allocator == nullptr) return GMLAKE_OK;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) -> gmlake_status {
    if (object.owned == nullptr) {
      return fail(GMLAKE_INVALID_VALUE, function, "the default allocator is never destroyed");
    }
    if (!object.origin.intact()) return fail(Error{object.origin.lapse()}, function);
    if (handles.remove(Kind::allocator, std::bit_cast<std::uint64_t>(allocator)) == nullptr) {
      return fail(GMLAKE_INVALID_VALUE, function, "destroyed by another thread at the same time");
    }
    const std::shared_ptr<AllocatorObject> last = std::move(object.self);
    return object.recorder == nullptr ? GMLAKE_OK : outcome(object.recorder->stop(), function);
  });
}

gmlake_status gmlake_allocate(gmlake_allocator* allocator, size_t bytes, int device, void* stream, void** pointer) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) -> gmlake_status {
    if (pointer == nullptr) return null_argument(function);
    const Result<void*> allocated = object.allocator->try_allocate(bytes, device, stream);
    if (!allocated) return fail(allocated.error(), function);
    *pointer = *allocated;
    return GMLAKE_OK;
  });
}

gmlake_status gmlake_deallocate(gmlake_allocator* allocator, void* pointer) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) {
    return outcome(object.allocator->try_deallocate(pointer), function);
  });
}

gmlake_status gmlake_deallocate_on(gmlake_allocator* allocator, void* pointer, void* stream) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) {
    return outcome(object.allocator->try_deallocate(pointer, stream), function);
  });
}

gmlake_status gmlake_record_stream(gmlake_allocator* allocator, void* pointer, void* stream) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) {
    return outcome(object.allocator->try_record_stream(pointer, stream), function);
  });
}

gmlake_status gmlake_forget_stream(gmlake_allocator* allocator, int device, void* stream) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) {
    return outcome(object.allocator->forget_stream(stream, device), function);
  });
}

gmlake_status gmlake_trim(gmlake_allocator* allocator, uint64_t keep_bytes) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) {
    return outcome(object.allocator->trim(keep_bytes), function);
  });
}

gmlake_status gmlake_set_limit(gmlake_allocator* allocator, int device, uint64_t bytes) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) {
    return outcome(object.allocator->set_limit(bytes, device), function);
  });
}

gmlake_status gmlake_set_limit_fraction(gmlake_allocator* allocator, int device, double fraction) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) {
    return outcome(object.allocator->set_limit_fraction(fraction, device), function);
  });
}

gmlake_status gmlake_get_limit(gmlake_allocator* allocator, int device, uint64_t* bytes) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) -> gmlake_status {
    if (bytes == nullptr) return null_argument(function);
    const Result<std::uint64_t> limit = object.allocator->limit(device);
    if (!limit) return fail(limit.error(), function);
    *bytes = *limit;
    return GMLAKE_OK;
  });
}

gmlake_status gmlake_background_step(gmlake_allocator* allocator, int* more) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) -> gmlake_status {
    if (more == nullptr) return null_argument(function);
    if (!object.origin.intact()) return fail(Error{object.origin.lapse()}, function);
    *more = object.allocator->background_step() ? 1 : 0;
    return GMLAKE_OK;
  });
}

gmlake_status gmlake_device_count(gmlake_allocator* allocator, int* count) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) -> gmlake_status {
    if (count == nullptr) return null_argument(function);
    *count = object.allocator->device_count();
    return GMLAKE_OK;
  });
}

gmlake_status gmlake_device_of(gmlake_allocator* allocator, const void* pointer, int* device) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) -> gmlake_status {
    if (device == nullptr) return null_argument(function);
    const int found = object.allocator->device_of(pointer);
    if (found < 0) {
      return fail({ErrorCode::invalid_pointer, Step::none, std::bit_cast<std::uintptr_t>(pointer)}, function);
    }
    *device = found;
    return GMLAKE_OK;
  });
}

gmlake_status gmlake_size_of(gmlake_allocator* allocator, const void* pointer, size_t* bytes) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) -> gmlake_status {
    if (bytes == nullptr) return null_argument(function);
    const std::size_t found = object.allocator->size_of(pointer);
    if (found == 0) {
      return fail({ErrorCode::invalid_pointer, Step::none, std::bit_cast<std::uintptr_t>(pointer)}, function);
    }
    *bytes = found;
    return GMLAKE_OK;
  });
}

gmlake_status gmlake_get_stats(gmlake_allocator* allocator, int device, gmlake_stats* stats) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) -> gmlake_status {
    if (stats == nullptr) return null_argument(function);
    if (!room_for(*stats)) return bad_struct(function);
    if (!has_device(*object.allocator, device)) return fail(no_device(device), function);
    fill(*stats, shown(object.allocator->stats(device)));
    return GMLAKE_OK;
  });
}

gmlake_status gmlake_get_stat(gmlake_allocator* allocator, int device, const char* name, int64_t* value) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) -> gmlake_status {
    if (name == nullptr || value == nullptr) return null_argument(function);
    if (!has_device(*object.allocator, device)) return fail(no_device(device), function);
    for (const NamedStat& stat : named_stats(object.allocator->stats(device))) {
      if (stat.name != name) continue;
      *value = stat.value;
      return GMLAKE_OK;
    }
    return fail(GMLAKE_INVALID_VALUE, function, "no counter of that name");
  });
}

const char* gmlake_stat_name(size_t index) {
  try {
    const std::vector<NamedStat> all = named_stats({});
    return index < all.size() ? all[index].name.data() : nullptr;  // they end with a zero: the library's own literals
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

gmlake_status gmlake_reset_peaks(gmlake_allocator* allocator, int device) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) -> gmlake_status {
    if (!has_device(*object.allocator, device)) return fail(no_device(device), function);
    object.allocator->reset_peaks(device);
    return GMLAKE_OK;
  });
}
