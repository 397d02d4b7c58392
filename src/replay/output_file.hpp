// Writes a file whole or not at all: to a temporary file beside it, then flushed and renamed over it. Callable from any
// thread; two writers of one path leave the file of one of them.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace gmlake::replay {

// Returns why it failed, or nothing; then a file that was there before is as it was. A symbolic link is followed and
// stays. A pipe, a device, "-" (standard output) and what lies in /dev or /proc are written straight: there is nothing
// to rename. The file's permissions stay as they were; a new file gets the usual ones.
std::optional<std::string> write_file_atomically(const std::string& path, std::string_view bytes);

}  // namespace gmlake::replay
