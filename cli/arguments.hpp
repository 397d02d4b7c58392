// The arguments that several commands share, as options of the parser.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "replay_arguments.hpp"

namespace gmlake::cli {

// An option whose value is a size as people write it: 512MiB, 24GiB, 4096. 0 is refused.
CLI::Option* add_size(CLI::App& command, const std::string& name, std::uint64_t& bytes, const std::string& meaning);

void add_traces(CLI::App& command, ReplayArguments& arguments);      // TRACE...
void add_allocators(CLI::App& command, ReplayArguments& arguments);  // --allocators, all of them unless said otherwise
void add_driver(CLI::App& command, ReplayArguments& arguments);      // --driver
void add_capacity(CLI::App& command, ReplayArguments& arguments);    // --capacity
void add_settings(CLI::App& command, ReplayArguments& arguments);    // --set
void add_json(CLI::App& command, std::string& path);                 // --json

}  // namespace gmlake::cli
