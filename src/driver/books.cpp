#include "driver/books.hpp"

#include <algorithm>
#include <bit>

namespace gmlake::driver {
namespace {

constexpr int kMaxDevices = 64;
constexpr int kIndexBits = 32;  // a Handle is a generation above, and the index of its slot plus 1 below

Error invalid(Step step, std::uint64_t value) { return {ErrorCode::invalid_value, step, value}; }

std::uint64_t bits(Handle handle) { return static_cast<std::uint64_t>(handle); }

}  // namespace

DriverBooks::DriverBooks(BooksOptions options) : options_(std::move(options)), mappings_(1) {
  GMLAKE_CHECK(options_.devices >= 0 && options_.devices <= kMaxDevices && options_.host_numa_nodes >= 0);
  GMLAKE_CHECK(std::has_single_bit(options_.granularity) && options_.granularity >= 4096);
  shift_ = std::countr_zero(options_.granularity);
  options_.capacity_bytes &= ~(options_.granularity - 1);
  options_.host_bytes &= ~(options_.granularity - 1);
  options_.flags.resize(static_cast<std::size_t>(options_.devices));
  used_.resize(static_cast<std::size_t>(options_.devices) + static_cast<std::size_t>(options_.host_numa_nodes));
  last_reservation_ = reservations_.end();
}

Status DriverBooks::check_device(int device, Step step) const {
  if (device >= 0 && device < options_.devices) return {};
  return Error{ErrorCode::invalid_device, step, static_cast<std::uint64_t>(static_cast<std::int64_t>(device))};
}

// A flag of host memory must hold on every device, since any of them may be given access.
Status DriverBooks::check_properties(const MemoryProperties& properties, Step step) const {
  const Location& location = properties.location;
  const bool on_device = location.kind == Location::Kind::device;
  if (location.id < 0 || location.id >= (on_device ? options_.devices : options_.host_numa_nodes)) {
    return Error{ErrorCode::invalid_device, step, static_cast<std::uint64_t>(static_cast<std::int64_t>(location.id))};
  }
  const auto id = static_cast<std::size_t>(location.id);
  const std::span<const DeviceFlags> all = options_.flags;
  for (const DeviceFlags& flags : on_device ? all.subspan(id, 1) : all) {
    if (flags.vmm && (flags.rdma || !properties.rdma_capable) && (flags.posix_fd || !properties.posix_fd_handle) &&
        (flags.fabric || !properties.fabric_handle)) {
      continue;
    }
    return Error{ErrorCode::not_supported, step, static_cast<std::uint64_t>(location.id)};
  }
  return {};
}

std::uint64_t DriverBooks::capacity(const Location& location) const {
  return location.kind == Location::Kind::device ? options_.capacity_bytes : options_.host_bytes;
}

std::size_t DriverBooks::location_index(const Location& location) const {
  return static_cast<std::size_t>(location.kind == Location::Kind::device ? location.id
                                                                          : options_.devices + location.id);
}

Status DriverBooks::check_reserve(std::uint64_t bytes, std::uint64_t alignment) const {
  if (bytes == 0 || !aligned(bytes)) return invalid(Step::reserve, bytes);
  if (alignment != 0 && !std::has_single_bit(alignment)) return invalid(Step::reserve, alignment);
  return {};
}

void DriverBooks::add_reservation(Address address, std::uint64_t bytes) {
  const auto next = reservations_.upper_bound(address);
  GMLAKE_CHECK(address != 0 && aligned(address));
  GMLAKE_CHECK(next == reservations_.end() || next->first - address >= bytes);
  GMLAKE_CHECK(next == reservations_.begin() || std::prev(next)->first + std::prev(next)->second.bytes <= address);
  reservations_.emplace_hint(next, address, Reservation{bytes, 0});
  reserved_bytes_ += bytes;
}

Status DriverBooks::check_address_free(Address address, std::uint64_t bytes) const {
  const auto found = reservations_.find(address);
  if (found == reservations_.end()) return invalid(Step::address_free, address);
  if (found->second.bytes != bytes) return invalid(Step::address_free, bytes);
  if (found->second.mapped_bytes != 0) return invalid(Step::address_free, address);
  return {};
}

void DriverBooks::remove_reservation(Address address) {
  const auto found = reservations_.find(address);
  GMLAKE_CHECK(found != reservations_.end());
  reserved_bytes_ -= found->second.bytes;
  if (last_reservation_ == found) last_reservation_ = reservations_.end();
  reservations_.erase(found);
}

std::optional<std::pair<Address, std::uint64_t>> DriverBooks::reservation_after(Address address) const {
  auto next = reservations_.upper_bound(address);
  if (next != reservations_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second.bytes > address) next = before;
  }
  if (next == reservations_.end()) return std::nullopt;
  return std::pair{next->first, next->second.bytes};
}

// The reservation that holds the whole range, or end().
DriverBooks::Reservations::const_iterator DriverBooks::reservation_of(Address address, std::uint64_t bytes) const {
  const auto holds = [&](const Reservations::const_iterator& entry) {
    return address >= entry->first && address - entry->first < entry->second.bytes &&
           bytes <= entry->second.bytes - (address - entry->first);
  };
  if (last_reservation_ != reservations_.end() && holds(last_reservation_)) return last_reservation_;
  const auto next = reservations_.upper_bound(address);
  if (next == reservations_.begin() || !holds(std::prev(next))) return reservations_.end();
  last_reservation_ = std::prev(next);
  return last_reservation_;
}

DriverBooks::Reservation& DriverBooks::reservation_at(Address address) {
  const auto found = reservation_of(address, 1);
  GMLAKE_CHECK(found != reservations_.end());
  return const_cast<Reservation&>(found->second);  // the map is ours; the iterator is const only because it is cached
}

Status DriverBooks::check_create(std::uint64_t bytes, const MemoryProperties& properties) const {
  if (Status status = check_properties(properties, Step::create); !status.ok()) return status;
  if (bytes == 0 || !aligned(bytes)) return invalid(Step::create, bytes);
  if (bytes > capacity(properties.location) - used(properties.location)) {
    return Error{ErrorCode::out_of_memory, Step::create, bytes};
  }
  return {};
}

Status DriverBooks::check_import(std::uint64_t bytes, const MemoryProperties& properties) const {
  if (Status status = check_properties(properties, Step::share); !status.ok()) return status;
  if (bytes == 0 || !aligned(bytes)) return invalid(Step::share, bytes);
  return {};
}

Status DriverBooks::check_export(Handle handle) const {
  if (!held(handle)) return invalid(Step::share, bits(handle));
  if (memories_[index_of(handle)].shareable) return {};
  return Error{ErrorCode::not_supported, Step::share, bits(handle)};
}

Handle DriverBooks::add_memory(std::uint64_t bytes, const MemoryProperties& properties, std::uint64_t tag,
                               bool imported) {
  if (free_memories_.empty()) {
    free_memories_.push_back(static_cast<std::uint32_t>(memories_.size()));
    memories_.emplace_back();
  }
  const std::uint32_t index = free_memories_.back();
  free_memories_.pop_back();
  Memory& memory = memories_[index];
  memory = {.bytes = bytes,
            .tag = tag,
            .mappings = 0,
            .location = properties.location,
            .generation = memory.generation + 1,
            .held = true,
            .shareable = properties.posix_fd_handle && !imported,
            .rdma = properties.rdma_capable,
            .imported = imported,
            .exported = false};
  if (!imported) used_[location_index(memory.location)] += bytes;
  ++handles_;
  return static_cast<Handle>(std::uint64_t{memory.generation} << kIndexBits | (index + 1u));
}

bool DriverBooks::held(Handle handle) const {
  const std::uint32_t index = index_of(handle);
  return index < memories_.size() && memories_[index].held && memories_[index].generation == bits(handle) >> kIndexBits;
}

Status DriverBooks::check_release(Handle handle) const {
  if (!held(handle)) return invalid(Step::release, bits(handle));
  return {};
}

void DriverBooks::release(Handle handle, std::vector<Memory>* gone) {
  GMLAKE_CHECK(held(handle));
  memories_[index_of(handle)].held = false;
  --handles_;
  drop_if_unused(index_of(handle), gone);
}

void DriverBooks::drop_if_unused(std::uint32_t index, std::vector<Memory>* gone) {
  Memory& memory = memories_[index];
  if (memory.held || memory.mappings != 0) return;
  if (!memory.imported) used_[location_index(memory.location)] -= memory.bytes;
  if (gone != nullptr) gone->push_back(memory);
  free_memories_.push_back(index);
}

Status DriverBooks::check_map(Address address, std::uint64_t bytes, Handle handle) const {
  if (!held(handle)) return invalid(Step::map, bits(handle));
  const std::uint64_t whole = memories_[index_of(handle)].bytes;
  if (bytes == 0 || !aligned(bytes) || bytes > whole) return invalid(Step::map, bytes);
  if (!aligned(address)) return invalid(Step::map, address);
  if (bytes < whole) return Error{ErrorCode::not_supported, Step::map, bytes};  // as CUDA has it for a prefix
  if (reservation_of(address, bytes) == reservations_.end()) return invalid(Step::map, address);
  if (!table_.empty(address >> shift_, bytes >> shift_)) return invalid(Step::map, address);
  return {};
}

void DriverBooks::add_mapping(Address address, std::uint64_t bytes, Handle handle) {
  if (free_mappings_.empty()) {
    free_mappings_.push_back(static_cast<std::uint32_t>(mappings_.size()));
    mappings_.emplace_back();
  }
  const std::uint32_t slot = free_mappings_.back();
  free_mappings_.pop_back();
  const std::uint32_t index = index_of(handle);
  mappings_[slot] = {address, bytes, 0, index};
  ++memories_[index].mappings;
  table_.fill(address >> shift_, bytes >> shift_, slot);
  reservation_at(address).mapped_bytes += bytes;
}

// A range inside one reservation, mapped throughout, that starts and ends on mapping boundaries.
Status DriverBooks::check_range(Address address, std::uint64_t bytes, Step step) const {
  if (bytes == 0 || !aligned(bytes)) return invalid(step, bytes);
  if (!aligned(address) || reservation_of(address, bytes) == reservations_.end()) return invalid(step, address);
  const Address end = address + bytes;
  for (Address next = address; next < end;) {
    const std::uint32_t slot = table_.at(next >> shift_);
    const Mapping& mapping = mappings_[slot];
    if (slot == 0 || mapping.address != next || mapping.bytes > end - next) return invalid(step, next);
    next += mapping.bytes;
  }
  return {};
}

void DriverBooks::unmap(Address address, std::uint64_t bytes, std::vector<Memory>* gone) {
  for_each_mapping(address, bytes, [&](const Mapping& mapping, const Memory&) {
    if (mapping.access != 0) --accessible_;
    --memories_[mapping.memory].mappings;
    drop_if_unused(mapping.memory, gone);
    const std::uint32_t slot = table_.at(mapping.address >> shift_);
    mappings_[slot].bytes = 0;
    free_mappings_.push_back(slot);
  });
  table_.clear(address >> shift_, bytes >> shift_);
  reservation_at(address).mapped_bytes -= bytes;
}

std::uint64_t DriverBooks::access_mask(std::span<const int> devices) {
  std::uint64_t mask = 0;
  for (const int device : devices) mask |= std::uint64_t{1} << device;
  return mask;
}

Status DriverBooks::check_set_access(Address address, std::uint64_t bytes, std::span<const int> devices) const {
  if (devices.empty()) return invalid(Step::set_access, 0);
  for (const int device : devices) {
    if (Status status = check_device(device, Step::set_access); !status.ok()) return status;
  }
  if (Status status = check_range(address, bytes, Step::set_access); !status.ok()) return status;
  // Room for every mapping of all, or a count of those that need it.
  if (mappings_.size() - 1 - free_mappings_.size() <= options_.max_mappings) return {};
  std::uint64_t fresh = 0;
  for_each_mapping(address, bytes,
                   [&](const Mapping& mapping, const Memory&) { fresh += mapping.access == 0 ? 1 : 0; });
  if (accessible_ + fresh > options_.max_mappings) return Error{ErrorCode::out_of_memory, Step::set_access, bytes};
  return {};
}

void DriverBooks::set_access(Address address, std::uint64_t bytes, std::span<const int> devices) {
  const std::uint64_t mask = access_mask(devices);
  for (const Address end = address + bytes; address < end;) {
    Mapping& mapping = mappings_[table_.at(address >> shift_)];
    if (mapping.access == 0) ++accessible_;
    mapping.access |= mask;
    address += mapping.bytes;
  }
}

bool DriverBooks::has_access(Address address, std::uint64_t bytes, int device) const {
  if (!check_device(device, Step::none).ok() || reservation_of(address, bytes) == reservations_.end()) return false;
  for (const Address end = address + bytes; address < end;) {
    const Mapping& mapping = mappings_[table_.at(address >> shift_)];
    if ((mapping.access >> device & 1) == 0) return false;  // so has the empty slot 0
    address = mapping.address + mapping.bytes;
  }
  return true;
}

Usage DriverBooks::usage() const {
  Usage usage;
  usage.reservations = reservations_.size();
  usage.reserved_bytes = reserved_bytes_;
  usage.handles = handles_;
  for (const std::uint64_t bytes : used_) usage.physical_bytes += bytes;
  usage.mappings = mappings_.size() - 1 - free_mappings_.size();
  usage.mapped_bytes = table_.used() << shift_;
  usage.accessible = accessible_;
  return usage;
}

void DriverBooks::check() const {
  Usage counted;
  std::map<Address, std::uint64_t> mapped;  // by reservation
  std::vector<std::uint64_t> aliases(memories_.size());
  for (std::uint32_t slot = 1; slot < mappings_.size(); ++slot) {
    const Mapping& mapping = mappings_[slot];
    if (mapping.bytes == 0) continue;
    GMLAKE_CHECK_EQ(table_.at(mapping.address >> shift_), slot);
    GMLAKE_CHECK_EQ(table_.at((mapping.address + mapping.bytes - 1) >> shift_), slot);
    GMLAKE_CHECK_EQ(memories_[mapping.memory].bytes, mapping.bytes);
    const auto reservation = reservation_of(mapping.address, mapping.bytes);
    GMLAKE_CHECK(reservation != reservations_.end());
    mapped[reservation->first] += mapping.bytes;
    ++aliases[mapping.memory];
    ++counted.mappings;
    counted.mapped_bytes += mapping.bytes;
    counted.accessible += mapping.access != 0 ? 1 : 0;
  }
  for (const auto& [address, reservation] : reservations_) {
    GMLAKE_CHECK_EQ(reservation.mapped_bytes, mapped[address]);
    ++counted.reservations;
    counted.reserved_bytes += reservation.bytes;
  }
  std::vector<std::uint64_t> used(used_.size());
  for (std::size_t index = 0; index < memories_.size(); ++index) {
    const Memory& memory = memories_[index];
    GMLAKE_CHECK_EQ(memory.mappings, aliases[index]);
    counted.handles += memory.held ? 1 : 0;
    if (!memory.held && memory.mappings == 0) continue;
    if (memory.imported) continue;
    used[location_index(memory.location)] += memory.bytes;
    counted.physical_bytes += memory.bytes;
  }
  GMLAKE_CHECK(used == used_);
  GMLAKE_CHECK(counted == usage());
}

}  // namespace gmlake::driver
