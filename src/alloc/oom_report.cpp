// An out-of-memory report in words, and the choice of the one sentence that says what would help.
#include "alloc/oom_report.hpp"

#include <algorithm>
#include <cinttypes>
#include <cstdarg>
#include <cstdio>

#include "gmlake/bytes.hpp"

namespace gmlake {
namespace {

std::uint64_t less(std::uint64_t a, std::uint64_t b) { return a > b ? a - b : 0; }

// What other processes, and this one by other means, hold of the device.
std::uint64_t held_by_others(const OutOfMemoryReport& report) {
  return report.device_free_known ? less(report.device_total_bytes, report.device_free_bytes + report.reserved_bytes)
                                  : 0;
}

// A count of bytes as text, on the stack.
struct Text {
  char text[16];
  explicit Text(std::uint64_t bytes) { write_bytes(bytes, text, sizeof text); }
};

// Appends to a buffer what fits, and keeps it ended by a null byte.
class Writer {
 public:
  Writer(char* out, std::size_t size) : out_(out), size_(size) {
    if (size_ > 0) out_[0] = '\0';
  }

#if defined(__GNUC__)
  [[gnu::format(printf, 2, 3)]]
#endif
  void
  add(const char* format, ...) {
    if (size_ == 0) return;
    std::va_list arguments;
    va_start(arguments, format);
    const int length = std::vsnprintf(out_ + length_, size_ - length_, format, arguments);
    va_end(arguments);
    if (length > 0) length_ = std::min(length_ + static_cast<std::size_t>(length), size_ - 1);
  }
  std::size_t length() const { return length_; }

 private:
  char* out_;
  std::size_t size_;
  std::size_t length_ = 0;
};

void add_remedy(const OutOfMemoryReport& report, Writer& text) {
  const Text amount(report.remedy_bytes);
  switch (report.remedy) {
    case Remedy::host_memory:
      return text.add("The host has no memory left for the allocator's books; the device may have some.");
    case Remedy::addresses:
      return text.add("No address range of %s is left: trim(), or fewer streams, gives some back.", amount.text);
    case Remedy::mappings:
      return text.add("There are too many mappings (%" PRIu64
                      "): a larger max_phy_block, or trim(), makes fewer; max_mappings is the bound.",
                      report.mappings);
    case Remedy::other_streams:
      return text.add("%s are freed but in use on other streams: they are free once that work is complete.",
                      amount.text);
    case Remedy::raise_limit:
      return text.add("Raise the limit of %s by %s: the device has %s free.", Text(report.limit_bytes).text,
                      amount.text, Text(report.device_free_bytes).text);
    case Remedy::other_processes:
      return text.add("Other processes, or this one by other means, hold %s of the device: %s less would do.",
                      Text(held_by_others(report)).text, amount.text);
    case Remedy::unpin:
      return text.add(
          "%s are cached, but in PhyBlocks that live blocks lie in too: free these, or use a smaller "
          "max_phy_block.",
          amount.text);
    case Remedy::lost:
      return text.add("The driver would not take %s back: they are lost until shutdown.", amount.text);
    case Remedy::free_memory:
      return text.add("Live blocks hold %s: free %s of it.", Text(report.allocated_bytes).text, amount.text);
    case Remedy::retry:
      return text.add("There is enough for it now: the driver refused, or another thread was first. Try again.");
  }
}

void add_rung(const OutOfMemoryReport& report, Rung which, Writer& text) {
  const RungReport& rung = report.rung(which);
  text.add("%s%s: ", which == Rung::own_stream ? "" : "; ", to_string(which));
  if (rung.outcome == RungOutcome::not_tried) return text.add("%s", to_string(rung.outcome));
  text.add("%s %s, %s", which == Rung::release_cached ? "gave back" : "found", Text(rung.found_bytes).text,
           to_string(rung.outcome));
}

}  // namespace

const char* to_string(Rung rung) {
  switch (rung) {
    case Rung::own_stream:
      return "own_stream";
    case Rung::passed_streams:
      return "passed_streams";
    case Rung::stream_wait:
      return "stream_wait";
    case Rung::release_cached:
      return "release_cached";
    case Rung::wait:
      return "wait";
    case Rung::callbacks:
      return "callbacks";
  }
  return "unknown rung";
}

const char* to_string(RungOutcome outcome) {
  switch (outcome) {
    case RungOutcome::not_tried:
      return "not tried";
    case RungOutcome::too_little:
      return "too little";
    case RungOutcome::no_addresses:
      return "no address range";
    case RungOutcome::no_mappings:
      return "too many mappings";
    case RungOutcome::refused:
      return "refused by the driver";
  }
  return "unknown outcome";
}

std::size_t write_remedy(const OutOfMemoryReport& report, char* out, std::size_t size) noexcept {
  Writer text(out, size);
  add_remedy(report, text);
  return text.length();
}

std::size_t write_report(const OutOfMemoryReport& report, char* out, std::size_t size) noexcept {
  Writer text(out, size);
  text.add("%s: %s requested on device %d, stream 0x%" PRIx64 " (at %s)\n", to_string(report.error.code),
           Text(report.requested_bytes).text, report.device, report.stream, to_string(report.error.step));
  add_remedy(report, text);
  text.add(
      "\nHeld: %s of a limit of %s: live %s, in use on other streams %s, cached %s (movable %s, largest run %s), "
      "lost %s; %" PRIu64 " mappings, stale ones of %s.",
      Text(report.reserved_bytes).text, Text(report.limit_bytes).text, Text(report.allocated_bytes).text,
      Text(less(report.active_bytes, report.allocated_bytes)).text, Text(report.cached_bytes).text,
      Text(report.movable_bytes).text, Text(report.largest_free_run_bytes).text, Text(report.lost_bytes).text,
      report.mappings, Text(report.stale_bytes).text);
  if (report.device_free_known) {
    text.add("\nDevice: %s free of %s; others hold %s.", Text(report.device_free_bytes).text,
             Text(report.device_total_bytes).text, Text(held_by_others(report)).text);
  } else {
    text.add("\nDevice: %s in all; the driver does not say how much is free.", Text(report.device_total_bytes).text);
  }
  text.add("\nTried: ");
  for (std::size_t i = 0; i < kRungs; ++i) add_rung(report, static_cast<Rung>(i), text);
  text.add(".");
  return text.length();
}

std::string describe(const OutOfMemoryReport& report) {
  std::array<char, kReportTextBytes> text;
  return {text.data(), write_report(report, text.data(), text.size())};
}

namespace alloc {

void choose_remedy(OutOfMemoryReport& report, std::uint64_t granule_bytes) noexcept {
  const auto choose = [&report](Remedy remedy, std::uint64_t bytes) {
    report.remedy = remedy;
    report.remedy_bytes = bytes;
  };
  const std::uint64_t needed = round_up(report.requested_bytes, granule_bytes);
  if (report.error.code == ErrorCode::address_space) return choose(Remedy::addresses, needed);
  if (report.error.code == ErrorCode::too_many_mappings || report.error.step == Step::set_access) {
    return choose(Remedy::mappings, report.mappings);
  }
  // What would have to be created, and what the limit and the device leave to create.
  const std::uint64_t to_create = less(needed, report.movable_bytes);
  const std::uint64_t below_limit = round_down(less(report.limit_bytes, report.reserved_bytes), granule_bytes);
  const bool limit_refused = report.error.step == Step::allocate;
  const std::uint64_t on_device = report.device_free_known ? round_down(report.device_free_bytes, granule_bytes)
                                  : limit_refused          ? UINT64_MAX
                                                           : 0;
  const std::uint64_t lacking = less(to_create, std::min(below_limit, on_device));
  const std::uint64_t in_use = less(report.active_bytes, report.allocated_bytes);
  const std::uint64_t pinned = less(report.cached_bytes, report.movable_bytes);
  const std::uint64_t others = held_by_others(report);
  if (lacking == 0) return choose(Remedy::retry, 0);
  if (in_use >= lacking) return choose(Remedy::other_streams, in_use);
  if (on_device >= to_create)
    return choose(Remedy::raise_limit, report.reserved_bytes + to_create - report.limit_bytes);
  if (below_limit >= to_create && others >= lacking) return choose(Remedy::other_processes, lacking);
  if (pinned >= lacking) return choose(Remedy::unpin, pinned);
  if (report.lost_bytes >= lacking) return choose(Remedy::lost, report.lost_bytes);
  if (report.allocated_bytes >= lacking || others < lacking) return choose(Remedy::free_memory, lacking);
  choose(Remedy::other_processes, lacking);
}

}  // namespace alloc
}  // namespace gmlake
