#include "replay/snapshot_reader.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <optional>
#include <utility>
#include <vector>

#include "replay/pickle.hpp"
#include "replay/recording.hpp"

namespace gmlake::replay {
namespace {

// What a snapshot's dicts are asked for.
enum Key : std::size_t {
  kDeviceTraces,
  kSegments,  // of the root
  kAction,
  kAddr,
  kSize,
  kStream,  // of an event
  kDevice,
  kAddress,
  kTotalSize,
  kExpandable,
  kBlocks,  // of a segment
  kState,
  kRequestedSize,  // of a block
  kKeyCount
};
constexpr std::array<std::string_view, kKeyCount> kKeys{
    "device_traces", "segments",   "action",        "addr",   "size",  "stream",        "device",
    "address",       "total_size", "is_expandable", "blocks", "state", "requested_size"};

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

class SnapshotReader {
 public:
  SnapshotReader(const PickleDocument& document, std::size_t length, const std::string& file)
      : document_(document), visits_left_(length), file_(file) {}

  InputResult<Trace> run() {
    if (document_.kind(document_.root()) != PickleKind::dict) {
      return error(std::string("is a pickle of ") + to_string(document_.kind(document_.root())) +
                   ", not a memory snapshot");
    }
    const auto traces = document_.field(document_.root(), kDeviceTraces);
    if (!traces || document_.kind(*traces) != PickleKind::list) return error("has no list of device_traces");
    std::vector<DeviceRecording> recordings;
    bool ok = document_.for_each_item(*traces, [&](PickleValue events) {
      recordings.emplace_back();
      recordings.back().device = static_cast<int>(recordings.size() - 1);
      return read_events(events, recordings.back());
    });
    if (const auto segments = document_.field(document_.root(), kSegments); ok && segments) {
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

  bool read_events(PickleValue events, DeviceRecording& recording) {
    if (document_.kind(events) != PickleKind::list) return fail("device_traces holds what is not a list");
    recording.events.reserve(std::min(document_.item_count(events), visits_left_));
    std::uint32_t index = 0;
    return document_.for_each_item(events,
                                   [&](PickleValue event) { return visit() && read_event(event, index++, recording); });
  }

  bool read_event(PickleValue value, std::uint32_t index, DeviceRecording& recording) {
    const auto fail_event = [&](const char* what) {
      return fail("event " + std::to_string(index) + " of device " + std::to_string(recording.device) + what);
    };
    const PickleDocument::Fields fields = document_.fields(value);
    if (fields.keys != slots_of_) find_slots(fields.keys);
    constexpr std::uint32_t kNeeded = 1u << kAction | 1u << kAddr | 1u << kSize | 1u << kStream;
    if ((fields.keys & 1u << kAction) == 0) return fail_event(" has no action");
    const auto action = action_of(fields.values[slots_[0]]);
    if (!action) return true;
    if ((fields.keys & kNeeded) != kNeeded) return fail_event(" lacks addr, size or stream");
    const auto address = as_bits(fields.values[slots_[1]]);
    const auto bytes = document_.as_unsigned(fields.values[slots_[2]]);
    const auto stream = as_bits(fields.values[slots_[3]]);
    if (!address || !bytes || !stream) return fail_event(" has an addr, size or stream that is no such number");
    RecordedEvent& event = recording.events.emplace_back();
    event.address = *address;
    event.bytes = *bytes;
    event.index = index;
    event.action = *action;
    return number_stream(*stream, recording, event.stream);
  }

  // All events of a snapshot have the same keys, so where their values lie is worked out once.
  void find_slots(std::uint32_t keys) {
    slots_of_ = keys;
    constexpr std::array<Key, 4> kEventKeys{kAction, kAddr, kSize, kStream};
    for (std::size_t i = 0; i < kEventKeys.size(); ++i) {
      slots_[i] = static_cast<std::size_t>(std::popcount(keys & ((1u << kEventKeys[i]) - 1)));
    }
  }

  // Nothing for a known text that is no action, or no text. The pickler writes each text once, so few come in turn.
  std::optional<RecordedAction> action_of(PickleValue value) {
    for (const auto& [known, action] : known_actions_) {
      if (known == value) return action;
    }
    const auto action = parse_action(document_.as_text(value).value_or(std::string_view()));
    if (action && known_actions_.size() < 8) known_actions_.emplace_back(value, *action);
    return action;
  }

  bool number_stream(std::uint64_t handle, DeviceRecording& recording, std::uint16_t& number) {
    const auto found = recording.streams.index_of(handle);
    if (!found) return fail("device " + std::to_string(recording.device) + " has more than 1024 streams");
    number = *found;
    return true;
  }

  std::optional<std::string_view> text(PickleValue dict, Key key) const {
    const auto value = document_.field(dict, key);
    return value ? document_.as_text(*value) : std::nullopt;
  }

  // Addresses and streams are integers of 64 bits, of either sign.
  std::optional<std::uint64_t> as_bits(PickleValue value) const {
    if (const auto bits = document_.as_unsigned(value)) return bits;
    const auto bits = document_.as_signed(value);
    return bits ? std::optional(static_cast<std::uint64_t>(*bits)) : std::nullopt;
  }
  std::optional<std::uint64_t> number(PickleValue dict, Key key) const {
    const auto value = document_.field(dict, key);
    return value ? as_bits(*value) : std::nullopt;
  }

  // Versions of PyTorch differ in what they say of segments, so what is missing there is no error.
  bool read_segment(PickleValue value, std::vector<DeviceRecording>& recordings) {
    if (!visit()) return false;
    if (document_.kind(value) != PickleKind::dict) return fail("segments holds what is not a dict");
    const std::uint64_t device = number(value, kDevice).value_or(0);
    if (device >= recordings.size()) return true;
    DeviceRecording& recording = recordings[device];
    FinalSegment segment;
    segment.address = number(value, kAddress).value_or(0);
    segment.bytes = number(value, kTotalSize).value_or(0);
    const auto expandable = document_.field(value, kExpandable);
    segment.expandable = expandable && document_.as_boolean(*expandable) == true;
    if (!number_stream(number(value, kStream).value_or(0), recording, segment.stream)) return false;
    recording.segments.push_back(segment);
    const auto blocks = document_.field(value, kBlocks);
    std::uint64_t address = segment.address;  // early versions name no addresses: blocks lie one after the other
    return !blocks || document_.for_each_item(*blocks, [&](PickleValue block) {
      if (!visit()) return false;
      const std::uint64_t size = number(block, kSize).value_or(0);
      address = number(block, kAddress).value_or(address);
      if (text(block, kState).value_or(std::string_view()).starts_with("active")) {
        recording.blocks.push_back({address, number(block, kRequestedSize).value_or(size), segment.stream});
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
  std::uint32_t slots_of_ = 0;
  std::array<std::size_t, 4> slots_{};
  std::vector<std::pair<PickleValue, RecordedAction>> known_actions_;
  std::string reason_;
};

}  // namespace

InputResult<Trace> read_snapshot(ByteSource& source) {
  auto document = PickleDocument::read(source, kKeys);
  if (!document) return std::move(document).error();
  return SnapshotReader(*document, source.received(), source.file()).run();
}

}  // namespace gmlake::replay
