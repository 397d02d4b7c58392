#include "driver/host.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <utility>

#include "base/check.hpp"

namespace gmlake::driver {
namespace {

// Room for a billion handles of 1 GiB, one after the other.
constexpr std::uint64_t kFileBytes = std::uint64_t{1} << 60;
constexpr std::uint64_t kPageBytes = 4096;

void* pointer(Address address) { return reinterpret_cast<void*>(address); }

// Addresses without memory: no access, and nothing set aside. Over `address` where that is not 0.
void* map_nothing(Address address, std::uint64_t bytes) {
  const int fixed = address == 0 ? 0 : MAP_FIXED;
  return mmap(pointer(address), bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | fixed, -1, 0);
}

// A page of the file that no handle uses, so that it merges with no other mapping. Null where there is no room.
void* map_spare(int file, std::uint64_t file_bytes) {
  const auto last_page = static_cast<off_t>(file_bytes - kPageBytes);
  void* page = mmap(nullptr, kPageBytes, PROT_NONE, MAP_SHARED | MAP_NORESERVE, file, last_page);
  return page == MAP_FAILED ? nullptr : page;
}

BooksOptions books_options(const HostOptions& options) {
  BooksOptions books;
  books.devices = options.devices;
  books.capacity_bytes = options.capacity_bytes;
  books.host_numa_nodes = options.host_numa_nodes;
  books.host_bytes = options.host_bytes;
  books.granularity = options.granularity;
  books.max_mappings = ~std::uint64_t{0};  // the kernel's own bound counts
  books.flags = options.flags;
  return books;
}

}  // namespace

Result<std::unique_ptr<HostDriver>> HostDriver::make(const HostOptions& options) {
  const Error not_supported{ErrorCode::not_supported, Step::none, options.capacity_bytes};
  std::uint64_t bytes = kFileBytes;
  rlimit limit{};  // growing a file past it raises a signal
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    bytes = std::min<std::uint64_t>(bytes, limit.rlim_cur);
  }
  bytes &= ~(kPageBytes - 1);
  if (bytes <= options.capacity_bytes) return not_supported;
  const int file = memfd_create("gmlake-host-driver", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (file < 0) return not_supported;
  if (ftruncate(file, static_cast<off_t>(bytes)) != 0 ||
      fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    close(file);
    return not_supported;
  }
  return std::unique_ptr<HostDriver>(new HostDriver(options, file, bytes));
}

HostDriver::HostDriver(const HostOptions& options, int file, std::uint64_t file_bytes)
    : SimulatedDriver(options.device_name, books_options(options)),
      process_(getpid()),
      file_(file),
      file_bytes_(file_bytes),
      spare_(map_spare(file, file_bytes)) {}

HostDriver::~HostDriver() {
  if (getpid() != process_) return;
  MutexLock lock(mutex_);
  for (auto range = books_.reservation_after(0); range;
       range = books_.reservation_after(range->first + range->second)) {
    munmap(pointer(range->first), range->second);
  }
  if (spare_ != nullptr) munmap(spare_, kPageBytes);
  for (const Extent& imported : imported_) {
    if (imported.file >= 0) close(imported.file);
  }
  close(file_);
}

Result<Address> HostDriver::reserve(std::uint64_t bytes, std::uint64_t alignment) {
  MutexLock lock(mutex_);
  if (Status status = books_.check_reserve(bytes, alignment); !status.ok()) return status.error();
  const Error none{ErrorCode::address_space, Step::reserve, bytes};
  // The kernel aligns to pages alone: take more, and give back what lies before and behind.
  const std::uint64_t unit = std::max(alignment, books_.options().granularity);
  const std::uint64_t slack = unit - kPageBytes;
  if (bytes > ~std::uint64_t{0} - slack) return none;
  void* start = map_nothing(0, bytes + slack);
  if (start == MAP_FAILED) return none;
  const auto first = reinterpret_cast<Address>(start);
  const Address address = (first + unit - 1) & ~(unit - 1);
  const std::uint64_t before = address - first;
  const bool trimmed = (before == 0 || munmap(start, before) == 0) &&
                       (before == slack || munmap(pointer(address + bytes), slack - before) == 0);
  if (!trimmed) {
    munmap(start, bytes + slack);
    return none;
  }
  books_.add_reservation(address, bytes);
  return address;
}

Status HostDriver::address_free(Address address, std::uint64_t bytes) {
  MutexLock lock(mutex_);
  if (Status status = books_.check_address_free(address, bytes); !status.ok()) return status;
  if (munmap(pointer(address), bytes) != 0) return Error{ErrorCode::too_many_mappings, Step::address_free, address};
  books_.remove_reservation(address);
  return {};
}

Result<Handle> HostDriver::create(std::uint64_t bytes, const MemoryProperties& properties) {
  MutexLock lock(mutex_);
  if (Status status = books_.check_create(bytes, properties); !status.ok()) return status.error();
  if (bytes > file_bytes_ - kPageBytes - next_offset_) return Error{ErrorCode::out_of_memory, Step::create, bytes};
  const Handle handle = books_.add_memory(bytes, properties, next_offset_);
  next_offset_ += bytes;
  return handle;
}

Status HostDriver::release(Handle handle) {
  std::vector<DriverBooks::Memory> gone;
  MutexLock lock(mutex_);
  if (Status status = books_.check_release(handle); !status.ok()) return status;
  books_.release(handle, &gone);
  end(gone);
  return {};
}

Result<int> HostDriver::export_fd(Handle handle) {
  MutexLock lock(mutex_);
  if (Status status = books_.check_export(handle); !status.ok()) return status.error();
  // Opened anew, since a duplicate would share its position.
  std::array<char, 32> path{};
  std::snprintf(path.data(), path.size(), "/proc/self/fd/%d", file_);
  const int fd = open(path.data(), O_RDWR | O_CLOEXEC);
  const Error refused{ErrorCode::not_supported, Step::share, static_cast<std::uint64_t>(handle)};
  if (fd < 0) return refused;
  if (lseek(fd, static_cast<off_t>(books_.memory(handle).tag), SEEK_SET) < 0) {
    close(fd);
    return refused;
  }
  books_.note_export(handle);
  return fd;
}

Result<Handle> HostDriver::import_fd(int fd, std::uint64_t bytes, const MemoryProperties& properties) {
  MutexLock lock(mutex_);
  if (Status status = books_.check_import(bytes, properties); !status.ok()) return status.error();
  // A file that could shrink would raise signals under its readers: only one that is sealed against that will do.
  const int seals = fcntl(fd, F_GET_SEALS);
  const off_t offset = lseek(fd, 0, SEEK_CUR);
  struct stat state {};
  const Error no_memory{ErrorCode::invalid_value, Step::share,
                        static_cast<std::uint64_t>(static_cast<std::int64_t>(fd))};
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || offset < 0 || offset % static_cast<off_t>(kPageBytes) != 0 ||
      fstat(fd, &state) != 0 || state.st_size < offset || static_cast<std::uint64_t>(state.st_size - offset) < bytes) {
    return no_memory;
  }
  const auto free = std::find_if(imported_.begin(), imported_.end(), [](const Extent& slot) { return slot.file < 0; });
  const auto index = static_cast<std::size_t>(free - imported_.begin());
  if (free == imported_.end()) imported_.emplace_back();
  const int file = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (file < 0) return no_memory;
  imported_[index] = {file, static_cast<std::uint64_t>(offset)};
  return books_.add_memory(bytes, properties, index, true);
}

// In the books alone: the memory appears at the address with the first access, as one system call a run of mappings.
Status HostDriver::map(Address address, std::uint64_t bytes, Handle handle) {
  MutexLock lock(mutex_);
  if (Status status = books_.check_map(address, bytes, handle); !status.ok()) return status;
  books_.add_mapping(address, bytes, handle);
  return {};
}

Status HostDriver::unmap(Address address, std::uint64_t bytes) {
  std::vector<DriverBooks::Memory> gone;
  MutexLock lock(mutex_);
  if (Status status = books_.check_unmap(address, bytes); !status.ok()) return status;
  if (Status status = streams_.check_unmap(address, bytes); !status.ok()) return status;
  if (!close_range(address, bytes)) return Error{ErrorCode::too_many_mappings, Step::unmap, address};
  books_.unmap(address, bytes, &gone);
  end(gone);
  return {};
}

Status HostDriver::set_access(Address address, std::uint64_t bytes, std::span<const int> devices) {
  MutexLock lock(mutex_);
  if (Status status = books_.check_set_access(address, bytes, devices); !status.ok()) return status;
  if (!open_range(address, bytes)) return Error{ErrorCode::too_many_mappings, Step::set_access, bytes};
  books_.set_access(address, bytes, devices);
  return {};
}

// Puts the memory behind each mapping of the range that has no access yet. False, and nothing changed, where the kernel
// takes no more mappings. The advice comes last, for the whole range: until then the new mappings do not merge with old
// ones, so that taking them back needs no room for a split.
bool HostDriver::open_range(Address address, std::uint64_t bytes) {
  struct Run {
    Address address = 0;
    std::uint64_t bytes = 0;
    Extent extent;
  };
  const std::span<const Extent> imported = imported_;
  std::vector<Run> runs;  // of neighbours that are neighbours in the file too: one system call each
  books_.for_each_mapping(address, bytes, [&](const auto& mapping, const auto& memory) {
    if (mapping.access != 0) return;
    const Extent extent = extent_of(memory, file_, imported);
    if (!runs.empty() && runs.back().address + runs.back().bytes == mapping.address &&
        runs.back().extent.file == extent.file && runs.back().extent.offset + runs.back().bytes == extent.offset) {
      runs.back().bytes += mapping.bytes;
    } else {
      runs.push_back({mapping.address, mapping.bytes, extent});
    }
  });
  if (runs.empty()) return true;
  std::size_t done = 0;
  while (done < runs.size() && mmap(pointer(runs[done].address), runs[done].bytes, PROT_READ | PROT_WRITE,
                                    MAP_SHARED | MAP_FIXED | MAP_NORESERVE, runs[done].extent.file,
                                    static_cast<off_t>(runs[done].extent.offset)) != MAP_FAILED) {
    ++done;
  }
  if (done == runs.size() && madvise(pointer(address), bytes, MADV_DONTFORK) == 0 &&
      (madvise(pointer(address), bytes, MADV_NOHUGEPAGE) == 0 || errno == EINVAL)) {  // a kernel without huge pages
    return true;
  }
  // The failed one is as it was: the kernel looks at its bound before it removes anything.
  while (done-- > 0) GMLAKE_CHECK(close_range(runs[done].address, runs[done].bytes));
  return false;
}

// Makes a range addresses without memory again. False, and nothing changed, where that would split a mapping and the
// kernel takes no more.
bool HostDriver::close_range(Address address, std::uint64_t bytes) {
  bool closed = map_nothing(address, bytes) != MAP_FAILED;
  if (!closed && spare_ != nullptr) {
    munmap(std::exchange(spare_, nullptr), kPageBytes);
    closed = map_nothing(address, bytes) != MAP_FAILED;
  }
  if (spare_ == nullptr) spare_ = map_spare(file_, file_bytes_);
  return closed;
}

// Of memory that nothing here refers to any more: gives its pages back to the system, where no other process may have
// them, or closes what came from another one.
void HostDriver::end(const std::vector<DriverBooks::Memory>& gone) {
  for (const DriverBooks::Memory& memory : gone) {
    if (memory.imported) close(std::exchange(imported_[memory.tag].file, -1));
    if (memory.imported || memory.exported) continue;
    int outcome = 0;
    do {
      outcome = fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(memory.tag),
                          static_cast<off_t>(memory.bytes));
    } while (outcome != 0 && errno == EINTR);
    GMLAKE_CHECK_EQ(outcome, 0);
  }
}

std::uint64_t HostDriver::resident_bytes() const {
  struct stat state {};
  GMLAKE_CHECK_EQ(fstat(file_, &state), 0);
  return static_cast<std::uint64_t>(state.st_blocks) * 512;  // a block of stat is 512 bytes whatever the file system
}

std::function<void()> HostDriver::zeroing(Address address, std::uint64_t bytes) {
  return [address, bytes] { std::memset(pointer(address), 0, bytes); };
}

std::uint64_t HostDriver::clock_ns() {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
          .count());
}

}  // namespace gmlake::driver
