// gmlake options: every setting of the allocator, from the library's own table.
#include <sstream>

#include "../arguments.hpp"
#include "../json.hpp"
#include "../option_list.hpp"
#include "../output.hpp"
#include "commands.hpp"

namespace gmlake::cli {
namespace {

constexpr std::size_t kColumns = 96;

// `text` in lines of at most kColumns, each indented.
std::string wrapped(const std::string& text) {
  constexpr const char* kIndent = "    ";
  std::istringstream words(text);
  std::string out;
  std::string line = kIndent;
  for (std::string word; words >> word;) {
    if (line != kIndent && line.size() + 1 + word.size() > kColumns) {
      out += line + '\n';
      line = kIndent;
    }
    line += (line == kIndent ? "" : " ") + word;
  }
  return out + line + '\n';
}

ExitCode show_options(const std::string& json) {
  std::string text;
  Json results = Json::array();
  for (const auto& option : listed_options()) {
    text += option.key + " = " + option.default_value + "    " + option.range + '\n' + wrapped(option.meaning);
    results.push_back(Json{
        {"key", option.key}, {"default", option.default_value}, {"range", option.range}, {"meaning", option.meaning}});
  }
  if (json.empty() || !is_stdout(json)) write_stdout(text);
  if (!json.empty()) write_results(json, "options", std::move(results));
  return ExitCode::done;
}

}  // namespace

void add_options(CLI::App& app, ExitCode& exit) {
  auto* command = app.add_subcommand("options", "List the allocator's settings: keys, defaults, ranges, meanings");
  auto json = std::make_shared<std::string>();
  add_json(*command, *json);
  command->footer(
      "Set them with --set KEY=VALUE, or for a program that uses the library with GMLAKE_CONF=KEY:VALUE,...");
  command->callback([json, &exit] { exit = show_options(*json); });
}

}  // namespace gmlake::cli
