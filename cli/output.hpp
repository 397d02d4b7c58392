// Where results go: standard output, or a file that is either written whole or left as it was.
#pragma once

#include <string>
#include <string_view>

namespace gmlake::cli {

// Writes all of `text` to standard output. A reader that has gone away (`| head`) is no error: the rest is dropped.
// Throws CommandError when the text cannot be written.
void write_stdout(std::string_view text);

// True when `path` names standard output: "-", or a path such as /dev/stdout that leads to the same file.
bool is_stdout(const std::string& path);

// observe::write_file_atomically(), which has the contract, with a CommandError for what it returns.
void write_file(const std::string& path, std::string_view text);

}  // namespace gmlake::cli
