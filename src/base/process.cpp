#include "base/process.hpp"

#include <pthread.h>

#include <cstdlib>

namespace gmlake::process {

namespace detail {
constinit std::atomic<std::uint64_t> epoch{0};
}  // namespace detail

namespace {

constinit std::atomic<bool> forks_watched{false};
constinit std::atomic<bool> exit_watched{false};

void in_child() { detail::epoch.fetch_add(detail::kFork, std::memory_order_relaxed); }

void at_exit() { detail::epoch.fetch_or(detail::kExiting, std::memory_order_relaxed); }

// Before any other code of the program or of this library runs, so that no thread and no fork can come between.
[[gnu::constructor(101)]] void watch_forks() { forks_watched = pthread_atfork(nullptr, nullptr, in_child) == 0; }

}  // namespace

Status watch() {
  if (exiting()) return Error{ErrorCode::shut_down};
  if (!forks_watched) return Error{ErrorCode::out_of_memory};
  if (exit_watched.exchange(true)) return {};
  if (std::atexit(at_exit) == 0 && std::at_quick_exit(at_exit) == 0) return {};
  exit_watched = false;
  return Error{ErrorCode::out_of_memory};
}

}  // namespace gmlake::process
