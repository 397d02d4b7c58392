// Writes a snapshot as JSON: docs/snapshot.schema.json. Every string in it is one of ours, and needs no escapes.
#include <charconv>
#include <string_view>

#include "gmlake/observe.hpp"
#include "observe/history_copy.hpp"
#include "observe/output_file.hpp"

namespace gmlake {
namespace {

using observe::OutputFile;

// Puts the commas.
class Json {
 public:
  explicit Json(OutputFile& out) : out_(out) {}

  void open(char bracket) {
    separate();
    put(std::string_view(&bracket, 1));
    first_ = true;
  }
  void close(char bracket) {
    put(std::string_view(&bracket, 1));
    first_ = false;
  }
  void key(std::string_view name) {
    text(name);
    put(":");
    first_ = true;
  }
  void text(std::string_view text) {
    separate();
    put("\"");
    put(text);
    put("\"");
  }
  template <class Integer>
  void number(Integer value) {
    separate();
    char digits[24];
    put(std::string_view(digits, std::to_chars(digits, digits + sizeof digits, value).ptr));
  }
  void null() {
    separate();
    put("null");
  }
  void line() { put("\n"); }

  void field(std::string_view name, std::uint64_t value) {
    key(name);
    number(value);
  }
  void field(std::string_view name, std::string_view value) {
    key(name);
    text(value);
  }

 private:
  void separate() {
    if (!first_) put(",");
    first_ = false;
  }
  void put(std::string_view bytes) { out_.write(bytes); }

  OutputFile& out_;
  bool first_ = true;
};

std::string_view state_name(BlockInfo::State state) {
  switch (state) {
    case BlockInfo::State::free:
      return "free";
    case BlockInfo::State::live:
      return "live";
    case BlockInfo::State::pending:
      return "pending";
    case BlockInfo::State::hole:
      return "hole";
    case BlockInfo::State::claimed:
      break;
  }
  return "claimed";
}

void write_segment(Json& out, const SegmentInfo& segment) {
  out.line();
  out.open('{');
  out.field("address", segment.address);
  out.field("bytes", segment.bytes);
  out.field("mapped_bytes", segment.mapped_bytes);
  out.field("stream", segment.stream);
  out.field("pool", segment.small ? std::string_view("small") : std::string_view("large"));
  out.key("blocks");
  out.open('[');
  for (const BlockInfo& block : segment.blocks) {
    out.open('{');
    out.field("address", block.address);
    out.field("bytes", block.bytes);
    out.field("requested_bytes", block.requested_bytes);
    out.field("state", state_name(block.state));
    if (block.stream != segment.stream) out.field("stream", block.stream);
    out.close('}');
  }
  out.close(']');
  out.close('}');
}

void write_phy_block(Json& out, const PhyBlockInfo& block) {
  out.line();
  out.open('{');
  out.field("bytes", block.bytes);
  out.key("home");
  if (block.home == 0) {
    out.null();
  } else {
    out.number(block.home);
  }
  out.key("stale");
  out.open('[');
  for (const std::uint64_t address : block.stale) out.number(address);
  out.close(']');
  out.close('}');
}

void write_event(Json& out, const HistoryEvent& event) {
  out.line();
  out.open('{');
  out.field("action", name_of(event.action));
  out.field("address", event.address);
  out.field("bytes", event.bytes);
  out.field("stream", event.stream);
  out.field("time_us", event.time_us);
  out.close('}');
}

void write_device(Json& out, const DeviceSnapshot& device, const std::vector<HistoryEvent>& history) {
  out.open('{');
  out.field("device", static_cast<std::uint64_t>(device.device));
  out.key("stats");
  out.open('{');
  for (const NamedStat& stat : named_stats(device.stats)) {
    out.key(stat.name);
    out.number(stat.value);
  }
  out.close('}');
  out.key("segments");
  out.open('[');
  for (const SegmentInfo& segment : device.segments) write_segment(out, segment);
  out.close(']');
  out.key("phy_blocks");
  out.open('[');
  for (const PhyBlockInfo& block : device.phy_blocks) write_phy_block(out, block);
  out.close(']');
  out.key("history");
  out.open('[');
  for (const HistoryEvent& event : history) write_event(out, event);
  out.close(']');
  out.close('}');
}

}  // namespace

FileError write_json_snapshot(const Allocator& allocator, const std::string& path) {
  const Snapshot snapshot = allocator.snapshot();
  OutputFile file(path);
  Json out(file);
  out.open('{');
  out.field("format", "gmlake-snapshot");
  out.field("version", 1);
  out.key("devices");
  out.open('[');
  for (const DeviceSnapshot& device : snapshot.devices) {
    write_device(out, device, observe::copy_history(allocator, device.device, device.history_end));
  }
  out.close(']');
  out.close('}');
  out.line();
  return {file.commit().value_or(std::string())};
}

}  // namespace gmlake
