// gmlake compare: the same traces through several allocators, side by side.
#include "../arguments.hpp"
#include "../measure.hpp"
#include "../option_list.hpp"
#include "../output.hpp"
#include "../traces.hpp"
#include "commands.hpp"

namespace gmlake::cli {
namespace {

// gmlake must run a trace that fits its device; how the others fare is what the table is for.
bool is_failure(const Measurement& measurement, const ReplayArguments& arguments) {
  return measurement.allocator == "gmlake" && arguments.capacity_bytes == 0 && measurement.report.ooms > 0;
}

ExitCode compare(const ReplayArguments& arguments) {
  const auto settings = parse_settings(arguments.settings);
  check_settings(settings);
  const bool tables = arguments.json.empty() || !is_stdout(arguments.json);
  Progress progress(arguments.traces.size() * (1 + arguments.allocators.size()));
  Json results = Json::array();
  ExitCode exit = ExitCode::done;
  for (const auto& path : arguments.traces) {
    progress.begin("reading " + path);
    const replay::Trace trace = load_trace(path);
    check_fits(trace, path, device_capacity(arguments));
    for (const auto& events : trace.devices) {
      if (events.events.empty()) continue;
      Table table = make_replay_table();
      for (const auto& allocator : arguments.allocators) {
        // The settings are gmlake's: the others are compared as they come.
        const auto measurement = measure(trace, events, allocator, arguments,
                                         allocator == "gmlake" ? settings : replay::Settings{}, {}, progress);
        if (is_failure(measurement, arguments)) exit = ExitCode::check_failed;
        add_line(table, measurement);
        results.push_back(to_json(measurement));
      }
      progress.clear();
      if (tables) write_stdout(heading(trace, events, arguments) + table.text() + "\n");
    }
  }
  if (!arguments.json.empty()) write_results(arguments.json, "compare", std::move(results));
  if (exit == ExitCode::check_failed) complain("gmlake ran out of memory, with no --capacity set");
  return exit;
}

}  // namespace

void add_compare(CLI::App& app, ExitCode& exit) {
  auto* command = app.add_subcommand("compare", "Replay traces through several allocators, side by side");
  auto arguments = std::make_shared<ReplayArguments>();
  add_traces(*command, *arguments);
  add_allocators(*command, *arguments);
  add_driver(*command, *arguments);
  add_capacity(*command, *arguments);
  add_settings(*command, *arguments);
  add_json(*command, arguments->json);
  command->footer(
      "Prints for each allocator the peaks of allocated and reserved memory and their ratio, the driver's calls by "
      "kind\n"
      "and the time they take, the allocator's own time for each event, and the requests it could not serve.\n"
      "--set applies to gmlake alone. Exits 1 when gmlake runs out of memory with no --capacity set.\n\n"
      "Examples:\n"
      "  gmlake compare examples/traces/llama7b_lr.pickle.gz\n"
      "  gmlake compare a.pickle b.csv --allocators gmlake,torch-native --json results.json\n"
      "  gmlake compare job.pickle --capacity 30GiB");
  command->callback([arguments, &exit] { exit = compare(*arguments); });
}

}  // namespace gmlake::cli
