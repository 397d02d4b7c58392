#include "arguments.hpp"

#include "drivers.hpp"
#include "gmlake/bytes.hpp"

namespace gmlake::cli {

CLI::Option* add_size(CLI::App& command, const std::string& name, std::uint64_t& bytes, const std::string& meaning) {
  const auto read = [&bytes, name](const std::string& text) {
    const auto parsed = parse_bytes(text);
    if (!parsed) throw CLI::ValidationError(name, "'" + text + "' is not a size, such as 512MiB or 24GiB");
    if (*parsed == 0) throw CLI::ValidationError(name, "must be above 0");
    bytes = *parsed;
  };
  return command.add_option_function<std::string>(name, read, meaning)->type_name("SIZE");
}

void add_traces(CLI::App& command, ReplayArguments& arguments) {
  command.add_option("trace", arguments.traces, "Traces to replay")->required()->type_name("FILE");
}

void add_allocators(CLI::App& command, ReplayArguments& arguments) {
  arguments.allocators = allocator_names();
  command
      .add_option("-a,--allocators", arguments.allocators,
                  "Allocators, separated by commas: " + joined(allocator_names()) + ". Default: all of them")
      ->delimiter(',')
      ->allow_extra_args(false)  // the next word is a trace, not an allocator
      ->type_name("NAME,...")
      ->check(CLI::IsMember(allocator_names()).description(""));
}

void add_driver(CLI::App& command, ReplayArguments& arguments) {
  command
      .add_option("-d,--driver", arguments.driver,
                  "What stands under the allocators: model (books and the measured cost of each call), host (ordinary "
                  "memory), cuda (a GPU). Default: model")
      ->type_name("NAME")
      ->check(CLI::IsMember(driver_names()).description(""));
}

void add_capacity(CLI::App& command, ReplayArguments& arguments) {
  add_size(command, "-c,--capacity", arguments.capacity_bytes,
           "The most that an allocator may reserve. Default: all of the device");
}

void add_settings(CLI::App& command, ReplayArguments& arguments) {
  command.add_option("-s,--set", arguments.settings, "A setting of the allocator; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
}

void add_json(CLI::App& command, std::string& path) {
  command
      .add_option("--json", path, "Write the results as JSON to a file; - for standard output, and nothing else there")
      ->check([](const std::string& given) { return std::string(given.empty() ? "needs the name of a file" : ""); })
      ->type_name("FILE");
}

}  // namespace gmlake::cli
