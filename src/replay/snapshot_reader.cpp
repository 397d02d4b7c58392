#include "replay/snapshot_reader.hpp"

#include <algorithm>
#include <optional>

#include "replay/pickle.hpp"
#include "replay/recording.hpp"

namespace gmlake::replay {
namespace {

std::optional<RecordedAction> parse_action(std::string_view text) {
  switch (text.size()) {  // one comparison each: this runs for each event
    case 5:
      return text == "alloc" ? std::optional(RecordedAction::alloc) : std::nullopt;
    case 11:
      return text == "segment_map" ? std::optional(RecordedAction::segment_map) : std::nullopt;
    case 12:
      return text == "segment_free" ? std::optional(RecordedAction::segment_free) : std::nullopt;
    case 13:
      if (text == "segment_alloc") return RecordedAction::segment_alloc;
      return text == "segment_unmap" ? std::optional(RecordedAction::segment_unmap) : std::nullopt;
    case 14:
      if (text == "free_requested") return RecordedAction::free_requested;
      return text == "free_completed" ? std::optional(RecordedAction::free_completed) : std::nullopt;
    default:
      return std::nullopt;
  }
}

class Reader {
 public:
  Reader(const PickleDocument& document, std::size_t length, const std::string& file)
      : document_(document), visits_left_(length), file_(file) {}

  InputResult<Trace> run() {
    if (document_.kind(document_.root()) != PickleKind::dict) {
      return error(std::string("is a pickle of ") + to_string(document_.kind(document_.root())) +
                   ", not a memory snapshot");
    }
    const auto traces = document_.find(document_.root(), "device_traces");
    if (!traces || document_.kind(*traces) != PickleKind::list) return error("has no list of device_traces");
    std::vector<DeviceRecording> recordings;
    bool ok = document_.for_each_item(*traces, [&](PickleValue events) {
      recordings.emplace_back();
      recordings.back().device = static_cast<int>(recordings.size() - 1);
      return read_events(events, recordings.back());
    });
    if (const auto segments = document_.find(document_.root(), "segments"); ok && segments) {
      ok = document_.for_each_item(*segments, [&](PickleValue segment) { return read_segment(segment, recordings); });
    }
    if (!ok) return error(std::move(reason_));
    return translate_all(recordings);
  }

 private:
  InputError error(std::string reason) const { return {file_, InputPlace::whole_file, 0, std::move(reason)}; }
  bool fail(std::string reason) {
    reason_ = std::move(reason);
    return false;
  }

  // A pickle may name one list a million times. Each event and block took at least a byte of the file, unless so.
  bool visit() { return visits_left_-- > 0 || fail("names the same lists again and again"); }

  // Addresses and streams are integers of 64 bits, of either sign.
  bool bits(PickleValue value, std::uint64_t& out) const {
    if (const auto number = document_.as_unsigned(value)) {
      out = *number;
      return true;
    }
    const auto number = document_.as_signed(value);
    out = static_cast<std::uint64_t>(number.value_or(0));
    return number.has_value();
  }

  bool read_events(PickleValue events, DeviceRecording& recording) {
    if (document_.kind(events) != PickleKind::list) return fail("device_traces holds what is not a list");
    recording.events.reserve(std::min(document_.item_count(events), visits_left_));
    std::uint32_t index = 0;
    return document_.for_each_item(events,
                                   [&](PickleValue event) { return visit() && read_event(event, index++, recording); });
  }

  bool read_event(PickleValue value, std::uint32_t index, DeviceRecording& recording) {
    constexpr unsigned kAddress = 1, kSize = 2, kStream = 4;
    std::optional<RecordedAction> action;
    std::optional<std::string_view> action_name;
    RecordedEvent event;
    unsigned fields = 0;
    document_.for_each_pair(value, [&](PickleValue key, PickleValue field) {
      const std::string_view name = document_.as_text(key).value_or(std::string_view());
      if (name == "action") {
        action_name = document_.as_text(field);
      } else if (name == "addr") {
        fields |= bits(field, event.address) ? kAddress : 0u;
      } else if (name == "size") {
        const auto size = document_.as_unsigned(field);
        event.bytes = size.value_or(0);
        fields |= size ? kSize : 0u;
      } else if (name == "stream") {
        fields |= bits(field, event.stream) ? kStream : 0u;
      }
    });
    const auto fail_event = [&](const char* what) {
      return fail("event " + std::to_string(index) + " of device " + std::to_string(recording.device) + what);
    };
    if (!action_name) return fail_event(" has no action");
    action = parse_action(*action_name);
    if (!action) return true;
    if ((fields & kAddress) == 0) return fail_event(" has no addr");
    if ((fields & kSize) == 0) return fail_event(" has no size, or one below 0");
    if ((fields & kStream) == 0) return fail_event(" has no stream");
    event.index = index;
    event.action = *action;
    recording.events.push_back(event);
    return true;
  }

  // Versions of PyTorch differ in what they say of segments; what is missing counts as 0.
  std::uint64_t number_or(PickleValue dict, std::string_view key, std::uint64_t fallback) const {
    const auto value = document_.find(dict, key);
    std::uint64_t out = 0;
    return value && bits(*value, out) ? out : fallback;
  }

  bool read_segment(PickleValue value, std::vector<DeviceRecording>& recordings) {
    if (!visit()) return false;
    const std::uint64_t device = number_or(value, "device", 0);
    if (device >= recordings.size()) return true;
    DeviceRecording& recording = recordings[device];
    FinalSegment segment;
    segment.address = number_or(value, "address", 0);
    segment.bytes = number_or(value, "total_size", 0);
    segment.stream = number_or(value, "stream", 0);
    const auto expandable = document_.find(value, "is_expandable");
    segment.expandable = expandable && document_.as_boolean(*expandable) == true;
    recording.segments.push_back(segment);
    const auto blocks = document_.find(value, "blocks");
    std::uint64_t address = segment.address;  // early versions name no addresses: blocks lie one after the other
    return !blocks || document_.for_each_item(*blocks, [&](PickleValue block) {
      if (!visit()) return false;
      const std::uint64_t size = number_or(block, "size", 0);
      const auto state = document_.find(block, "state");
      address = number_or(block, "address", address);
      if (state && document_.as_text(*state).value_or(std::string_view()).starts_with("active")) {
        recording.blocks.push_back({address, number_or(block, "requested_size", size), segment.stream});
      }
      address += size;
      return true;
    });
  }

  InputResult<Trace> translate_all(const std::vector<DeviceRecording>& recordings) const {
    Trace trace;
    for (const DeviceRecording& recording : recordings) {
      if (recording.events.empty()) continue;
      if (auto reason = translate(recording, trace.devices.emplace_back())) return error(std::move(*reason));
      if (trace.devices.back().events.empty()) trace.devices.pop_back();  // segments came and went, no blocks
    }
    if (trace.devices.empty()) {
      return error(
          "has no recorded events: call torch.cuda.memory._record_memory_history() before the part of the "
          "run to be traced, and _dump_snapshot() after it");
    }
    return trace;
  }

  const PickleDocument& document_;
  std::size_t visits_left_;
  const std::string& file_;
  std::string reason_;
};

}  // namespace

InputResult<Trace> read_snapshot(std::string_view pickle, const std::string& file, InputPlace place) {
  auto document = PickleDocument::read(pickle, file, place);
  if (!document) return std::move(document).error();
  return Reader(*document, pickle.size(), file).run();
}

}  // namespace gmlake::replay
