// The settings of an allocator, their ranges, and how people write them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "gmlake/result.hpp"

namespace gmlake {

// What an allocator that opens its driver itself works on: the GPUs of this machine; ordinary memory of this process,
// for tests where there is no GPU; or books alone, whose addresses have nothing behind them.
enum class DriverKind : std::uint8_t { cuda, host, model };

// Where a device's requests go when all else has failed, before they end in an out-of-memory error.
enum class SpillTo : std::uint8_t { nowhere, peers, host, peers_then_host };

// When a stream may be made to wait, on the device, for memory that another has freed and may still use: never; rather
// than run out of memory; or also rather than grow past the slack, where it has other work before it anyway.
enum class StreamWait : std::uint8_t { never, at_limit, before_growth };

struct Options {
  DriverKind driver = DriverKind::cuda;
  std::uint64_t limit_bytes = 0;  // most physical memory to hold on a device; 0: limit_fraction decides
  double limit_fraction = 1.0;    // the same, as a share of the device's memory
  double slack = 0.004;           // growing by this share of the peak of live memory is preferred to moving
  std::uint64_t max_phy_block_bytes = std::uint64_t{64} << 20;  // the largest PhyBlock to create; a power of two
  std::uint64_t max_mappings = 400'000;     // most mappings at a time: the driver fails at about half a million
  double max_stale = 4.0;                   // stale mappings kept for reuse, as a share of the memory held
  double max_address_space = 8.0;           // addresses to reserve, as a multiple of the device's memory
  double garbage_collection_threshold = 0;  // share of the limit above which old cached memory goes first; 0: off
  SpillTo spill = SpillTo::nowhere;         // before running out of memory
  bool background_worker = true;            // a thread a device that takes work off requests
  StreamWait stream_wait = StreamWait::before_growth;
  bool zero_on_free = false;   // fill freed memory with zeros before anyone else gets it
  bool unmap_on_free = false;  // for debugging: a free waits, and leaves no memory at the addresses
  // The file that a recording goes to; empty: none. For default_allocator() and whoever makes an allocator from
  // settings as text, as the C interface does; a program that makes its own with Allocator::create() has class
  // Recorder.
  std::string record = {};
};

// One key of GMLAKE_CONF.
struct OptionInfo {
  std::string_view key;
  std::string_view range;    // what a value must be, for people
  std::string_view meaning;  // one sentence
};

// Every key, in the order of the documentation.
std::span<const OptionInfo> option_table();
// The value of one key, as apply_option reads it. Empty for an unknown key.
std::string option_value(const Options& options, std::string_view key);

// Sets one key. Errors: invalid_option, with `options` unchanged.
Status apply_option(Options& options, std::string_view key, std::string_view value);

// What was wrong with a setting, in words; empty where nothing was.
struct OptionsError {
  std::string message;
  bool ok() const { return message.empty(); }
};

// Reads "key:value,key:value", the form of PyTorch's allocator settings. A setting that is refused leaves its default
// and is named, with its range, in the error; the others are taken.
OptionsError parse_options(std::string_view text, Options& options);

// Reads the environment variable GMLAKE_CONF; defaults where it is not set. The one place that reads the environment.
OptionsError options_from_environment(Options& options);

}  // namespace gmlake
