// What a planner has to know of the VirBlocks, copied in short steps: where the holes of a pool lie and what is free
// beside them, and which free runs there are to take PhyBlocks out of.
//
// A request that hits must never wait for a plan to be made, so `state` is held for a few dozen records at a time and
// everything else is done without it. What was copied may change under the planner's feet: other threads take runs and
// give them back. It is advice, and Stitcher::claim() looks again before anything is taken. Holes and mappings alone
// stay as they are, since only the holder of `grow` changes them.
//
// Called with the device's `grow` held, and `state` not held unless the StateSteps say that the caller holds it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/sharded_mutex.hpp"
#include "memory/fences.hpp"
#include "stitch/pool.hpp"

namespace gmlake::stitch {

// How the slow path comes by `state`: in steps, each of which takes it and lets it go; or not at all, where the caller
// holds it throughout. A clock, in nanoseconds, makes it measure how long the steps last.
struct StateSteps {
  ShardedMutex* state = nullptr;  // null: the caller holds it
  std::uint64_t (*clock)() = nullptr;
  std::uint64_t count = 0;
  std::uint64_t longest_ns = 0;
  std::uint64_t total_ns = 0;
};

// One step: holds `state` to the end of the scope. Which lock that is, if any, is known at run time alone.
class StateStep {
 public:
  explicit StateStep(StateSteps& steps) GMLAKE_NO_THREAD_SAFETY_ANALYSIS : steps_(steps) {
    if (steps.state != nullptr) steps.state->lock();
    if (steps.clock != nullptr) begin_ns_ = steps.clock();
  }
  ~StateStep() GMLAKE_NO_THREAD_SAFETY_ANALYSIS {
    ++steps_.count;
    if (steps_.clock != nullptr) {
      const std::uint64_t ns = steps_.clock() - begin_ns_;
      steps_.longest_ns = std::max(steps_.longest_ns, ns);
      steps_.total_ns += ns;
    }
    if (steps_.state != nullptr) steps_.state->unlock();
  }
  StateStep(const StateStep&) = delete;
  StateStep& operator=(const StateStep&) = delete;

 private:
  StateSteps& steps_;
  std::uint64_t begin_ns_ = 0;
};

// A hole and what is free on both sides of it.
struct HoleView {
  Block* hole = nullptr;
  const memory::VmmSegment* segment = nullptr;
  Address address = 0;
  Address end = 0;
  Address left = 0;               // where the free run on its left begins; its own begin where there is none
  Address right = 0;              // where the free run on its right ends; its own end where there is none
  std::uint64_t live_before = 0;  // bytes of the live VirBlock on its left, but for less than a granule between
  bool ends_segment() const { return end == segment->end(); }
};

// A free run that whole PhyBlocks may lie in.
struct RunView {
  Block* run = nullptr;  // may be another run, or none, by now: see Stitcher::claim()
  const memory::VmmSegment* segment = nullptr;
  Address address = 0;
  Address end = 0;
  memory::Fence freed;  // what it must be behind for another stream
};

class Survey {
 public:
  explicit Survey(const memory::Fences& fences) : fences_(fences) {}

  // Forgets everything; what is seen from now on is for `pool`.
  void begin();

  // The holes of `pool` by address; of very many, those that changed last.
  void see_holes(Pool& pool, StateSteps& steps);
  const std::vector<HoleView>& holes() const { return holes_; }
  // Their places among holes(), the one first that has been as it is for longest.
  const std::vector<std::uint32_t>& by_age() const { return by_age_; }
  // Whether the free run on the right of the i-th hole leads to the next one.
  bool joined(std::size_t i) const {
    return i + 1 < holes_.size() && holes_[i].right == holes_[i + 1].address &&
           holes_[i].segment == holes_[i + 1].segment;
  }

  // The free runs of `donors` of at least a granule, pool by pool, in each the shortest first and at most `most` in
  // all. Of a pool of another stream than `stream`, those behind a fence that has passed, unless `stream_wait`.
  void see_runs(std::span<Pool* const> donors, memory::StreamIndex stream, bool stream_wait, std::size_t most,
                StateSteps& steps);
  const std::vector<RunView>& runs() const { return runs_; }
  bool saw_all_runs() const { return saw_all_runs_; }
  // The run that holds all of [begin, end); null where none that was seen does. Homes of stale mappings side by side
  // lie side by side, as a rule: where the last one lay is where this one does.
  const RunView* run_over(Address begin, Address end) const {
    if (begin < last_.begin || begin >= last_.end) last_ = stretch_at(begin);
    return end <= last_.end ? last_.run : nullptr;
  }

 private:
  // A run that was seen, or all that lies between two.
  struct Stretch {
    Address begin = 0;
    Address end = 0;
    const RunView* run = nullptr;
  };

  void see_runs_of(Pool& pool, std::uint64_t granule, std::size_t most, StateSteps& steps);
  Stretch stretch_at(Address address) const;

  const memory::Fences& fences_;
  // Holes as they came, the newest first, and their places there by address: to sort the views themselves takes longer.
  std::vector<HoleView> seen_;
  std::vector<std::pair<Address, std::uint32_t>> seen_by_address_;
  std::vector<HoleView> holes_;
  std::vector<std::uint32_t> by_age_;
  std::vector<RunView> runs_;
  std::vector<std::uint32_t> by_address_;  // of runs_
  mutable Stretch last_;                   // where run_over() found its last answer
  bool saw_all_runs_ = false;
};

}  // namespace gmlake::stitch
