#include "replay/input_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
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

bool is_gzip(std::string_view bytes) { return bytes.substr(0, 3) == "\x1f\x8b\x08"; }

namespace {

// Inflates in steps that stay in the cache; a step's output is written once and read soon.
class Inflater {
 public:
  Inflater(std::string_view bytes, const std::string& file) : bytes_(bytes), file_(file) {
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
    stream_.avail_in = static_cast<uInt>(bytes.size());
  }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
  ~Inflater() { inflateEnd(&stream_); }

  InputResult<ByteBuffer> run() {
    constexpr int kGzipOnly = 16;
    if (bytes_.size() > kMaxInputBytes) return error("is longer than 4 GiB");
    if (inflateInit2(&stream_, kGzipOnly + MAX_WBITS) != Z_OK) return error("not enough memory to inflate it");
    const std::uint64_t limit = max_inflated_bytes(bytes_.size());
    if (!out_.reserve(first_capacity(limit))) return error("not enough memory to inflate it");
    while (true) {
      if (out_.size() == out_.capacity()) {
        if (out_.size() > limit) {
          return error("inflates to more than " + std::to_string(limit) +
                       " bytes, more than a snapshot of this size can hold");
        }
        if (!out_.reserve(std::min<std::size_t>(out_.capacity() * 2, limit + 1))) {
          return error("not enough memory to inflate it");
        }
      }
      const int status = step();
      if (status == Z_STREAM_END) {
        if (at_end()) return std::move(out_);
        if (inflateReset(&stream_) != Z_OK) return error("not enough memory to inflate it");
      } else if (status == Z_BUF_ERROR || (status == Z_OK && stream_.avail_in == 0 && stream_.avail_out != 0)) {
        return error("ends within its compressed data");
      } else if (status != Z_OK) {
        return error(std::string("is damaged: ") + (stream_.msg != nullptr ? stream_.msg : "not a gzip stream"));
      }
    }
  }

 private:
  // The last four bytes of a gzip file say its inflated size modulo 2^32. A hint alone: what it says is bounded.
  std::size_t first_capacity(std::uint64_t limit) const {
    std::uint32_t claimed = 0;
    if (bytes_.size() >= 18) std::memcpy(&claimed, bytes_.data() + bytes_.size() - 4, 4);
    const std::uint64_t plausible = std::min<std::uint64_t>(claimed, bytes_.size() * 40);
    return std::min<std::uint64_t>(std::max<std::uint64_t>(plausible, 4096), limit) + 1;
  }

  int step() {
    constexpr std::size_t kStep = std::size_t{256} << 10;
    const std::size_t room = std::min(kStep, out_.capacity() - out_.size());
    stream_.next_out = reinterpret_cast<Bytef*>(out_.data() + out_.size());
    stream_.avail_out = static_cast<uInt>(room);
    const int status = inflate(&stream_, Z_NO_FLUSH);
    out_.set_size(out_.size() + room - stream_.avail_out);
    return status;
  }

  // True after the last member: nothing follows, or zeros as tape and block devices pad with.
  bool at_end() const {
    const std::string_view rest = bytes_.substr(bytes_.size() - stream_.avail_in);
    return rest.find_first_not_of('\0') == std::string_view::npos;
  }

  InputError error(std::string reason) const {
    return {file_, InputPlace::byte, bytes_.size() - stream_.avail_in, std::move(reason)};
  }

  std::string_view bytes_;
  const std::string& file_;
  z_stream stream_{};
  ByteBuffer out_;
};

}  // namespace

InputResult<ByteBuffer> inflate_gzip(std::string_view bytes, const std::string& file) {
  return Inflater(bytes, file).run();
}

}  // namespace gmlake::replay
