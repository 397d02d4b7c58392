#include "support/failing_new.hpp"

#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

struct Countdown {
  std::uint64_t left = 0;  // allocations up to the one that fails; 0: none fails
  bool sticky = false;
  bool reached = false;
};
thread_local Countdown countdown;
thread_local bool counts = true;
thread_local std::int64_t held = 0;

void* allocate(std::size_t bytes, std::size_t alignment = alignof(std::max_align_t)) {
  if (countdown.left > 0 && --countdown.left == 0) {
    countdown.reached = true;
    countdown.left = countdown.sticky ? 1 : 0;
    throw std::bad_alloc();
  }
  void* memory = alignment > alignof(std::max_align_t)
                     ? std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment)
                     : std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) throw std::bad_alloc();
  held += counts ? 1 : 0;
  return memory;
}

void deallocate(void* memory) noexcept {
  held -= counts && memory != nullptr ? 1 : 0;
  std::free(memory);
}

// The nothrow forms, which std::stable_sort takes its scratch memory from.
void* allocate_or_null(std::size_t bytes) noexcept {
  try {
    return allocate(bytes);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

}  // namespace

namespace gmlake::testing {

FailingNew::FailingNew(std::uint64_t nth, bool sticky) { countdown = {nth, sticky, false}; }
FailingNew::~FailingNew() { countdown = {}; }
bool FailingNew::reached() const { return countdown.reached; }
std::uint64_t FailingNew::left() const { return countdown.reached ? 0 : countdown.left; }

std::int64_t held_allocations() { return held; }

NoFailingNew::NoFailingNew() : left_(countdown.left), counted_(counts) {
  countdown.left = 0;
  counts = false;
}
NoFailingNew::~NoFailingNew() {
  countdown.left = left_;
  counts = counted_;
}

}  // namespace gmlake::testing

// Of the aligned forms those that the code under test uses.
void* operator new(std::size_t bytes) { return allocate(bytes); }
void* operator new[](std::size_t bytes) { return allocate(bytes); }
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return allocate_or_null(bytes); }
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept { return allocate_or_null(bytes); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { deallocate(memory); }
void operator delete[](void* memory) noexcept { deallocate(memory); }
void operator delete(void* memory, std::size_t) noexcept { deallocate(memory); }
void operator delete[](void* memory, std::size_t) noexcept { deallocate(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { deallocate(memory); }
void operator delete[](void* memory, const std::nothrow_t&) noexcept { deallocate(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { deallocate(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { deallocate(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { deallocate(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { deallocate(memory); }
