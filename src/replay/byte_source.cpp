#include "replay/byte_source.hpp"

#include <algorithm>
#include <cstring>

namespace gmlake::replay {
namespace {

constexpr std::size_t kWindow = std::size_t{256} << 10;
constexpr int kGzipOnly = 16;  // added to zlib's window bits

}  // namespace

ByteSource::ByteSource(std::string_view bytes, std::string file)
    : file_(std::move(file)), bytes_(bytes), compressed_(bytes.starts_with("\x1f\x8b\x08")) {
  if (!compressed_) {
    ended_ = true;
    at_ = bytes_.data();
    end_ = at_ + bytes_.size();
    received_ = expected_ = bytes_.size();
    return;
  }
  limit_ = max_inflated_bytes(bytes_.size());
  // The last four bytes of a gzip file say its inflated size modulo 2^32.
  std::uint32_t claimed = 0;
  if (bytes_.size() >= 18) std::memcpy(&claimed, bytes_.data() + bytes_.size() - 4, 4);
  expected_ = std::min<std::size_t>(claimed, bytes_.size() * 40);
  stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes_.data()));
  stream_.avail_in = static_cast<uInt>(std::min<std::uint64_t>(bytes_.size(), kMaxInputBytes));
  if (inflateInit2(&stream_, kGzipOnly + MAX_WBITS) != Z_OK) set_damage("not enough memory to inflate it");
}

ByteSource::~ByteSource() {
  if (compressed_) inflateEnd(&stream_);
}

InputError ByteSource::error_at(const char* place, std::string reason) const {
  return {file_, compressed_ ? InputPlace::inflated_byte : InputPlace::byte, offset_of(place), std::move(reason)};
}

bool ByteSource::set_damage(std::string reason) {
  damage_ = InputError{file_, InputPlace::byte, bytes_.size() - stream_.avail_in, std::move(reason)};
  ended_ = true;
  return false;
}

bool ByteSource::fill(std::size_t need) {
  while (static_cast<std::size_t>(end_ - at_) < need) {
    if (ended_ || !inflate_some()) return false;
  }
  return true;
}

// Keeps what is unread, at the window's start, and inflates behind it. Doubles a window that is full of unread bytes.
bool ByteSource::inflate_some() {
  const std::size_t unread = static_cast<std::size_t>(end_ - at_);
  // A long string at the window's start stays where it is, or reading it would move it again for each step.
  if (unread != 0 && at_ != window_.data()) std::memmove(window_.data(), at_, unread);
  if (unread * 2 >= window_.capacity() && !window_.reserve(std::max(kWindow, window_.capacity() * 2))) {
    return set_damage("not enough memory to inflate it");
  }
  at_ = window_.data();
  end_ = at_ + unread;
  const std::size_t room = std::min(window_.capacity() - unread, kWindow);
  stream_.next_out = reinterpret_cast<Bytef*>(window_.data() + unread);
  stream_.avail_out = static_cast<uInt>(room);
  const int status = inflate(&stream_, Z_NO_FLUSH);
  const std::size_t came = room - stream_.avail_out;
  end_ += came;
  received_ += came;
  if (received_ > limit_) {
    return set_damage("inflates to more than " + std::to_string(limit_) + " bytes, 100 times its size or more");
  }
  if (status == Z_STREAM_END) {
    // Another member may follow, or zeros, as tapes pad with.
    const std::string_view rest = bytes_.substr(bytes_.size() - stream_.avail_in);
    ended_ = rest.find_first_not_of('\0') == std::string_view::npos;
    return ended_ || inflateReset(&stream_) == Z_OK || set_damage("not enough memory to inflate it");
  }
  if (status == Z_BUF_ERROR || (status == Z_OK && stream_.avail_in == 0 && stream_.avail_out != 0)) {
    return set_damage("ends within its compressed data");
  }
  return status == Z_OK || set_damage(std::string("is damaged: ") +
                                      (stream_.msg != nullptr ? stream_.msg : "its compressed data are malformed"));
}

bool ByteSource::finish() {
  while (!ended_) {
    at_ = end_;
    if (!inflate_some()) break;
  }
  return !damage_.has_value();
}

}  // namespace gmlake::replay
