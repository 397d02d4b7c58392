// What an out-of-memory error knows: the state that it left, what each rung of the ladder found, and what would help.
// A plain value of fixed size: it is made and copied without host memory, so an out-of-memory path may always do so.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <new>
#include <string>

#include "gmlake/result.hpp"

namespace gmlake {

// The ladder that a request climbs when no cached run fits it, first to last.
enum class Rung : std::uint8_t {
  own_stream,      // stitch what lies free on the request's own stream, and create what is short, below the limit
  passed_streams,  // what other streams have freed and are done with
  stream_wait,     // what they have freed and still use, behind a wait of the request's stream on the device
  release_cached,  // give cached memory in sizes that do not fit back to the driver, to be made anew in sizes that do
  wait,            // wait, on the host, for all streams
  callbacks,       // ask the release callbacks, and climb again
};
inline constexpr std::size_t kRungs = 6;

enum class RungOutcome : std::uint8_t {
  not_tried,     // switched off; or, of callbacks, none is registered, or it is one that makes the request
  too_little,    // what was found does not make the request
  no_addresses,  // no address range for it
  no_mappings,   // the bound on mappings, or the driver's own, is reached
  refused,       // the driver refused a call
};

struct RungReport {
  RungOutcome outcome = RungOutcome::not_tried;
  // What this rung found beyond those before it. The first three: memory that could be moved to the request.
  // release_cached: given back to the driver. wait and callbacks: memory that came free meanwhile.
  std::uint64_t found_bytes = 0;
};

// What would help, in the order in which it is looked for. `remedy_bytes` is the X of each.
enum class Remedy : std::uint8_t {
  host_memory,      // the host, not the device, has no memory: X bytes of records at least
  addresses,        // an address range of X bytes
  mappings,         // fewer mappings than X
  other_streams,    // X bytes are free once the work of other streams is complete
  raise_limit,      // a limit higher by X: the device has it
  other_processes,  // X bytes less held by others on the device
  unpin,            // X bytes are cached next to live blocks, in PhyBlocks that cannot move
  lost,             // X bytes that the driver would not take back
  free_memory,      // X bytes less of live memory
  retry,            // nothing lacks any more: the driver's refusal, or another thread, has passed
};

struct OutOfMemoryReport {
  Error error;  // as try_allocate returned it
  int device = 0;
  std::uint64_t stream = 0;  // handle
  std::uint64_t requested_bytes = 0;

  std::uint64_t device_total_bytes = 0;
  std::uint64_t device_free_bytes = 0;  // as the driver says, over all processes
  bool device_free_known = false;       // false: the driver would not say

  std::uint64_t limit_bytes = 0;      // in force
  std::uint64_t reserved_bytes = 0;   // physical memory held; of it
  std::uint64_t allocated_bytes = 0;  //   live blocks
  std::uint64_t active_bytes = 0;     //   live blocks, and freed ones that other streams still use
  std::uint64_t cached_bytes = 0;     //   free runs; of them
  std::uint64_t movable_bytes = 0;    //     PhyBlocks that lie whole in one, and may be moved to this request
  std::uint64_t lost_bytes = 0;       //   what the driver would not take back
  std::uint64_t largest_free_run_bytes = 0;
  std::uint64_t stale_bytes = 0;  // mappings kept for reuse: they hold no memory of their own
  std::uint64_t mappings = 0;

  std::array<RungReport, kRungs> rungs{};
  std::uint32_t callback_rounds = 0;  // times that the callbacks were asked

  Remedy remedy = Remedy::retry;
  std::uint64_t remedy_bytes = 0;

  RungReport& rung(Rung which) { return rungs[static_cast<std::size_t>(which)]; }
  const RungReport& rung(Rung which) const { return rungs[static_cast<std::size_t>(which)]; }
};

const char* to_string(Rung rung);
const char* to_string(RungOutcome outcome);

// Enough for the text of any report.
inline constexpr std::size_t kReportTextBytes = 2048;

// The report in words, one idea a line, the most useful first; cut short where `size` is too small, and always ended by
// a null byte where it is not 0. Returns the length without it. Takes no memory.
std::size_t write_report(const OutOfMemoryReport& report, char* out, std::size_t size) noexcept;
std::string describe(const OutOfMemoryReport& report);
// The one sentence that says what would help. Takes no memory, as write_report().
std::size_t write_remedy(const OutOfMemoryReport& report, char* out, std::size_t size) noexcept;

// What Allocator::allocate() throws; a std::bad_alloc, as containers expect. what() is describe(report()).
class OutOfMemoryError : public std::bad_alloc {
 public:
  explicit OutOfMemoryError(const OutOfMemoryReport& report) noexcept : report_(report) {
    write_report(report_, text_.data(), text_.size());
  }
  const char* what() const noexcept override { return text_.data(); }
  const Error& error() const noexcept { return report_.error; }
  const OutOfMemoryReport& report() const noexcept { return report_; }

 private:
  OutOfMemoryReport report_;
  std::array<char, kReportTextBytes> text_{};
};

// Asked for memory when every other rung has failed: free what can be spared, anywhere on report.device, and return
// true; the request then climbs the ladder again. False: there is nothing. All registered ones are asked, in the order
// of their registration, as long as one of them says true, at most kMaxCallbackRounds times for a request.
//
// An observer is told of each request that ends for want of memory, mappings or addresses, after all else has failed.
//
// Both are called by the thread whose request it is, with no lock held: they may allocate, free, trim, change the
// limit, wait for other threads, and add or remove callbacks. Several threads may be in one at a time. A request that
// runs out inside of one asks and tells nobody, and simply fails; so do requests of other threads while
// kMaxCallbackCalls calls are running. What they throw is dropped, and counts as false.
using ReleaseCallback = std::function<bool(const OutOfMemoryReport&)>;
using OutOfMemoryObserver = std::function<void(const OutOfMemoryReport&)>;
enum class CallbackId : std::uint64_t { none = 0 };
inline constexpr std::uint32_t kMaxCallbackRounds = 64;
inline constexpr std::size_t kMaxCallbackCalls = 64;

}  // namespace gmlake
