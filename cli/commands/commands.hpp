// The commands of the tool. Each adds itself to the parser; the one that the user names runs after parsing.
#pragma once

#include <CLI/CLI.hpp>

#include "../error.hpp"

namespace gmlake::cli {

// Each adds one subcommand, whose run sets `exit` to ExitCode::done or ExitCode::check_failed, and throws CommandError
// for the rest.
void add_compare(CLI::App& app, ExitCode& exit);
void add_replay(CLI::App& app, ExitCode& exit);
void add_fit(CLI::App& app, ExitCode& exit);
void add_generate(CLI::App& app, ExitCode& exit);
void add_convert(CLI::App& app, ExitCode& exit);
void add_info(CLI::App& app, ExitCode& exit);
void add_options(CLI::App& app, ExitCode& exit);

}  // namespace gmlake::cli
