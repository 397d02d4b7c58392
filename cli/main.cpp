// The gmlake tool: parses the command line, runs one command, and turns whatever happens into an exit code.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <exception>
#include <new>
#include <sstream>

#include "commands/commands.hpp"
#include "error.hpp"
#include "output.hpp"

namespace gmlake::cli {
namespace {

constexpr const char* kDescription =
    "gmlake: a GPU memory allocator that ends fragmentation, and the means to see what it does with your job.\n"
    "Replays recorded allocation traces through gmlake and through models of PyTorch's allocators; needs no GPU.";

constexpr const char* kFooter =
    "Examples:\n"
    "  gmlake compare examples/traces/opt_recompute.pickle.gz\n"
    "  gmlake compare job.pickle --allocators gmlake,torch-native --capacity 24GiB\n"
    "  gmlake fit job.pickle                        the least memory each allocator can run the job in\n"
    "  gmlake replay job.pickle --verify --driver host\n"
    "  gmlake generate sawtooth --out sawtooth.gmtrace\n"
    "\n"
    "A trace is a memory snapshot of PyTorch (torch.cuda.memory._snapshot(), pickled), an RMM log, or a .gmtrace;\n"
    "`gmlake convert` turns one into the other. `gmlake COMMAND --help` says more about each command, `gmlake "
    "options`\n"
    "lists the allocator's settings.\n"
    "\n"
    "Sizes are written as 512MiB, 24GiB or 1.5G; units are powers of 1,024.\n"
    "Exit codes: 0 done, 1 a check failed (wrong bytes, out of memory with no limit set), 2 bad usage or bad input,\n"
    "70 a bug in gmlake.";

ExitCode report_parse_error(const CLI::App& app, const CLI::ParseError& error) {
  std::ostringstream out;
  std::ostringstream err;
  const int code = app.exit(error, out, err);
  if (code == 0) {  // --help, --version
    write_stdout(out.str());
    return ExitCode::done;
  }
  complain(err.str().substr(0, err.str().find_last_not_of('\n') + 1));
  return ExitCode::bad_input;
}

// The parser would only say that a command is missing.
void check_command(const CLI::App& app, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return;
  std::string known;
  for (const CLI::App* command : app.get_subcommands({})) {
    if (command->check_name(argv[1])) return;
    known += (known.empty() ? "" : ", ") + command->get_name();
  }
  throw CommandError("unknown command '" + std::string(argv[1]) + "'; there are " + known);
}

ExitCode run(int argc, char** argv) {
  CLI::App app(kDescription, "gmlake");
  app.footer(kFooter);
  app.set_version_flag("--version", "gmlake " GMLAKE_VERSION);
  app.require_subcommand(1);
  app.get_formatter()->column_width(36);
  ExitCode exit = ExitCode::done;
  add_compare(app, exit);
  add_replay(app, exit);
  add_fit(app, exit);
  add_generate(app, exit);
  add_convert(app, exit);
  add_info(app, exit);
  add_options(app, exit);
  check_command(app, argc, argv);
  try {
    app.parse(argc, argv);
    return exit;
  } catch (const CLI::ParseError& error) {
    return report_parse_error(app, error);
  }
}

ExitCode run_and_catch(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const CommandError& error) {
    complain(error.what());
    return error.code();
  } catch (const std::bad_alloc&) {
    complain("out of host memory");
    return ExitCode::bad_input;
  } catch (const std::exception& error) {
    complain(std::string("internal error: ") + error.what());
    return ExitCode::internal;
  } catch (...) {
    complain("internal error of unknown kind");
    return ExitCode::internal;
  }
}

}  // namespace
}  // namespace gmlake::cli

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is an error of write(), which output.cpp handles
  return static_cast<int>(gmlake::cli::run_and_catch(argc, argv));
}
