#include "replay/recording.hpp"

#include <algorithm>
#include <charconv>
#include <limits>
#include <map>

#include "replay/address_table.hpp"

namespace gmlake::replay {
namespace {

constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();

bool is_block_action(RecordedAction action) { return action <= RecordedAction::free_completed; }

std::string hex(std::uint64_t value) {
  char digits[16];
  const auto end = std::to_chars(digits, digits + sizeof digits, value, 16).ptr;
  return "0x" + std::string(digits, end);
}

// Uses that overlap need several held streams, since a stream completes its uses in order. The fewest such lanes that
// keep each lane's completions in order: give a use to the lane whose last completion is the latest before its own
// (patience sorting). Uses that never complete share one lane at its end.
class Lanes {
 public:
  std::uint32_t assign(std::uint32_t completion) {
    auto lane = last_completions_.lower_bound(completion);
    std::uint32_t number = count_;
    if (completion == kNone && lane != last_completions_.end()) {
      return lane->second;
    } else if (lane != last_completions_.begin()) {
      number = std::prev(lane)->second;
      last_completions_.erase(std::prev(lane));
    } else {
      ++count_;
    }
    last_completions_.emplace(completion, number);
    return number;
  }
  std::uint32_t count() const { return count_; }

 private:
  std::map<std::uint32_t, std::uint32_t> last_completions_;  // of each lane -> the lane
  std::uint32_t count_ = 0;
};

class Translator {
 public:
  Translator(const DeviceRecording& recording, DeviceTrace& trace) : recording_(recording), trace_(trace) {}

  std::optional<std::string> run() {
    if (!match_events()) return reason_;
    add_final_blocks();
    sort_earlier_blocks();
    if (!emit()) return reason_;
    trace_.device = recording_.device;
    trace_.recorded_peak_reserved_bytes = peak_reserved_bytes();
    return std::nullopt;
  }

 private:
  struct Block {
    std::uint64_t address = 0;
    std::uint64_t bytes = 0;
    std::uint16_t stream = 0;
  };
  // Of each event about a block: the block, and the event that belongs to it.
  // `other`: of a request the index of its completion, kNone where it never comes; of a completion that of its request,
  // kNone where that lies before the recording.
  struct Match {
    std::uint32_t block = 0;  // with kEarlier: an index into earlier_, else the number of its alloc event
    std::uint32_t other = kNone;
  };
  static constexpr std::uint32_t kEarlier = std::uint32_t{1} << 31;

  bool fail(const RecordedEvent& event, const std::string& what) {
    reason_ = "event " + std::to_string(event.index) + " of device " + std::to_string(recording_.device) + " (" +
              to_string(event.action) + "): address " + hex(event.address) + " " + what;
    return false;
  }

  std::uint32_t add_earlier(std::uint64_t address, std::uint64_t bytes, std::uint16_t stream) {
    earlier_.push_back({address, bytes, stream});
    return kEarlier | static_cast<std::uint32_t>(earlier_.size() - 1);
  }

  // Follows each address through the recording: which block an event is about, and which completion ends which request.
  bool match_events() {
    if (recording_.events.size() >= kEarlier) {
      reason_ = "device " + std::to_string(recording_.device) + " has more than 2^31 events";
      return false;
    }
    matches_.resize(recording_.events.size());
    for (std::uint32_t i = 0; i < matches_.size(); ++i) {
      const RecordedEvent& event = recording_.events[i];
      bool ok = true;
      switch (event.action) {
        case RecordedAction::alloc:
          ok = match_alloc(i, event);
          break;
        case RecordedAction::free_requested:
          ok = match_request(i, event);
          break;
        case RecordedAction::free_completed:
          ok = match_completion(i, event);
          break;
        default:
          continue;
      }
      if (!ok) return false;
      last_block_event_ = i;
    }
    return true;
  }

  bool match_alloc(std::uint32_t i, const RecordedEvent& event) {
    AddressTable::Entry& entry = addresses_.at(event.address);
    if (entry.state == AddressState::live) return fail(event, "is still live, since " + name_event(entry.event));
    if (entry.state == AddressState::pending)
      return fail(event, "still waits for its free of " + name_event(entry.event));
    const auto number = static_cast<std::uint32_t>(blocks_.size());
    blocks_.push_back({event.address, event.bytes, event.stream});
    matches_[i].block = number;
    entry.block = number;
    entry.event = i;
    entry.state = AddressState::live;
    return true;
  }

  bool match_request(std::uint32_t i, const RecordedEvent& event) {
    AddressTable::Entry& entry = addresses_.at(event.address);
    if (entry.state == AddressState::pending) return fail(event, "was freed before, by " + name_event(entry.event));
    if (entry.state == AddressState::freed) return fail(event, "is not live");
    if (entry.state == AddressState::unseen) entry.block = add_earlier(event.address, event.bytes, event.stream);
    matches_[i].block = entry.block;
    entry.event = i;
    entry.state = AddressState::pending;
    return true;
  }

  bool match_completion(std::uint32_t i, const RecordedEvent& event) {
    AddressTable::Entry& entry = addresses_.at(event.address);
    if (entry.state == AddressState::live) return fail(event, "was never requested to be freed");
    if (entry.state == AddressState::freed) return fail(event, "is not live");
    if (entry.state == AddressState::unseen) {
      // Its request lies before the recording, so it holds its memory until now.
      entry.block = add_earlier(event.address, event.bytes, event.stream);
    } else {
      matches_[i].other = entry.event;
      // A completion right after its request waited for nothing: the request stands for both.
      matches_[entry.event].other = entry.event == last_block_event_ ? entry.event : i;
    }
    matches_[i].block = entry.block;
    entry.state = AddressState::freed;
    return true;
  }

  std::string name_event(std::uint32_t i) const { return "event " + std::to_string(recording_.events[i].index); }

  // Blocks in use at the end that no event speaks of were live all along. Where the address was freed before the end,
  // the block came after the last event.
  void add_final_blocks() {
    for (const FinalBlock& block : recording_.blocks) {
      AddressTable::Entry& entry = addresses_.at(block.address);
      if (entry.state == AddressState::unseen) {
        entry.block = add_earlier(block.address, block.bytes, block.stream);
      } else if (entry.state == AddressState::freed) {
        late_.push_back({block.address, block.bytes, block.stream});
      }
      entry.state = AddressState::live;  // a file that names a block twice has it once
    }
  }

  // By address, as the allocator had laid them out.
  void sort_earlier_blocks() {
    std::vector<std::uint32_t> order(earlier_.size());
    for (std::uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    std::sort(order.begin(), order.end(), [&](auto a, auto b) { return earlier_[a].address < earlier_[b].address; });
    earlier_ids_.resize(order.size());
    for (std::uint32_t id = 0; id < order.size(); ++id) earlier_ids_[order[id]] = id;
    std::sort(earlier_.begin(), earlier_.end(), [](const Block& a, const Block& b) { return a.address < b.address; });
  }

  std::uint32_t id_of(std::uint32_t block) const {
    return (block & kEarlier) != 0 ? earlier_ids_[block & ~kEarlier]
                                   : static_cast<std::uint32_t>(earlier_.size()) + block;
  }

  void emit_alloc(const Block& block) {
    trace_.events.push_back({Op::alloc, 0, block.stream, trace_.block_count++, block.bytes});
  }
  void emit_free(std::uint32_t block) {
    const std::uint32_t id = id_of(block);
    const Block& freed = (block & kEarlier) != 0 ? earlier_[id] : blocks_[block];
    trace_.events.push_back({Op::free, 0, freed.stream, id, 0});
  }

  bool emit() {
    trace_.events.reserve(earlier_.size() + late_.size() + blocks_.size() * 2);
    add_earlier_segments();
    for (const Block& block : earlier_) emit_alloc(block);
    const std::size_t own_streams = recording_.streams.handles().size();
    Lanes lanes;
    for (std::uint32_t i = 0; i < matches_.size(); ++i) {
      const RecordedEvent& event = recording_.events[i];
      Match& match = matches_[i];
      if (event.action == RecordedAction::alloc) {
        emit_alloc(blocks_[match.block]);
      } else if (event.action == RecordedAction::free_requested) {
        if (match.other != i) {
          const std::uint32_t lane = lanes.assign(match.other);
          if (own_streams + lane >= kMaxStreams) {
            return fail(event, "needs one more held stream than a trace can have");
          }
          trace_.events.push_back(
              {Op::record_stream, 0, static_cast<std::uint16_t>(own_streams + lane), id_of(match.block), 0});
          if (match.other != kNone) matches_[match.other].block = static_cast<std::uint32_t>(own_streams) + lane;
        }
        emit_free(match.block);
      } else if (event.action == RecordedAction::free_completed) {
        if (match.other == kNone) {
          emit_free(match.block);
        } else if (matches_[match.other].other == i) {  // `block` became the lane above
          trace_.events.push_back({Op::advance, 0, static_cast<std::uint16_t>(match.block), 0, 1});
        }
      } else if (event.action == RecordedAction::segment_alloc) {
        add_segment(event.address, event.bytes, event.stream);
      }
    }
    for (const Block& block : late_) emit_alloc(block);
    while (!trace_.recorded_segments.empty() && trace_.recorded_segments.back().event >= trace_.events.size()) {
      trace_.recorded_segments.pop_back();  // made for nothing that was recorded
    }
    name_streams(lanes.count());
    return true;
  }

  void add_segment(std::uint64_t address, std::uint64_t bytes, std::uint16_t stream) {
    trace_.recorded_segments.push_back({static_cast<std::uint32_t>(trace_.events.size()), stream, address, bytes});
  }

  // Segments of the final picture that no event made were there before the first event.
  void add_earlier_segments() {
    AddressTable made;
    for (const RecordedEvent& event : recording_.events) {
      if (event.action == RecordedAction::segment_alloc) made.at(event.address).state = AddressState::live;
    }
    std::vector<FinalSegment> earlier;
    for (const FinalSegment& segment : recording_.segments) {
      if (!segment.expandable && made.state_of(segment.address) == AddressState::unseen) earlier.push_back(segment);
    }
    std::sort(earlier.begin(), earlier.end(), [](const auto& a, const auto& b) { return a.address < b.address; });
    for (const FinalSegment& segment : earlier) add_segment(segment.address, segment.bytes, segment.stream);
  }

  // Held streams get handles that no recording has: from the top of the range down.
  void name_streams(std::uint32_t lanes) {
    trace_.streams = recording_.streams.handles();
    trace_.held_streams.assign(trace_.streams.size(), false);
    std::uint64_t handle = std::numeric_limits<std::uint64_t>::max();
    for (std::uint32_t lane = 0; lane < lanes; ++lane) {
      while (recording_.streams.has(handle)) --handle;
      trace_.streams.push_back(handle--);
      trace_.held_streams.push_back(true);
    }
  }

  // Events say how the reserved bytes changed; the final picture says where they ended, so both say where they began.
  // Without a picture they began at the least that keeps them from going below zero. Saturates: sizes may be hostile.
  std::uint64_t peak_reserved_bytes() const {
    const auto add = [kCap = std::uint64_t{1} << 62](std::uint64_t a, std::uint64_t b) {
      return std::min(kCap, a + std::min(kCap, b));
    };
    std::uint64_t up = 0, down = 0;  // since the start
    std::uint64_t most_below = 0;    // how far `down` was ahead of `up` at most
    for (const RecordedEvent& event : recording_.events) count_reserved(event, up, down, most_below, add);
    std::uint64_t end = 0;
    for (const FinalSegment& segment : recording_.segments) end = add(end, segment.bytes);
    const std::uint64_t start = std::max(most_below, add(end, down) > up ? add(end, down) - up : 0);
    std::uint64_t peak = start;
    up = down = 0;
    for (const RecordedEvent& event : recording_.events) {
      std::uint64_t below = 0;
      count_reserved(event, up, down, below, add);
      const std::uint64_t now = add(start, up);
      peak = std::max(peak, now > down ? now - down : 0);
    }
    return peak;
  }

  template <class Add>
  static void count_reserved(const RecordedEvent& event, std::uint64_t& up, std::uint64_t& down,
                             std::uint64_t& most_below, Add add) {
    if (event.action == RecordedAction::segment_alloc || event.action == RecordedAction::segment_map) {
      up = add(up, event.bytes);
    } else if (!is_block_action(event.action)) {
      down = add(down, event.bytes);
      if (down > up) most_below = std::max(most_below, down - up);
    }
  }

  const DeviceRecording& recording_;
  DeviceTrace& trace_;
  AddressTable addresses_;
  std::vector<Match> matches_;
  std::vector<Block> blocks_;   // allocated by the events, in their order
  std::vector<Block> earlier_;  // live before the first event
  std::vector<Block> late_;     // allocated after the last event
  std::vector<std::uint32_t> earlier_ids_;
  std::uint32_t last_block_event_ = kNone;
  std::string reason_;
};

}  // namespace

const char* to_string(RecordedAction action) {
  switch (action) {
    case RecordedAction::alloc:
      return "alloc";
    case RecordedAction::free_requested:
      return "free_requested";
    case RecordedAction::free_completed:
      return "free_completed";
    case RecordedAction::segment_alloc:
      return "segment_alloc";
    case RecordedAction::segment_free:
      return "segment_free";
    case RecordedAction::segment_map:
      return "segment_map";
    case RecordedAction::segment_unmap:
      return "segment_unmap";
  }
  return "?";
}

std::optional<std::string> translate(const DeviceRecording& recording, DeviceTrace& trace) {
  trace = DeviceTrace();
  return Translator(recording, trace).run();
}

}  // namespace gmlake::replay
