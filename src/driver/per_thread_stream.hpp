// The per-thread default streams, by number.
//
// CU_STREAM_PER_THREAD names another stream on every thread, and no handle names that of another thread. Books kept by
// such a handle would take the streams of all threads for one. So the library calls each by a number of its own: the
// public edge turns the handle into the number of the calling thread's stream, all books go by it, and a backend turns
// it into a handle that means the right thing on the thread that makes the call. Where that is not the stream's own
// thread, the handle is that of the legacy default stream: what is recorded there comes after everything that all
// blocking streams of the device were given before, and the per-thread ones are blocking streams (CUDA Driver API,
// "Stream synchronization behavior").
//
// Any thread may call anything at any time, in the child of a fork too: there is no lock. Nothing runs when a thread
// ends: who wants to know looks.
#pragma once

#include <cstdint>
#include <vector>

namespace gmlake::driver {

inline constexpr std::uint64_t kLegacyStream = 1;     // CU_STREAM_LEGACY
inline constexpr std::uint64_t kPerThreadStream = 2;  // CU_STREAM_PER_THREAD

// Numbers have this bit as their highest. It is above every address that a process is given unasked, so no other handle
// is a number; and numbers stay exact where all there is is a double, as in most that read JSON.
inline constexpr std::uint64_t kThreadStreamBit = std::uint64_t{1} << 52;

constexpr bool is_thread_stream(std::uint64_t stream) {
  return stream >= kThreadStreamBit && stream < 2 * kThreadStreamBit;
}

// The number of the calling thread's stream, on whichever device. Another thread never gets it, not even later.
std::uint64_t thread_stream() noexcept;

// A number whose stream is another thread's, or was.
bool is_of_another_thread(std::uint64_t stream) noexcept;

// What the caller of the library means by a handle.
inline std::uint64_t stream_meant_by(std::uint64_t handle) noexcept {
  return handle == kPerThreadStream ? thread_stream() : handle;
}

// The handle that the calling thread can give the driver for a stream; of another thread's, the legacy one. To record
// an event, to clear memory or to ask for a capture, not to make the stream wait.
std::uint64_t handle_of_stream(std::uint64_t stream) noexcept;

// How many threads have a number or had one. Where it is what it was, so are those that have ended: nobody needs to
// look.
std::uint64_t numbered_threads() noexcept;

// The numbers of threads that are there, ascending. A thread is there as long as the system knows it: what it destroys
// last may still enqueue work. One whose id is a younger thread's by now counts as there until that one has a number or
// ends.
class LivingThreads {
 public:
  LivingThreads();  // one system call for each of them; throws std::bad_alloc

  // Whether that number, given out before the look, is that of a thread which has ended.
  bool lack(std::uint64_t stream) const;

 private:
  std::vector<std::uint64_t> numbers_;
};

struct ThreadSlot;

// A thread by its number alone, which ends with this object: tests have one thread pass for several.
class ThreadStream {
 public:
  ThreadStream() noexcept;
  ~ThreadStream();
  ThreadStream(const ThreadStream&) = delete;
  ThreadStream& operator=(const ThreadStream&) = delete;

  std::uint64_t number() const { return number_; }
  // The calling thread passes for this one from now on; for itself again after a call with null.
  static void impersonate(const ThreadStream* thread) noexcept;

 private:
  std::uint64_t number_;
  ThreadSlot* slot_;
};

}  // namespace gmlake::driver
