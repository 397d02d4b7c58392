// gmlake generate: traces with known shapes, for tests and experiments.
#include "replay/generate.hpp"

#include <fmt/format.h>

#include "../arguments.hpp"
#include "../output.hpp"
#include "../progress.hpp"
#include "../traces.hpp"
#include "commands.hpp"
#include "gmlake/bytes.hpp"

namespace gmlake::cli {
namespace {

struct GenerateArguments {
  std::string pattern;
  std::string out;
  bool list = false;
  replay::GenerateOptions options;
};

std::string pattern_list() {
  std::string text;
  for (const auto& pattern : replay::patterns()) text += fmt::format("{:<12} {}\n", pattern.name, pattern.summary);
  return text;
}

ExitCode generate(const GenerateArguments& arguments) {
  if (arguments.list) {
    write_stdout(pattern_list());
    return ExitCode::done;
  }
  if (arguments.pattern.empty()) throw CommandError("generate: which PATTERN? --list names them all");
  if (arguments.out.empty()) throw CommandError("generate: --out FILE is required");
  const auto format = format_for(arguments.out);
  Progress progress(2);
  progress.begin("making " + arguments.pattern);
  const auto trace = replay::generate(arguments.pattern, arguments.options);
  if (!trace) throw CommandError(trace.error().text());
  progress.begin("writing " + arguments.out);
  save_trace(*trace, arguments.out, format);
  return ExitCode::done;
}

}  // namespace

void add_generate(CLI::App& app, ExitCode& exit) {
  auto* command = app.add_subcommand("generate", "Write a trace that is hard on an allocator");
  auto arguments = std::make_shared<GenerateArguments>();
  auto& options = arguments->options;
  command->add_option("pattern", arguments->pattern, "What the trace does; see --list")->type_name("PATTERN");
  command->add_option("-o,--out", arguments->out, "Where to write it; - for standard output")->type_name("FILE");
  command
      ->add_option("--seed", options.seed, fmt::format("The same seed gives the same trace. Default: {}", options.seed))
      ->type_name("N");
  command->add_option("--events", options.events, fmt::format("How many events. Default: {}", options.events))
      ->type_name("N");
  add_size(*command, "--peak", options.peak_bytes,
           "The most that is live at once. Default: " + format_bytes(options.peak_bytes));
  command->add_option("--streams", options.streams, "Streams to spread blocks over. Default: 1")->type_name("N");
  command->add_flag("--list", arguments->list, "List the patterns and what each is meant to hurt");
  command->footer("Patterns:\n" + pattern_list() + "\n" + kFormatHelp +
                  "\nExamples:\n"
                  "  gmlake generate sawtooth --out sawtooth.gmtrace\n"
                  "  gmlake generate pins --seed 7 --events 1000000 --peak 24GiB --out pins.csv");
  command->callback([arguments, &exit] { exit = generate(*arguments); });
}

}  // namespace gmlake::cli
