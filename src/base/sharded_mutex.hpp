// Several mutexes, each for a share of some books, that are also one mutex for all of these. Whoever needs one share
// alone locks its mutex, and threads on different shares share no cache line. Whoever needs more locks the whole, which
// is each of them in turn. As long as there is one share, the whole costs what a Mutex does.
//
// To clang's analysis the whole is one capability and each share's mutex another. Who holds the whole holds them all:
// the owner of the shares says so with a function that asserts it.
#pragma once

#include <array>
#include <cstddef>

#include "base/check.hpp"
#include "base/mutex.hpp"

namespace gmlake {

inline constexpr std::size_t kCacheLine = 64;

class GMLAKE_CAPABILITY("mutex") ShardedMutex {
 public:
  static constexpr std::size_t kMost = 8;

  // The mutexes live as long as this.
  explicit ShardedMutex(Mutex& first) : shares_{&first} {}
  ShardedMutex(const ShardedMutex&) = delete;
  ShardedMutex& operator=(const ShardedMutex&) = delete;

  // The analysis cannot follow a loop over locks, here and below.
  void lock() GMLAKE_ACQUIRE() GMLAKE_NO_THREAD_SAFETY_ANALYSIS {
    shares_[0]->lock();  // nobody changes count_ from here on
    for (std::size_t i = 1; i < count_; ++i) shares_[i]->lock();
  }
  void unlock() GMLAKE_RELEASE() GMLAKE_NO_THREAD_SAFETY_ANALYSIS {
    for (std::size_t i = count_; i-- > 0;) shares_[i]->unlock();
  }

  // One more share, whose mutex nobody has seen yet: it is held with the others from now on.
  void add(Mutex& mutex) GMLAKE_REQUIRES(this) GMLAKE_NO_THREAD_SAFETY_ANALYSIS {
    GMLAKE_CHECK(count_ < kMost);
    mutex.lock();
    shares_[count_++] = &mutex;
  }

 private:
  std::array<Mutex*, kMost> shares_;
  std::size_t count_ = 1;  // read by whoever holds the first, written by whoever holds all
};

}  // namespace gmlake
