#include "replay/snapshot_writer.hpp"

#include <algorithm>
#include <cstring>
#include <deque>
#include <string_view>
#include <unordered_map>

#include "replay/made_up_addresses.hpp"

namespace gmlake::replay {
namespace {

// The few opcodes that a snapshot needs. Strings are written once and fetched from the memo after that.
class Pickler {
 public:
  Pickler() { out_ = "\x80\x04"; }
  std::string finish() && {
    out_ += '.';
    return std::move(out_);
  }

  void begin_dict() { out_ += "}("; }
  void end_dict() { out_ += 'u'; }
  void begin_list() { out_ += "]("; }
  void end_list() { out_ += 'e'; }

  void text(std::string_view text) {
    const auto [entry, inserted] = memo_.try_emplace(text, static_cast<std::uint8_t>(memo_.size()));
    if (!inserted) {
      out_ += 'h';
      out_ += static_cast<char>(entry->second);
      return;
    }
    out_ += '\x8c';
    out_ += static_cast<char>(text.size());
    out_ += text;
    out_ += '\x94';
  }

  void number(std::uint64_t value) {
    if (value < 256) {
      out_ += 'K';
      raw(value, 1);
    } else if (value < 65536) {
      out_ += 'M';
      raw(value, 2);
    } else if (value < 0x80000000u) {
      out_ += 'J';
      raw(value, 4);
    } else {  // LONG1, signed: the top byte says that it is not negative
      out_ += "\x8a\x09";
      raw(value, 8);
      raw(0, 1);
    }
  }

 private:
  void raw(std::uint64_t value, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; ++i) out_ += static_cast<char>(static_cast<unsigned char>(value >> (8 * i)));
  }

  std::string out_;
  std::unordered_map<std::string_view, std::uint8_t> memo_;  // of literals
};

class DeviceWriter {
 public:
  DeviceWriter(Pickler& out, const DeviceTrace& trace)
      : out_(out), trace_(trace), blocks_(trace.block_count), uses_(trace.streams.size()) {}

  void run() {
    const bool with_segments = no_segment_was_freed();
    std::size_t segment = 0;
    out_.begin_list();
    for (std::uint32_t i = 0; i < trace_.events.size(); ++i) {
      while (with_segments && segment < trace_.recorded_segments.size() &&
             trace_.recorded_segments[segment].event == i) {
        const RecordedSegment& made = trace_.recorded_segments[segment++];
        entry("segment_alloc", made.address, made.bytes, made.stream);
      }
      write(trace_.events[i]);
    }
    out_.end_list();
  }

 private:
  struct Block {
    std::uint64_t address = 0;
    std::uint64_t bytes = 0;
    std::uint32_t uses = 0;  // on held streams, not yet completed
    std::uint16_t stream = 0;
    bool freed = false;
  };

  bool no_segment_was_freed() const {
    std::uint64_t sum = 0;
    for (const RecordedSegment& segment : trace_.recorded_segments) sum += segment.bytes;
    return sum == trace_.recorded_peak_reserved_bytes;
  }

  void write(const Event& event) {
    switch (event.op) {
      case Op::alloc: {
        Block& block = blocks_[event.id];
        block = {addresses_.take(event.bytes), event.bytes, 0, event.stream, false};
        entry("alloc", block.address, block.bytes, block.stream);
        break;
      }
      case Op::free: {
        Block& block = blocks_[event.id];
        block.freed = true;
        entry("free_requested", block.address, block.bytes, block.stream);
        if (block.uses == 0) complete(block);
        break;
      }
      case Op::record_stream:
        if (!trace_.held_streams[event.stream]) break;
        ++blocks_[event.id].uses;
        uses_[event.stream].push_back(event.id);
        break;
      case Op::advance:
        for (std::uint64_t i = 0; i < event.bytes; ++i) {
          Block& block = blocks_[uses_[event.stream].front()];
          uses_[event.stream].pop_front();
          if (--block.uses == 0 && block.freed) complete(block);
        }
        break;
      case Op::trim:
        break;
    }
  }

  void complete(const Block& block) {
    entry("free_completed", block.address, block.bytes, block.stream);
    addresses_.give(block.address, block.bytes);
  }

  void entry(std::string_view action, std::uint64_t address, std::uint64_t bytes, std::uint16_t stream) {
    out_.begin_dict();
    out_.text("action");
    out_.text(action);
    out_.text("addr");
    out_.number(address);
    out_.text("size");
    out_.number(bytes);
    out_.text("stream");
    out_.number(trace_.streams[stream]);
    out_.text("time_us");
    out_.number(time_us_++);
    out_.text("frames");
    out_.begin_list();
    out_.end_list();
    out_.end_dict();
  }

  Pickler& out_;
  const DeviceTrace& trace_;
  std::vector<Block> blocks_;
  std::vector<std::deque<std::uint32_t>> uses_;  // of each held stream, oldest first
  MadeUpAddresses addresses_;
  std::uint64_t time_us_ = 0;
};

}  // namespace

std::string write_snapshot(const Trace& trace) {
  Pickler out;
  out.begin_dict();
  out.text("segments");
  out.begin_list();
  out.end_list();
  out.text("device_traces");
  out.begin_list();
  int devices = 0;
  for (const DeviceTrace& device : trace.devices) devices = std::max(devices, device.device + 1);
  for (int number = 0; number < devices; ++number) {
    const auto device = std::find_if(trace.devices.begin(), trace.devices.end(),
                                     [&](const DeviceTrace& candidate) { return candidate.device == number; });
    if (device != trace.devices.end()) {
      DeviceWriter(out, *device).run();
    } else {
      out.begin_list();
      out.end_list();
    }
  }
  out.end_list();
  out.text("allocator_settings");
  out.begin_dict();
  out.end_dict();
  out.text("external_annotations");
  out.begin_list();
  out.end_list();
  out.end_dict();
  return std::move(out).finish();
}

}  // namespace gmlake::replay
