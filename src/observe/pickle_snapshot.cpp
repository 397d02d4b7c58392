// Writes what torch.cuda.memory._dump_snapshot() writes, from a live allocator.
//
// PyTorch's segments are pieces of memory, so each stretch of a VmmSegment that has memory under it is one, marked as
// expandable; blocks are the VirBlocks in it.
#include <string_view>
#include <unordered_map>

#include "gmlake/observe.hpp"
#include "observe/history_copy.hpp"
#include "observe/output_file.hpp"

namespace gmlake {
namespace {

using observe::OutputFile;

// The few opcodes that a snapshot needs. Strings are written once and fetched from the memo after that.
class Pickler {
 public:
  explicit Pickler(OutputFile& out) : out_(out) { out_.write("\x80\x04"); }
  void finish() { out_.write("."); }

  void begin_dict() { out_.write("}("); }
  void end_dict() { out_.write("u"); }
  void begin_list() { out_.write("]("); }
  void end_list() { out_.write("e"); }
  void empty_list() { out_.write("]"); }
  void empty_dict() { out_.write("}"); }
  void pair(std::uint64_t first, std::uint64_t second) {
    number(first);
    number(second);
    out_.write("\x86");
  }
  void boolean(bool value) { out_.write(value ? "\x88" : "\x89"); }

  void text(std::string_view text) {  // a literal
    const auto [entry, inserted] = memo_.try_emplace(text, static_cast<std::uint8_t>(memo_.size()));
    std::string bytes;
    if (inserted) {
      bytes += '\x8c';
      bytes += static_cast<char>(text.size());
      bytes += text;
      bytes += '\x94';
    } else {
      bytes += 'h';
      bytes += static_cast<char>(entry->second);
    }
    out_.write(bytes);
  }

  void number(std::uint64_t value) {
    std::string bytes;
    if (value < 256) {
      bytes += 'K';
      raw(bytes, value, 1);
    } else if (value < 0x80000000u) {
      bytes += 'J';
      raw(bytes, value, 4);
    } else {  // LONG1, signed: the top byte says that it is not negative
      bytes += "\x8a\x09";
      raw(bytes, value, 8);
      raw(bytes, 0, 1);
    }
    out_.write(bytes);
  }
  void minus_one() { out_.write(std::string_view("J\xff\xff\xff\xff", 5)); }

  void field(std::string_view key, std::uint64_t value) {
    text(key);
    number(value);
  }
  void field(std::string_view key, std::string_view value) {
    text(key);
    text(value);
  }
  void no_frames() {
    text("frames");
    empty_list();
  }

 private:
  static void raw(std::string& bytes, std::uint64_t value, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) bytes += static_cast<char>(static_cast<unsigned char>(value >> (8 * i)));
  }

  OutputFile& out_;
  std::unordered_map<std::string_view, std::uint8_t> memo_;
};

std::string_view torch_state_name(BlockInfo::State state) {
  switch (state) {
    case BlockInfo::State::live:
      return "active_allocated";
    case BlockInfo::State::pending:
      return "active_pending_free";
    case BlockInfo::State::free:
    case BlockInfo::State::hole:
    case BlockInfo::State::claimed:
      break;
  }
  return "inactive";
}

void write_run(Pickler& out, int device, const SegmentInfo& segment, const SegmentRun& run) {
  out.begin_dict();
  out.field("device", static_cast<std::uint64_t>(device));
  out.field("address", run.address());
  out.field("total_size", run.bytes);
  out.field("allocated_size", run.allocated_bytes);
  out.field("active_size", run.active_bytes);
  out.field("requested_size", run.requested_bytes);
  out.field("stream", segment.stream);
  out.field("segment_type", segment.small ? std::string_view("small") : std::string_view("large"));
  out.text("segment_pool_id");
  out.pair(0, 0);
  out.text("is_expandable");
  out.boolean(true);
  out.no_frames();
  out.text("blocks");
  out.begin_list();
  for (const BlockInfo& block : run.blocks) {
    out.begin_dict();
    out.field("address", block.address);
    out.field("size", block.bytes);
    out.field("requested_size", block.requested_bytes);
    out.field("state", torch_state_name(block.state));
    out.no_frames();
    out.end_dict();
  }
  out.end_list();
  out.end_dict();
}

void write_event(Pickler& out, const HistoryEvent& event) {
  if (!known_to_torch(event.action)) return;
  out.begin_dict();
  out.field("action", name_of(event.action));
  out.field(event.action == HistoryEvent::Action::oom ? "device_free" : "addr", event.address);
  out.field("size", event.bytes);
  out.field("stream", event.stream);
  out.field("time_us", event.time_us);
  out.no_frames();
  out.end_dict();
}

}  // namespace

FileError write_pickle_snapshot(const Allocator& allocator, const std::string& path) {
  const Snapshot snapshot = allocator.snapshot();
  OutputFile file(path);
  Pickler out(file);
  out.begin_dict();
  out.text("segments");
  out.begin_list();
  for (const DeviceSnapshot& device : snapshot.devices) {
    for (const SegmentInfo& segment : device.segments) {
      for_each_run(segment, [&](const SegmentRun& run) { write_run(out, device.device, segment, run); });
    }
  }
  out.end_list();
  out.text("device_traces");
  out.begin_list();
  for (int number = 0; number < allocator.device_count(); ++number) {
    out.begin_list();
    for (const DeviceSnapshot& device : snapshot.devices) {
      if (device.device != number) continue;
      for (const HistoryEvent& event : observe::copy_history(allocator, number, device.history_end)) {
        write_event(out, event);
      }
    }
    out.end_list();
  }
  out.end_list();
  out.text("allocator_settings");
  out.begin_dict();
  out.text("max_split_size");
  out.minus_one();
  out.text("expandable_segments");
  out.boolean(true);
  out.end_dict();
  out.text("external_annotations");
  out.empty_list();
  out.end_dict();
  out.finish();
  return {file.commit().value_or(std::string())};
}

}  // namespace gmlake
