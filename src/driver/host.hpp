// A driver on ordinary memory: what is mapped twice is really the same memory, on any Linux machine, with no GPU.
// As strict as cuda.h, which mmap is not: the books refuse offsets, prefixes, partial unmaps and touching too early.
// All physical memory is one sparse memfd, and a handle is an extent of it. One file, since a job has 70,000 handles
// and a process a few thousand file descriptors; extents are never used again, which costs nothing in a sparse file,
// and their pages go back to the system (a hole is punched) when the handle and the last mapping are gone. The file is
// sealed at its size, so no access can end in SIGBUS. Only 4 KiB pages that were touched cost memory.
// A descriptor for another process is the same file once more, and its position says where the memory begins. Who gets
// one can reach all memory of this driver: it is for processes that trust each other. What was exported is given back
// to the system when the last of them has closed the file. A range without access is PROT_NONE: touching it faults. A
// fork leaves the mappings to the parent alone. Any thread may call; one lock, held across the system calls.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "driver/simulated.hpp"

namespace gmlake::driver {

struct HostOptions {
  int devices = 1;                                         // at most 64; they share the memory of this process
  std::uint64_t capacity_bytes = std::uint64_t{64} << 30;  // of a device, in the books: no memory is set aside
  std::uint64_t granularity = std::uint64_t{2} << 20;      // a power of two, 4 KiB at least
  int host_numa_nodes = 1;
  std::uint64_t host_bytes = std::uint64_t{64} << 30;  // of a NUMA node, in the books
  std::vector<DeviceFlags> flags = {};                 // by device; those past the end can do everything
  std::string device_name = "host memory";
};

class HostDriver final : public SimulatedDriver {
 public:
  // Errors: not_supported (no memfd, or the limit on file sizes is too small).
  static Result<std::unique_ptr<HostDriver>> make(const HostOptions& options = {});
  ~HostDriver() override;  // unmaps everything; nothing in the child of a fork, which may have other things there

  std::string_view name() const override { return "host"; }

  // The contract of Driver. The kernel bounds the mappings of a process (vm.max_map_count; neighbours whose memory was
  // created in order count as one). At that bound set_access fails with too_many_mappings, and so may unmap and
  // address_free, where they would split one mapping into more; each leaves everything as it was.
  Result<Address> reserve(std::uint64_t bytes, std::uint64_t alignment) override;
  Status address_free(Address address, std::uint64_t bytes) override;
  Result<Handle> create(std::uint64_t bytes, const MemoryProperties& properties) override;
  Status release(Handle handle) override;
  Result<int> export_fd(Handle handle) override;
  Result<Handle> import_fd(int fd, std::uint64_t bytes, const MemoryProperties& properties) override;
  Status map(Address address, std::uint64_t bytes, Handle handle) override;
  Status unmap(Address address, std::uint64_t bytes) override;
  Status set_access(Address address, std::uint64_t bytes, std::span<const int> devices) override;
  std::uint64_t clock_ns() override;

  std::uint64_t resident_bytes() const;  // of physical memory: pages that were touched and not given back

 protected:
  std::function<void()> zeroing(Address address, std::uint64_t bytes) override;

 private:
  HostDriver(const HostOptions& options, int file, std::uint64_t file_bytes);

  struct Extent {
    int file = -1;
    std::uint64_t offset = 0;
  };
  static Extent extent_of(const DriverBooks::Memory& memory, int own_file, std::span<const Extent> imported) {
    return memory.imported ? imported[memory.tag] : Extent{own_file, memory.tag};
  }
  bool open_range(Address address, std::uint64_t bytes) GMLAKE_REQUIRES(mutex_);
  bool close_range(Address address, std::uint64_t bytes) GMLAKE_REQUIRES(mutex_);
  void end(const std::vector<DriverBooks::Memory>& gone) GMLAKE_REQUIRES(mutex_);

  const int process_;  // that made it
  const int file_;
  const std::uint64_t file_bytes_;
  // A mapping with no use but to be given up: at the kernel's bound even a call that lowers the count is refused.
  void* spare_ GMLAKE_GUARDED_BY(mutex_) = nullptr;
  // Of other processes' files, by the tag of their memory; file -1: a free slot.
  std::vector<Extent> imported_ GMLAKE_GUARDED_BY(mutex_);
  std::uint64_t next_offset_ GMLAKE_GUARDED_BY(mutex_) = 0;  // where the next handle's extent starts
};

}  // namespace gmlake::driver
