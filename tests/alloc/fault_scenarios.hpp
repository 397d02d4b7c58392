// The scenarios of the fault sweep: each reaches one part of the allocator. A step that fails leaves its block null,
// and the steps after it go on with what there is.
#pragma once

#include <functional>
#include <map>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "support/contents.hpp"
#include "support/machine.hpp"

namespace gmlake::test {

// A machine of 96 granules, on which a scenario plays its steps.
class Stage {
 public:
  static constexpr std::uint64_t kGranules = 96;

  explicit Stage(Machine& machine, std::uint64_t granule, bool contents)
      : machine_(machine), granule_(granule), contents_(contents) {}

  std::uint64_t granule() const { return granule_; }
  driver::StreamSimulator& streams() { return machine_.streams(); }
  Allocator& allocator() { return machine_.allocator(); }

  // `size` in tenths of a granule.
  void allocate(int block, std::uint64_t tenths, std::uint64_t stream = 0);
  // Memory has to run out, unless blocks are missing that failed.
  void expect_no_room_for(std::uint64_t granules);
  void free(int block, std::uint64_t stream = 0);
  void free_all();
  void use_on(int block, std::uint64_t stream);  // work, and record_stream
  void trim();
  void hold(std::uint64_t stream) { streams().hold({0, stream}); }

  // After each step; so the sweep heals what has struck, and recounts.
  std::function<void()> after_step = [] {};
  // Right around each call of the allocator, with nothing of the stage's own in between.
  std::function<void()> before_call = [] {};
  std::function<void()> after_call = [] {};
  // Frees and record_stream may fail too: they do for want of host memory alone. The block stays as it was then.
  bool host_memory_fails = false;
  // How many steps failed, and what was wrong with one that did not.
  int failures = 0;

 private:
  struct Block {
    driver::Address address = 0;
    std::uint64_t bytes = 0;
    std::uint64_t stream = 0;
  };

  void work(int block, std::uint64_t stream, bool first);
  void clean(const Error& error);
  void expect_done(const Status& status);
  template <class Call>
  auto call(Call&& of_the_allocator) {
    before_call();
    auto result = of_the_allocator();
    after_call();
    return result;
  }

  Machine& machine_;
  std::uint64_t granule_;
  bool contents_;
  std::map<int, Block> blocks_;
};

struct Scenario {
  const char* name;
  std::function<void(Stage&)> play;
  bool (*reached)(const DeviceStats& stats);  // what it is there for, after an undisturbed run
};

inline void PrintTo(const Scenario& scenario, std::ostream* out) { *out << scenario.name; }

std::span<const Scenario> fault_scenarios();

}  // namespace gmlake::test
