// A counter with one writer at a time, the holder of some lock, that anyone may read without it: a plain load and store
// is an update then, and costs no locked instruction.
#pragma once

#include <atomic>
#include <cstdint>

namespace gmlake {

// Subtracts where `amount` is a negated count: unsigned arithmetic wraps.
inline void add(std::atomic<std::uint64_t>& counter, std::uint64_t amount) {
  counter.store(counter.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
}

}  // namespace gmlake
