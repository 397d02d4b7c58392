// The bytes of an input file: read whole, and inflated where they are gzip. Both are bounded, so that what a file
// claims about itself never decides how much memory is taken. Callable from any thread.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "replay/input_error.hpp"

namespace gmlake::replay {

// A growing buffer that leaves its bytes uninitialized: filling 50 MB with zeros first costs more than inflating into
// it.
class ByteBuffer {
 public:
  char* data() { return bytes_.get(); }
  std::string_view view() const { return {bytes_.get(), size_}; }
  std::size_t size() const { return size_; }
  std::size_t capacity() const { return capacity_; }
  void set_size(std::size_t size) { size_ = size; }  // <= capacity()
  bool reserve(std::size_t capacity);                // false: no memory; the bytes so far stay

 private:
  struct Free {
    void operator()(char* bytes) const { std::free(bytes); }
  };
  std::unique_ptr<char, Free> bytes_;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

// The longest input: what its readers number with 32 bits fits.
inline constexpr std::uint64_t kMaxInputBytes = (std::uint64_t{1} << 32) - 1;

// Reads a regular file, a pipe, or standard input where `path` is "-". Directories and devices are refused.
// Errors carry the system's reason; an empty input is an error too.
InputResult<ByteBuffer> read_input(const std::string& path);

}  // namespace gmlake::replay
