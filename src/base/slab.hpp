// A slab: objects of one type at stable addresses, taken from chunks and put back on a free list. Objects are metadata
// of live allocations, so they come and go in millions: no heap call on the hot path once a chunk is there.
// Not thread-safe: the lock of whoever owns the slab covers it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <vector>

#include "base/check.hpp"

namespace gmlake {

template <class T, std::size_t kChunk = 256>
class Slab {
  static_assert(std::is_trivially_destructible_v<T>, "chunks are dropped without destroying what is in them");

 public:
  Slab() = default;
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;

  // Makes sure that the next `count` calls of take() touch no heap. Throws std::bad_alloc with nothing changed.
  void reserve(std::size_t count) {
    while (free_count_ < count) grow();
  }

  bool has_one() const { return free_ != nullptr; }

  // A value-initialized object. Throws std::bad_alloc, with nothing changed, where a new chunk cannot be had.
  T* take() {
    if (free_ == nullptr) grow();
    Node* node = free_;
    free_ = node->next;
    --free_count_;
    return ::new (static_cast<void*>(node)) T();
  }

  void put(T* object) {
    GMLAKE_DCHECK(live_count() > 0);
    Node* node = ::new (static_cast<void*>(object)) Node{free_};
    free_ = node;
    ++free_count_;
  }

  // `count` objects that were taken here are from now on the other's, which lives as long, and go back to that one.
  void hand_over(Slab& other, std::size_t count) {
    cells_ -= count;
    other.cells_ += count;
  }

  // Whether an address that take() once returned holds an object now, that one or a later one: for those who kept a
  // pointer and could not be told. The second word of a T must never be kDead.
  static bool is_live(const T* object) {
    static_assert(sizeof(T) >= sizeof(Node));
    std::uint64_t word = 0;
    std::memcpy(&word, reinterpret_cast<const std::byte*>(object) + offsetof(Node, dead), sizeof(word));
    return word != kDead;
  }

  std::size_t live_count() const { return cells_ - free_count_; }
  std::size_t bytes() const { return chunks_.size() * kChunk * sizeof(Cell); }

 private:
  static constexpr std::uint64_t kDead = 0xdeaddeaddeaddeadu;  // odd: no pointer, and no multiple of anything even
  struct Node {
    Node* next = nullptr;
    std::uint64_t dead = kDead;
  };
  // One alignas: of two, g++ 12 takes the last in a template, not the stricter.
  union alignas(alignof(T) > alignof(Node) ? alignof(T) : alignof(Node)) Cell {
    Cell() : node() {}
    Node node;
    std::byte storage[sizeof(T)];
  };

  void grow() {
    chunks_.reserve(chunks_.size() + 1);
    chunks_.push_back(std::unique_ptr<Cell[]>(new Cell[kChunk]));
    Cell* cells = chunks_.back().get();
    for (std::size_t i = kChunk; i-- > 0;) {
      cells[i].node.next = free_;
      free_ = &cells[i].node;
    }
    free_count_ += kChunk;
    cells_ += kChunk;
  }

  Node* free_ = nullptr;
  std::size_t free_count_ = 0;
  std::size_t cells_ = 0;  // free ones, and those that come back here
  std::vector<std::unique_ptr<Cell[]>> chunks_;
};

}  // namespace gmlake
