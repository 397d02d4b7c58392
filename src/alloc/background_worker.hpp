// Work done between requests, so that requests need not do it: a thread that calls a step until nothing is left.
//
// The thread is a shell with no policy of its own; what a step does is its owner's (alloc/device_background.cpp). It is
// started by the first wake(), sleeps on a condition while there is nothing to do, and looks again by itself only while
// something waits for the device. Where nobody may start threads (the option background_worker is off, or the system
// refuses one), the same steps are there to be called by hand.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>

#include "base/mutex.hpp"
#include "base/process.hpp"

namespace gmlake::alloc {

class BackgroundWorker {
 public:
  enum class Next : std::uint8_t {
    again,  // more can be done at once
    later,  // something waits for the device
    idle,   // nothing to do before the next wake()
  };
  enum class Mode : std::uint8_t { thread, by_hand };

  // `step` is called with no lock of this class held, by the thread or by those who call step(); it does not throw.
  BackgroundWorker(std::function<Next()> step, Mode mode);  // throws std::bad_alloc
  ~BackgroundWorker() { stop(); }
  BackgroundWorker(const BackgroundWorker&) = delete;
  BackgroundWorker& operator=(const BackgroundWorker&) = delete;

  // There is something to do. Any thread, holding no lock of the step's. An atomic exchange where the worker is awake
  // anyway; else a lock and a signal; the first call starts the thread.
  void wake();

  // Does one step on the calling thread if there has been a wake() since the last that had nothing left. True: more can
  // be done at once. Any thread. Nothing where the thread does them.
  bool step();

  // Ends the thread after the step it is in; wake() does nothing from then on. In the child of a fork, where there is
  // no such thread, it only forgets it.
  void stop();

 private:
  // What the thread sleeps on. By itself, since in the child of a fork it can be neither joined nor destroyed.
  struct Thread {
    Mutex mutex;
    std::condition_variable_any changed;
    bool stopping GMLAKE_GUARDED_BY(mutex) = false;
    bool started GMLAKE_GUARDED_BY(mutex) = false;
    std::thread thread;  // set once under the mutex; joined once `stopping` is set
  };

  void run();
  void start();

  const std::function<Next()> step_;
  const Mode mode_;
  const process::Origin origin_;
  std::atomic<bool> awake_{false};  // set by whoever has something to do, cleared before the step that looks
  std::unique_ptr<Thread> thread_;
};

}  // namespace gmlake::alloc
