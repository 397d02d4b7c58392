// Bytes of an input as its readers want them: as they are, or inflated where they are gzip, a window at a time. A
// reader looks at what lies between at() and end(), asks for more where that is too little, and says how far it came.
// Inflating into a window that stays in the cache costs half of inflating into fresh memory. One thread.
#pragma once

#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "replay/input_error.hpp"
#include "replay/input_file.hpp"

namespace gmlake::replay {

// The most that a compressed input of `bytes` bytes may inflate to: 16 MiB or 100 times its size, whichever is more.
// Snapshots inflate about 15 times; deflate itself allows 1,032 times, which is what a bomb has.
constexpr std::uint64_t max_inflated_bytes(std::uint64_t bytes) {
  constexpr std::uint64_t kFloor = std::uint64_t{16} << 20;
  const std::uint64_t scaled = bytes > kMaxInputBytes / 100 ? kMaxInputBytes : bytes * 100;
  return scaled > kFloor ? scaled : kFloor;
}

class ByteSource {
 public:
  // `bytes` must outlive the source; gzip is told by its first bytes. `file` is for errors.
  ByteSource(std::string_view bytes, std::string file);
  ByteSource(const ByteSource&) = delete;
  ByteSource& operator=(const ByteSource&) = delete;
  ~ByteSource();

  const char* at() const { return at_; }
  const char* end() const { return end_; }
  void set_at(const char* at) { at_ = at; }  // at() <= at <= end()

  // Makes at least `need` bytes readable, where the input has so many; moves at() and end(). False where it has not, or
  // where it is damaged: see damage(). Memory grows with what really comes, not with `need`.
  bool fill(std::size_t need);

  // The offset of a place between at() and end() in the inflated input.
  std::uint64_t offset_of(const char* place) const { return received_ - static_cast<std::uint64_t>(end_ - place); }
  std::uint64_t received() const { return received_; }  // inflated bytes so far
  // About how many bytes will come: what the file claims, bounded. For reserving address space, never for trust.
  std::size_t expected_bytes() const { return expected_; }

  const std::string& file() const { return file_; }
  InputError error_at(const char* place, std::string reason) const;

  // What is wrong with the compressed data itself, if anything was found yet.
  const std::optional<InputError>& damage() const { return damage_; }
  // Reads on to the end of the input, so that the last checksum is compared. False where there is damage.
  bool finish();

 private:
  bool inflate_some();
  bool set_damage(std::string reason);

  std::string file_;
  std::string_view bytes_;
  bool compressed_ = false;
  bool ended_ = false;
  const char* at_ = nullptr;
  const char* end_ = nullptr;
  std::uint64_t received_ = 0;
  std::uint64_t limit_ = 0;
  std::size_t expected_ = 0;
  ByteBuffer window_;
  z_stream stream_{};
  std::optional<InputError> damage_;
};

}  // namespace gmlake::replay
