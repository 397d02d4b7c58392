// The C interface of what a live allocator can show: its history, snapshots of it, and recordings.
#include "capi/objects.hpp"

using namespace gmlake;        // NOLINT: the functions of this file are outside every namespace
using namespace gmlake::capi;  // NOLINT

namespace {

using Action = HistoryEvent::Action;
static_assert(GMLAKE_ALLOC == static_cast<int>(Action::alloc) &&
              GMLAKE_FREE_REQUESTED == static_cast<int>(Action::free_requested) &&
              GMLAKE_FREE_COMPLETED == static_cast<int>(Action::free_completed) &&
              GMLAKE_RECORD_STREAM == static_cast<int>(Action::record_stream) &&
              GMLAKE_SEGMENT_MAP == static_cast<int>(Action::segment_map) &&
              GMLAKE_SEGMENT_UNMAP == static_cast<int>(Action::segment_unmap) &&
              GMLAKE_TRIM == static_cast<int>(Action::trim) && GMLAKE_OOM == static_cast<int>(Action::oom));

template <class Write>
gmlake_status write_snapshot(gmlake_allocator* allocator, const char* function, const char* path, Write&& write) {
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) -> gmlake_status {
    if (path == nullptr) return null_argument(function);
    return outcome(write(*object.allocator, path), function);
  });
}

}  // namespace

gmlake_status gmlake_write_pickle_snapshot(gmlake_allocator* allocator, const char* path) {
  return write_snapshot(allocator, __func__, path, write_pickle_snapshot);
}

gmlake_status gmlake_write_json_snapshot(gmlake_allocator* allocator, const char* path) {
  return write_snapshot(allocator, __func__, path, write_json_snapshot);
}

gmlake_status gmlake_keep_history(gmlake_allocator* allocator, size_t events) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) {
    return outcome(object.allocator->keep_history(events), function);
  });
}

gmlake_status gmlake_get_history(gmlake_allocator* allocator, int device, uint64_t from, gmlake_event* events,
                                 size_t capacity, uint64_t* first, size_t* count) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) -> gmlake_status {
    if (first == nullptr || count == nullptr || (events == nullptr && capacity != 0)) return null_argument(function);
    if (!has_device(*object.allocator, device)) return fail(no_device(device), function);
    const HistoryPart part = object.allocator->history(device, from, capacity);
    const std::size_t got = std::min(part.events.size(), capacity);
    for (std::size_t i = 0; i < got; ++i) {
      const HistoryEvent& event = part.events[i];
      events[i] = {event.address, event.bytes, event.stream, event.time_us, static_cast<uint64_t>(event.action)};
    }
    *first = part.first;
    *count = got;
    return GMLAKE_OK;
  });
}

gmlake_status gmlake_recorder_create(gmlake_allocator* allocator, const char* path, size_t events,
                                     gmlake_recorder** recorder) {
  const char* const function = __func__;
  return with<AllocatorObject>(allocator, function, [&](AllocatorObject& object) -> gmlake_status {
    if (path == nullptr || recorder == nullptr) return null_argument(function);
    if (!object.origin.intact()) return fail(Error{object.origin.lapse()}, function);
    auto made = std::make_unique<RecorderObject>();
    made->allocator = object.self;
    RecorderOptions options;
    if (events != 0) options.events = events;
    FileError error;
    made->recorder = Recorder::start(*object.allocator, path, error, options);
    if (!error.ok()) return outcome(error, function);
    *recorder = handle_for(made.get());
    (void)made.release();
    return GMLAKE_OK;
  });
}

gmlake_status gmlake_recorder_progress(gmlake_recorder* recorder, uint64_t* events, uint64_t* dropped) {
  return with<RecorderObject>(recorder, __func__, [&](RecorderObject& object) -> gmlake_status {
    if (events != nullptr) *events = object.recorder->events();
    if (dropped != nullptr) *dropped = object.recorder->dropped();
    return GMLAKE_OK;
  });
}

gmlake_status gmlake_recorder_destroy(gmlake_recorder* recorder) {
  const char* const function = __func__;
  if (recorder == nullptr) return GMLAKE_OK;
  return with<RecorderObject>(recorder, function, [&](RecorderObject& object) -> gmlake_status {
    if (handles.remove(Kind::recorder, std::bit_cast<std::uint64_t>(recorder)) == nullptr) {
      return fail(GMLAKE_INVALID_VALUE, function, "destroyed by another thread at the same time");
    }
    const std::unique_ptr<RecorderObject> gone(&object);
    return outcome(gone->recorder->stop(), function);
  });
}
