// gmlake replay: one trace through one allocator, with the contents of memory checked where asked for.
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

struct Arguments : ReplayArguments {
  std::string trace;
  std::string allocator = "gmlake";
  bool verify = false;
  std::uint64_t stride_bytes = 0;
  std::uint64_t lag_events = 0;
};

// What went wrong, or nothing.
std::string failure(const Measurement& measurement, const Arguments& arguments) {
  const auto& report = measurement.report;
  if (report.wrong_bytes > 0) {
    return fmt::format("{} of {} bytes checked were wrong", report.wrong_bytes, report.verified_bytes);
  }
  if (report.ooms > 0 && arguments.capacity_bytes == 0) {
    return fmt::format("{} ran out of memory, with no --capacity set",
                       report.ooms == 1 ? "1 request" : fmt::format("{} requests", report.ooms));
  }
  return {};
}

ExitCode replay_one(const Arguments& arguments) {
  if (arguments.verify && arguments.driver == "model") {
    throw CommandError("--verify needs memory to look at, and the model driver has none: add --driver host");
  }
  if (arguments.stride_bytes != 0 && !arguments.verify)
    throw CommandError("--verify-stride means nothing without --verify");
  if (arguments.lag_events != 0 && arguments.driver == "cuda")
    throw CommandError("--lag is for simulated streams: those of a GPU are as far behind as they are");
  const auto settings = parse_settings(arguments.settings);
  if (arguments.allocator == "gmlake") check_settings(settings);
  Progress progress(2);  // most traces are of one device
  progress.begin("reading " + arguments.trace);
  const replay::Trace trace = load_trace(arguments.trace);
  check_fits(trace, arguments.trace, device_capacity(arguments));
  replay::ReplayOptions options;
  options.verify = arguments.verify;
  options.verify_stride_bytes = arguments.stride_bytes;
  options.lag_events = arguments.lag_events;

  const bool tables = arguments.json.empty() || !is_stdout(arguments.json);
  Json results = Json::array();
  std::vector<std::string> failures;
  for (const auto& events : trace.devices) {
    if (events.events.empty()) continue;
    const auto measurement = measure(trace, events, arguments.allocator, arguments, settings, options, progress);
    progress.clear();
    results.push_back(to_json(measurement));
    if (auto reason = failure(measurement, arguments); !reason.empty()) failures.push_back(std::move(reason));
    if (!tables) continue;
    Table table = make_replay_table();
    add_line(table, measurement);
    std::string text = heading(trace, events, arguments) + table.text();
    if (arguments.verify) {
      text += fmt::format("{} checked, {} wrong bytes\n", format_bytes(measurement.report.verified_bytes),
                          measurement.report.wrong_bytes);
    }
    write_stdout(text);
  }
  if (!arguments.json.empty()) write_results(arguments.json, "replay", std::move(results));
  for (const auto& reason : failures) complain(arguments.trace + ": " + reason);
  return failures.empty() ? ExitCode::done : ExitCode::check_failed;
}

}  // namespace

void add_replay(CLI::App& app, ExitCode& exit) {
  auto* command = app.add_subcommand("replay", "Replay a trace through one allocator, and check memory contents");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("trace", arguments->trace, "Trace to replay")->required()->type_name("FILE");
  command
      ->add_option("-a,--allocator", arguments->allocator, "One of " + joined(allocator_names()) + ". Default: gmlake")
      ->type_name("NAME")
      ->check(CLI::IsMember(allocator_names()).description(""));
  add_driver(*command, *arguments);
  add_capacity(*command, *arguments);
  add_settings(*command, *arguments);
  command->add_flag("--verify", arguments->verify,
                    "Stamp every block when it is allocated, check the stamps when it is freed; not with model");
  add_size(*command, "--verify-stride", arguments->stride_bytes, "Distance of the stamps. Default: one a granule");
  command
      ->add_option("--lag", arguments->lag_events,
                   "How many events of the trace the streams are behind the host. Default: 0, they keep up")
      ->type_name("N");
  add_json(*command, arguments->json);
  command->footer(
      "Exits 1 when a stamp has changed, or a request runs out of memory with no --capacity set.\n\n"
      "Examples:\n"
      "  gmlake replay job.pickle --verify --driver host\n"
      "  gmlake replay job.pickle --allocator torch-expandable --capacity 24GiB --json -");
  command->callback([arguments, &exit] { exit = replay_one(*arguments); });
}

}  // namespace gmlake::cli
