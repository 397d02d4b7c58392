#include "alloc/oom_callbacks.hpp"

#include <utility>

namespace gmlake::alloc {

CallbackId OomCallbacks::insert(Entry entry) {
  Entries one;
  one.push_back(std::move(entry));  // host memory is had before the lock
  const MutexLock lock(mutex_);
  one.front().id = CallbackId{++last_id_};
  entries_.splice(entries_.end(), one);
  return entries_.back().id;
}

CallbackId OomCallbacks::add_release(ReleaseCallback callback) {
  Entry entry;
  entry.release = std::move(callback);
  return insert(std::move(entry));
}

CallbackId OomCallbacks::add_observer(OutOfMemoryObserver observer) {
  Entry entry;
  entry.observe = std::move(observer);
  return insert(std::move(entry));
}

bool OomCallbacks::inside() const {
  for (const Call* call = calls_; call != nullptr; call = call->next) {
    if (call->thread == std::this_thread::get_id()) return true;
  }
  return false;
}

bool OomCallbacks::remove(CallbackId id) {
  Entries gone;  // ended after the lock: what a callback owns may do anything as it goes
  const MutexLock lock(mutex_);
  for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
    if (entry->id != id || entry->removed) continue;
    entry->removed = true;
    if (entry->calls > 0) {
      if (inside()) return true;  // the last call in progress ends it
      entry->awaited = true;
      while (entry->calls > 0) left_.wait(mutex_);
    }
    gone.splice(gone.end(), entries_, entry);
    return true;
  }
  return false;
}

template <class What>
bool OomCallbacks::for_each(What&& what) noexcept {
  Entries gone;
  Call round{std::this_thread::get_id(), nullptr};
  const MutexLock lock(mutex_);
  if (inside() || call_count_ >= kMaxCallbackCalls) return false;
  round.next = std::exchange(calls_, &round);
  ++call_count_;
  const std::uint64_t last = last_id_;  // one that is added meanwhile is not of this round
  for (auto entry = entries_.begin(); entry != entries_.end() && static_cast<std::uint64_t>(entry->id) <= last;) {
    if (entry->removed) {
      ++entry;
      continue;
    }
    ++entry->calls;
    mutex_.unlock();
    what(*entry);
    mutex_.lock();
    const auto called = entry++;
    if (--called->calls == 0 && called->removed) {
      if (!called->awaited) gone.splice(gone.end(), entries_, called);
      left_.notify_all();
    }
  }
  Call** link = &calls_;
  while (*link != &round) link = &(*link)->next;
  *link = round.next;
  --call_count_;
  return true;
}

OomCallbacks::Answer OomCallbacks::ask(const OutOfMemoryReport& report) noexcept {
  Answer answer = Answer::nobody;
  for_each([&](const Entry& entry) {
    if (!entry.release) return;
    if (answer == Answer::nobody) answer = Answer::no;
    try {
      if (entry.release(report)) answer = Answer::yes;
    } catch (...) {  // as false
    }
  });
  return answer;
}

void OomCallbacks::tell(const OutOfMemoryReport& report) noexcept {
  for_each([&](const Entry& entry) {
    if (!entry.observe) return;
    try {
      entry.observe(report);
    } catch (...) {  // an observer has no say
    }
  });
}

}  // namespace gmlake::alloc
