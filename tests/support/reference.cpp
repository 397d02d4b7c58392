#include "support/reference.hpp"

#include <algorithm>

namespace gmlake::test {
namespace {

std::uint64_t number_of(driver::Handle handle) { return static_cast<std::uint64_t>(handle); }
std::uint64_t number_of(driver::Event event) { return static_cast<std::uint64_t>(event); }

void join(std::map<std::uint64_t, std::uint64_t>& clock, const std::map<std::uint64_t, std::uint64_t>& other) {
  for (const auto& [stream, point] : other) clock[stream] = std::max(clock[stream], point);
}

}  // namespace

std::vector<Reference::Piece> Reference::pieces_of(Address address, std::uint64_t bytes) const {
  std::vector<Piece> pieces;
  for (const Address end = address + bytes; address < end;) {
    auto mapping = mapped_.upper_bound(address);
    if (mapping == mapped_.begin()) break;
    --mapping;
    const Address stop = mapping->first + mapping->second.bytes;
    if (address >= stop) break;
    const Address upto = std::min(stop, end);
    pieces.push_back({mapping->second.handle, address - mapping->first, upto - mapping->first});
    address = upto;
  }
  return pieces;
}

bool Reference::complete(std::uint64_t stream, std::uint64_t point) const {
  const auto enqueued = enqueued_.find(stream);
  const std::uint64_t count = enqueued == enqueued_.end() ? 0 : enqueued->second;
  return count - device_.streams().pending({0, stream}) >= point;
}

// Why `stream` may not use these bytes now.
std::string Reference::conflict(const Piece& piece, std::uint64_t stream, std::uint32_t pool) const {
  const auto found = extents_.find(number_of(piece.handle));
  if (found == extents_.end()) return {};
  auto extent = found->second.upper_bound(piece.begin);
  if (extent != found->second.begin()) --extent;
  for (; extent != found->second.end() && extent->first < piece.end; ++extent) {
    if (extent->second.end <= piece.begin) continue;
    if (extent->second.live) return "shares physical memory with a live block";
    if (extent->second.pool != pool && open_pools_.count(extent->second.pool) != 0) return "took memory out of a pool";
    for (const auto& [user, point] : extent->second.users) {
      if (user == stream || complete(user, point)) continue;
      const auto order = order_.find(stream);
      const bool after = order != order_.end() && order->second.count(user) != 0 && order->second.at(user) >= point;
      if (!after) return "is used again on stream " + std::to_string(stream) + " before stream " + std::to_string(user);
    }
  }
  return {};
}

void Reference::put(const Piece& piece, const Extent& extent) {
  auto& extents = extents_[number_of(piece.handle)];
  auto at = extents.upper_bound(piece.begin);
  if (at != extents.begin()) --at;
  while (at != extents.end() && at->first < piece.end) {
    if (at->second.end <= piece.begin) {
      ++at;
      continue;
    }
    const std::uint64_t begin = at->first;
    const Extent old = at->second;
    at = extents.erase(at);
    if (begin < piece.begin) {
      Extent left = old;
      left.end = piece.begin;
      extents.emplace(begin, left);
    }
    if (old.end > piece.end) at = extents.emplace(piece.end, old).first;
  }
  Extent fresh = extent;
  fresh.end = piece.end;
  extents.insert_or_assign(piece.begin, fresh);
}

std::string Reference::allocated(Address address, std::uint64_t bytes, Stream stream, std::uint32_t pool) {
  if (address == 0 || address % 512 != 0) return "is not aligned to 512 B";
  Live live{bytes, pieces_of(address, bytes), {{stream.handle, 0}}, pool};
  std::uint64_t mapped = 0;
  for (const Piece& piece : live.pieces) {
    mapped += piece.end - piece.begin;
    if (std::string why = conflict(piece, stream.handle, pool); !why.empty()) return why;
  }
  if (mapped != bytes) return "is not mapped throughout";
  if (!device_.has_access(address, bytes, 0)) return "may not be touched throughout";
  for (std::size_t i = 0; i < live.pieces.size(); ++i) {
    for (std::size_t j = 0; j < i && live.pieces.size() <= 64; ++j) {
      const Piece &a = live.pieces[i], &b = live.pieces[j];
      if (a.handle == b.handle && a.begin < b.end && b.begin < a.end) return "shows the same bytes twice";
    }
  }
  for (const Piece& piece : live.pieces) put(piece, {piece.end, true, {}, pool});
  live_bytes_ += bytes;
  live_.emplace(address, std::move(live));
  return {};
}

std::string Reference::recorded(Address address, Stream stream) {
  std::vector<Use>& uses = live_.at(address).uses;
  const auto same = [stream](const Use& use) { return use.stream == stream.handle && use.point == 0; };
  if (std::none_of(uses.begin(), uses.end(), same)) uses.push_back({stream.handle, 0});
  return {};
}

void Reference::forgotten(Stream stream) {
  for (auto& [address, live] : live_) {
    for (Use& use : live.uses) {
      if (use.stream == stream.handle && use.point == 0) use.point = enqueued_[stream.handle];
    }
  }
}

std::string Reference::freed(Address address, std::optional<Stream> stream) {
  if (stream) (void)recorded(address, *stream);
  const auto found = live_.find(address);
  const Live& live = found->second;
  if (pieces_of(address, live.bytes) != live.pieces) return "was moved or unmapped while it was live";
  Clock users;
  for (const Use& use : live.uses) {
    std::uint64_t& point = users[use.stream];
    point = std::max(point, use.point != 0 ? use.point : enqueued_[use.stream]);
  }
  for (const Piece& piece : live.pieces) put(piece, {piece.end, false, users, live.pool});
  live_bytes_ -= live.bytes;
  live_.erase(found);
  return {};
}

std::uint64_t Reference::pinned_granules(std::uint64_t granule, std::uint64_t piece) const {
  std::uint64_t granules = 0;
  for (const auto& [address, live] : live_) granules += (live.bytes + granule - 1) / granule + 2 * piece - 1;
  return granules;
}

Status Reference::launch(Stream stream, std::vector<driver::Access> accesses, std::function<void()> run) {
  ++enqueued_[stream.handle];
  return device_.launch(stream, std::move(accesses), std::move(run));
}

Status Reference::event_record(Event event, Stream stream) {
  Status recorded = device_.event_record(event, stream);
  if (!recorded.ok()) return recorded;
  Clock& clock = events_[number_of(event)] = order_[stream.handle];
  clock[stream.handle] = ++enqueued_[stream.handle];
  return recorded;
}

Status Reference::stream_wait(Stream stream, Event event) {
  Status waits = device_.stream_wait(stream, event);
  if (!waits.ok()) return waits;
  ++enqueued_[stream.handle];
  join(order_[stream.handle], events_[number_of(event)]);
  return waits;
}

// The allocator's own work on what is free: as a kernel's, it has to come after that of others, and they after it.
Status Reference::clear(Stream stream, Address address, std::uint64_t bytes) {
  Status cleared = device_.clear(stream, address, bytes);
  if (!cleared.ok()) return cleared;
  const std::uint64_t point = ++enqueued_[stream.handle];
  for (const Piece& piece : pieces_of(address, bytes)) {
    // Of a pool that is released, memory that was never anyone's is cleared too: it has no extent.
    const auto& extents = extents_[number_of(piece.handle)];
    auto extent = extents.upper_bound(piece.begin);
    const bool known = extent != extents.begin() && (--extent)->second.end > piece.begin;
    const std::uint32_t pool = known ? extent->second.pool : 0;
    if (std::string why = conflict(piece, stream.handle, pool); !why.empty()) broken_ = "cleared memory " + why;
    put(piece, {piece.end, false, {{stream.handle, point}}, pool});
  }
  return cleared;
}

Status Reference::map(Address address, std::uint64_t bytes, Handle handle) {
  Status mapped = device_.map(address, bytes, handle);
  if (mapped.ok()) mapped_[address] = {bytes, handle};
  return mapped;
}

Status Reference::unmap(Address address, std::uint64_t bytes) {
  Status unmapped = device_.unmap(address, bytes);
  if (!unmapped.ok()) return unmapped;
  mapped_.erase(mapped_.lower_bound(address), mapped_.lower_bound(address + bytes));
  return unmapped;
}

Status Reference::release(Handle handle) {
  Status released = device_.release(handle);
  if (!released.ok()) return released;
  for (const auto& [begin, extent] : extents_[number_of(handle)]) {
    if (extent.live) broken_ = "memory of a live block was released";
    for (const auto& [user, point] : extent.users) {
      if (!complete(user, point)) broken_ = "memory was released before stream " + std::to_string(user);
    }
  }
  extents_.erase(number_of(handle));
  return released;
}

}  // namespace gmlake::test
