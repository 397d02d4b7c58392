// The VirBlocks of one stream and one size class: which bytes of their segments are live, cached or holes.
//
// A segment's blocks form a list in address order without gaps. Fitting, splitting and merging are bookkeeping alone
// and touch no mapping. What the slow path does to a range goes through one bracket: claim() takes it out of every
// index, whatever lies under it is changed, publish() looks at the mappings and puts it back as free runs and holes. So
// a failed change is undone by publishing again.
//
// Not thread-safe: the device's `state` lock covers everything here, and find(), take() and give_back() want no more of
// it than the part of the pool's stream. publish() also reads mappings, so its caller holds `grow` as well.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/check.hpp"
#include "base/intrusive_list.hpp"
#include "base/sharded_mutex.hpp"
#include "base/slab.hpp"
#include "memory/phy_block.hpp"
#include "stitch/block.hpp"
#include "stitch/free_index.hpp"

namespace gmlake::stitch {

enum class SizeClass : std::uint8_t { small, large };

inline constexpr auto kNoStream = static_cast<memory::StreamIndex>(-1);  // to which every fence is another stream's

// On lines of its own: hits on different streams change different pools at the same time.
class alignas(kCacheLine) Pool {
 public:
  using HoleList = IntrusiveList<Block, &Block::links>;
  using BlockSlab = Slab<Block>;

  // What lies in a `pinned` pool stays where it is: no other memory is stitched out of its PhyBlocks.
  Pool(memory::StreamIndex stream, SizeClass size_class, BlockSlab& blocks, bool pinned = false)
      : stream_(stream), class_(size_class), pinned_(pinned), blocks_(blocks) {}
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  void* owner = nullptr;  // whoever made it, for its use

  memory::StreamIndex stream() const { return stream_; }
  SizeClass size_class() const { return class_; }
  bool pinned() const { return pinned_; }
  // The stream whose own order does for memory that moves in here. A graph whose memory is pinned may be launched on
  // any stream: no order does for it, and every fence must have passed.
  memory::StreamIndex order() const { return pinned_ ? kNoStream : stream_; }

  // Takes over an empty segment: one hole.
  void adopt(memory::VmmSegment* segment);
  // Gives up a segment that is one hole with nothing mapped in it. The caller frees its addresses.
  void abandon(memory::VmmSegment* segment);
  bool is_vacant(const memory::VmmSegment* segment) const;
  // Takes over every segment of a pool of the same size class, with all that lies in it, live blocks too; that pool is
  // empty then. Where it was another stream's, every fence of its free runs has passed. Its slab lives as long as this
  // one's. Throws std::bad_alloc with nothing changed.
  void inherit(Pool& other);

  // A free run with at least `bytes`, a multiple of 512, by the rule of FreeIndex. Null: none.
  [[gnu::always_inline]] Block* find(std::uint64_t bytes) {
    if (recent_ == nullptr) return free_.find(bytes);
    if (recent_->bytes == bytes) {
      const bool as_cut = recent_->next == cut_from_ && free_.version() == cut_version_;
      return as_cut ? recent_ : find_beside_recent(bytes);
    }
    settle();
    return free_.find(bytes);
  }
  // The first `bytes` of a free run become live; the rest stays free, and its record with it. Throws std::bad_alloc
  // with nothing changed.
  Block* take(Block* run, std::uint64_t bytes, std::uint64_t requested);
  // A live or pending block becomes free, and one with its free neighbours. `tick`: its stream's clock now.
  void give_back(Block* block, std::uint64_t tick);

  // Joins what was given back last with its free neighbours. Whatever searches or changes free runs does it first.
  void settle();

  // Makes [begin, end), free runs and holes throughout, one claimed block. `first` is the block that contains begin.
  // What lies outside stays what it was; of a run that is cut in two, the left part keeps its Block.
  // The pool is settled: of several claims under one lock none then makes an end of another's run.
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
  // No memory lies at its addresses, but for stale mappings.
  bool holds_nothing() const;
  std::size_t segment_count() const { return spaces_.size(); }
  const memory::VmmSegment* segment(std::size_t i) const { return spaces_[i].segment; }
  Block* first_block(const memory::VmmSegment* segment) const { return spaces_[segment->index].first; }

  // Calls visit(Block*) for each free run of at least `bytes`.
  template <class Visit>
  void for_each_free(std::uint64_t bytes, Visit&& visit) {
    settle();
    free_.for_each(bytes, visit);
  }

  // Free runs one after another, for those who cannot stay: see FreeIndex. The pool is settled.
  Block* first_free(std::uint64_t bytes) const { return free_.first(bytes); }
  Block* free_after(const Block* run) const { return free_.after(run); }

  // Calls visit(const Block&) for each block of every segment, by address.
  template <class Visit>
  void for_each_block(Visit&& visit) const {
    for (const Space& space : spaces_) {
      for (const Block* block = space.first; block != nullptr; block = block->next) visit(*block);
    }
  }

  std::uint64_t free_bytes() const { return free_bytes_; }
  // All of them, and all but what was given back last and is not joined yet.
  std::size_t free_runs() const { return free_.count() + (recent_ != nullptr ? 1 : 0); }
  std::size_t settled_runs() const { return free_.count(); }
  // Of free_bytes(), what lies in PhyBlocks that are not free as a whole, and so can neither move nor go. Looks at the
  // ends of every free run. Needs `grow` too.
  std::uint64_t pinned_bytes();

  // Recounts everything and compares with the indexes and the mappings. Aborts on a difference. Needs `grow` too.
  void check() const;

 private:
  struct Space {
    memory::VmmSegment* segment;
    Block* first;
  };

  Block* find_beside_recent(std::uint64_t bytes);
  void index(Block* block);                         // puts a free run or a hole where it is found
  void unindex(Block* block);                       // and takes it out
  Block* split(Block* block, std::uint64_t bytes);  // keeps the first bytes in `block`; both are out of every index
  void absorb_next(Block* block);  // the next block becomes part of this one; both are out of every index
  Block* merge_and_index(Block* block);
  Block* cut_front(Block* run, std::uint64_t bytes);  // the first bytes as a block of their own
  void unindex_free(Block* run);
  void replace_before(Block* block, Block* with);  // what leads to `block` from its left leads to `with`

  const memory::StreamIndex stream_;
  const SizeClass class_;
  const bool pinned_;
  BlockSlab& blocks_;
  std::vector<Space> spaces_;
  FreeIndex free_;
  // What was given back last, free, but neither joined with its neighbours nor in the index: the next request of the
  // same size takes it as it is, and a program that allocates and frees in turn moves no run about. Whatever else
  // happens first settles it.
  Block* recent_ = nullptr;
  // The run that a block was last cut from, and the index's version then. As long as nothing there has changed, a
  // search for what was cut would end at the same place.
  const Block* cut_from_ = nullptr;
  std::uint64_t cut_version_ = UINT64_MAX;
  HoleList holes_;
  std::uint64_t free_bytes_ = 0;
};

// The hot path, inline.

// What is handed out is cut off with a record of its own: what is left keeps its own, and mostly its bin.
[[gnu::always_inline]] inline Block* Pool::take(Block* run, std::uint64_t bytes, std::uint64_t requested) {
  Block* block = run;
  if (run->bytes > bytes) {
    block = cut_front(run, bytes);
  } else {
    unindex_free(run);
  }
  block->state = State::live;
  block->tick_or_requested = requested;
  free_bytes_ -= bytes;
  return block;
}

[[gnu::always_inline]] inline void Pool::give_back(Block* block, std::uint64_t tick) {
  GMLAKE_DCHECK(block->state == State::live || block->state == State::pending);
  if (recent_ != nullptr) settle();
  block->state = State::free;
  block->used_elsewhere = false;
  block->tick_or_requested = tick;
  free_bytes_ += block->bytes;
  recent_ = block;
}

inline void Pool::unindex_free(Block* run) {
  if (run == recent_) {
    recent_ = nullptr;
  } else {
    free_.erase(run);
  }
}

}  // namespace gmlake::stitch
