// An array that only grows, and whose elements never move: one thread adds elements while others read those that there
// are, with no lock. Chunks double, so that a handful of pointers leads to any element.
//
// Adding wants a lock of the caller's. Whoever reads an element has been told of its index by the thread that added it,
// through some lock or atomic; what elements need beyond that, such as being atomic, is their own business.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <memory>

#include "base/check.hpp"

namespace gmlake {

template <class T, std::size_t kFirstChunk = 64>
class GrowingArray {
  static_assert(std::has_single_bit(kFirstChunk));

 public:
  GrowingArray() = default;
  ~GrowingArray() {
    for (std::atomic<T*>& chunk : chunks_) delete[] chunk.load(std::memory_order_relaxed);
  }
  GrowingArray(const GrowingArray&) = delete;
  GrowingArray& operator=(const GrowingArray&) = delete;

  // Makes room for elements 0 to `count` - 1; new ones are value-initialized. Throws std::bad_alloc with nothing lost.
  void grow_to(std::size_t count) {
    for (std::size_t chunk = 0; begin_of(chunk) < count; ++chunk) {
      if (chunks_[chunk].load(std::memory_order_relaxed) != nullptr) continue;
      chunks_[chunk].store(new T[kFirstChunk << chunk](), std::memory_order_release);
    }
  }

  T& operator[](std::size_t i) const {
    const auto chunk = static_cast<std::size_t>(std::bit_width(i / kFirstChunk + 1)) - 1;
    T* elements = chunks_[chunk].load(std::memory_order_acquire);
    GMLAKE_DCHECK(elements != nullptr);
    return elements[i - begin_of(chunk)];
  }

 private:
  static std::size_t begin_of(std::size_t chunk) { return kFirstChunk * ((std::size_t{1} << chunk) - 1); }

  std::array<std::atomic<T*>, 32> chunks_{};
};

}  // namespace gmlake
