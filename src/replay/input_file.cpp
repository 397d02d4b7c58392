#include "replay/input_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace gmlake::replay {
namespace {

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd, bool owned) : fd_(fd), owned_(owned) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (owned_ && fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
  bool owned_;
};

InputError failed(const std::string& file, std::string reason) {
  return {file, InputPlace::whole_file, 0, std::move(reason)};
}

InputError failed_errno(const std::string& file, const char* doing) {
  const int code = errno;
  return failed(file, std::string(doing) + ": " + std::strerror(code));
}

// Empty where the file can be read from start to end.
std::string refusal(const struct stat& info) {
  if (S_ISDIR(info.st_mode)) return "is a directory, not a trace";
  if (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode)) return "is a device, not a trace";
  if (S_ISREG(info.st_mode) && static_cast<std::uint64_t>(info.st_size) > kMaxInputBytes) {
    return "is longer than 4 GiB";
  }
  return {};
}

}  // namespace

bool ByteBuffer::reserve(std::size_t capacity) {
  if (capacity <= capacity_) return true;
  // realloc moves large buffers by remapping their pages, so growing does not copy.
  void* grown = std::realloc(bytes_.get(), capacity);
  if (grown == nullptr) return false;
  (void)bytes_.release();
  bytes_.reset(static_cast<char*>(grown));
  capacity_ = capacity;
  return true;
}

InputResult<ByteBuffer> read_input(const std::string& path) {
  const bool is_standard_input = path == "-";
  const std::string file = is_standard_input ? "standard input" : path;
  const FileDescriptor fd(is_standard_input ? STDIN_FILENO : ::open(path.c_str(), O_RDONLY | O_CLOEXEC),
                          !is_standard_input);
  if (fd.get() < 0) return failed_errno(file, "cannot open");
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return failed_errno(file, "cannot read");
  if (std::string reason = refusal(info); !reason.empty()) return failed(file, std::move(reason));

  ByteBuffer buffer;
  // One byte more than the file has, so that its end is seen without growing.
  std::size_t wanted = S_ISREG(info.st_mode) ? static_cast<std::size_t>(info.st_size) + 1 : std::size_t{64} << 10;
  while (true) {
    if (!buffer.reserve(wanted)) return failed(file, "not enough memory to read it");
    const ssize_t got = ::read(fd.get(), buffer.data() + buffer.size(), buffer.capacity() - buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return failed_errno(file, "cannot read");
    if (got == 0) break;
    buffer.set_size(buffer.size() + static_cast<std::size_t>(got));
    if (buffer.size() > kMaxInputBytes) return failed(file, "is longer than 4 GiB");
    if (buffer.size() == buffer.capacity()) wanted = buffer.capacity() * 2;
  }
  if (buffer.size() == 0) return failed(file, "is empty");
  return buffer;
}

}  // namespace gmlake::replay
