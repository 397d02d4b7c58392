// How long requests that hit may have to wait for one that stitches: the time that the state lock is held for while a
// plan is made, claimed and published, on pools of 1,000 to 66,000 mappings that are as broken up as they can be.
//
//   planner_bench [--smoke] [--json FILE]
//
// Books and the model driver alone: no device, and no driver time in the figures. Each line is of many slow paths; the
// pool is another after each of them, since blocks move.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "driver/model.hpp"
#include "memory/fences.hpp"
#include "memory/mapping_table.hpp"
#include "memory/phy_pool.hpp"
#include "stitch/plan.hpp"
#include "stitch/pool.hpp"
#include "stitch/stitcher.hpp"

namespace {

using namespace gmlake;
using namespace gmlake::stitch;

constexpr std::uint32_t kShift = 21;

std::uint64_t now_ns() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
}

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "planner_bench: %s\n", what);
  std::exit(1);
}

// One pool of single granules: of eight slots four are free, three live and one a hole; free addresses at the end.
class Machine {
 public:
  explicit Machine(std::uint32_t mappings) {
    const std::uint32_t slots = mappings / 7 * 8;
    memory::VmmSegment* segment = table_.reserve(slots + mappings).value();
    pool.adopt(segment);
    Block* claimed = pool.claim(pool.first_block(segment), segment->base, segment->end());
    for (std::uint32_t slot = 0; slot < slots; ++slot) {
      if (slot % 8 == 4) continue;
      memory::Mapping* mapping = table_.map(segment, slot, phy_.create(1).value()).value();
      if (!table_.set_access(segment, slot, 1).ok()) fail("set_access");
      table_.settle(mapping);
    }
    pool.publish(claimed, 0);
    std::vector<Block*> taken;
    for (Block* run = pool.first_block(segment); run != nullptr; run = run->next) {
      if (run->state == State::free) taken.push_back(run = pool.take(run, std::uint64_t{1} << kShift, 1));
    }
    for (Block* block : taken) {
      const std::uint32_t slot = segment->slot_of(block->address) % 8;
      if (slot != 1 && slot != 3 && slot != 6) pool.give_back(block, 0);
    }
  }
  ~Machine() { table_.shut_down(); }

  // One request that has to be put together, from the plan to the hand-out. It stays.
  void stitch(std::uint32_t granules, StateSteps& steps) {
    Pool* const donors[] = {&pool};
    const PlanRequest request{.pool = &pool, .bytes = std::uint64_t{granules} << kShift, .donors = donors};
    std::optional<Plan> plan = planner_.make(request, steps);
    if (!plan || !stitcher_.claim(*plan, steps)) fail("no plan");
    if (!stitcher_.execute(*plan).ok()) fail("the model refuses");
    stitcher_.publish_donors(steps);
    const StateStep step(steps);
    (void)pool.take(stitcher_.publish(*plan, ++tick_, true), request.bytes, request.bytes);
  }

  Mutex mutex;
  ShardedMutex state{mutex};
  Pool::BlockSlab blocks;
  Pool pool{0, SizeClass::large, blocks};

 private:
  driver::ModelDriver driver_{{.capacity_bytes = std::uint64_t{1} << 42}};
  memory::Fences fences_{driver_};
  memory::PhyPool phy_{driver_, {}, kShift};
  memory::MappingTable table_{driver_, phy_, kShift, {0}};
  Planner planner_{phy_, fences_};
  Stitcher stitcher_{table_, phy_, fences_};
  std::uint64_t tick_ = fences_.open({0, 0});
};

struct Line {
  std::uint32_t mappings, granules;
  std::size_t runs, holes;
  std::uint64_t longest, total_median, total_most, path_median, steps_median;
};

std::uint64_t median(std::vector<std::uint64_t> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

Line measure(std::uint32_t mappings, std::uint32_t granules, int rounds) {
  Machine machine(mappings);
  Line line{mappings, granules, machine.pool.free_runs(), machine.pool.holes().size(), 0, 0, 0, 0, 0};
  std::vector<std::uint64_t> longest, totals, paths, counts;
  // A quarter of what is free is used up at most.
  rounds = std::min(rounds, static_cast<int>(mappings / 7 / granules));
  for (int round = 0; round < rounds; ++round) {
    StateSteps steps{.state = &machine.state, .clock = now_ns};
    const std::uint64_t begin = now_ns();
    machine.stitch(granules, steps);
    paths.push_back(now_ns() - begin);
    longest.push_back(steps.longest_ns);
    totals.push_back(steps.total_ns);
    counts.push_back(steps.count);
  }
  line.longest = median(longest);
  line.total_median = median(totals);
  line.total_most = *std::max_element(totals.begin(), totals.end());
  line.path_median = median(paths);
  line.steps_median = median(counts);
  return line;
}

}  // namespace

int main(int argc, char** argv) {
  bool smoke = false;
  const char* json = nullptr;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--smoke") == 0) {
      smoke = true;
    } else if (std::strcmp(argv[i], "--json") == 0 && i + 1 < argc) {
      json = argv[++i];
    } else {
      fail("usage: planner_bench [--smoke] [--json FILE]");
    }
  }
  const std::vector<std::uint32_t> sizes =
      smoke ? std::vector<std::uint32_t>{1'000} : std::vector<std::uint32_t>{1'000, 4'000, 16'000, 66'000};
  std::string rows;
  std::printf("%9s %9s %7s %7s  %s\n", "mappings", "requested", "runs", "holes",
              "state held: longest ns, in all ns, in all most ns, steps; the slow path ns (medians)");
  for (const std::uint32_t mappings : sizes) {
    for (const std::uint32_t granules : {3u, 32u, 256u}) {
      if (granules * 16 > mappings) continue;
      const Line line = measure(mappings, granules, smoke ? 3 : 64);
      std::printf("%9u %9u %7zu %7zu  %8llu %8llu %8llu %6llu %9llu\n", line.mappings, line.granules, line.runs,
                  line.holes, static_cast<unsigned long long>(line.longest),
                  static_cast<unsigned long long>(line.total_median), static_cast<unsigned long long>(line.total_most),
                  static_cast<unsigned long long>(line.steps_median),
                  static_cast<unsigned long long>(line.path_median));
      rows += (rows.empty() ? "" : ",\n") + std::string("  {\"mappings\": ") + std::to_string(line.mappings) +
              ", \"granules\": " + std::to_string(line.granules) + ", \"free_runs\": " + std::to_string(line.runs) +
              ", \"holes\": " + std::to_string(line.holes) + ", \"longest_hold_ns\": " + std::to_string(line.longest) +
              ", \"held_ns\": " + std::to_string(line.total_median) +
              ", \"held_most_ns\": " + std::to_string(line.total_most) +
              ", \"holds\": " + std::to_string(line.steps_median) +
              ", \"slow_path_ns\": " + std::to_string(line.path_median) + "}";
    }
  }
  if (json == nullptr) return 0;
  std::FILE* file = std::fopen(json, "w");
  if (file == nullptr) fail("cannot write the results");
  std::fprintf(file, "[\n%s\n]\n", rows.c_str());
  return std::fclose(file) == 0 ? 0 : 1;
}
