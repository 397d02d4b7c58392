// Every interleaving of a few short threads of operations, each run on an allocator and a driver of its own: the
// host's, with real aliases and contents, or the model's, which is ten times as fast; the race detector in between. All
// streams are on hold; at every choice one of them advances by a few of its operations, by hand, in a way that differs
// from interleaving to interleaving.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gmlake/options.hpp"
#include "gmlake/stats.hpp"
#include "support/program.hpp"

namespace gmlake::test {

// A bug put between the allocator and the driver, so that the detector can be seen to find it. Each is what the
// allocator would do to the driver if it had the bug itself.
enum class Planted : std::uint8_t {
  none,
  no_device_waits,     // stream_wait does nothing: memory moves to a stream that waits for nobody
  no_host_waits,       // event_synchronize returns at once: a fence is taken as passed that was never waited for
  passed_at_once,      // event_query always says passed: mappings go, and blocks come back, before their fence
  no_records,          // event_record does nothing: an event stands for an earlier moment, or for none
  unrecorded_streams,  // record_stream is left out: the allocator does not know of a use
};

struct Mix {
  std::string name;
  std::vector<Program> threads;         // blocks are known to all of them
  std::uint64_t capacity_granules = 8;  // of 64 KiB
  Options options = {};
  Planted planted = Planted::none;
  bool host = true;
};

// What a number of interleavings did.
struct Tally {
  std::uint64_t interleavings = 0;
  std::uint64_t operations = 0;
  std::uint64_t kernels = 0;
  std::uint64_t refused = 0;  // allocations, for want of memory
  std::uint64_t stitches = 0;
  std::uint64_t moved_bytes = 0;
  std::uint64_t stream_waits = 0;  // requests met behind one
  std::uint64_t host_waits = 0;    // requests met behind one
  std::uint64_t released = 0;      // PhyBlocks
  std::uint64_t retired = 0;       // mappings
  std::uint64_t deferred = 0;      // frees that had to wait for other streams
  std::uint64_t borrowed = 0;      // requests met out of another stream's free run, where it lies
  std::uint64_t races = 0;
  std::uint64_t unmap_races = 0;    // of them, unmaps of what may be in use
  std::uint64_t wrong_content = 0;  // kernels that did not find what was written
  std::string first_race;           // with the interleaving
  std::string failure;              // the first of anything else, with the interleaving
};

// Runs the threads' operations in this order: the number of the thread for each. `salt` picks how streams advance.
void run_interleaving(const Mix& mix, const std::vector<std::uint8_t>& order, std::uint64_t salt, Tally& tally);

// All of them, 34,650 for 3 threads of 4 operations; or every n-th.
Tally run_all_interleavings(const Mix& mix, std::uint64_t every = 1);
// `count` orders drawn from a seed, for threads of which there are too many.
Tally run_some_interleavings(const Mix& mix, std::uint64_t seed, std::uint64_t count);

// Threads of operations made from a seed; they share their blocks.
Mix random_mix(std::uint64_t seed, std::uint32_t threads, std::size_t operations);

}  // namespace gmlake::test
