// The arguments that several commands share, and how they read them.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "replay/engine.hpp"

namespace gmlake::cli {

// An option whose value is a size as people write it: 512MiB, 24GiB, 4096. 0 is refused.
CLI::Option* add_size(CLI::App& command, const std::string& name, std::uint64_t& bytes, const std::string& meaning);

// What the replaying commands take.
struct ReplayArguments {
  std::vector<std::string> traces;
  std::vector<std::string> allocators;
  std::string driver = "model";
  std::uint64_t capacity_bytes = 0;   // 0: the device's own
  std::vector<std::string> settings;  // KEY=VALUE
  std::string json;                   // a file, "-" for standard output, empty for none
};

void add_traces(CLI::App& command, ReplayArguments& arguments);      // TRACE...
void add_allocators(CLI::App& command, ReplayArguments& arguments);  // --allocators, all of them unless said otherwise
void add_driver(CLI::App& command, ReplayArguments& arguments);      // --driver
void add_capacity(CLI::App& command, ReplayArguments& arguments);    // --capacity
void add_settings(CLI::App& command, ReplayArguments& arguments);    // --set
void add_json(CLI::App& command, std::string& path);                 // --json

// "a, b, c"
std::string joined(const std::vector<std::string>& names);
std::vector<std::string> allocator_names();

// KEY=VALUE pairs, parsed. Throws CommandError for one with no '=', no key, or a key given twice.
replay::Settings parse_settings(const std::vector<std::string>& pairs);

}  // namespace gmlake::cli
