#include "json.hpp"

#include "output.hpp"

namespace gmlake::cli {

Json to_json(const driver::CallCounts& calls) {
  return Json{{"reserve", calls.reserve},
              {"address_free", calls.address_free},
              {"create", calls.create},
              {"release", calls.release},
              {"map", calls.map},
              {"unmap", calls.unmap},
              {"set_access", calls.set_access},
              {"event_record", calls.event_record},
              {"event_query", calls.event_query},
              {"event_synchronize", calls.event_synchronize},
              {"stream_wait", calls.stream_wait},
              {"stream_query", calls.stream_query}};
}

void write_results(const std::string& path, const std::string& command, Json results) {
  const Json document{{"version", GMLAKE_VERSION}, {"command", command}, {"results", std::move(results)}};
  // File names may hold any bytes; JSON may not: those that are not UTF-8 are replaced.
  const std::string text = document.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
  if (is_stdout(path)) {
    write_stdout(text);
  } else {
    write_file(path, text);
  }
}

}  // namespace gmlake::cli
