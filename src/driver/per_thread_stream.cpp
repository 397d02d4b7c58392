#include "driver/per_thread_stream.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <new>

namespace gmlake::driver {

// Holds the number of a thread. There are as many as threads ever lived at one time, in a list that only grows: so a
// thread gets one with no lock, and a child of a fork finds nothing half done.
struct ThreadSlot {
  std::atomic<std::uint64_t> number{0};  // or kFree, or kTaken
  std::atomic<std::uint64_t> thread{0};  // its ids as the system has them; 0: none
  ThreadSlot* next = nullptr;
};

namespace {

constexpr std::uint64_t kFree = 0;
constexpr std::uint64_t kTaken = 1;  // by a thread that is about to write its number

// In the numbers of threads for which there was no host memory for a slot: nobody learns when they end.
constexpr std::uint64_t kUnlistedBit = kThreadStreamBit >> 1;

constinit std::atomic<ThreadSlot*> slots{nullptr};
constinit std::atomic<std::uint64_t> numbered{0};
constinit thread_local std::uint64_t own = 0;
constinit thread_local std::uint64_t current = 0;  // or of whom the thread passes for

std::uint64_t ids_of_caller() noexcept {
  return static_cast<std::uint64_t>(::getpid()) << 32 | static_cast<std::uint32_t>(::syscall(SYS_gettid));
}

// In the child of a fork the threads of the parent say nothing by their ids, but that one of them goes on in the child
// with its number.
bool is_gone(std::uint64_t thread) noexcept {
  const pid_t process = ::getpid();
  return thread >> 32 == static_cast<std::uint64_t>(process) &&
         ::syscall(SYS_tgkill, process, static_cast<pid_t>(thread), 0) != 0 && errno == ESRCH;
}

// A slot that is free, or whose thread had the caller's ids and is gone therefore.
ThreadSlot* take_slot(std::uint64_t thread) noexcept {
  for (ThreadSlot* slot = slots.load(); slot != nullptr; slot = slot->next) {
    std::uint64_t number = slot->number;
    const bool free = number == kFree || (number != kTaken && thread != 0 && slot->thread == thread);
    if (free && slot->number.compare_exchange_strong(number, kTaken)) return slot;
  }
  auto* slot = new (std::nothrow) ThreadSlot;
  if (slot == nullptr) return nullptr;
  slot->number = kTaken;
  slot->next = slots.load();
  while (!slots.compare_exchange_weak(slot->next, slot)) {
  }
  return slot;
}

struct Entry {
  std::uint64_t number;
  ThreadSlot* slot;
};

Entry enter(std::uint64_t thread) noexcept {
  const std::uint64_t number = kThreadStreamBit + numbered.fetch_add(1);
  ThreadSlot* const slot = take_slot(thread);
  if (slot == nullptr) return {number | kUnlistedBit, nullptr};
  slot->thread = thread;
  slot->number = number;
  return {number, slot};
}

}  // namespace

std::uint64_t thread_stream() noexcept {
  if (current == 0) current = own = enter(ids_of_caller()).number;
  return current;
}

bool is_of_another_thread(std::uint64_t stream) noexcept { return is_thread_stream(stream) && stream != current; }

std::uint64_t handle_of_stream(std::uint64_t stream) noexcept {
  if (!is_thread_stream(stream)) return stream;
  return stream == current ? kPerThreadStream : kLegacyStream;
}

std::uint64_t numbered_threads() noexcept { return numbered.load(); }

LivingThreads::LivingThreads() {
  for (ThreadSlot* slot = slots.load(); slot != nullptr;) {
    std::uint64_t number = slot->number;
    const std::uint64_t thread = slot->thread;
    if (slot->number != number) continue;  // it is another's now: look again
    if (number != kFree && number != kTaken) {
      if (thread != 0 && is_gone(thread)) {
        slot->number.compare_exchange_strong(number, kFree);
      } else {
        numbers_.push_back(number);
      }
    }
    slot = slot->next;
  }
  std::sort(numbers_.begin(), numbers_.end());
}

bool LivingThreads::lack(std::uint64_t stream) const {
  return is_thread_stream(stream) && (stream & kUnlistedBit) == 0 &&
         !std::binary_search(numbers_.begin(), numbers_.end(), stream);
}

ThreadStream::ThreadStream() noexcept {
  const Entry entry = enter(0);
  number_ = entry.number;
  slot_ = entry.slot;
}

ThreadStream::~ThreadStream() {
  if (slot_ != nullptr) slot_->number = kFree;
}

void ThreadStream::impersonate(const ThreadStream* thread) noexcept {
  current = thread == nullptr ? own : thread->number();
}

}  // namespace gmlake::driver
