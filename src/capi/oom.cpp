// The C interface of out-of-memory reports and callbacks.
#include "gmlake/oom.hpp"

#include "capi/objects.hpp"

using namespace gmlake;        // NOLINT: the functions of this file are outside every namespace
using namespace gmlake::capi;  // NOLINT

namespace {

constinit thread_local char last_oom_text[kReportTextBytes] = "";

gmlake_oom shown(const OutOfMemoryReport& report, const char* text) {
  gmlake_oom out{};
  out.size = sizeof out;
  out.version = GMLAKE_OOM_VERSION;
  out.status = status_of(report.error.code);
  out.device = report.device;
  out.stream = std::bit_cast<void*>(static_cast<std::uintptr_t>(report.stream));
  out.text = text;
  out.requested_bytes = report.requested_bytes;
  out.device_total_bytes = report.device_total_bytes;
  out.device_free_bytes = report.device_free_known ? report.device_free_bytes : 0;
  out.limit_bytes = report.limit_bytes;
  out.reserved_bytes = report.reserved_bytes;
  out.allocated_bytes = report.allocated_bytes;
  out.active_bytes = report.active_bytes;
  out.cached_bytes = report.cached_bytes;
  out.lost_bytes = report.lost_bytes;
  out.largest_free_run_bytes = report.largest_free_run_bytes;
  return out;
}

// Adds what calls `callback`, a function of C, with the report in C's terms.
template <class Callback, class Add>
gmlake_status add_callback(gmlake_allocator* allocator, const char* function, Callback callback, void* context,
                           std::uint64_t* id, Add add) {
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) -> gmlake_status {
    if (callback == nullptr || id == nullptr) return null_argument(function);
    const CallbackId added = add(*object.allocator, [callback, context](const OutOfMemoryReport& report) {
      char text[kReportTextBytes];
      write_report(report, text, sizeof text);
      const gmlake_oom known = shown(report, text);
      return callback(&known, context);
    });
    if (added == CallbackId::none) return fail(Error{ErrorCode::shut_down}, function);
    *id = static_cast<std::uint64_t>(added);
    return GMLAKE_OK;
  });
}

}  // namespace

gmlake_status gmlake_get_last_oom(gmlake_allocator* allocator, int device, gmlake_oom* report) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) -> gmlake_status {
    if (report == nullptr) return null_argument(function);
    if (!room_for(*report)) return bad_struct(function);
    if (!has_device(*object.allocator, device)) return fail(no_device(device), function);
    gmlake_oom known{};
    known.device = device;
    known.text = "";
    if (const std::optional<OutOfMemoryReport> last = object.allocator->last_oom(device)) {
      write_report(*last, last_oom_text, sizeof last_oom_text);
      known = shown(*last, last_oom_text);
    }
    fill(*report, known);
    return GMLAKE_OK;
  });
}

gmlake_status gmlake_add_release_callback(gmlake_allocator* allocator, gmlake_release_callback callback, void* context,
                                          uint64_t* id) {
  return add_callback(allocator, __func__, callback, context, id, [](Allocator& to, auto call) {
    return to.add_release_callback([call](const OutOfMemoryReport& report) { return call(report) != 0; });
  });
}

gmlake_status gmlake_add_oom_observer(gmlake_allocator* allocator, gmlake_oom_observer observer, void* context,
                                      uint64_t* id) {
  return add_callback(allocator, __func__, observer, context, id,
                      [](Allocator& to, auto call) { return to.add_out_of_memory_observer(call); });
}

gmlake_status gmlake_remove_callback(gmlake_allocator* allocator, uint64_t id) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) -> gmlake_status {
    if (object.allocator->remove_callback(static_cast<CallbackId>(id))) return GMLAKE_OK;
    return fail(GMLAKE_INVALID_VALUE, function, "there is no such callback");
  });
}
