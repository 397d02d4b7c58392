// The life of the process: whether a thing is still used in the process that made it, and before that process exits.
//
// One word answers both, so that a hot path pays one load and one branch for it. A child of a fork has a new epoch:
// what was made before belongs to the parent, whose locks another thread may have held at the fork, and whose memory
// and driver are not the child's to touch. An exiting process has one too: the driver may be gone at any time from then
// on. A fork is noticed where it goes through the C library: a child made by the bare system call is not told apart,
// nor is one of vfork, which shares the parent's memory and may not call anything here. Any thread may call these at
// any time.
#pragma once

#include <atomic>
#include <cstdint>

#include "gmlake/result.hpp"

namespace gmlake::process {

namespace detail {
constexpr std::uint64_t kExiting = 1;               // the lowest bit
constexpr std::uint64_t kFork = 2;                  // the others count forks, from the first process down to this one
extern constinit std::atomic<std::uint64_t> epoch;  // 0 before anything runs: there is no use before this is there
}  // namespace detail

// From now on an exit is noticed, from the point in the order of exit handlers where this was first called: handlers
// and static objects that came later still find everything working. Forks are noticed from the start. Errors: shut_down
// (it exits already), out_of_memory (no room for the handlers).
Status watch();

inline bool exiting() { return (detail::epoch.load(std::memory_order_relaxed) & detail::kExiting) != 0; }

// The process in which it was constructed, as long as that does not exit.
class Origin {
 public:
  Origin() : epoch_(detail::epoch.load(std::memory_order_relaxed) & ~detail::kExiting) {}

  bool intact() const { return detail::epoch.load(std::memory_order_relaxed) == epoch_; }
  bool forked() const { return (detail::epoch.load(std::memory_order_relaxed) & ~detail::kExiting) != epoch_; }
  // Why it is not intact: forked or shut_down.
  ErrorCode lapse() const { return forked() ? ErrorCode::forked : ErrorCode::shut_down; }

 private:
  std::uint64_t epoch_;
};

}  // namespace gmlake::process
