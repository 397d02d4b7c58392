// gmlake's state as PyTorch's snapshot has it, next to native's.
#include <algorithm>

#include "torch_allocator.hpp"

namespace gmlake::torch_adapter {
namespace {

TorchSegment torch_segment(const DeviceSnapshot& device, const SegmentInfo& segment, const SegmentRun& run,
                           const HistoryContexts& contexts) {
  TorchSegment made;
  made.device = static_cast<c10::DeviceIndex>(device.device);
  made.address = run.address();
  made.total_size = run.bytes;
  made.requested_size = run.requested_bytes;
  made.allocated_size = run.allocated_bytes;
  made.active_size = run.active_bytes;
  made.stream = reinterpret_cast<decltype(made.stream)>(segment.stream);
  made.is_large = !segment.small;
  made.is_expandable = true;
  made.owner_private_pool_id = {segment.pool.first, segment.pool.second};
  for (const BlockInfo& block : run.blocks) {
    TorchBlock entry;
    entry.size = block.bytes;
    entry.requested_size = block.requested_bytes;
    entry.allocated = block.state == BlockInfo::State::live;
    entry.active = entry.allocated || block.state == BlockInfo::State::pending;
    if (entry.allocated) entry.context_when_allocated = contexts.context_of(reinterpret_cast<void*>(block.address));
    made.blocks.push_back(std::move(entry));
  }
  return made;
}

std::vector<HistoryEvent> history_of(const Lake& lake, int device) {
  std::vector<HistoryEvent> events;
  for (std::uint64_t next = 0;;) {
    HistoryPart part = lake.history(device, next, 4096);
    if (part.events.empty()) return events;
    next = part.first + part.events.size();
    events.insert(events.end(), part.events.begin(), part.events.end());
  }
}

}  // namespace

TorchSnapshot TorchAllocator::take_snapshot(TorchSnapshot snapshot, c10::MempoolId_t pool, bool traces) {
  if (lake() == nullptr || pool != c10::MempoolId_t{0, 0}) return snapshot;
  for (const DeviceSnapshot& device : lake()->snapshot().devices) {
    for (const SegmentInfo& segment : device.segments) {
      for_each_run(segment, [&](const SegmentRun& run) {
        snapshot.segments.push_back(torch_segment(device, segment, run, contexts_));
      });
    }
    if (!traces || !contexts_.on()) continue;
    const auto index = static_cast<std::size_t>(device.device);
    if (snapshot.device_traces.size() <= index) snapshot.device_traces.resize(index + 1);
    TorchTrace& trace = snapshot.device_traces[index];
    TorchTrace own = contexts_.trace(static_cast<c10::DeviceIndex>(device.device), history_of(*lake(), device.device));
    const auto middle = static_cast<std::ptrdiff_t>(trace.size());
    trace.insert(trace.end(), std::make_move_iterator(own.begin()), std::make_move_iterator(own.end()));
    std::inplace_merge(trace.begin(), trace.begin() + middle, trace.end(),
                       [](const TorchEvent& a, const TorchEvent& b) { return a.time_.t_ < b.time_.t_; });
  }
  return snapshot;
}

}  // namespace gmlake::torch_adapter
