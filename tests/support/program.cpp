#include "support/program.hpp"

#include <algorithm>
#include <array>
#include <random>

namespace gmlake::test {
namespace {

const char* name_of(Op::Kind kind) {
  constexpr std::array kNames = {"alloc", "free",  "record", "work",   "advance",    "trim",     "fail",
                                 "heal",  "limit", "spare",  "forget", "begin_pool", "end_pool", "release_pool"};
  return kNames[static_cast<std::size_t>(kind)];
}

// std's distributions differ between libraries; this does not.
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  std::uint64_t below(std::uint64_t bound) { return bound == 0 ? 0 : engine_() % bound; }
  bool chance(std::uint64_t percent) { return below(100) < percent; }

 private:
  std::mt19937_64 engine_;
};

std::uint64_t pick_bytes(Random& random, std::uint64_t max_bytes) {
  std::uint64_t top = 1;
  std::uint64_t powers = 1;
  while (top < max_bytes) top *= 2, ++powers;
  const std::uint64_t high = std::uint64_t{1} << random.below(powers);
  return std::min(max_bytes, high + random.below(high));
}

}  // namespace

std::string to_source(const Program& program) {
  std::string text;
  for (const Op& op : program) {
    text += std::string("      {Op::Kind::") + name_of(op.kind) + ", " + std::to_string(op.block) + ", " +
            std::to_string(op.amount) + ", " + std::to_string(op.stream) + "},\n";
  }
  return text;
}

Program generate_program(const Conditions& conditions, std::uint64_t seed, std::size_t operations) {
  Random random(seed);
  Program program;
  std::vector<std::uint32_t> live;
  std::uint32_t next = 0;
  std::uint64_t wanted_blocks = 1 + random.below(conditions.max_blocks);
  const auto stream = [&] { return static_cast<std::uint32_t>(random.below(conditions.streams)); };
  while (program.size() < operations) {
    const std::uint64_t dice = random.below(1000);
    if (dice < 10) wanted_blocks = 1 + random.below(conditions.max_blocks);  // phases, as iterations of a job are
    if (dice < 40) {
      program.push_back({Op::Kind::advance, 0, 1 + random.below(8), stream()});
    } else if (dice < 45) {
      program.push_back({Op::Kind::trim, 0, random.below(2) * random.below(conditions.max_bytes), 0});
    } else if (conditions.limits && dice < 47) {
      const std::uint64_t capacity = conditions.capacity_granules * conditions.granularity;
      const std::uint64_t bytes = random.chance(50) ? 0 : capacity / 4 + random.below(capacity);  // 0: none
      program.push_back({Op::Kind::limit, 0, bytes, 0});
    } else if (dice < 56 && dice >= 54) {
      program.push_back({Op::Kind::spare, 0, random.below(4), 0});
    } else if (conditions.pools && dice < 49) {
      program.push_back({Op::Kind::forget, 0, 0, stream()});
    } else if (conditions.pools && dice < 54) {
      constexpr std::array kPools = {Op::Kind::begin_pool, Op::Kind::end_pool, Op::Kind::end_pool,
                                     Op::Kind::release_pool, Op::Kind::release_pool};
      program.push_back({kPools[dice - 49], static_cast<std::uint32_t>(1 + random.below(3)), 0, stream()});
    } else if (conditions.faults && dice < 75) {
      program.push_back({Op::Kind::fail, 0, 1 + random.below(30), static_cast<std::uint32_t>(random.below(8))});
    } else if (conditions.faults && dice < 120) {
      program.push_back({Op::Kind::heal, 0, 0, 0});
    } else if (!live.empty() && dice < 240) {
      const std::uint32_t block = live[random.below(live.size())];
      if (random.chance(50)) {
        program.push_back({Op::Kind::record, block, 0, stream()});
      } else {
        program.push_back({Op::Kind::work, block, 0, 0});
      }
    } else if (!live.empty() && random.below(2 * wanted_blocks) < live.size()) {
      const std::size_t at = random.below(live.size());
      const std::uint32_t other = random.chance(10) ? stream() : ~0u;  // ~0: the stream it was allocated on
      program.push_back({Op::Kind::free, live[at], 0, other});
      live[at] = live.back();
      live.pop_back();
    } else {
      program.push_back({Op::Kind::alloc, next, pick_bytes(random, conditions.max_bytes), stream()});
      live.push_back(next++);
    }
  }
  return program;
}

Program shrink(const Conditions& conditions, Program program) {
  for (std::size_t chunk = std::max<std::size_t>(program.size() / 2, 1); chunk > 0;) {
    bool dropped = false;
    for (std::size_t at = 0; at < program.size();) {
      Program shorter = program;
      const auto first = shorter.begin() + static_cast<std::ptrdiff_t>(at);
      shorter.erase(first, first + static_cast<std::ptrdiff_t>(std::min(chunk, program.size() - at)));
      if (!run_program_apart(conditions, shorter).failure.empty()) {
        program = std::move(shorter);
        dropped = true;
      } else {
        at += chunk;
      }
    }
    if (chunk > 1 || !dropped) chunk /= 2;
  }
  return program;
}

Batch run_random_programs(const Conditions& conditions, std::uint64_t first_seed, std::uint64_t operations,
                          std::size_t length) {
  Batch batch;
  for (std::uint64_t seed = first_seed; batch.sum.operations < operations; ++seed) {
    const Program program = generate_program(conditions, seed, length);
    const Outcome outcome = run_program_apart(conditions, program);
    batch.last_seed = seed;
    if (!outcome.failure.empty()) {
      const Program least = shrink(conditions, program);
      batch.failure = "seed " + std::to_string(seed) + ": " + outcome.failure + "\nshrunk to " +
                      std::to_string(least.size()) + " operations: " + run_program_apart(conditions, least).failure +
                      "\n" + to_source(least);
      return batch;
    }
    batch.sum.operations += outcome.operations;
    batch.sum.ooms += outcome.ooms;
    batch.sum.waits += outcome.waits;
    batch.sum.faults += outcome.faults;
    batch.sum.released += outcome.released;
    batch.sum.spared += outcome.spared;
    batch.sum.borrowed += outcome.borrowed;
  }
  return batch;
}

const std::vector<NamedConditions>& named_conditions() {
  constexpr std::uint64_t kKiB = 1 << 10;
  constexpr std::uint64_t kMiB = 1 << 20;
  static const std::vector<NamedConditions> all = [] {
    std::vector<NamedConditions> list;
    const auto add = [&list](const char* name, std::size_t length, std::uint64_t test_operations,
                             std::uint64_t share) -> Conditions& {
      list.push_back({name, {}, length, test_operations, share});
      return list.back().conditions;
    };
    add("NearTheLimit", 2000, 400'000, 333);
    add("FarFromTheLimit", 2000, 300'000, 210).capacity_granules = 16384;
    {
      Conditions& c = add("LargePhyBlocks", 2000, 40'000, 5);
      c.granularity = 4 * kKiB;
      c.capacity_granules = 8192;
      c.options.slack = 0.05;
    }
    {
      Conditions& c = add("ManyStreams", 2000, 100'000, 100);
      c.streams = 32;
      c.capacity_granules = 512;
      c.options.max_stale = 0.1;
    }
    {
      Conditions& c = add("NoStreamWaits", 2000, 50'000, 150);
      c.options.stream_wait = StreamWait::never;
      c.options.slack = 0;
      c.options.max_stale = 0;
    }
    add("FailingCalls", 500, 100'000, 110).faults = true;
    {
      Conditions& c = add("FailingCallsLargePhyBlocks", 500, 20'000, 2);
      c.granularity = 4 * kKiB;
      c.capacity_granules = 8192;
      c.faults = true;
    }
    {
      Conditions& c = add("Host", 1000, 80'000, 700);
      c.host = true;
      c.capacity_granules = 512;
      c.max_bytes = 16 * kMiB;
    }
    {
      Conditions& c = add("ZeroOnFree", 1000, 100'000, 50);
      c.options.zero_on_free = true;
    }
    {
      Conditions& c = add("HostZeroOnFree", 1000, 40'000, 100);
      c.host = true;
      c.capacity_granules = 512;
      c.max_bytes = 4 * kMiB;
      c.options.zero_on_free = true;
    }
    {
      Conditions& c = add("ZeroOnFreeFailingCalls", 500, 40'000, 20);
      c.options.zero_on_free = true;
      c.faults = true;
    }
    {
      Conditions& c = add("UnmapOnFree", 1000, 40'000, 20);
      c.options.unmap_on_free = true;
      c.faults = true;
    }
    {
      Conditions& c = add("HostFailingCalls", 500, 20'000, 200);
      c.host = true;
      c.faults = true;
    }
    return list;
  }();
  return all;
}

}  // namespace gmlake::test
