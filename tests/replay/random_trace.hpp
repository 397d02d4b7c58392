// Valid traces out of random numbers, for properties that hold of every trace. rapidcheck draws the numbers and shrinks
// them; its seed is fixed unless RC_PARAMS says otherwise, and it prints the one that fails.
#pragma once

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>
#include <stdlib.h>

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "replay/trace.hpp"

namespace gmlake::replay {

inline const int fixed_rapidcheck_seed = ::setenv("RC_PARAMS", "seed=20240817 max_success=300 max_size=200", 0);

// Each number is an event, or nothing where there is no block it could be about. Streams 2 and 3 are held.
inline DeviceTrace trace_of_numbers(const std::vector<std::uint32_t>& numbers) {
  DeviceTrace trace;
  trace.streams = {0, 0x55d0c0ffee00, ~std::uint64_t{0}, ~std::uint64_t{0} - 1};
  trace.held_streams = {false, false, true, true};
  std::vector<std::uint32_t> live;
  std::vector<std::uint16_t> stream_of;
  std::vector<std::uint64_t> uses(4);
  for (const std::uint32_t number : numbers) {
    const std::uint32_t choice = number % 8, rest = number / 8;
    const auto stream = static_cast<std::uint16_t>(rest % 4);
    const auto on_host_stream = static_cast<std::uint16_t>(rest % 2);
    if (choice < 3) {
      trace.events.push_back({Op::alloc, 0, on_host_stream, trace.block_count, std::uint64_t{rest} << (rest % 13)});
      live.push_back(trace.block_count++);
      stream_of.push_back(on_host_stream);
    } else if (choice < 5 && !live.empty()) {
      std::swap(live[rest % live.size()], live.back());
      trace.events.push_back({Op::free, 0, stream_of[live.back()], live.back(), 0});
      live.pop_back();
    } else if (choice == 5 && !live.empty()) {
      trace.events.push_back({Op::record_stream, 0, stream, live[rest % live.size()], 0});
      ++uses[stream];
    } else if (choice == 6 && stream >= 2 && uses[stream] > 0) {
      const std::uint64_t completed = 1 + rest % uses[stream];
      trace.events.push_back({Op::advance, 0, stream, 0, completed});
      uses[stream] -= completed;
    } else if (choice == 7 && rest % 16 == 0) {
      trace.events.push_back({Op::trim, 0, 0, 0, 0});
    }
    if (rest % 32 == 7 && !trace.events.empty()) {
      const auto event = static_cast<std::uint32_t>(trace.events.size() - 1);
      trace.recorded_segments.push_back({event, on_host_stream, std::uint64_t{rest} << 21, std::uint64_t{2} << 20});
      trace.recorded_peak_reserved_bytes += std::uint64_t{2} << 20;
    }
  }
  return trace;
}

inline std::uint64_t peak_allocated_bytes(const DeviceTrace& trace) {
  std::vector<std::uint64_t> bytes(trace.block_count);
  std::uint64_t live = 0, peak = 0;
  for (const Event& event : trace.events) {
    if (event.op == Op::alloc) live += bytes[event.id] = (event.bytes + 511) / 512 * 512;
    if (event.op == Op::free) live -= bytes[event.id];
    peak = live > peak ? live : peak;
  }
  return peak;
}

// The allocs and frees alone.
inline std::vector<Event> allocs_and_frees(const DeviceTrace& trace) {
  std::vector<Event> kept;
  for (const Event& event : trace.events) {
    if (event.op == Op::alloc || event.op == Op::free) kept.push_back(event);
  }
  return kept;
}

}  // namespace gmlake::replay
