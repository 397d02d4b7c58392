#include "output.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "error.hpp"
#include "observe/output_file.hpp"

namespace gmlake::cli {
namespace {

// 0, or the errno of the first write that failed.
int write_all(int file, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(file, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return 0;
}

}  // namespace

void complain(const std::string& message) { std::fprintf(stderr, "gmlake: %s\n", message.c_str()); }

void write_stdout(std::string_view text) {
  const int error = write_all(STDOUT_FILENO, text);
  if (error != 0 && error != EPIPE)
    throw CommandError(std::string("standard output: cannot write: ") + std::strerror(error));
}

bool is_stdout(const std::string& path) {
  if (path == "-") return true;
  struct stat named {};
  struct stat standard {};
  return ::stat(path.c_str(), &named) == 0 && ::fstat(STDOUT_FILENO, &standard) == 0 &&
         named.st_dev == standard.st_dev && named.st_ino == standard.st_ino;
}

void write_file(const std::string& path, std::string_view text) {
  if (const auto reason = observe::write_file_atomically(path, text)) throw CommandError(path + ": " + *reason);
}

}  // namespace gmlake::cli
