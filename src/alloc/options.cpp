#include "gmlake/options.hpp"

#include <array>
#include <bit>
#include <charconv>
#include <cstdlib>
#include <utility>

#include "gmlake/bytes.hpp"

namespace gmlake {
namespace {

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

bool read_number(std::string_view text, double low, double high, double& out) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || !(value >= low && value <= high)) return false;
  out = value;
  return true;
}

bool read_count(std::string_view text, std::uint64_t low, std::uint64_t high, std::uint64_t& out) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < low || value > high) return false;
  out = value;
  return true;
}

bool read_bool(std::string_view text, bool& out) {
  const bool yes = text == "true" || text == "True" || text == "1";
  if (!yes && text != "false" && text != "False" && text != "0") return false;
  out = yes;
  return true;
}

constexpr std::array kDrivers = {std::pair{DriverKind::cuda, "cuda"}, std::pair{DriverKind::host, "host"},
                                 std::pair{DriverKind::model, "model"}};

constexpr std::array kSpills = {std::pair{SpillTo::nowhere, "no"}, std::pair{SpillTo::peers, "peers"},
                                std::pair{SpillTo::host, "host"}, std::pair{SpillTo::peers_then_host, "peers+host"}};

constexpr std::array kStreamWaits = {std::pair{StreamWait::never, "false"}, std::pair{StreamWait::at_limit, "limit"},
                                     std::pair{StreamWait::before_growth, "true"}};

// One of the names of a table of values, and back.
template <class Table, class Value>
bool read_name(const Table& table, std::string_view text, Value& out) {
  for (const auto& [value, name] : table) {
    if (text != name) continue;
    out = value;
    return true;
  }
  return false;
}

template <class Table, class Value>
std::string name_of(const Table& table, Value wanted) {
  for (const auto& [value, name] : table) {
    if (value == wanted) return name;
  }
  return {};
}

bool read_size(std::string_view text, std::uint64_t& out) {
  const auto bytes = parse_bytes(text);
  if (bytes) out = *bytes;
  return bytes.has_value();
}

bool read_power_of_two(std::string_view text, std::uint64_t low, std::uint64_t high, std::uint64_t& out) {
  const auto bytes = parse_bytes(text);
  if (!bytes || !std::has_single_bit(*bytes) || *bytes < low || *bytes > high) return false;
  out = *bytes;
  return true;
}

std::string bool_text(bool value) { return value ? "true" : "false"; }

std::string number_text(double value) {
  std::array<char, 32> text{};
  const auto [end, error] = std::to_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} ? std::string(text.data(), end) : std::string();
}

// A key with how it is read and written.
struct Key {
  OptionInfo info;
  bool (*read)(std::string_view, Options&);
  std::string (*write)(const Options&);
};

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

constexpr std::array kKeys = {
    Key{{"driver", "cuda, host or model",
         "What an allocator works on that opens its driver itself: the GPUs of this machine; ordinary memory, or books "
         "alone, for tests where there is no GPU."},
        [](std::string_view v, Options& o) { return read_name(kDrivers, v, o.driver); },
        [](const Options& o) { return name_of(kDrivers, o.driver); }},
    Key{{"limit", "a size, such as 24GiB; 0: no limit of its own", "The most physical memory to hold on each device."},
        [](std::string_view v, Options& o) { return read_size(v, o.limit_bytes); },
        [](const Options& o) { return std::to_string(o.limit_bytes); }},
    Key{{"per_process_memory_fraction", "a number from 0 to 1",
         "The same limit as a share of the device's memory; the lower of the two holds."},
        [](std::string_view v, Options& o) { return read_number(v, 0, 1, o.limit_fraction); },
        [](const Options& o) { return number_text(o.limit_fraction); }},
    Key{{"slack", "a number from 0 to 1",
         "Up to this share above the peak of live memory, new memory is created rather than cached memory moved: "
         "faster, at the price of that much memory."},
        [](std::string_view v, Options& o) { return read_number(v, 0, 1, o.slack); },
        [](const Options& o) { return number_text(o.slack); }},
    Key{{"max_phy_block", "a size from 64KiB to 1GiB, a power of two",
         "The largest piece of physical memory to create. Larger pieces cost fewer driver calls; smaller ones waste "
         "less."},
        [](std::string_view v, Options& o) {
          return read_power_of_two(v, kMiB / 16, kMiB * 1024, o.max_phy_block_bytes);
        },
        [](const Options& o) { return std::to_string(o.max_phy_block_bytes); }},
    Key{{"max_mappings", "a whole number from 1024 to 100000000",
         "The most mappings on a device, stale ones included; past it a request fails. The driver fails at half a "
         "million."},
        [](std::string_view v, Options& o) { return read_count(v, 1024, 100'000'000, o.max_mappings); },
        [](const Options& o) { return std::to_string(o.max_mappings); }},
    Key{{"max_stale", "a number from 0 to 64",
         "How many stale mappings to keep for reuse without a driver call, as a share of the memory held."},
        [](std::string_view v, Options& o) { return read_number(v, 0, 64, o.max_stale); },
        [](const Options& o) { return number_text(o.max_stale); }},
    Key{{"max_address_space", "a number from 1 to 1024",
         "How many addresses to reserve ahead, as a multiple of the device's memory; past it, what a request itself "
         "needs."},
        [](std::string_view v, Options& o) { return read_number(v, 1, 1024, o.max_address_space); },
        [](const Options& o) { return number_text(o.max_address_space); }},
    Key{{"garbage_collection_threshold", "a number from 0 to 1; 0: off",
         "Before new memory takes what is held above this share of the limit, cached memory goes back to the driver: "
         "the longest unused first, and without waiting."},
        [](std::string_view v, Options& o) { return read_number(v, 0, 1, o.garbage_collection_threshold); },
        [](const Options& o) { return number_text(o.garbage_collection_threshold); }},
    Key{{"spill", "no, peers, host or peers+host",
         "Before a request ends out of memory, take memory of the other GPUs, then of the host: slower, and given back "
         "when it is freed."},
        [](std::string_view v, Options& o) { return read_name(kSpills, v, o.spill); },
        [](const Options& o) { return name_of(kSpills, o.spill); }},
    Key{{"background_worker", "true or false",
         "A thread for each device that is in use, which retires stale mappings before they reach a bound and gives "
         "back what other streams have come to the end of."},
        [](std::string_view v, Options& o) { return read_bool(v, o.background_worker); },
        [](const Options& o) { return bool_text(o.background_worker); }},
    Key{{"stream_wait", "true, limit or false",
         "Let a stream wait on the device for memory that another stream has freed: rather than run out of memory "
         "(limit), or also rather than grow past the slack, where it has other work before it anyway (true)."},
        [](std::string_view v, Options& o) {
          bool waits = false;
          if (!read_bool(v, waits)) return read_name(kStreamWaits, v, o.stream_wait);
          o.stream_wait = waits ? StreamWait::before_growth : StreamWait::never;
          return true;
        },
        [](const Options& o) { return name_of(kStreamWaits, o.stream_wait); }},
    Key{{"zero_on_free", "true or false",
         "Fill freed memory with zeros before anyone else gets it: a memset on its stream for each free, and no memory "
         "lent from stream to stream."},
        [](std::string_view v, Options& o) { return read_bool(v, o.zero_on_free); },
        [](const Options& o) { return bool_text(o.zero_on_free); }},
    Key{{"unmap_on_free", "true or false",
         "For debugging: a free waits for the streams and gives the memory back, so that what uses it afterwards "
         "faults. Slow."},
        [](std::string_view v, Options& o) { return read_bool(v, o.unmap_on_free); },
        [](const Options& o) { return bool_text(o.unmap_on_free); }},
    Key{{"record", "a file's path without a comma; empty: off",
         "Records what is asked of the allocator in this file, for `gmlake replay`; it is there when the process has "
         "exited. `%p` in it is the number of the process."},
        [](std::string_view v, Options& o) {
          if (v.find(',') != std::string_view::npos) return false;
          o.record = v;
          return true;
        },
        [](const Options& o) { return o.record; }},
};

constexpr std::array<OptionInfo, kKeys.size()> kTable = [] {
  std::array<OptionInfo, kKeys.size()> table{};
  for (std::size_t i = 0; i < kKeys.size(); ++i) table[i] = kKeys[i].info;
  return table;
}();

const Key* find_key(std::string_view name) {
  for (const Key& key : kKeys) {
    if (key.info.key == name) return &key;
  }
  return nullptr;
}

}  // namespace

std::span<const OptionInfo> option_table() { return kTable; }

std::string option_value(const Options& options, std::string_view key) {
  const Key* found = find_key(key);
  return found == nullptr ? std::string() : found->write(options);
}

Status apply_option(Options& options, std::string_view key, std::string_view value) {
  const Key* found = find_key(key);
  if (found == nullptr || !found->read(trimmed(value), options)) {
    return Error{ErrorCode::invalid_option, Step::options, 0};
  }
  return {};
}

OptionsError parse_options(std::string_view text, Options& options) {
  OptionsError error;
  while (!trimmed(text).empty()) {
    const auto comma = text.find(',');
    const std::string_view setting = trimmed(text.substr(0, comma));
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
    if (setting.empty()) continue;
    const auto colon = setting.find(':');
    const std::string_view key = trimmed(setting.substr(0, colon));
    const std::string_view value = colon == std::string_view::npos ? std::string_view() : setting.substr(colon + 1);
    if (apply_option(options, key, value).ok()) continue;
    if (!error.message.empty()) error.message += "; ";
    const Key* found = find_key(key);
    if (found == nullptr) {
      error.message += "unknown key '" + std::string(key) + "'";
    } else {
      error.message +=
          std::string(key) + ": '" + std::string(trimmed(value)) + "' is not " + std::string(found->info.range);
    }
  }
  return error;
}

OptionsError options_from_environment(Options& options) {
  const char* text = std::getenv("GMLAKE_CONF");
  return text == nullptr ? OptionsError{} : parse_options(text, options);
}

}  // namespace gmlake
