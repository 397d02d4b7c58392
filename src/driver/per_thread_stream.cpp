#include "driver/per_thread_stream.hpp"

#include <algorithm>
#include <atomic>
#include <new>

namespace gmlake::driver {

// Holds the number of a thread that lives. As many as threads ever lived at one time, in a list that only grows: so a
// thread comes and goes with no lock, and a child of a fork finds nothing half done.
struct ThreadSlot {
  std::atomic<std::uint64_t> number{0};  // 0: for another thread to take
  ThreadSlot* next = nullptr;
};

namespace {

constinit std::atomic<ThreadSlot*> slots{nullptr};
constinit std::atomic<std::uint64_t> next_number{kThreadStreamBit};
constinit std::atomic<std::uint64_t> ended{0};
constinit thread_local std::uint64_t current = 0;  // outlives the thread's other objects, which may still free memory

ThreadSlot* take_slot(std::uint64_t number) noexcept {
  for (ThreadSlot* slot = slots.load(std::memory_order_acquire); slot != nullptr; slot = slot->next) {
    std::uint64_t none = 0;
    if (slot->number.compare_exchange_strong(none, number, std::memory_order_relaxed)) return slot;
  }
  auto* slot = new (std::nothrow) ThreadSlot;
  if (slot == nullptr) return nullptr;
  slot->number.store(number, std::memory_order_relaxed);
  slot->next = slots.load(std::memory_order_relaxed);
  while (!slots.compare_exchange_weak(slot->next, slot, std::memory_order_release, std::memory_order_relaxed)) {
  }
  return slot;
}

}  // namespace

ThreadStream::ThreadStream() noexcept
    : number_(next_number.fetch_add(1, std::memory_order_relaxed)), slot_(take_slot(number_)) {}

ThreadStream::~ThreadStream() {
  if (slot_ != nullptr) slot_->number.store(0, std::memory_order_relaxed);
  ended.fetch_add(1, std::memory_order_release);
}

void ThreadStream::impersonate(const ThreadStream* thread) noexcept {
  current = thread == nullptr ? 0 : thread->number();
}

std::uint64_t thread_stream() noexcept {
  if (current == 0) {
    const thread_local ThreadStream own;
    current = own.number();
  }
  return current;
}

bool is_of_another_thread(std::uint64_t stream) noexcept { return is_thread_stream(stream) && stream != current; }

std::uint64_t handle_of_stream(std::uint64_t stream) noexcept {
  if (!is_thread_stream(stream)) return stream;
  return stream == current ? kPerThreadStream : kLegacyStream;
}

std::uint64_t ended_threads() noexcept { return ended.load(std::memory_order_acquire); }

std::vector<std::uint64_t> living_thread_streams() {
  std::vector<std::uint64_t> living;
  for (const ThreadSlot* slot = slots.load(std::memory_order_acquire); slot != nullptr; slot = slot->next) {
    if (const std::uint64_t number = slot->number.load(std::memory_order_relaxed)) living.push_back(number);
  }
  std::sort(living.begin(), living.end());
  return living;
}

}  // namespace gmlake::driver
