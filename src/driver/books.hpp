// The books of a simulated driver: reservations, physical memory, mappings, and every rule about them, written once for
// host and model. A backend asks check_*() first, does its own work (system calls, or the clock), and then commits with
// the call of the same subject; so a call that fails changes nothing. A commit that was not checked aborts.
// Not thread-safe: the backend's lock guards it. Memory follows what is mapped, not what is reserved.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/check.hpp"
#include "driver/driver.hpp"
#include "driver/granule_table.hpp"
#include "gmlake/result.hpp"

namespace gmlake::driver {

// What one simulated device can do.
struct DeviceFlags {
  bool vmm = true;
  bool rdma = true;
  bool posix_fd = true;
  bool fabric = true;
};

struct BooksOptions {
  int devices = 1;                   // at most 64
  std::uint64_t capacity_bytes = 0;  // of each device, rounded down to the granularity
  int host_numa_nodes = 1;
  std::uint64_t host_bytes = 0;         // of each NUMA node, rounded down likewise
  std::uint64_t granularity = 0;        // a power of two, 4 KiB at least
  std::uint64_t max_mappings = 0;       // live mappings that have access
  std::vector<DeviceFlags> flags = {};  // by device; those past the end can do everything
};

// What is alive now. All zero after a clean shutdown.
struct Usage {
  std::uint64_t reservations = 0;
  std::uint64_t reserved_bytes = 0;  // of addresses
  std::uint64_t handles = 0;         // created and not released
  std::uint64_t physical_bytes = 0;  // held by a handle or a mapping, over all locations
  std::uint64_t mappings = 0;
  std::uint64_t mapped_bytes = 0;  // aliases counted each
  std::uint64_t accessible = 0;    // mappings that some device may touch

  friend bool operator==(const Usage&, const Usage&) = default;
};

class DriverBooks {
 public:
  // A piece of physical memory.
  struct Memory {
    std::uint64_t bytes = 0;
    std::uint64_t tag = 0;  // the backend's own: the host keeps the offset in its file here
    std::uint64_t mappings = 0;
    Location location;
    std::uint32_t generation = 0;  // counts the uses of the slot, so that an old handle is recognized
    bool held = false;             // has a handle, not released
    bool shareable = false;        // created to be
    bool rdma = false;             // created to be used by other devices of the machine
    bool imported = false;         // another process made it: none of a location's capacity
    bool exported = false;         // other processes may have it
  };
  struct Mapping {
    Address address = 0;
    std::uint64_t bytes = 0;   // 0: a free slot
    std::uint64_t access = 0;  // a bit for each device
    std::uint32_t memory = 0;  // index of its Memory
  };

  explicit DriverBooks(BooksOptions options);

  const BooksOptions& options() const { return options_; }
  Status check_device(int device, Step step) const;
  Status check_properties(const MemoryProperties& properties, Step step) const;
  std::uint64_t capacity(const Location& location) const;
  std::uint64_t used(const Location& location) const { return used_[location_index(location)]; }

  // Addresses. The backend chooses them: add_reservation wants a range that touches no other.
  Status check_reserve(std::uint64_t bytes, std::uint64_t alignment) const;
  void add_reservation(Address address, std::uint64_t bytes);
  Status check_address_free(Address address, std::uint64_t bytes) const;
  void remove_reservation(Address address);
  // The first reservation that ends after `address`: for backends that search for a free range.
  std::optional<std::pair<Address, std::uint64_t>> reservation_after(Address address) const;

  // Physical memory. `gone`, where given, receives the memory that ended with this call.
  Status check_create(std::uint64_t bytes, const MemoryProperties& properties) const;
  Handle add_memory(std::uint64_t bytes, const MemoryProperties& properties, std::uint64_t tag, bool imported = false);
  Status check_import(std::uint64_t bytes, const MemoryProperties& properties) const;
  Status check_export(Handle handle) const;
  void note_export(Handle handle) { memories_[index_of(handle)].exported = true; }
  Status check_release(Handle handle) const;
  void release(Handle handle, std::vector<Memory>* gone = nullptr);
  const Memory& memory(Handle handle) const { return memories_[index_of(handle)]; }  // of a handle that was checked

  // Mappings.
  Status check_map(Address address, std::uint64_t bytes, Handle handle) const;
  void add_mapping(Address address, std::uint64_t bytes, Handle handle);
  Status check_unmap(Address address, std::uint64_t bytes) const { return check_range(address, bytes, Step::unmap); }
  void unmap(Address address, std::uint64_t bytes, std::vector<Memory>* gone = nullptr);
  Status check_set_access(Address address, std::uint64_t bytes, std::span<const int> devices) const;
  void set_access(Address address, std::uint64_t bytes, std::span<const int> devices);

  // Calls fn(const Mapping&, const Memory&) for each mapping of a range that was checked, by address.
  template <class Function>
  void for_each_mapping(Address address, std::uint64_t bytes, Function&& fn) const {
    for (const Address end = address + bytes; address < end;) {
      const Mapping& mapping = mappings_[table_.at(address >> shift_)];
      const std::uint64_t mapped = mapping.bytes;  // read first: unmap empties the mapping
      fn(mapping, memories_[mapping.memory]);
      address += mapped;
    }
  }
  static std::uint64_t access_mask(std::span<const int> devices);  // of devices that were checked

  // Whether a device may touch all of a range, which need not lie on mapping boundaries.
  bool has_access(Address address, std::uint64_t bytes, int device) const;

  Usage usage() const;
  void check() const;  // recounts everything from the mappings, and aborts on a difference

 private:
  struct Reservation {
    std::uint64_t bytes = 0;
    std::uint64_t mapped_bytes = 0;
  };
  using Reservations = std::map<Address, Reservation>;

  bool aligned(std::uint64_t value) const { return (value & (options_.granularity - 1)) == 0; }
  std::size_t location_index(const Location& location) const;
  static std::uint32_t index_of(Handle handle) { return static_cast<std::uint32_t>(handle) - 1; }
  bool held(Handle handle) const;
  Reservations::const_iterator reservation_of(Address address, std::uint64_t bytes) const;
  Reservation& reservation_at(Address address);
  Status check_range(Address address, std::uint64_t bytes, Step step) const;
  void drop_if_unused(std::uint32_t index, std::vector<Memory>* gone);

  BooksOptions options_;
  int shift_ = 0;  // log2 of the granularity
  Reservations reservations_;
  mutable Reservations::const_iterator last_reservation_;  // the one looked up last
  std::uint64_t reserved_bytes_ = 0;
  std::vector<Memory> memories_;
  std::vector<std::uint32_t> free_memories_;
  std::uint64_t handles_ = 0;
  std::vector<std::uint64_t> used_;  // bytes by location: the devices, then the NUMA nodes
  std::vector<Mapping> mappings_;    // slot 0 stands for "not mapped"
  std::vector<std::uint32_t> free_mappings_;
  std::uint64_t accessible_ = 0;
  GranuleTable table_;  // which slot of mappings_ lies at a granule
};

}  // namespace gmlake::driver
