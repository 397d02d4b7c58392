#include "alloc/background_worker.hpp"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <new>
#include <system_error>

namespace gmlake::alloc {
namespace {

// How long to leave the device alone before asking it again: twice as long each time that nothing has passed. Long
// enough to cost under a percent of a core, short enough that memory is back within a step of a training job. The
// shortest comes also between a step that left nothing and the next: what is freed has seldom been passed at once, and
// of those that free all the time what other streams use, only one a millisecond has to wake the thread.
constexpr std::chrono::milliseconds kShortestPause{1};
constexpr std::chrono::milliseconds kLongestPause{64};

// Signals are for the threads of the program: one that is blocked here goes to one of those.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~BlockedSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;

 private:
  sigset_t before_;
};

}  // namespace

BackgroundWorker::BackgroundWorker(std::function<Next()> step, Mode mode)
    : step_(std::move(step)), mode_(mode), thread_(std::make_unique<Thread>()) {}

void BackgroundWorker::wake() {
  if (awake_.exchange(true) || mode_ == Mode::by_hand) return;
  start();
  thread_->changed.notify_one();
}

// Where no thread is to be had, requests do everything themselves, as without a worker.
void BackgroundWorker::start() {
  const MutexLock lock(thread_->mutex);
  if (thread_->started || thread_->stopping) return;
  thread_->started = true;
  try {
    const BlockedSignals blocked;  // the new thread inherits them
    thread_->thread = std::thread([this] { run(); });
    pthread_setname_np(thread_->thread.native_handle(), "gmlake");
  } catch (const std::system_error&) {
  } catch (const std::bad_alloc&) {
  }
}

bool BackgroundWorker::step() {
  if (mode_ != Mode::by_hand || !awake_.load()) return false;
  awake_.store(false);
  if (step_() != Next::again) return false;
  awake_.store(true);
  return true;
}

void BackgroundWorker::run() {
  using Clock = std::chrono::steady_clock;
  Thread& self = *thread_;
  auto pause = kShortestPause;
  Clock::time_point next_step{};  // not before
  self.mutex.lock();
  while (!self.stopping) {
    if (!awake_.load()) {
      self.changed.wait(self.mutex);
      continue;
    }
    if (Clock::now() < next_step) {
      self.changed.wait_until(self.mutex, next_step);
      continue;
    }
    self.mutex.unlock();
    awake_.store(false);  // before the step looks: what there is to do after its look wakes it again
    const Next next = step_();
    if (next != Next::idle) awake_.store(true);
    if (next != Next::later) pause = kShortestPause;
    next_step = next == Next::again ? Clock::time_point{} : Clock::now() + pause;
    if (next == Next::later) pause = std::min(2 * pause, kLongestPause);
    self.mutex.lock();
  }
  self.mutex.unlock();
}

void BackgroundWorker::stop() {
  if (thread_ == nullptr) return;
  if (origin_.forked()) {
    (void)thread_.release();  // its lock may be held by a thread that is not here, which its condition waits for
    return;
  }
  {
    const MutexLock lock(thread_->mutex);
    thread_->stopping = true;
  }
  thread_->changed.notify_one();
  if (thread_->thread.joinable()) thread_->thread.join();
}

}  // namespace gmlake::alloc
