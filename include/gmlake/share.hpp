// Blocks that two processes have: one exports a block as the file descriptors of its PhyBlocks and a layout, the other
// imports these at an address of its own, and both see the same bytes.
//
// The exporter keeps its block until the importer has done with it: a block that is freed is used for something else,
// and the importer would see that. PhyBlocks go whole, so the importer also sees what lies beside the block in its
// first and last one. The memory lives until every process has let go of it: an importer outlives the exporter's death,
// and an exporter does not notice the importer's. Nothing orders the streams of the two; that is theirs to do.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "gmlake/result.hpp"

namespace gmlake {

// What goes with the descriptors: plain numbers, to be sent by any way.
struct SharedLayout {
  std::uint64_t bytes = 0;                          // of the block, as handed out
  std::uint64_t offset = 0;                         // of its first byte in the first PhyBlock
  std::vector<std::uint64_t> phy_block_bytes = {};  // in order of address

  friend bool operator==(const SharedLayout&, const SharedLayout&) = default;
};

// A layout with its descriptors, one for each PhyBlock, in the same order. Closes them.
class SharedBlock {
 public:
  SharedBlock() = default;
  SharedBlock(SharedLayout layout, std::vector<int> fds) : layout_(std::move(layout)), fds_(std::move(fds)) {}
  ~SharedBlock();
  SharedBlock(SharedBlock&& other) noexcept : layout_(std::move(other.layout_)), fds_(std::exchange(other.fds_, {})) {}
  SharedBlock& operator=(SharedBlock&& other) noexcept {
    std::swap(layout_, other.layout_);
    std::swap(fds_, other.fds_);
    return *this;
  }

  const SharedLayout& layout() const { return layout_; }
  std::span<const int> fds() const { return fds_; }

 private:
  SharedLayout layout_;
  std::vector<int> fds_;
};

// Through a connected Unix socket, in blocking mode, between processes of one build. Both may be called from any
// thread, one a socket at a time. What comes in is checked before anything is made of it; descriptors of a message that
// is refused are closed. Errors: invalid_value (the other end is gone, or sent something else), out_of_memory.
Status send_block(int socket, const SharedBlock& block);
Result<SharedBlock> receive_block(int socket);

}  // namespace gmlake
