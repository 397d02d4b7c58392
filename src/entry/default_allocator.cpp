// The allocator of the process, as the environment asks for it. Any thread may come first.
#include <atomic>
#include <cstdio>
#include <exception>

#include "entry/recording.hpp"
#include "gmlake/allocator.hpp"

namespace gmlake {
namespace {

void complain(const char* what) { std::fprintf(stderr, "gmlake: GMLAKE_CONF: %s\n", what); }

// For the life of the process: its end writes the file. A recording that cannot be made is said, and work goes on.
void record(Allocator& allocator, const Options& options) {
  static constinit std::atomic<Recorder*> recorder{nullptr};
  try {
    FileError error;
    recorder = entry::start_recording(allocator, options, error).release();
    if (!error.ok()) complain(("record: " + error.message).c_str());
  } catch (const std::exception& thrown) {
    complain(thrown.what());
  }
}

}  // namespace

Allocator& default_allocator() {
  // Never destroyed: frees from static destructors and exit handlers must find it. Made without a lock, which a fork
  // could leave taken: of two threads that come first at the same time, each makes one, and one of the two goes.
  static constinit std::atomic<Allocator*> allocator{nullptr};
  if (Allocator* made = allocator.load(std::memory_order_acquire)) return *made;
  Options options;
  const OptionsError refused = options_from_environment(options);
  Result<std::unique_ptr<Allocator>> fresh = Allocator::create(options);
  if (!fresh) throw AllocationError(fresh.error());
  Allocator* first = nullptr;
  if (!allocator.compare_exchange_strong(first, (*fresh).get())) return *first;
  if (!refused.ok()) complain(refused.message.c_str());  // the defaults hold for these
  Allocator& chosen = *std::move(fresh).value().release();
  record(chosen, options);
  return chosen;
}

}  // namespace gmlake
