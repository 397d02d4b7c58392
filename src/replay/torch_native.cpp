// The policy of PyTorch's native caching allocator. Callable from the replaying thread.
#include "replay/torch_native.hpp"

#include "base/check.hpp"
#include "replay/settings.hpp"

namespace gmlake::replay {

namespace {
constexpr std::uint64_t kNoSplitLimit = ~std::uint64_t{0};
}  // namespace

RecordedAddresses::RecordedAddresses(const DeviceTrace* trace) {
  if (trace == nullptr) return;
  for (const RecordedSegment& segment : trace->recorded_segments) {
    queues_[{trace->streams[segment.stream], segment.bytes}].addresses.push_back(segment.address);
  }
}

driver::Address RecordedAddresses::next(driver::Stream stream, std::uint64_t bytes, driver::Address otherwise) {
  const auto found = queues_.find({stream.handle, bytes});
  if (found == queues_.end() || found->second.given == found->second.addresses.size()) return otherwise;
  return found->second.addresses[found->second.given++];
}

Result<std::unique_ptr<Target>> TorchNative::make(driver::Driver& driver, const TargetOptions& options) {
  SettingsReader settings(options.settings);
  // PyTorch refuses 20 and less: segments of 20 MiB are its own unit.
  const Result<std::uint64_t> max_split_mb = settings.number("max_split_size_mb", 21, kNoSplitLimit >> 20, 0);
  if (!max_split_mb) return max_split_mb.error();
  if (Status known = settings.all_known(); !known) return known.error();
  driver::MemoryProperties properties;
  properties.location = {driver::Location::Kind::device, options.device};
  const Result<std::uint64_t> granularity = driver.granularity(properties);
  if (!granularity) return granularity.error();
  const std::uint64_t max_split = *max_split_mb == 0 ? kNoSplitLimit : *max_split_mb << 20;
  return std::unique_ptr<Target>(new TorchNative(driver, options, *granularity, max_split));
}

TorchNative::TorchNative(driver::Driver& driver, const TargetOptions& options, std::uint64_t granularity,
                         std::uint64_t max_split_size)
    : driver_(driver),
      device_(options.device),
      granularity_(granularity),
      max_split_size_(max_split_size),
      held_(options.capacity_bytes),
      pending_(driver, options.device),
      recorded_(options.recorded_segments) {}

TorchNative::~TorchNative() {
  // The replay has ended: whatever is still live or pending goes with its segment.
  for (const Segment& segment : segments_) {
    if (segment.bytes != 0) static_cast<void>(free_segment(driver_, segment).ok());
  }
}

Result<driver::Address> TorchNative::allocate(std::uint64_t bytes, driver::Stream stream) {
  if (bytes > torch::kMaxRequest) return Error{ErrorCode::invalid_size, Step::allocate, bytes};
  if (!pending_.empty()) {
    const Status processed = pending_.process(done_);
    free_done();
    if (!processed) return processed.error();
  }
  const std::uint64_t size = torch::round_size(bytes);
  const std::uint32_t pool = blocks_.pool_of(stream, size);
  BlockIndex block = take_best_fit(pool, size);
  if (block == kNoBlock) {
    const Result<BlockIndex> made = make_segment_or_reclaim(pool, size);
    if (!made) return made.error();
    block = *made;
  }
  if (should_split(blocks_[block], size)) blocks_.insert_free(blocks_.split(block, size));
  return blocks_.hand_out(block);
}

Status TorchNative::deallocate(driver::Address address, driver::Stream) {
  const BlockIndex block = blocks_.take(address);
  if (block == kNoBlock) return Error{ErrorCode::invalid_pointer, Step::deallocate, address};
  if (!blocks_[block].used_elsewhere) {
    free_block(block);
    return {};
  }
  Status pending = pending_.add(block, blocks_.uses_of(block));
  if (pending) {
    blocks_.forget_uses(block);
  } else {
    blocks_.put_back(block);
  }
  return pending;
}

Status TorchNative::record_stream(driver::Address address, driver::Stream stream) {
  return blocks_.record_use(address, stream);
}

Status TorchNative::trim() { return release_cached(); }

void TorchNative::check() const { blocks_.check(); }

// The smallest free block that holds `size`, the one at the lowest address among equals. It leaves the index.
BlockIndex TorchNative::take_best_fit(std::uint32_t pool, std::uint64_t size) {
  FreeIndex& free = blocks_.pool(pool).free;
  const auto found = free.lower_bound({size, 0, 0});
  if (found == free.end()) return kNoBlock;
  if (size < max_split_size_ && found->bytes >= max_split_size_) return kNoBlock;
  if (size >= max_split_size_ && found->bytes >= size + torch::kLargeSegment) return kNoBlock;
  const BlockIndex block = found->block;
  free.erase(found);
  return block;
}

bool TorchNative::should_split(const TorchBlock& block, std::uint64_t size) const {
  const std::uint64_t rest = block.bytes - size;
  if (size <= torch::kSmallSize) return rest >= torch::kMinBlock;
  return size < max_split_size_ && rest > torch::kSmallSize;
}

Result<BlockIndex> TorchNative::make_segment(std::uint32_t pool, std::uint64_t size) {
  const std::uint64_t bytes = round_up(torch::segment_size(size), granularity_);
  if (!held_.fits(bytes)) return Error{ErrorCode::out_of_memory, Step::allocate, bytes};
  const Result<Segment> segment = allocate_segment(driver_, device_, bytes);
  if (!segment) return segment.error();
  held_.add(bytes);
  std::uint32_t number = static_cast<std::uint32_t>(segments_.size());
  if (idle_segments_.empty()) {
    segments_.push_back(*segment);
  } else {
    number = idle_segments_.back();
    idle_segments_.pop_back();
    segments_[number] = *segment;
  }
  TorchBlock whole;
  whole.address = segment->address;
  whole.order = recorded_.next(blocks_.pool(pool).stream, bytes, segment->address);
  whole.bytes = bytes;
  whole.pool = pool;
  whole.segment = number;
  return blocks_.add_segment(whole);
}

Result<BlockIndex> TorchNative::make_segment_or_reclaim(std::uint32_t pool, std::uint64_t size) {
  Result<BlockIndex> made = make_segment(pool, size);
  if (made) return made;
  if (release_oversize(pool, size)) {
    made = make_segment(pool, size);
    if (made) return made;
  }
  if (Status released = release_cached(); !released) return released.error();
  return make_segment(pool, size);
}

void TorchNative::free_block(BlockIndex block) {
  blocks_.merge_free_neighbours(block);
  blocks_.insert_free(block);
}

void TorchNative::free_done() {
  for (const BlockIndex block : done_) free_block(block);
  done_.clear();
}

// With max_split_size_mb: releases the smallest unsplit block that is large enough, or several from the largest down.
// True where that may have made room.
bool TorchNative::release_oversize(std::uint32_t pool, std::uint64_t size) {
  if (max_split_size_ == kNoSplitLimit) return false;
  FreeIndex& free = blocks_.pool(pool).free;
  const std::uint64_t wanted = size < max_split_size_ ? max_split_size_ : size;
  const auto found = free.lower_bound({wanted, 0, 0});
  if (found != free.end()) return release_segment(found->block).ok();
  std::uint64_t released = 0;
  while (released < wanted && !free.empty() && free.rbegin()->bytes >= max_split_size_) {
    released += free.rbegin()->bytes;
    if (!release_segment(free.rbegin()->block)) return false;
  }
  return released >= wanted;
}

Status TorchNative::release_cached() {
  const Status drained = pending_.drain(done_);
  free_done();
  if (!drained) return drained;
  Status status;
  for (const bool small : {false, true}) {
    for (std::uint32_t number = 0; number < blocks_.pool_count(); ++number) {
      TorchPool& pool = blocks_.pool(number);
      if (pool.small != small) continue;
      for (auto it = pool.free.begin(); it != pool.free.end();) {
        const BlockIndex block = (it++)->block;
        if (!blocks_.is_whole_segment(block)) continue;
        if (Status released = release_segment(block); !released) status = released;
      }
    }
  }
  return status;
}

// Gives the segment of `block`, which is free and all of it, back to the driver.
Status TorchNative::release_segment(BlockIndex block) {
  const std::uint32_t number = blocks_[block].segment;
  blocks_.erase_free(block);
  blocks_.drop_segment(block);
  const Segment segment = segments_[number];
  segments_[number] = {};
  idle_segments_.push_back(number);
  held_.remove(segment.bytes);
  return free_segment(driver_, segment);
}

}  // namespace gmlake::replay
