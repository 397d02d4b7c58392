// One driver allocation a request. Callable from the replaying thread.
#include "replay/direct.hpp"

#include <algorithm>

#include "gmlake/bytes.hpp"
#include "replay/settings.hpp"

namespace gmlake::replay {

namespace {
constexpr std::uint64_t kMaxRequest = std::uint64_t{1} << 62;  // larger ones overflow when they are rounded
}  // namespace

Result<std::unique_ptr<Target>> Direct::make(driver::Driver& driver, const TargetOptions& options) {
  if (Status known = SettingsReader(options.settings).all_known(); !known) return known.error();
  driver::MemoryProperties properties;
  properties.location = {driver::Location::Kind::device, options.device};
  const Result<std::uint64_t> granularity = driver.granularity(properties);
  if (!granularity) return granularity.error();
  return std::unique_ptr<Target>(new Direct(driver, options, *granularity));
}

Direct::Direct(driver::Driver& driver, const TargetOptions& options, std::uint64_t granularity)
    : driver_(driver),
      device_(options.device),
      granularity_(granularity),
      held_(options.capacity_bytes),
      pending_(driver, options.device) {}

Direct::~Direct() {
  // The replay has ended: whatever is still live or pending goes.
  for (const Block& block : blocks_) {
    if (block.segment.bytes != 0) static_cast<void>(free_segment(driver_, block.segment).ok());
  }
}

Result<driver::Address> Direct::allocate(std::uint64_t bytes, driver::Stream stream) {
  if (bytes > kMaxRequest) return Error{ErrorCode::invalid_size, Step::allocate, bytes};
  if (!pending_.empty()) {
    const Status processed = pending_.process(done_);
    const Status freed = free_done();
    if (!processed) return processed.error();
    if (!freed) return freed.error();
  }
  const std::uint64_t rounded = round_up(std::max<std::uint64_t>(bytes, 1), granularity_);
  Result<Segment> segment = make_segment(rounded);
  if (!segment && !pending_.empty()) {
    if (Status waited = trim(); !waited) return waited.error();
    segment = make_segment(rounded);
  }
  if (!segment) return segment.error();
  const std::uint32_t number = new_number();
  blocks_[number].segment = *segment;
  blocks_[number].stream = stream;
  live_.insert(segment->address, number);
  return segment->address;
}

Status Direct::deallocate(driver::Address address, driver::Stream) {
  const std::uint32_t number = address == 0 ? AddressMap::kNone : live_.take(address);
  if (number == AddressMap::kNone) return Error{ErrorCode::invalid_pointer, Step::deallocate, address};
  if (blocks_[number].uses.empty()) return free_block(number);
  Status pending = pending_.add(number, blocks_[number].uses);
  if (!pending) live_.insert(address, number);
  return pending;
}

Status Direct::record_stream(driver::Address address, driver::Stream stream) {
  const std::uint32_t number = address == 0 ? AddressMap::kNone : live_.find(address);
  if (number == AddressMap::kNone) return Error{ErrorCode::invalid_pointer, Step::record_stream, address};
  Block& block = blocks_[number];
  const bool known =
      stream == block.stream || std::find(block.uses.begin(), block.uses.end(), stream) != block.uses.end();
  if (!known) block.uses.push_back(stream);
  return {};
}

Status Direct::trim() {
  const Status drained = pending_.drain(done_);
  const Status freed = free_done();
  return drained ? freed : drained;
}

Result<Segment> Direct::make_segment(std::uint64_t bytes) {
  if (!held_.fits(bytes)) return Error{ErrorCode::out_of_memory, Step::allocate, bytes};
  Result<Segment> segment = allocate_segment(driver_, device_, bytes);
  if (segment) held_.add(bytes);
  return segment;
}

std::uint32_t Direct::new_number() {
  if (idle_.empty()) {
    blocks_.emplace_back();
    return static_cast<std::uint32_t>(blocks_.size() - 1);
  }
  const std::uint32_t number = idle_.back();
  idle_.pop_back();
  return number;
}

Status Direct::free_block(std::uint32_t number) {
  Block& block = blocks_[number];
  const Segment segment = block.segment;
  block.segment = {};
  block.uses.clear();
  idle_.push_back(number);
  held_.remove(segment.bytes);
  return free_segment(driver_, segment);
}

Status Direct::free_done() {
  Status status;
  for (const std::uint32_t number : done_) {
    if (Status freed = free_block(number); !freed) status = freed;
  }
  done_.clear();
  return status;
}

}  // namespace gmlake::replay
