// gmlake fit: the smallest memory limit at which each allocator still runs a trace to its end.
#include <fmt/format.h>

#include "../arguments.hpp"
#include "../measure.hpp"
#include "../option_list.hpp"
#include "../output.hpp"
#include "../traces.hpp"
#include "commands.hpp"
#include "gmlake/bytes.hpp"

namespace gmlake::cli {
namespace {

struct Fit {
  std::string allocator;
  replay::FitReport report;
};

double over_allocated(const replay::FitReport& report) {
  if (report.peak_allocated_bytes == 0) return 0;
  return static_cast<double>(report.min_capacity_bytes) / static_cast<double>(report.peak_allocated_bytes);
}

Fit fit_one(const replay::Trace& trace, const replay::DeviceTrace& events, const std::string& allocator,
            const replay::Settings& settings, Progress& progress) {
  progress.begin(trace.name + " " + allocator);
  replay::FitOptions options;
  if (allocator == "gmlake") options.settings = settings;
  options.progress = [&progress](std::uint64_t done, std::uint64_t total) { progress.update(done, total); };
  auto report = replay::fit(events, allocator, options);
  if (!report) throw CommandError(trace.name + " " + setting_message(allocator, report.error(), options.settings));
  return {allocator, *report};
}

Json to_json(const replay::Trace& trace, const replay::DeviceTrace& events, const Fit& fit) {
  return Json{{"trace", trace.name},
              {"allocator", fit.allocator},
              {"driver", "model"},
              {"device", events.device},
              {"events", events.events.size()},
              {"peak_allocated_bytes", fit.report.peak_allocated_bytes},
              {"min_capacity_bytes", fit.report.min_capacity_bytes},
              {"min_capacity_over_allocated", over_allocated(fit.report)},
              {"replays", fit.report.replays}};
}

ExitCode fit_all(const ReplayArguments& arguments) {
  const auto settings = parse_settings(arguments.settings);
  check_settings(settings);
  const bool tables = arguments.json.empty() || !is_stdout(arguments.json);
  Progress progress(arguments.traces.size() * (1 + arguments.allocators.size()));
  Json results = Json::array();
  for (const auto& path : arguments.traces) {
    progress.begin("reading " + path);
    const replay::Trace trace = load_trace(path);
    for (const auto& events : trace.devices) {
      if (events.events.empty()) continue;
      Table table({"allocator", "peak allocated", "min capacity", "ratio", "replays"});
      for (const auto& allocator : arguments.allocators) {
        const Fit fit = fit_one(trace, events, allocator, settings, progress);
        table.add({allocator, format_bytes(fit.report.peak_allocated_bytes),
                   format_bytes(fit.report.min_capacity_bytes), fmt::format("{:.4f}", over_allocated(fit.report)),
                   std::to_string(fit.report.replays)});
        results.push_back(to_json(trace, events, fit));
      }
      progress.clear();
      if (tables) write_stdout(heading(trace, events, arguments) + table.text() + "\n");
    }
  }
  if (!arguments.json.empty()) write_results(arguments.json, "fit", std::move(results));
  return ExitCode::done;
}

}  // namespace

void add_fit(CLI::App& app, ExitCode& exit) {
  auto* command = app.add_subcommand("fit", "Find the least memory in which each allocator can run a trace");
  auto arguments = std::make_shared<ReplayArguments>();
  add_traces(*command, *arguments);
  add_allocators(*command, *arguments);
  add_settings(*command, *arguments);
  add_json(*command, arguments->json);
  command->footer(
      "Replays the trace again and again with a limit on reserved memory, halving the interval until the answer is "
      "known\n"
      "to 0.1 %. Uses the model driver. --set applies to gmlake alone.\n\n"
      "Examples:\n"
      "  gmlake fit examples/traces/detect.pickle.gz\n"
      "  gmlake fit job.pickle --allocators gmlake,torch-native --json -");
  command->callback([arguments, &exit] { exit = fit_all(*arguments); });
}

}  // namespace gmlake::cli
