#include "observe/output_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace gmlake::observe {
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

constexpr std::size_t kBuffer = std::size_t{64} << 10;

}  // namespace

OutputFile::OutputFile(const std::string& path) : target_(path) {
  if (path == "-") {
    fd_ = STDOUT_FILENO;
    return;
  }
  struct stat info {};
  const bool exists = ::stat(path.c_str(), &info) == 0;
  if (exists && S_ISDIR(info.st_mode)) {
    failure_ = "is a directory";
  } else if ((exists && !S_ISREG(info.st_mode)) || path.starts_with("/dev/") || path.starts_with("/proc/")) {
    fd_ = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd_ < 0) failure_ = reason("cannot open");
  } else if (exists && ::access(path.c_str(), W_OK) != 0) {
    failure_ = reason("cannot write");  // a file that its owner made read-only stays, though its folder allows a rename
  } else {
    target_ = follow_links(path);
    if (exists) mode_ = info.st_mode & 07777;
    fd_ = make_temporary(target_, temporary_);
    if (fd_ < 0) {
      failure_ = reason("cannot make a temporary file beside it");
      temporary_.clear();
    }
  }
}

OutputFile::~OutputFile() {
  if (fd_ >= 0 && fd_ != STDOUT_FILENO) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void OutputFile::flush() {
  if (!failure_ && !write_all(fd_, buffer_)) failure_ = reason("cannot write");
  buffer_.clear();
}

void OutputFile::write(std::string_view bytes) {
  if (failure_) return;
  if (buffer_.size() + bytes.size() > kBuffer) flush();
  if (bytes.size() < kBuffer) {
    buffer_ += bytes;
  } else if (!failure_ && !write_all(fd_, bytes)) {
    failure_ = reason("cannot write");
  }
}

std::optional<std::string> OutputFile::commit() {
  flush();
  if (fd_ == STDOUT_FILENO || fd_ < 0) return failure_;
  if (!temporary_.empty()) {
    if (!failure_ && mode_ && ::fchmod(fd_, *mode_) != 0) failure_ = reason("cannot set its permissions");
    if (!failure_ && ::fsync(fd_) != 0) failure_ = reason("cannot flush");
  }
  if (::close(fd_) != 0 && !failure_) failure_ = reason("cannot write");
  fd_ = -1;
  if (temporary_.empty() || failure_) return failure_;
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) {
    failure_ = reason("cannot rename");
    return failure_;
  }
  temporary_.clear();
  sync_folder(target_);
  return failure_;
}

std::optional<std::string> write_file_atomically(const std::string& path, std::string_view bytes) {
  OutputFile file(path);
  file.write(bytes);
  return file.commit();
}

}  // namespace gmlake::observe
