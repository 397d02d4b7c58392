// The driver seam: every call that the library makes to get addresses, physical memory and points on streams.
// Backends: cuda, host, model. Wrappers: fault, record. The suite in tests/driver/conformance.hpp is this contract as
// code.
//
// Contract, the same for every backend (stricter than cuda.h 13.0 where cuda.h leaves a thing undefined):
// - Calls may come from any thread at the same time. No call waits for work on a device, event_synchronize excepted.
// - A call that fails changes nothing. Errors name the step and carry the size, address, handle or device in question;
//   the code is invalid_value where the list at a call does not say otherwise.
// - reserve / address_free deal in address ranges; create / release in physical memory; map / unmap join the two.
// - A handle is mapped whole, at offset 0, at an address that is a multiple of its granularity, inside one reservation,
//   over addresses that are not mapped. One handle may be mapped at several addresses at once (aliases).
// - unmap takes a range inside one reservation that starts and ends on mapping boundaries and is mapped throughout; it
//   may span many mappings. No work that is still pending may touch the range: simulated streams refuse that.
// - set_access takes such a range too. A new mapping has no access, whatever its address or its memory had before:
//   touching it first is an error.
// - address_free takes exactly the pointer and the size of a reservation with nothing mapped in it.
// - Memory lives until its handle is released and its last mapping is gone. A handle is released once.
// - New memory has unspecified contents. A write through one alias is seen through another by later operations.
// Costs and limits were measured on an H200; docs/driver.md has the table.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "gmlake/result.hpp"

namespace gmlake::driver {

using Address = std::uint64_t;  // an address on the device; 0 is never handed out

enum class Handle : std::uint64_t { none = 0 };  // physical memory, as CUmemGenericAllocationHandle
enum class Event : std::uint64_t { none = 0 };   // a point on a stream, as CUevent

// A stream of one device, as (device, CUstream). Handle 0 is the device's default stream; a per-thread default stream
// has its number for a handle (per_thread_stream.hpp). On another thread than its own, what asks about it is answered
// for the legacy default stream, which comes after it, and an event is recorded there.
struct Stream {
  int device = 0;
  std::uint64_t handle = 0;

  friend bool operator==(const Stream&, const Stream&) = default;
};

// Where physical memory lies: in a GPU, or in a NUMA node of the host.
struct Location {
  enum class Kind : std::uint8_t { device, host_numa };
  Kind kind = Kind::device;
  int id = 0;

  friend bool operator==(const Location&, const Location&) = default;
};

// What create() makes. The granularity depends on all of it: ask for these exact properties.
struct MemoryProperties {
  Location location = {};
  bool rdma_capable = false;     // CU_MEM_ALLOCATION_PROP gpuDirectRDMACapable
  bool posix_fd_handle = false;  // shareable as a POSIX file descriptor
  bool fabric_handle = false;    // shareable as a fabric handle

  friend bool operator==(const MemoryProperties&, const MemoryProperties&) = default;
};

struct DeviceProperties {
  std::string name;
  std::uint64_t total_bytes = 0;
  bool vmm_supported = false;   // virtual memory management: without it nothing here works
  bool rdma_supported = false;  // rdma_capable memory
  bool posix_fd_supported = false;
  bool fabric_supported = false;
  bool host_numa_supported = false;  // Location::Kind::host_numa
  int host_numa_node = -1;           // the node nearest to the device, -1 where unknown
};

struct MemoryInfo {
  std::uint64_t free_bytes = 0;
  std::uint64_t total_bytes = 0;
};

// `implicit`: not captured, but not to be used either, since a stream that synchronizes with it is (the legacy default
// stream).
enum class CaptureState : std::uint8_t { none, active, invalidated, implicit };

// What a thread may do while a stream is captured, as CUstreamCaptureMode. In `global`, where every thread starts, it
// may neither query nor wait for an event while another thread captures in that mode, nor during a capture of its own
// unless that is relaxed; in `per_thread` only the latter; in `relaxed` it may do both at any time.
enum class CaptureMode : std::uint8_t { global, per_thread, relaxed };

class Driver {
 public:
  virtual ~Driver() = default;

  virtual std::string_view name() const = 0;  // "cuda", "host", "model"; wrappers give the name of what they wrap

  // Devices are numbered from 0. Errors: no_driver, invalid_device.
  virtual Result<int> device_count() = 0;
  virtual Result<DeviceProperties> device_properties(int device) = 0;
  virtual Result<MemoryInfo> memory_info(int device) = 0;
  // Bytes, a power of two. Errors: invalid_device, not_supported (a flag that the device lacks).
  virtual Result<std::uint64_t> granularity(const MemoryProperties& properties) = 0;

  // `bytes` is a multiple of the granularity, not 0; `alignment` is 0 or a power of two, and the address a multiple of
  // it and of the granularity. Errors: address_space.
  virtual Result<Address> reserve(std::uint64_t bytes, std::uint64_t alignment) = 0;
  virtual Status address_free(Address address, std::uint64_t bytes) = 0;

  // `bytes` is a multiple of the granularity of `properties`, not 0. Errors: out_of_memory, invalid_device (no such
  // device or NUMA node), not_supported.
  virtual Result<Handle> create(std::uint64_t bytes, const MemoryProperties& properties) = 0;
  virtual Status release(Handle handle) = 0;
  // Memory that several processes have: a file descriptor for a handle that was created with posix_fd_handle, which the
  // caller closes; and a handle for one that came from another process, of which nothing more is needed then. `bytes`
  // and `properties` are those that it was created with: what a wrong size ends in, map says. The memory lives until
  // every process has let go of its handles, mappings and descriptors. Errors: not_supported.
  virtual Result<int> export_fd(Handle handle) = 0;
  virtual Result<Handle> import_fd(int fd, std::uint64_t bytes, const MemoryProperties& properties) = 0;

  // `bytes` is the size of the handle. Errors: not_supported (a prefix of the handle), too_many_mappings.
  virtual Status map(Address address, std::uint64_t bytes, Handle handle) = 0;
  virtual Status unmap(Address address, std::uint64_t bytes) = 0;  // Errors: too_many_mappings (host: see HostDriver)
  // Read and write access for each device listed. Devices not listed keep what they have. Not empty.
  // Errors: invalid_device, out_of_memory (cuda, model) or too_many_mappings (host) where there are too many mappings.
  virtual Status set_access(Address address, std::uint64_t bytes, std::span<const int> devices) = 0;

  // Events carry no time. An event never recorded queries as passed. record may be repeated: the last one counts.
  // An event is recorded on streams of its own device, and waited for by any; a wait is for the record that was the
  // last when stream_wait was called. Errors: invalid_device.
  // While a stream is captured, query and synchronize break the capture unless the calling thread's mode allows them;
  // what is recorded on a captured stream belongs to its graph, and may be neither queried nor waited for outside it.
  virtual Result<Event> event_create(int device) = 0;
  virtual Status event_record(Event event, Stream stream) = 0;
  // True when all work enqueued before the record, and all that it waited for, is complete.
  virtual Result<bool> event_query(Event event) = 0;
  virtual Status event_synchronize(Event event) = 0;  // waits, on the calling thread
  // Later work on `stream` waits, on the device. Errors: not_supported (another thread's per-thread default stream).
  virtual Status stream_wait(Stream stream, Event event) = 0;
  virtual Status event_destroy(Event event) = 0;  // waits that were enqueued with it stay
  // True when all work enqueued on the stream is complete. Breaks a capture as event_query does; of a captured stream
  // it is refused, and breaks that one. Errors: not_supported (another thread's per-thread default stream).
  virtual Result<bool> stream_query(Stream stream) = 0;

  // Enqueues on `stream` that the bytes become 0: work like any other, and a part of the graph where the stream is
  // captured. The stream's device has access throughout; `bytes` is not 0.
  virtual Status clear(Stream stream, Address address, std::uint64_t bytes) = 0;

  virtual Result<CaptureState> capture_state(Stream stream) = 0;
  // Sets the calling thread's mode and gives the one before, as cuThreadExchangeStreamCaptureMode. Cannot fail.
  virtual CaptureMode exchange_capture_mode(CaptureMode mode) = 0;

  // Nanoseconds on the clock that driver costs are measured by: the host's for cuda and host, the model's own for
  // model.
  virtual std::uint64_t clock_ns() = 0;
};

// The calling thread may query and wait for events from here to the end of the scope, whatever is being captured.
class RelaxedCapture {
 public:
  explicit RelaxedCapture(Driver& driver)
      : driver_(driver), before_(driver.exchange_capture_mode(CaptureMode::relaxed)) {}
  ~RelaxedCapture() { driver_.exchange_capture_mode(before_); }
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

 private:
  Driver& driver_;
  const CaptureMode before_;
};

}  // namespace gmlake::driver
