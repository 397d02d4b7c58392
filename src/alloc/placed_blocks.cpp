#include "alloc/placed_blocks.hpp"

#include <algorithm>
#include <bit>
#include <new>
#include <utility>

#include "base/check.hpp"
#include "gmlake/bytes.hpp"

namespace gmlake::alloc {

using driver::Location;

namespace {

constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 60;  // of one block, so that sums stay in 64 bits
constexpr std::uint64_t kPiecesPerPlace = 8;                  // a stripe of a small block goes round more than once

bool is_on(const Location& location, int device) {
  return location.kind == Location::Kind::device && location.id == device;
}

int place_number(const Location& location) {
  return location.kind == Location::Kind::device ? location.id : -1 - location.id;
}

bool contains(std::span<const driver::Stream> streams, const driver::Stream& stream) {
  return std::find(streams.begin(), streams.end(), stream) != streams.end();
}

}  // namespace

PlacedBlocks::~PlacedBlocks() {
  const MutexLock settling(settling_);
  const MutexLock lock(mutex_);
  for_each_block([this](Block& block) {
    for (const Mark& mark : block.marks) {
      if (freeing_.zeroes) (void)driver_.event_synchronize(mark.event).ok();  // the zeros may be under way
      (void)driver_.event_destroy(mark.event).ok();
    }
    (void)dismantle(block, false);  // what the driver keeps now, the process has until its end
  });
  for (auto& [device, events] : events_) {
    for (const driver::Event event : events.idle) (void)driver_.event_destroy(event).ok();
  }
}

Result<Address> PlacedBlocks::create(std::uint64_t bytes, driver::Stream stream, const Placement& placement) {
  const MutexLock settling(settling_);
  (void)settle_locked(false);
  expect_one(stream.device, placement.devices.size() + 1);
  auto block = std::make_unique<Block>();
  block->requested = bytes;
  block->stream = stream;
  const Result<std::vector<Place>> places = places_of(stream.device, placement);
  if (!places) return places.error();
  std::uint64_t granularity = 0;
  for (const Place& place : *places) granularity = std::max(granularity, place.granularity);
  if (bytes > UINT64_MAX - granularity) return Error{ErrorCode::invalid_size, Step::allocate, bytes};
  const std::uint64_t total = round_up(bytes, granularity);
  const bool striped = placement.kind == Placement::Kind::stripe;
  const std::uint64_t share = striped ? total / (kPiecesPerPlace * places->size()) : total;
  const std::uint64_t piece =
      std::max(std::min(std::bit_floor(std::max<std::uint64_t>(share, 1)), max_piece_bytes_), granularity);

  Status made;
  try {
    made = striped ? stripe(*block, *places, piece, total) : spill(*block, *places, piece, granularity, total);
    if (made.ok()) made = join(*block);
    if (made.ok()) return publish(std::move(block));
  } catch (const std::bad_alloc&) {
    give_up(std::move(block));
    throw;
  }
  give_up(std::move(block));
  return made.error();
}

// Room in the books for one block more, whatever becomes of it, and of the probes for it.
void PlacedBlocks::expect_one(int device, std::size_t probes) {
  const MutexLock lock(mutex_);
  (void)totals_[device];
  lost_.reserve(live_.size() + freed_.size() + lost_.size() + probes + 1);
}

// Takes the block only where it does not throw.
Address PlacedBlocks::publish(std::unique_ptr<Block>&& block) {
  const MutexLock lock(mutex_);
  const Address begin = block->begin();
  const auto published = live_.emplace(begin, nullptr).first;
  published->second = std::move(block);
  count(*published->second, true);
  return begin;
}

// Of a block that was not finished: what the driver keeps of it is not forgotten.
void PlacedBlocks::give_up(std::unique_ptr<Block> block) {
  if (dismantle(*block, true)) return;
  const MutexLock lock(mutex_);
  count(*block, true);
  lost_.push_back(std::move(block));
}

// Those that the device can use, in the order in which they are wanted.
Result<std::vector<PlacedBlocks::Place>> PlacedBlocks::places_of(int device, const Placement& placement) {
  std::vector<Place> places;
  const Result<int> count = driver_.device_count();
  if (!count) return count.error();
  const auto add = [&](Location location) GMLAKE_REQUIRES(settling_) {
    const auto same = [&location](const Place& place) { return place.memory.location == location; };
    Place place{{.location = location}, 0};
    if (std::none_of(places.begin(), places.end(), same) && try_place(device, place)) places.push_back(place);
  };
  if (placement.kind == Placement::Kind::spill) add({Location::Kind::device, device});
  for (const int peer : placement.devices) {
    if (peer < 0 || peer >= *count) {
      return Error{ErrorCode::invalid_device, Step::allocate, static_cast<std::uint64_t>(peer)};
    }
    add({Location::Kind::device, peer});
  }
  if (placement.kind == Placement::Kind::spill && placement.host) {
    const Result<driver::DeviceProperties> properties = driver_.device_properties(device);
    if (!properties) return properties.error();
    if (properties->host_numa_supported) add({Location::Kind::host_numa, std::max(properties->host_numa_node, 0)});
  }
  if (places.empty()) return Error{ErrorCode::invalid_value, Step::allocate, static_cast<std::uint64_t>(device)};
  return places;
}

// Whether the device can use memory there, found out once: a piece is made, mapped and opened to it. That the place has
// no memory just now says nothing.
bool PlacedBlocks::try_place(int device, Place& place) {
  const auto key = std::make_pair(device, place_number(place.memory.location));
  if (const auto known = probed_.find(key); known != probed_.end()) {
    place = known->second;
    return place.granularity != 0;
  }
  place.memory.posix_fd_handle = place.memory.location.kind == Location::Kind::device;  // to share it with others
  Result<std::uint64_t> granularity = driver_.granularity(place.memory);
  if (!granularity && granularity.error().code == ErrorCode::not_supported) {
    place.memory.posix_fd_handle = false;
    granularity = driver_.granularity(place.memory);
  }
  if (!granularity) return false;
  place.granularity = *granularity;
  if (!is_on(place.memory.location, device)) {
    auto probe = std::make_unique<Block>();
    probe->stream.device = device;
    const Status taken = take_piece(*probe, place, *granularity);
    if (!taken.ok()) return taken.error().code == ErrorCode::out_of_memory;
    const bool usable = join(*probe).ok();
    give_up(std::move(probe));
    if (!usable) place.granularity = 0;
  }
  probed_.emplace(key, place);
  return place.granularity != 0;
}

// One piece more, of the device's limit where it lies on a GPU.
Status PlacedBlocks::take_piece(Block& block, const Place& place, std::uint64_t bytes) {
  const Location& location = place.memory.location;
  const bool on_gpu = location.kind == Location::Kind::device;
  const Error full{ErrorCode::out_of_memory, Step::create, bytes};
  block.pieces.reserve(block.pieces.size() + 1);
  if (on_gpu && !room_.take(location.id, bytes, false)) return full;
  Result<driver::Handle> handle = driver_.create(bytes, place.memory);
  if (!handle && on_gpu && handle.error().code == ErrorCode::out_of_memory) {
    room_.give_back(location.id, bytes);
    if (!room_.take(location.id, bytes, true)) return full;
    handle = driver_.create(bytes, place.memory);
  }
  if (!handle) {
    if (on_gpu) room_.give_back(location.id, bytes);
    return handle.error();
  }
  block.pieces.push_back({*handle, bytes, location});
  return {};
}

// As much at each place as it has, in large pieces and then in smaller ones.
Status PlacedBlocks::spill(Block& block, std::span<const Place> places, std::uint64_t piece, std::uint64_t granularity,
                           std::uint64_t bytes) {
  Status last = Error{ErrorCode::out_of_memory, Step::create, bytes};
  for (const Place& place : places) {
    for (std::uint64_t size = piece; bytes > 0 && size >= granularity;) {
      const std::uint64_t next = std::min(size, bytes);
      last = take_piece(block, place, next);
      if (last.ok()) {
        bytes -= next;
      } else if (last.error().code == ErrorCode::out_of_memory) {
        size = std::bit_floor(next) / 2;
      } else {
        break;
      }
    }
  }
  return bytes == 0 ? Status{} : last;
}

Status PlacedBlocks::stripe(Block& block, std::span<const Place> places, std::uint64_t piece, std::uint64_t bytes) {
  for (std::size_t i = 0; bytes > 0; ++i) {
    const std::uint64_t next = std::min(piece, bytes);
    if (Status taken = take_piece(block, places[i % places.size()], next); !taken.ok()) return taken;
    bytes -= next;
  }
  return {};
}

Status PlacedBlocks::join(Block& block) {
  std::vector<int> access;
  {
    const MutexLock lock(mutex_);
    access = access_of(block.stream.device);
  }
  std::uint64_t total = 0;
  for (const Piece& piece : block.pieces) total += piece.bytes;
  const Result<Address> address = driver_.reserve(total, 0);
  if (!address) return address.error();
  block.address = *address;
  block.range_bytes = total;
  for (const Piece& piece : block.pieces) {
    if (Status mapped = driver_.map(block.address + block.mapped_bytes, piece.bytes, piece.handle); !mapped.ok()) {
      return mapped;
    }
    block.mapped_bytes += piece.bytes;
  }
  return driver_.set_access(block.address, total, access);
}

// Undoes what there is of a block. False: the driver kept some of it, and the block says what.
bool PlacedBlocks::dismantle(Block& block, bool tell_room) noexcept {
  if (block.mapped_bytes != 0) {
    if (!driver_.unmap(block.address, block.mapped_bytes).ok()) return false;
    block.mapped_bytes = 0;
  }
  bool all = true;
  for (Piece& piece : block.pieces) {
    if (piece.handle == driver::Handle::none) continue;
    if (!driver_.release(piece.handle).ok()) {
      all = false;
      continue;
    }
    piece.handle = driver::Handle::none;
    if (tell_room && !piece.imported && piece.location.kind == Location::Kind::device)
      room_.give_back(piece.location.id, piece.bytes);
  }
  if (block.range_bytes != 0 && !driver_.address_free(block.address, block.range_bytes).ok()) return false;
  block.range_bytes = 0;
  return all;
}

Result<Address> PlacedBlocks::import(const SharedLayout& layout, std::span<const int> fds, driver::Stream stream) {
  const MutexLock settling(settling_);
  (void)settle_locked(false);
  const driver::MemoryProperties memory{.location = {Location::Kind::device, stream.device}, .posix_fd_handle = true};
  const Result<std::uint64_t> granularity = driver_.granularity(memory);
  if (!granularity) return granularity.error();
  const Error senseless{ErrorCode::invalid_value, Step::share, layout.bytes};
  std::uint64_t total = 0;
  for (const std::uint64_t bytes : layout.phy_block_bytes) {
    if (bytes == 0 || bytes % *granularity != 0 || bytes > kMostBytes - total) return senseless;
    total += bytes;
  }
  if (fds.size() != layout.phy_block_bytes.size() || layout.bytes == 0 || layout.bytes > total ||
      layout.offset > total - layout.bytes) {
    return senseless;
  }
  expect_one(stream.device, 0);
  auto block = std::make_unique<Block>();
  block->requested = layout.bytes;
  block->offset = layout.offset;
  block->stream = stream;
  block->pieces.reserve(fds.size());
  Status made;
  try {
    for (std::size_t i = 0; i < fds.size() && made.ok(); ++i) {
      const Result<driver::Handle> handle = driver_.import_fd(fds[i], layout.phy_block_bytes[i], memory);
      if (handle) {
        block->pieces.push_back({*handle, layout.phy_block_bytes[i], memory.location, true});
      } else {
        made = handle.error();
      }
    }
    if (made.ok()) made = join(*block);
    if (made.ok()) return publish(std::move(block));
  } catch (const std::bad_alloc&) {
    give_up(std::move(block));
    throw;
  }
  give_up(std::move(block));
  return made.error();
}

Result<SharedLayout> PlacedBlocks::share(Address address, std::vector<int>& fds) {
  const MutexLock settling(settling_);  // so that what is freed meanwhile is not given back
  SharedLayout layout;
  std::vector<driver::Handle> handles;
  {
    const MutexLock lock(mutex_);
    const Block* block = find(address);
    if (block == nullptr) return Error{ErrorCode::invalid_pointer, Step::share, address};
    layout.bytes = block->requested;
    layout.offset = block->offset;
    for (const Piece& piece : block->pieces) {
      layout.phy_block_bytes.push_back(piece.bytes);
      handles.push_back(piece.handle);
    }
  }
  fds.reserve(handles.size());
  for (const driver::Handle handle : handles) {
    const Result<int> fd = driver_.export_fd(handle);
    if (!fd) return fd.error();
    fds.push_back(*fd);
  }
  return layout;
}

Status PlacedBlocks::deallocate(Address address, std::optional<std::uint64_t> stream) {
  {
    const MutexLock lock(mutex_);
    const auto found = live_.find(address);
    if (found == live_.end()) return Error{ErrorCode::invalid_pointer, Step::deallocate, address};
    Block& block = *found->second;
    std::vector<driver::Stream> marks = block.uses;  // nothing changes before all host memory has been had
    for (const driver::Stream& use : {block.stream, driver::Stream{block.stream.device, stream.value_or(0)}}) {
      const bool wanted = use == block.stream || stream.has_value();
      if (wanted && !contains(marks, use)) marks.push_back(use);
    }
    block.marks.reserve(block.marks.size() + marks.size());
    block.uses = std::move(marks);
    block.dirty = freeing_.zeroes && block.imported_bytes() == 0;  // what is another process's stays as it is
    freed_.insert(live_.extract(found));
  }
  if (freeing_.waits) {
    const MutexLock settling(settling_);
    (void)settle_locked(true);
  } else if (settling_.try_lock()) {  // a free waits for nobody
    (void)settle_locked(false);
    settling_.unlock();
  }
  return {};
}

Status PlacedBlocks::record_stream(Address address, driver::Stream stream) {
  const MutexLock lock(mutex_);
  Block* block = find(address);
  if (block == nullptr) return Error{ErrorCode::invalid_pointer, Step::record_stream, address};
  if (!(stream == block->stream) && !contains(block->uses, stream)) block->uses.push_back(stream);
  return {};
}

// Stands for what the stream has done by now.
Result<PlacedBlocks::Mark> PlacedBlocks::mark(driver::Stream stream) try {
  const Result<driver::CaptureState> capture = driver_.capture_state(stream);
  if (!capture) return capture.error();
  if (*capture != driver::CaptureState::none) return Error{ErrorCode::captured, Step::event_record, stream.handle};
  Events& events = events_[stream.device];
  if (events.idle.empty()) {
    events.idle.reserve(events.made + 1);
    const Result<driver::Event> event = driver_.event_create(stream.device);
    if (!event) return event.error();
    ++events.made;
    events.idle.push_back(*event);
  }
  const driver::Event event = events.idle.back();
  if (Status recorded = driver_.event_record(event, stream); !recorded.ok()) return recorded.error();
  events.idle.pop_back();
  return Mark{event, stream.device};
} catch (const std::bad_alloc&) {  // of the host: it is tried again
  return Error{ErrorCode::out_of_memory, Step::event_create, stream.handle};
}

Status PlacedBlocks::forget_stream(driver::Stream stream) {
  const MutexLock settling(settling_);
  std::vector<Block*> users;
  {
    const MutexLock lock(mutex_);
    for (Blocks* blocks : {&live_, &freed_}) {
      for (const auto& [address, block] : *blocks) {
        const bool freed = blocks == &freed_;
        if (freed && !contains(block->uses, stream) && block->stream == stream) block->stream.handle = 0;
        if (!contains(block->uses, stream) && (freed || !(block->stream == stream))) continue;
        block->marks.reserve(block->marks.size() + 1);
        users.push_back(block.get());
      }
    }
  }
  // They may be freed meanwhile, and stay where they are: giving back wants `settling_`.
  for (Block* block : users) {
    const Result<Mark> marked = mark(stream);
    if (!marked) return marked.error();
    const MutexLock lock(mutex_);
    block->marks.push_back(*marked);
    std::erase(block->uses, stream);
    if (block->stream == stream) block->stream.handle = 0;
  }
  return {};
}

bool PlacedBlocks::has_passed(Block& block, bool wait) {
  std::erase_if(block.uses, [&](const driver::Stream& stream) GMLAKE_REQUIRES(settling_) {
    const Result<Mark> marked = mark(stream);
    if (marked) block.marks.push_back(*marked);  // there is room since it was freed
    return marked.ok();
  });
  std::erase_if(block.marks, [&](const Mark& mark) GMLAKE_REQUIRES(settling_) {
    const Result<bool> passed = driver_.event_query(mark.event);
    if (!passed || (!*passed && !(wait && driver_.event_synchronize(mark.event).ok()))) return false;
    events_[mark.device].idle.push_back(mark.event);
    return true;
  });
  if (!block.uses.empty() || !block.marks.empty()) return false;
  return !block.dirty || (clear(block) && has_passed(block, wait));
}

// Enqueues the zeros, which the block waits for then, as for any other use.
bool PlacedBlocks::clear(Block& block) {
  const Result<driver::CaptureState> capture = driver_.capture_state(block.stream);
  if (block.spoiled || !capture || *capture != driver::CaptureState::none) return false;
  if (!driver_.clear(block.stream, block.address, block.mapped_bytes).ok()) return false;
  const Result<driver::CaptureState> now = driver_.capture_state(block.stream);
  if (!now) return false;                    // nobody knows: it is cleared again
  if (*now != driver::CaptureState::none) {  // it has just begun on another thread
    block.spoiled = true;
    return false;
  }
  block.dirty = false;
  block.uses.push_back(block.stream);  // there is room since it was freed
  return true;
}

bool PlacedBlocks::settle(bool wait) {
  {
    const MutexLock lock(mutex_);
    if (freed_.empty() && lost_.empty()) return true;
  }
  const MutexLock settling(settling_);
  return settle_locked(wait);
}

bool PlacedBlocks::settle_locked(bool wait) {
  Blocks work;
  std::size_t lost = 0;
  {
    const MutexLock lock(mutex_);
    work.swap(freed_);
    lost = wait ? lost_.size() : 0;
  }
  for (; lost > 0; --lost) {  // another try of each
    std::unique_ptr<Block> block;
    {
      const MutexLock lock(mutex_);
      block = std::move(lost_.front());
      lost_.erase(lost_.begin());
      count(*block, false);
    }
    give_up(std::move(block));
  }
  const driver::RelaxedCapture relaxed(driver_);
  Blocks kept;
  while (!work.empty()) {
    auto node = work.extract(work.begin());
    Block& block = *node.mapped();
    if (!has_passed(block, wait)) {
      kept.insert(std::move(node));
      continue;
    }
    {
      const MutexLock lock(mutex_);
      count(block, false);
    }
    give_up(std::move(node.mapped()));
  }
  const MutexLock lock(mutex_);
  freed_.merge(kept);
  return freed_.empty() && lost_.empty();
}

Status PlacedBlocks::grant(int device, int peer) {
  const MutexLock settling(settling_);
  std::vector<std::pair<Address, std::uint64_t>> ranges;
  {
    const MutexLock lock(mutex_);
    access_[device].reserve(access_[device].size() + 1);
    for (const auto& [address, block] : live_) {
      if (block->stream.device == device) ranges.emplace_back(block->address, block->range_bytes);
    }
  }
  for (const auto& [address, bytes] : ranges) {
    if (Status granted = driver_.set_access(address, bytes, {&peer, 1}); !granted.ok()) return granted;
  }
  const MutexLock lock(mutex_);
  std::vector<int>& access = access_[device];
  if (std::find(access.begin(), access.end(), peer) == access.end()) access.push_back(peer);
  return {};
}

std::vector<int> PlacedBlocks::access_of(int device) const {
  std::vector<int> access = {device};
  if (const auto others = access_.find(device); others != access_.end()) {
    access.insert(access.end(), others->second.begin(), others->second.end());
  }
  return access;
}

PlacedBlocks::Block* PlacedBlocks::find(Address address) const {
  const auto found = live_.find(address);
  return found == live_.end() ? nullptr : found->second.get();
}

std::uint64_t PlacedBlocks::block_bytes(Address address) const {
  const MutexLock lock(mutex_);
  const Block* block = find(address);
  return block == nullptr ? 0 : block->range_bytes - block->offset;
}

int PlacedBlocks::device_of(Address address) const {
  const MutexLock lock(mutex_);
  const Block* block = find(address);
  return block == nullptr ? -1 : block->stream.device;
}

std::vector<PhyBlockInfo> PlacedBlocks::phy_blocks(Address address) const {
  const MutexLock lock(mutex_);
  std::vector<PhyBlockInfo> infos;
  const Block* block = find(address);
  if (block == nullptr) return infos;
  address = block->address;
  for (const Piece& piece : block->pieces) {
    const bool on_gpu = piece.location.kind == Location::Kind::device;
    infos.push_back({.bytes = piece.bytes,
                     .device = on_gpu ? piece.location.id : -1,
                     .numa_node = on_gpu ? -1 : piece.location.id,
                     .home = address,
                     .stale = {}});
    address += piece.bytes;
  }
  return infos;
}

std::uint64_t PlacedBlocks::Block::bytes_at(Location::Kind kind, int device, bool equal) const {
  std::uint64_t bytes = 0;
  for (const Piece& piece : pieces) {
    if (piece.handle == driver::Handle::none || piece.imported || piece.location.kind != kind) continue;
    if (kind == Location::Kind::host_numa || (piece.location.id == device) == equal) bytes += piece.bytes;
  }
  return bytes;
}

std::uint64_t PlacedBlocks::Block::imported_bytes() const {
  std::uint64_t bytes = 0;
  for (const Piece& piece : pieces) {
    bytes += piece.imported && piece.handle != driver::Handle::none ? piece.bytes : 0;
  }
  return bytes;
}

void PlacedBlocks::count(const Block& block, bool more) {
  Totals& totals = totals_.at(block.stream.device);
  const int device = block.stream.device;
  const std::uint64_t sign = more ? 1 : ~std::uint64_t{0};
  totals.blocks += sign;
  totals.device_bytes += sign * block.bytes_at(Location::Kind::device, device, true);
  totals.peer_bytes += sign * block.bytes_at(Location::Kind::device, device, false);
  totals.host_bytes += sign * block.bytes_at(Location::Kind::host_numa, device, true);
  totals.imported_bytes += sign * block.imported_bytes();
}

PlacedBlocks::Totals PlacedBlocks::totals(int device) const {
  const MutexLock lock(mutex_);
  const auto found = totals_.find(device);
  Totals totals = found == totals_.end() ? Totals{} : found->second;
  for (const auto& block : lost_) {
    if (block->stream.device != device) continue;
    for (const Piece& piece : block->pieces) {
      totals.lost_bytes += piece.handle == driver::Handle::none ? 0 : piece.bytes;
    }
  }
  return totals;
}

void PlacedBlocks::check() const {
  const MutexLock settling(settling_);
  const MutexLock lock(mutex_);
  std::map<int, Totals> recounted;
  for_each_block([&recounted](const Block& block) {
    Totals& totals = recounted[block.stream.device];
    totals.blocks += 1;
    totals.device_bytes += block.bytes_at(Location::Kind::device, block.stream.device, true);
    totals.peer_bytes += block.bytes_at(Location::Kind::device, block.stream.device, false);
    totals.host_bytes += block.bytes_at(Location::Kind::host_numa, block.stream.device, true);
    totals.imported_bytes += block.imported_bytes();
  });
  for (const Blocks* blocks : {&live_, &freed_}) {
    for (const auto& [address, block] : *blocks) {
      std::uint64_t bytes = 0;
      for (const Piece& piece : block->pieces) bytes += piece.bytes;
      GMLAKE_CHECK_EQ(address, block->begin());
      GMLAKE_CHECK_EQ(bytes, block->mapped_bytes);
      GMLAKE_CHECK_EQ(bytes, block->range_bytes);
    }
  }
  for (const auto& [device, totals] : totals_) {
    const auto found = recounted.find(device);
    GMLAKE_CHECK(totals == (found == recounted.end() ? Totals{} : found->second));
  }
}

}  // namespace gmlake::alloc
