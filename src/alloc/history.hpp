// The last events of a device, in a ring that an event enters by one store of a record: the oldest make way, so that
// nobody who is late holds up an allocation.
//
// Events of different shards are added at the same time, under a lock of its own that is held for that store: each
// block's come in the order in which they happened. keep() wants all of the device's `state` lock, and on() a part of
// it.
#pragma once

#include <algorithm>
#include <ctime>
#include <utility>
#include <vector>

#include "base/mutex.hpp"
#include "gmlake/history.hpp"

namespace gmlake::alloc {

class History {
 public:
  using Action = HistoryEvent::Action;

  static constexpr std::size_t kMostAtOnce = 4096;  // events read under one hold of the lock

  // Keeps as many events as `ring` has records, a power of two, or none where it has none. Events kept so far are gone;
  // `ring` has their records then.
  void keep(std::vector<HistoryEvent>& ring) {
    const MutexLock lock(mutex_);
    ring_.swap(ring);
    on_ = !ring_.empty();
    first_ = next_;
  }
  bool on() const { return on_; }

  void add(Action action, std::uint64_t address, std::uint64_t bytes, std::uint64_t stream) {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME_COARSE, &now);  // a few nanoseconds: it reads what the kernel wrote at its last tick
    const auto time_us =
        static_cast<std::uint64_t>(now.tv_sec) * 1'000'000 + static_cast<std::uint64_t>(now.tv_nsec) / 1000;
    const MutexLock lock(mutex_);
    ring_[next_ & (ring_.size() - 1)] = {address, bytes, stream, time_us, action};
    ++next_;
  }

  std::uint64_t next() const {
    const MutexLock lock(mutex_);
    return next_;
  }
  // Up to as many events as `storage` has room for, from number `from` on.
  HistoryPart read(std::uint64_t from, std::vector<HistoryEvent> storage) const {
    const MutexLock lock(mutex_);
    const std::uint64_t oldest = std::max(first_, next_ - std::min<std::uint64_t>(next_, ring_.size()));
    HistoryPart part{std::clamp(from, oldest, next_), next_, std::move(storage)};
    for (std::uint64_t i = part.first; i < next_ && part.events.size() < part.events.capacity(); ++i) {
      part.events.push_back(ring_[i & (ring_.size() - 1)]);
    }
    return part;
  }

 private:
  bool on_ = false;  // of its own, since the hot path asks
  mutable Mutex mutex_;
  std::vector<HistoryEvent> ring_ GMLAKE_GUARDED_BY(mutex_);
  std::uint64_t first_ GMLAKE_GUARDED_BY(mutex_) = 0;  // of those kept
  std::uint64_t next_ GMLAKE_GUARDED_BY(mutex_) = 0;
};

}  // namespace gmlake::alloc
