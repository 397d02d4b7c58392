#include "replay/generate.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <string>
#include <utility>

namespace gmlake::replay {
namespace {

// splitmix64: integers alone, so every platform draws the same. The library's distributions differ between platforms.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15ULL;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
    return z ^ z >> 31;
  }
  std::uint64_t below(std::uint64_t bound) { return next() % bound; }
  // Every power of two between the bounds is as likely as any other.
  std::uint64_t spread_evenly(std::uint64_t low, std::uint64_t high) {
    const auto first = static_cast<std::uint64_t>(std::bit_width(low)) - 1;
    const auto last = static_cast<std::uint64_t>(std::bit_width(high)) - 1;
    const std::uint64_t power = std::uint64_t{1} << (first + below(last - first + 1));
    return std::clamp(power + below(power), low, high);
  }

 private:
  std::uint64_t state_;
};

// The trace in the making: numbers blocks, keeps the live bytes below the peak, and stops at the last event.
class Program {
 public:
  explicit Program(const GenerateOptions& options) : random(options.seed), options_(options) {
    trace_.events.reserve(options.events);
    for (std::uint64_t i = 1; i < options.streams; ++i) {
      trace_.streams.push_back(i * 0x1000);
      trace_.held_streams.push_back(false);
    }
  }

  bool done() const { return trace_.events.size() >= options_.events; }
  bool fits(std::uint64_t bytes) const { return bytes <= options_.peak_bytes - live_bytes_; }
  std::uint64_t peak() const { return options_.peak_bytes; }
  DeviceTrace take() && { return std::move(trace_); }

  // The block's id. Once done() it is no block, and freeing it does nothing.
  std::uint32_t alloc(std::uint64_t bytes) {
    if (done()) return trace_.block_count;
    const auto stream = static_cast<std::uint16_t>(random.below(options_.streams));
    trace_.events.push_back({Op::alloc, 0, stream, trace_.block_count, bytes});
    blocks_.push_back({bytes, stream});
    live_bytes_ += bytes;
    return trace_.block_count++;
  }

  void free(std::uint32_t id) {
    if (done()) return;
    const Block block = blocks_[id];
    if (options_.streams > 1 && random.below(16) == 0) {
      const auto other = static_cast<std::uint16_t>((block.stream + 1u) % options_.streams);
      trace_.events.push_back({Op::record_stream, 0, other, id, 0});
      if (done()) return;
    }
    trace_.events.push_back({Op::free, 0, block.stream, id, 0});
    live_bytes_ -= block.bytes;
  }

  void free_all(std::vector<std::uint32_t>& ids) {
    for (const std::uint32_t id : ids) free(id);
    ids.clear();
  }
  void shuffle(std::vector<std::uint32_t>& ids) {
    for (std::size_t i = ids.size(); i > 1; --i) std::swap(ids[i - 1], ids[random.below(i)]);
  }

  Random random;

 private:
  struct Block {
    std::uint64_t bytes = 0;
    std::uint16_t stream = 0;
  };

  GenerateOptions options_;
  DeviceTrace trace_;
  std::vector<Block> blocks_;
  std::uint64_t live_bytes_ = 0;
};

constexpr std::uint64_t kGranule = std::uint64_t{2} << 20;
constexpr std::uint64_t kSmallest = 512;

void sawtooth(Program& program) {
  std::vector<std::uint32_t> live;
  while (!program.done()) {
    const std::uint64_t bytes =
        program.random.spread_evenly(std::max(kSmallest, program.peak() >> 14), program.peak() / 4);
    while (!program.done() && program.fits(bytes)) live.push_back(program.alloc(bytes));
    program.shuffle(live);
    program.free_all(live);
  }
}

void pins(Program& program) {
  std::vector<std::uint32_t> pinned, fillers, large;
  while (!program.done()) {
    // A pin and a filler fill a granule; without the fillers, a pin is left in each.
    while (!program.done() && program.fits(kGranule)) {
      pinned.push_back(program.alloc(kSmallest));
      fillers.push_back(program.alloc(kGranule - kSmallest));
    }
    program.free_all(fillers);
    const std::uint64_t bytes = program.random.spread_evenly(4 * kGranule, program.peak() / 4);
    while (!program.done() && program.fits(bytes)) large.push_back(program.alloc(bytes));
    program.free_all(large);
    program.shuffle(pinned);
    program.free_all(pinned);
  }
}

// Both ramps move a few blocks along sizes that change by a sixteenth each time: the new block is made before the old
// one is freed, as caches that grow by copying do.
void ramp(Program& program, bool up) {
  constexpr std::size_t kLanes = 4;
  const std::uint64_t largest = program.peak() / (2 * kLanes);
  const std::uint64_t smallest = std::max(kSmallest, largest >> 12);
  std::array<std::uint64_t, kLanes> sizes{};
  std::array<std::uint32_t, kLanes> ids{};
  std::array<bool, kLanes> live{};
  for (std::size_t lane = 0; !program.done(); lane = (lane + 1) % kLanes) {
    std::uint64_t& size = sizes[lane];
    const std::uint64_t step = size / 16 + program.random.below(size / 64 + 1) + kSmallest;
    const bool restart = size == 0 || (up ? size + step > largest : size < smallest + step);
    size = restart ? (up ? smallest : largest) : up ? size + step : size - step;
    const std::uint32_t old = ids[lane];
    ids[lane] = program.alloc(size);
    if (std::exchange(live[lane], true)) program.free(old);
  }
}

void ramp_up(Program& program) { ramp(program, true); }
void ramp_down(Program& program) { ramp(program, false); }

// Frees random blocks until one of `bytes` fits.
void make_room(Program& program, std::vector<std::uint32_t>& live, std::uint64_t bytes) {
  while (!program.done() && !live.empty() && !program.fits(bytes)) {
    std::swap(live[program.random.below(live.size())], live.back());
    program.free(live.back());
    live.pop_back();
  }
}

void power_law(Program& program) {
  std::vector<std::uint32_t> live;
  while (!program.done()) {
    // Twice the size is half as likely.
    const int doublings = std::min(std::countr_zero(program.random.next() | std::uint64_t{1} << 24), 24);
    const std::uint64_t low = kSmallest << doublings;
    const std::uint64_t bytes = std::min(low + program.random.below(low), program.peak() / 8);
    make_room(program, live, bytes);
    live.push_back(program.alloc(bytes));
    if (program.random.below(8) == 0) make_room(program, live, program.peak() / 4);
  }
}

void long_tail(Program& program) {
  std::vector<std::uint32_t> young, old;
  while (!program.done()) {
    const std::uint64_t bytes = program.random.spread_evenly(kSmallest, program.peak() / 32);
    make_room(program, young, bytes);
    make_room(program, old, bytes);
    const std::uint32_t id = program.alloc(bytes);
    // One block in sixty-four outlives thousands; it is small, so that many lie between the others.
    if (bytes < kGranule / 2 && program.random.below(64) == 0) {
      old.push_back(id);
    } else {
      young.push_back(id);
    }
    if (young.size() > 64) make_room(program, young, program.peak() / 2);
  }
}

void two_phase(Program& program) {
  std::vector<std::uint32_t> live, kept;
  while (!program.done()) {
    std::uint64_t bytes = std::max(kSmallest, program.peak() >> 13);
    for (; !program.done() && bytes <= program.peak() / 4; bytes *= 2) {
      while (!program.done() && program.fits(bytes)) live.push_back(program.alloc(bytes));
      // Every second block stays, so no hole is larger than a block, and the next blocks are twice as large.
      for (std::size_t i = 0; i < live.size(); ++i) {
        if (i % 2 == 0) {
          program.free(live[i]);
        } else {
          kept.push_back(live[i]);
        }
      }
      live.swap(kept);
      kept.clear();
    }
    program.shuffle(live);
    program.free_all(live);
  }
}

void epochs(Program& program) {
  constexpr std::size_t kSteps = 500;
  struct Step {
    bool is_alloc;
    std::uint64_t value;  // bytes, or which of the epoch's blocks
  };
  // One epoch: allocations and frees in a fixed order that frees all it makes and keeps to the peak.
  std::vector<Step> steps;
  std::vector<std::pair<std::size_t, std::uint64_t>> live;
  std::uint64_t live_bytes = 0;
  for (std::size_t made = 0; made < kSteps || !live.empty();) {
    const std::uint64_t bytes = program.random.spread_evenly(kSmallest, program.peak() / 16);
    if (made < kSteps && live_bytes + bytes <= program.peak() && program.random.below(3) != 0) {
      steps.push_back({true, bytes});
      live.emplace_back(made++, bytes);
      live_bytes += bytes;
    } else if (!live.empty()) {
      std::swap(live[program.random.below(live.size())], live.back());
      steps.push_back({false, live.back().first});
      live_bytes -= live.back().second;
      live.pop_back();
    }
  }
  std::vector<std::uint32_t> ids;
  while (!program.done()) {
    ids.clear();
    for (const Step& step : steps) {
      if (step.is_alloc) {
        ids.push_back(program.alloc(step.value));
      } else {
        program.free(ids[step.value]);
      }
    }
  }
}

struct Entry {
  Pattern pattern;
  void (*run)(Program&);
};

constexpr std::array<Entry, 8> kEntries{{
    {{"sawtooth", "fill to the peak with one size, free all, again with another: hurts caches that keep sizes apart"},
     sawtooth},
    {{"pins", "leave one 512-byte block in each 2 MiB, then ask for large blocks: hurts whoever cannot move memory"},
     pins},
    {{"ramp-up",
      "each block a little larger than the one it replaces: hurts fits, since no free block is large enough"},
     ramp_up},
    {{"ramp-down",
      "each block a little smaller than the one it replaces: hurts splitting, which leaves ever more rests"},
     ramp_down},
    {{"power-law", "sizes over seven decimal orders, small ones most often: hurts size classes and thresholds"},
     power_law},
    {{"long-tail", "most blocks die soon, a few small ones never: hurts segments, each kept by one block"}, long_tail},
    {{"two-phase", "keep every second block, then ask for twice the size, again and again: Robson's worst case"},
     two_phase},
    {{"epochs", "the same epoch of 500 blocks over and over: hurts whoever leaks, or learns nothing"}, epochs},
}};

constexpr auto kPatterns = [] {
  std::array<Pattern, kEntries.size()> list;
  for (std::size_t i = 0; i < list.size(); ++i) list[i] = kEntries[i].pattern;
  return list;
}();

std::string out_of_range(const GenerateOptions& options) {
  if (options.events < 1 || options.events > std::uint64_t{1} << 31) return "events: not between 1 and 2147483648";
  if (options.peak_bytes < std::uint64_t{64} << 20 || options.peak_bytes > std::uint64_t{1} << 50) {
    return "peak: not between 64 MiB and 1024 TiB";
  }
  if (options.streams < 1 || options.streams > 1024) return "streams: not between 1 and 1024";
  return {};
}

}  // namespace

std::span<const Pattern> patterns() { return kPatterns; }

InputResult<Trace> generate(std::string_view pattern, const GenerateOptions& options) {
  const auto error = [](std::string reason) {
    return InputError{"generate", InputPlace::whole_file, 0, std::move(reason)};
  };
  const auto entry = std::find_if(kEntries.begin(), kEntries.end(),
                                  [&](const Entry& candidate) { return candidate.pattern.name == pattern; });
  if (entry == kEntries.end()) {
    std::string names;
    for (const Pattern& known : kPatterns) names.append(names.empty() ? "" : ", ").append(known.name);
    return error("unknown pattern " + quote_for_message(pattern) + "; there are " + names);
  }
  if (std::string reason = out_of_range(options); !reason.empty()) return error(std::move(reason));
  Program program(options);
  entry->run(program);
  Trace trace;
  trace.name = entry->pattern.name;
  trace.devices.push_back(std::move(program).take());
  return trace;
}

}  // namespace gmlake::replay
