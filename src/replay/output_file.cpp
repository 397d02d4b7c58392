#include "replay/output_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace gmlake::replay {
namespace {

std::string reason(const char* doing) {
  const int code = errno;
  return std::string(doing) + ": " + std::strerror(code);
}

bool write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t wrote = ::write(fd, bytes.data(), bytes.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(wrote));
  }
  return true;
}

std::optional<std::string> write_straight(int fd, std::string_view bytes, bool close) {
  std::optional<std::string> failure;
  if (!write_all(fd, bytes)) failure = reason("cannot write");
  if (close && ::close(fd) != 0 && !failure) failure = reason("cannot write");
  return failure;
}

// Where the links of `path` lead; `path` itself where nothing is there yet.
std::string follow_links(const std::string& path) {
  char* const real = ::realpath(path.c_str(), nullptr);
  if (real == nullptr) return path;
  std::string target = real;
  std::free(real);
  return target;
}

// A file beside the target that nobody else has. The kernel applies the process's mask to its permissions.
int make_temporary(const std::string& target, std::string& name) {
  static std::atomic<unsigned> next{0};
  for (int attempt = 0; attempt < 100; ++attempt) {
    name = target + ".tmp." + std::to_string(::getpid()) + "." + std::to_string(next++);
    const int fd = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0 || errno != EEXIST) return fd;
  }
  return -1;
}

// A rename is on disk once its folder is. A folder that cannot be synced is no reason to fail: the file is complete.
void sync_folder(const std::string& path) {
  const auto slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  (void)::fsync(fd);
  ::close(fd);
}

std::optional<std::string> replace(const std::string& target, std::optional<mode_t> mode, std::string_view bytes) {
  std::string temporary;
  const int fd = make_temporary(target, temporary);
  if (fd < 0) return reason("cannot make a temporary file beside it");
  std::optional<std::string> failure;
  if (!write_all(fd, bytes)) failure = reason("cannot write");
  if (!failure && mode && ::fchmod(fd, *mode) != 0) failure = reason("cannot set its permissions");
  if (!failure && ::fsync(fd) != 0) failure = reason("cannot flush");
  if (::close(fd) != 0 && !failure) failure = reason("cannot write");
  if (!failure && ::rename(temporary.c_str(), target.c_str()) != 0) failure = reason("cannot rename");
  if (failure) {
    ::unlink(temporary.c_str());
  } else {
    sync_folder(target);
  }
  return failure;
}

}  // namespace

std::optional<std::string> write_file_atomically(const std::string& path, std::string_view bytes) {
  if (path == "-") return write_straight(STDOUT_FILENO, bytes, false);
  struct stat info {};
  const bool exists = ::stat(path.c_str(), &info) == 0;
  if (exists && S_ISDIR(info.st_mode)) return "is a directory";
  const bool straight = (exists && !S_ISREG(info.st_mode)) || path.starts_with("/dev/") || path.starts_with("/proc/");
  if (straight) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    return fd < 0 ? reason("cannot open") : write_straight(fd, bytes, true);
  }
  // A file that its owner made read-only stays, though its folder would allow the rename.
  if (exists && ::access(path.c_str(), W_OK) != 0) return reason("cannot write");
  return replace(follow_links(path), exists ? std::optional<mode_t>(info.st_mode & 07777) : std::nullopt, bytes);
}

}  // namespace gmlake::replay
