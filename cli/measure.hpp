// One replay: one device of a trace, through one allocator, on a fresh driver. What compare and replay are made of.
#pragma once

#include <string>

#include "json.hpp"
#include "progress.hpp"
#include "replay/engine.hpp"
#include "replay/trace.hpp"
#include "replay_arguments.hpp"
#include "table.hpp"

namespace gmlake::cli {

struct Measurement {
  std::string trace;
  std::string driver;
  std::string allocator;
  int device = 0;
  replay::ReplayReport report;
};

// Why an allocator could not be made, with the settings it was given where those are at fault.
std::string setting_message(const std::string& allocator, const Error& error, const replay::Settings& settings);

// What one allocator may reserve: --capacity, or else all of the device. Throws CommandError, as make_driver does.
std::uint64_t device_capacity(const ReplayArguments& arguments);

// Throws CommandError when the replay itself cannot go on: an unknown setting, a driver that fails, a broken trace.
// Running out of memory is a result, not a failure.
Measurement measure(const replay::Trace& trace, const replay::DeviceTrace& events, const std::string& allocator,
                    const ReplayArguments& arguments, const replay::Settings& settings, replay::ReplayOptions options,
                    Progress& progress);

double reserved_over_allocated(const replay::ReplayReport& report);

Json to_json(const Measurement& measurement);

// The table of one trace and device: a line for each allocator.
Table make_replay_table();
void add_line(Table& table, const Measurement& measurement);

// "llama7b_lr, device 0: 116,000 events, ..." above that table.
std::string heading(const replay::Trace& trace, const replay::DeviceTrace& events, const ReplayArguments& arguments);

}  // namespace gmlake::cli
