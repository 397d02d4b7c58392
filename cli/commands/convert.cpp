// gmlake convert: a trace of any format that can be read, in any that can be written.
#include "../progress.hpp"
#include "../traces.hpp"
#include "commands.hpp"

namespace gmlake::cli {

void add_convert(CLI::App& app, ExitCode& exit) {
  struct Arguments {
    std::string in;
    std::string out;
  };
  auto* command = app.add_subcommand("convert", "Convert a trace to another format");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("in", arguments->in, "The trace; its content tells its format")->required()->type_name("FILE");
  command->add_option("out", arguments->out, "Where to write it; - for standard output")->required()->type_name("FILE");
  command->footer(std::string(kFormatHelp) +
                  "\nExamples:\n"
                  "  gmlake convert job.pickle.gz job.gmtrace\n"
                  "  gmlake convert rmm_log.csv job.pickle");
  command->callback([arguments, &exit] {
    const auto format = format_for(arguments->out);  // before the work: a bad name should not cost a minute
    Progress progress(2);
    progress.begin("reading " + arguments->in);
    const replay::Trace trace = load_trace(arguments->in);
    progress.begin("writing " + arguments->out);
    save_trace(trace, arguments->out, format);
    exit = ExitCode::done;
  });
}

}  // namespace gmlake::cli
