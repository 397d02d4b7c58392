// Addresses for formats that name blocks by address: a best fit over one endless range, so that live blocks never share
// bytes and addresses come again, as a real allocator's do. One thread.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <utility>

namespace gmlake::replay {

class MadeUpAddresses {
 public:
  // A multiple of 512; `bytes` of 0 takes 512 too.
  std::uint64_t take(std::uint64_t bytes);
  void give(std::uint64_t address, std::uint64_t bytes);

 private:
  static std::uint64_t rounded(std::uint64_t bytes);
  void insert(std::uint64_t address, std::uint64_t bytes);
  void erase(std::map<std::uint64_t, std::uint64_t>::iterator range);

  std::map<std::uint64_t, std::uint64_t> free_;                     // address -> bytes, never adjacent
  std::set<std::pair<std::uint64_t, std::uint64_t>> free_by_size_;  // {bytes, address}
  std::uint64_t end_ = std::uint64_t{0x7f} << 40;                   // where CUDA's own addresses begin
};

}  // namespace gmlake::replay
