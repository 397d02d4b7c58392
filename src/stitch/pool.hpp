// The VirBlocks of one stream and one size class: which bytes of their segments are live, cached or holes.
//
// A segment's blocks form a list in address order without gaps. Fitting, splitting and merging are bookkeeping alone
// and touch no mapping. What the slow path does to a range goes through one bracket: claim() takes it out of every
// index, whatever lies under it is changed, publish() looks at the mappings and puts it back as free runs and holes. So
// a failed change is undone by publishing again.
//
// Not thread-safe: the device's `state` lock covers everything here; publish() also reads mappings, so its caller holds
// `grow` as well.
#pragma once

#include <cstdint>
#include <vector>

#include "base/intrusive_list.hpp"
#include "base/slab.hpp"
#include "memory/phy_block.hpp"
#include "stitch/block.hpp"
#include "stitch/free_index.hpp"

namespace gmlake::stitch {

enum class SizeClass : std::uint8_t { small, large };

class Pool {
 public:
  using HoleList = IntrusiveList<Block, &Block::links>;
  using BlockSlab = Slab<Block>;

  Pool(memory::StreamIndex stream, SizeClass size_class, BlockSlab& blocks)
      : stream_(stream), class_(size_class), blocks_(blocks) {}
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  memory::StreamIndex stream() const { return stream_; }
  SizeClass size_class() const { return class_; }

  // Takes over an empty segment: one hole.
  void adopt(memory::VmmSegment* segment);
  // Gives up a segment that is one hole with nothing mapped in it. The caller frees its addresses.
  void abandon(memory::VmmSegment* segment);
  bool is_vacant(const memory::VmmSegment* segment) const;

  // A free run with at least `bytes`, a multiple of 512, by the rule of FreeIndex. Null: none.
  Block* find(std::uint64_t bytes) const { return free_.find(bytes); }
  // The first `bytes` of a free run become live; the rest stays free. Throws std::bad_alloc with nothing changed.
  Block* take(Block* run, std::uint64_t bytes, std::uint64_t requested);
  // A live or pending block becomes free, and one with its free neighbours. `tick`: its stream's clock now.
  void give_back(Block* block, std::uint64_t tick);

  // Makes [begin, end), free runs and holes throughout, one claimed block. `first` is the block that contains begin.
  // What lies outside stays what it was; of a run that is cut in two, the left part keeps its Block.
  Block* claim(Block* first, Address begin, Address end);
  // Turns a claimed block into free runs, where homes lie under it, and holes, merged with their neighbours. `tick`:
  // for the free ones. Returns the block at its begin.
  Block* publish(Block* claimed, std::uint64_t tick);

  // Host memory for splits: claim() and publish() throw nothing where enough was set aside. set_aside() keeps `kept`
  // records in the stash and makes sure of `now` more for the splits that follow under the same lock. Throws
  // std::bad_alloc with nothing changed.
  using Stash = std::vector<Block*>;
  void set_aside(Stash& stash, std::size_t kept, std::size_t now);
  void return_stash(Stash& stash);

  const HoleList& holes() const { return holes_; }
  std::size_t segment_count() const { return spaces_.size(); }
  const memory::VmmSegment* segment(std::size_t i) const { return spaces_[i].segment; }
  Block* first_block(const memory::VmmSegment* segment) const { return spaces_[segment->index].first; }

  // Calls visit(Block*) for each free run of at least `bytes`.
  template <class Visit>
  void for_each_free(std::uint64_t bytes, Visit&& visit) const {
    free_.for_each(bytes, visit);
  }

  // Calls visit(const Block&) for each block of every segment, by address.
  template <class Visit>
  void for_each_block(Visit&& visit) const {
    for (const Space& space : spaces_) {
      for (const Block* block = space.first; block != nullptr; block = block->next) visit(*block);
    }
  }

  std::uint64_t free_bytes() const { return free_bytes_; }
  std::size_t free_runs() const { return free_.count(); }
  std::uint64_t live_blocks() const { return live_blocks_; }

  // Recounts everything and compares with the indexes and the mappings. Aborts on a difference. Needs `grow` too.
  void check() const;

 private:
  struct Space {
    memory::VmmSegment* segment;
    Block* first;
  };

  void index(Block* block);                         // puts a free run or a hole where it is found
  void unindex(Block* block);                       // and takes it out
  Block* split(Block* block, std::uint64_t bytes);  // keeps the first bytes in `block`; both are out of every index
  void absorb_next(Block* block);  // the next block becomes part of this one; both are out of every index
  Block* merge_and_index(Block* block);

  const memory::StreamIndex stream_;
  const SizeClass class_;
  BlockSlab& blocks_;
  std::vector<Space> spaces_;
  FreeIndex free_;
  HoleList holes_;
  std::uint64_t free_bytes_ = 0;
  std::uint64_t live_blocks_ = 0;
};

}  // namespace gmlake::stitch
