#include "support/race_detector.hpp"

#include <algorithm>
#include <cstdio>
#include <iterator>

#include "driver/per_thread_stream.hpp"

namespace gmlake::test {
namespace {

constexpr std::size_t kRacesKept = 16;

std::uint64_t bits(driver::Handle handle) { return static_cast<std::uint64_t>(handle); }
std::uint64_t bits(driver::Event event) { return static_cast<std::uint64_t>(event); }

std::string hexadecimal(std::uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

std::string describe(const Race::Side& side) {
  if (side.touch == Race::Touch::unmap) return "the host unmaps them at " + hexadecimal(side.address);
  return "stream " + std::to_string(side.stream.handle) +
         (side.touch == Race::Touch::write ? " writes them at " : " reads them at ") + hexadecimal(side.address);
}

}  // namespace

std::string describe(const Race& race) {
  return std::to_string(race.bytes) + " B at offset " + std::to_string(race.offset) + " of handle " +
         hexadecimal(bits(race.handle)) + ": " + describe(race.first) + ", then " + describe(race.second) +
         ", and nothing orders the two";
}

std::uint32_t RaceDetector::index_of(Stream stream) {
  stream.handle = driver::stream_meant_by(stream.handle);
  for (std::size_t i = 0; i < streams_.size(); ++i) {
    if (streams_[i].name == stream) return static_cast<std::uint32_t>(i);
  }
  streams_.push_back({stream, {}, 0});
  return static_cast<std::uint32_t>(streams_.size() - 1);
}

void RaceDetector::join(Clock& clock, const Clock& other) {
  if (clock.size() < other.size()) clock.resize(other.size());
  for (std::size_t i = 0; i < other.size(); ++i) clock[i] = std::max(clock[i], other[i]);
}

bool RaceDetector::before(const Mark& mark, const Clock& clock) {
  return mark.point == 0 || (mark.stream < clock.size() && mark.point <= clock[mark.stream]);
}

// One more operation: after those of its stream, and after all that the host has seen complete.
RaceDetector::StreamState& RaceDetector::enqueue(Stream stream) {
  const std::uint32_t index = index_of(stream);
  StreamState& state = streams_[index];
  if (state.joined != host_age_) {
    join(state.clock, host_);
    state.joined = host_age_;
  }
  if (state.clock.size() <= index) state.clock.resize(index + 1);
  ++state.clock[index];
  return state;
}

// The host has seen the event pass.
void RaceDetector::observe(Event event) {
  const auto found = events_.find(bits(event));
  if (found == events_.end()) return;  // never recorded
  join(host_, found->second);
  ++host_age_;
}

void RaceDetector::synchronize() {
  for (const StreamState& stream : streams_) join(host_, stream.clock);
  ++host_age_;
}

void RaceDetector::kernel(Stream stream, std::span<const driver::Access> accesses) {
  const std::uint32_t index = index_of(stream);
  const Clock& clock = enqueue(stream).clock;
  for (const driver::Access& access : accesses) {
    const Address end = access.address + access.bytes;
    auto mapping = mappings_.upper_bound(access.address);
    if (mapping != mappings_.begin()) --mapping;
    for (; mapping != mappings_.end() && mapping->first < end; ++mapping) {
      const Address begin = std::max(mapping->first, access.address);
      const Address stop = std::min(mapping->first + mapping->second.bytes, end);
      if (begin >= stop) continue;
      touch(clock, mapping->second, begin - mapping->first, stop - mapping->first,
            {index, clock[index], begin, access.write});
    }
  }
}

// Makes a cell end where the offset lies, where one is around it.
void RaceDetector::cut(std::map<std::uint64_t, Cell>& cells, std::uint64_t offset) {
  auto at = cells.lower_bound(offset);
  if (at == cells.begin()) return;
  --at;
  Cell& left = at->second;
  if (left.end <= offset) return;
  const std::uint64_t moved = offset - at->first;
  Cell right = left;
  if (right.write.point != 0) right.write.address += moved;
  for (Mark& read : right.reads) read.address += moved;
  left.end = offset;
  cells.emplace_hint(std::next(at), offset, std::move(right));
}

void RaceDetector::touch(const Clock& clock, Mapping& mapping, std::uint64_t begin, std::uint64_t end,
                         const Mark& mark) {
  ++touches_;
  const auto same_stream = [&mark](const Mark& other) { return other.stream == mark.stream; };
  const auto keep_last = [&](std::vector<Mark>& marks, const Mark& latest) {
    const auto old = std::find_if(marks.begin(), marks.end(), same_stream);
    if (old != marks.end()) {
      *old = latest;
    } else {
      marks.push_back(latest);
    }
  };
  keep_last(mapping.last, mark);
  auto& cells = mapping.memory->cells;
  cut(cells, begin);
  cut(cells, end);
  const auto from = [&](std::uint64_t offset) {  // the part of it that begins there
    Mark part = mark;
    part.address += offset - begin;
    return part;
  };
  const auto put = [&](std::uint64_t first, std::uint64_t last) {  // where nothing was touched before
    Cell cell{last, {}, {}};
    if (mark.write) {
      cell.write = from(first);
    } else {
      cell.reads.push_back(from(first));
    }
    cells.emplace(first, std::move(cell));
  };
  std::uint64_t done = begin;
  for (auto at = cells.lower_bound(begin); at != cells.end() && at->first < end;) {
    const std::uint64_t first = at->first;
    Cell& cell = at->second;
    const Mark part = from(first);
    check(clock, mapping.handle, first, cell.end, cell.write, side_of(part));
    if (mark.write) {
      for (const Mark& read : cell.reads) check(clock, mapping.handle, first, cell.end, read, side_of(part));
      at = cells.erase(at);
      continue;
    }
    if (done < first) put(done, first);
    done = cell.end;
    keep_last(cell.reads, part);
    ++at;
  }
  if (done < end) put(done, end);
}

Race::Side RaceDetector::side_of(const Mark& mark) const {
  return {mark.write ? Race::Touch::write : Race::Touch::read, streams_[mark.stream].name, mark.address};
}

void RaceDetector::check(const Clock& clock, Handle handle, std::uint64_t begin, std::uint64_t end, const Mark& earlier,
                         const Race::Side& later) {
  if (before(earlier, clock)) return;
  ++race_count_;
  if (races_.size() < kRacesKept) races_.push_back({side_of(earlier), later, handle, begin, end - begin});
}

Status RaceDetector::map(Address address, std::uint64_t bytes, Handle handle) {
  Status mapped = inner().map(address, bytes, handle);
  if (!mapped.ok()) return mapped;
  Memory* memory = &memories_[bits(handle)];
  ++memory->mappings;
  mappings_[address] = {bytes, handle, memory, {}};
  return mapped;
}

// Looked at before the driver is asked: it may refuse what is a race.
Status RaceDetector::unmap(Address address, std::uint64_t bytes) {
  const auto first = mappings_.lower_bound(address);
  const auto last = mappings_.lower_bound(address + bytes);
  for (auto mapping = first; mapping != last; ++mapping) {
    for (const Mark& mark : mapping->second.last) {
      check(host_, mapping->second.handle, 0, mapping->second.bytes, mark, {Race::Touch::unmap, {}, mapping->first});
    }
  }
  Status unmapped = inner().unmap(address, bytes);
  if (!unmapped.ok()) return unmapped;
  for (auto mapping = first; mapping != last; ++mapping) {
    --mapping->second.memory->mappings;
    drop_if_gone(mapping->second.handle);
  }
  mappings_.erase(first, last);
  return unmapped;
}

Status RaceDetector::release(Handle handle) {
  Status released = inner().release(handle);
  if (!released.ok()) return released;
  memories_[bits(handle)].released = true;
  drop_if_gone(handle);
  return released;
}

// The same pages may be another handle's from here on. Whoever had them was seen complete when the last mapping went.
void RaceDetector::drop_if_gone(Handle handle) {
  const auto found = memories_.find(bits(handle));
  if (found->second.released && found->second.mappings == 0) memories_.erase(found);
}

Status RaceDetector::event_record(Event event, Stream stream) {
  Status recorded = inner().event_record(event, stream);
  if (recorded.ok()) events_[bits(event)] = enqueue(stream).clock;
  return recorded;
}

Result<bool> RaceDetector::event_query(Event event) {
  Result<bool> passed = inner().event_query(event);
  if (passed.ok() && *passed) observe(event);
  return passed;
}

Status RaceDetector::event_synchronize(Event event) {
  Status waited = inner().event_synchronize(event);
  if (waited.ok()) observe(event);
  return waited;
}

Status RaceDetector::stream_wait(Stream stream, Event event) {
  Status waits = inner().stream_wait(stream, event);
  if (!waits.ok()) return waits;
  StreamState& state = enqueue(stream);
  if (const auto found = events_.find(bits(event)); found != events_.end()) join(state.clock, found->second);
  return waits;
}

Status RaceDetector::event_destroy(Event event) {
  Status destroyed = inner().event_destroy(event);
  if (destroyed.ok()) events_.erase(bits(event));
  return destroyed;
}

Status RaceDetector::clear(Stream stream, Address address, std::uint64_t bytes) {
  const Status cleared = inner().clear(stream, address, bytes);
  const driver::Access access{address, bytes, true};
  if (cleared.ok()) kernel(stream, {&access, 1});
  return cleared;
}

}  // namespace gmlake::test
