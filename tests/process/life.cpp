// How a process ends, and what an allocator does meanwhile: one scenario a run, named on the command line. Ends with 0
// where all went as it must; else it says what did not, and ends with 1.
#include <pthread.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <thread>
#include <vector>

#include "driver/model.hpp"
#include "driver/record.hpp"
#include "gmlake/gmlake.hpp"
#include "process/child.hpp"
#include "support/host_default.hpp"

namespace gmlake::test {
namespace {

// The first static object here, so the last to go: everything that was to happen must have happened by then.
struct Referee {
  int seen = 0;
  int expected = 0;
  const char* broken = nullptr;

  void see() { ++seen; }
  void want(bool condition, const char* text) {
    if (!condition && broken == nullptr) broken = text;
  }
  void judge() const {
    if (broken == nullptr && seen == expected) return;
    std::fprintf(stderr, "not so: %s; %d of %d steps\n", broken == nullptr ? "all steps" : broken, seen, expected);
    _exit(1);
  }
  ~Referee() { judge(); }
};
Referee referee;

#define WANT(condition) referee.want((condition), #condition)

bool shut_down(const Status& status) { return !status.ok() && status.error().code == ErrorCode::shut_down; }
template <class T>
bool shut_down(const Result<T>& result) {
  return !result.ok() && result.error().code == ErrorCode::shut_down;
}

// An allocator on a model that counts its calls, both left to the end of the process.
driver::ModelDriver* model = nullptr;
driver::RecordDriver* calls = nullptr;
std::uint64_t calls_when_shut = 0;

std::unique_ptr<Allocator> make_allocator() {
  model = new driver::ModelDriver();
  calls = new driver::RecordDriver(*model);
  return Allocator::create(*calls).value();
}

void want_alive(Allocator& allocator) {
  void* pointer = allocator.allocate(3 << 20);
  WANT(pointer != nullptr);
  WANT(allocator.try_deallocate(pointer).ok());
  referee.see();
}

void want_shut(Allocator& allocator, void* live) {
  WANT(shut_down(allocator.try_allocate(3 << 20)));
  WANT(shut_down(allocator.try_allocate(std::size_t{1} << 40)));
  WANT(shut_down(allocator.try_deallocate(live)));
  WANT(shut_down(allocator.try_record_stream(live, nullptr)));
  WANT(shut_down(allocator.trim()));
  WANT(allocator.try_deallocate(nullptr).ok());
  allocator.deallocate(live);
  WANT(allocator.stats().all.allocation.current == 1);  // what was done can still be told
  WANT(allocator.size_of(live) != 0);
  WANT(shut_down(Allocator::create({.driver = DriverKind::host})));
  referee.see();
}

// Static objects of the usual kinds: made before any allocator was, and filled later; and made with their allocator.
std::unique_ptr<Allocator> early_allocator;
std::unique_ptr<VirBlock> early_block;
void* live = nullptr;

struct Before {  // handlers run in reverse order: this one was registered before the library's, so it runs after it
  ~Before() {
    if (early_allocator == nullptr) return;
    want_shut(*early_allocator, live);
    WANT(calls->counts().total() == calls_when_shut);
    early_block.reset();
    early_allocator.reset();
    WANT(calls->counts().total() == calls_when_shut);
    WANT(model->usage().handles != 0);  // left to the end of the process
    referee.see();
  }
} before;

void note_calls() { calls_when_shut = calls->counts().total(); }

int exit_handlers() {
  referee.expected = 4;
  std::atexit([] { want_shut(*early_allocator, live); });
  early_allocator = make_allocator();
  std::atexit([] {  // the last that is not too late
    want_alive(*early_allocator);
    note_calls();
  });
  live = early_allocator->allocate(5 << 20);
  return 0;
}

int quick_exit_handlers() {
  referee.expected = 2;
  std::at_quick_exit([] {
    want_shut(*early_allocator, live);
    referee.judge();
  });
  early_allocator = make_allocator();
  std::at_quick_exit([] { want_alive(*early_allocator); });
  live = early_allocator->allocate(5 << 20);
  std::quick_exit(0);
}

// A block whose static owner was constructed with it goes back in order; one that was put into an older owner is left.
int static_objects() {
  referee.expected = 4;
  early_allocator = make_allocator();
  static struct Late {
    std::unique_ptr<VirBlock> block = create_vir_block(7 << 20, {.allocator = early_allocator.get()});
    ~Late() {
      WANT(block->release().ok());
      want_alive(*early_allocator);
      note_calls();
    }
  } late;
  static std::unique_ptr<Allocator> own = Allocator::create(*calls).value();
  static struct AfterOwn {  // constructed after it, destroyed before it: it has a user to the end
    ~AfterOwn() { want_alive(*own); }
  } after_own;
  early_block = create_vir_block(5 << 20, {.allocator = early_allocator.get()});
  live = early_block->get_block();
  return 0;
}

// Made by the last handler of all that were registered: those that ran before it know of no allocator, and for those
// that run after it the library is shut.
int first_use_at_exit() {
  referee.expected = 2;
  std::atexit([] {
    WANT(shut_down(default_allocator().try_allocate(4096)));
    referee.see();
  });
  std::atexit([] { want_alive(default_allocator()); });
  return 0;
}

// Threads that go on while the process exits around them.
void start_threads(Allocator& allocator) {
  static std::atomic<int> running{0};
  for (int number = 0; number < 4; ++number) {
    std::thread([&allocator] {
      std::vector<void*> held;
      for (std::size_t round = 0;; ++round) {
        const Result<void*> pointer = allocator.try_allocate((1 + round % 40) << 19);
        if (pointer.ok()) {
          held.push_back(*pointer);
        } else if (pointer.error().code != ErrorCode::shut_down) {
          _exit(2);
        }
        if (round % 3 != 0 || held.size() > 30) {
          for (void* block : held) allocator.deallocate(block);
          held.clear();
        }
        if (round == 100) ++running;
      }
    }).detach();
  }
  while (running < 4) std::this_thread::yield();
}

int threads_at_exit() {
  start_threads(default_allocator());
  return 0;
}

int immediate_exit() {
  start_threads(default_allocator());
  _exit(0);
}

// The child of a fork that leaves through all handlers and destructors, with the parent's objects in its hands.
int fork_then_exit() {
  early_allocator = make_allocator();
  live = early_allocator->allocate(5 << 20);
  note_calls();
  const pid_t child = fork();
  if (child == 0) {
    struct Last {
      ~Last() {
        if (calls->counts().total() != calls_when_shut) _exit(3);
      }
    };
    static Last last;
    early_block.reset();
    early_allocator.reset();
    std::exit(0);
  }
  int status = 0;
  WANT(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  WANT(early_allocator->try_deallocate(live).ok());
  early_allocator->check();
  early_allocator.reset();
  WANT(model->usage() == driver::Usage{});
  return 0;
}

int own_default_in_child() {
  WANT(in_child([] {
         void* own = default_allocator().allocate(1 << 20);
         return default_allocator().device_of(own) == 0 && default_allocator().try_deallocate(own).ok() ? 0 : 1;
       }) == 0);
  void* pointer = default_allocator().allocate(1 << 20);
  WANT(default_allocator().try_deallocate(pointer).ok());
  return 0;
}

// The first use of all, in several threads at the same time, and forks meanwhile: a child that inherits the parent's
// finds it of no use, one that does not makes its own. Whatever a thread was in the middle of, no child waits for it.
int fork_during_first_use() {
  std::atomic<int> made{0};
  std::vector<std::thread> threads;
  std::vector<Allocator*> found(3);
  for (Allocator*& one : found) {
    threads.emplace_back([&made, &one] {
      one = &default_allocator();
      ++made;
    });
  }
  for (int round = 0; round < 50 || made < 3; ++round) {
    WANT(in_child([] {
           const Result<void*> pointer = default_allocator().try_allocate(4096);
           return pointer.ok() || pointer.error().code == ErrorCode::forked ? 0 : 1;
         }) == 0);
  }
  for (std::thread& thread : threads) thread.join();
  for (const Allocator* one : found) WANT(one == &default_allocator());
  return 0;
}

struct Scenario {
  std::string_view name;
  int (*run)();
};
constexpr Scenario kScenarios[] = {
    {"exit_handlers", exit_handlers},
    {"quick_exit_handlers", quick_exit_handlers},
    {"static_objects", static_objects},
    {"first_use_at_exit", first_use_at_exit},
    {"threads_at_exit", threads_at_exit},
    {"immediate_exit", immediate_exit},
    {"fork_then_exit", fork_then_exit},
    {"own_default_in_child", own_default_in_child},
    {"fork_during_first_use", fork_during_first_use},
};

}  // namespace
}  // namespace gmlake::test

int main(int count, char** arguments) {
  for (const auto& scenario : gmlake::test::kScenarios) {
    if (count == 2 && scenario.name == arguments[1]) return scenario.run();
  }
  std::fprintf(stderr, "usage: process_life SCENARIO\n");
  return 2;
}
