// Programs of allocator operations: made from a seed, run against the reference, shrunk when they fail, and written as
// C++ that can be pasted into a test. Operations on blocks that are not live do nothing, so any part of a program is a
// program. Each run has a device and an allocator of its own, in a child process: an abort is a finding like any other.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "gmlake/options.hpp"

namespace gmlake::test {

struct Op {
  enum class Kind : std::uint8_t {
    alloc,
    free,
    record,
    work,
    advance,
    trim,
    fail,
    heal,
    limit,
    spare,
    forget,
    begin_pool,
    end_pool,
    release_pool,
  };
  Kind kind = Kind::alloc;
  std::uint32_t block = 0;   // alloc, free, record, work. Of pools: the pool's number, from 1
  std::uint64_t amount = 0;  // alloc, limit: bytes. advance: operations. trim: bytes to keep. fail: which call, from 1.
                             // spare: how many blocks the out-of-memory callback may free
  std::uint32_t stream = 0;  // alloc, free, record, advance, forget, begin_pool. fail: the fault, by fault_of()
};

using Program = std::vector<Op>;

// The pasteable form: {Op::Kind::alloc, 0, 4096, 1},
std::string to_source(const Program& program);

struct Conditions {
  bool host = false;  // the host driver, with contents; else the model
  std::uint64_t granularity = std::uint64_t{64} << 10;
  std::uint64_t capacity_granules = 256;
  // The odd ones are on hold: they complete work at `advance` alone. Of each four, two are per-thread default streams.
  std::uint32_t streams = 4;
  Options options = {};
  // What generate() makes:
  std::uint64_t max_bytes = std::uint64_t{8} << 20;  // of one block; sizes are even over powers of two from 1 B
  std::uint32_t max_blocks = 64;                     // live at a time
  bool faults = false;                               // fail and heal operations too
  bool limits = true;                                // and changes of the limit
  bool pools = true;                                 // and private pools, and streams that are forgotten
};

Program generate_program(const Conditions& conditions, std::uint64_t seed, std::size_t operations);

// What a program did, where nothing went wrong.
struct Outcome {
  std::string failure;  // the first thing that was wrong, with the number of the operation; empty: all was right
  std::uint64_t operations = 0;
  std::uint64_t ooms = 0;
  std::uint64_t waits = 0;  // for the device
  std::uint64_t faults = 0;
  std::uint64_t released = 0;  // requests met by giving cached memory back to the driver first
  std::uint64_t spared = 0;    // blocks freed by the out-of-memory callback
  std::uint64_t borrowed = 0;  // requests met out of another stream's free run, where it lies
};

// In this process: for pasted programs, where a debugger is wanted.
Outcome run_program(const Conditions& conditions, const Program& program);
// In a child.
Outcome run_program_apart(const Conditions& conditions, const Program& program);

// Drops operations for as long as the program still fails.
Program shrink(const Conditions& conditions, Program program);

// Programs of `length` operations from seeds first_seed, +1, ... until `operations` have run.
struct Batch {
  Outcome sum;  // of all of them
  std::uint64_t last_seed = 0;
  std::string failure;  // of the first that failed: the report, and what it was shrunk to as source. Empty: none did
};
Batch run_random_programs(const Conditions& conditions, std::uint64_t first_seed, std::uint64_t operations,
                          std::size_t length);

// The conditions under which random programs are run, in the tests for a while and in the long run until their share of
// it is done.
struct NamedConditions {
  const char* name;
  Conditions conditions;
  std::size_t length = 2000;          // of a program
  std::uint64_t test_operations = 0;  // in the tests
  std::uint64_t share = 0;            // of the long run on its backend, in thousandths
};
const std::vector<NamedConditions>& named_conditions();

}  // namespace gmlake::test
