// Results as JSON. The fields are an interface: scripts read them, and tests/cli/ lists them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "driver/record.hpp"

namespace gmlake::cli {

using Json = nlohmann::ordered_json;  // fields come out in the order in which they were put in

// {reserve, address_free, create, release, map, unmap, set_access}
Json to_json(const driver::CallCounts& calls);

// Writes {"version", "command", "results"} to a file, or to standard output for "-". Throws CommandError.
void write_results(const std::string& path, const std::string& command, Json results);

}  // namespace gmlake::cli
