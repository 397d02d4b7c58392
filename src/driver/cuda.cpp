#include "driver/cuda.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstdio>

#include <unistd.h>

#include "base/process.hpp"
#include "driver/per_thread_stream.hpp"

namespace gmlake::driver {

using namespace cuda;

namespace {

ErrorCode code_of(CUresult result) {
  switch (result) {
    case kOutOfMemory:
      return ErrorCode::out_of_memory;
    case kInvalidValue:
    case kInvalidHandle:
      return ErrorCode::invalid_value;
    case kNotInitialized:
    case kDeinitialized:
      return ErrorCode::shut_down;
    case kNoDevice:
    case kInvalidDevice:
      return ErrorCode::invalid_device;
    case kNotPermitted:
    case kNotSupported:
      return ErrorCode::not_supported;
    case kEccUncorrectable:
    case kNvlinkUncorrectable:
    case kIllegalAddress:
    case kLaunchTimeout:
    case kContextIsDestroyed:
    case kAssert:
      return ErrorCode::device_lost;
    default:
      if (result >= kHardwareStackError && result <= kLaunchFailed) return ErrorCode::device_lost;
      if (result >= kFirstCapture && result <= kLastCapture) return ErrorCode::captured;
      return ErrorCode::unknown;
  }
}

constexpr std::uint64_t kAddresses = std::uint64_t{1} << 48;  // no process has more
constexpr std::uint64_t kPage = 4096;

Status status_of(CUresult result, Step step, std::uint64_t value) {
  if (result == kSuccess) return {};
  return Error{code_of(result), step, value};
}

// Pointers and handles of the driver's are numbers at the seam.
CUstream stream_of(Stream stream) {
  return std::bit_cast<CUstream>(static_cast<std::uintptr_t>(handle_of_stream(stream.handle)));
}
CUevent event_of(Event event) { return std::bit_cast<CUevent>(static_cast<std::uintptr_t>(event)); }
std::uint64_t number_of(Event event) { return static_cast<std::uint64_t>(event); }

// The driver does not say so before memory is created there, and then as invalid value.
bool is_numa_node(int node) {
  std::array<char, 64> path{};
  std::snprintf(path.data(), path.size(), "/sys/devices/system/node/node%d", node);
  return node >= 0 && ::access(path.data(), F_OK) == 0;
}

CUmemAllocationProp allocation_of(const MemoryProperties& properties) {
  CUmemAllocationProp allocation;
  const bool on_device = properties.location.kind == Location::Kind::device;
  allocation.location = {on_device ? kLocationDevice : kLocationHostNuma, properties.location.id};
  if (properties.posix_fd_handle) allocation.requested_handle_types |= kHandlePosixFd;
  if (properties.fabric_handle) allocation.requested_handle_types |= kHandleFabric;
  allocation.flags.gpu_direct_rdma_capable = properties.rdma_capable ? 1 : 0;
  return allocation;
}

}  // namespace

class CudaDriver::Current {
 public:
  Current(CudaDriver& driver, int device, Step step) : api_(driver.api_) {
    const Result<CUcontext> context = driver.primary(device, step);
    if (!context) {
      status_ = context.error();
      return;
    }
    CUcontext now = nullptr;
    if (api_.ctx_get_current(&now) == kSuccess && now == *context) return;
    status_ = status_of(api_.ctx_push_current(*context), step, static_cast<std::uint64_t>(device));
    pushed_ = status_.ok();
  }
  ~Current() {
    CUcontext popped = nullptr;
    if (pushed_) (void)api_.ctx_pop_current(&popped);  // what was pushed is there to pop
  }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

  const Status& status() const { return status_; }

 private:
  const Api& api_;
  Status status_;
  bool pushed_ = false;
};

Result<std::unique_ptr<CudaDriver>> CudaDriver::make() {
  const Result<const Api*> api = Api::load();
  if (!api) return api.error();
  const CUresult started = (*api)->init(0);
  int count = 0;
  if (started != kSuccess || (*api)->device_get_count(&count) != kSuccess || count == 0) {
    return Error{ErrorCode::no_driver, Step::properties, static_cast<std::uint64_t>(started)};
  }
  std::unique_ptr<CudaDriver> driver(new CudaDriver(**api));
  for (int ordinal = 0; ordinal < count; ++ordinal) {
    Device device;
    if (Status found = status_of((*api)->device_get(&device.ordinal, ordinal), Step::properties,
                                 static_cast<std::uint64_t>(ordinal));
        !found.ok()) {
      return found.error();
    }
    driver->devices_.push_back(device);
  }
  return driver;
}

CudaDriver::~CudaDriver() {
  if (process::exiting()) return;  // the driver may be gone
  const MutexLock lock(retaining_);
  for (const Stream& stream : streams_)
    (void)api_.stream_destroy(stream_of(stream));  // their work still runs to its end
  for (const Device& device : devices_) {
    if (device.primary != nullptr) (void)api_.primary_ctx_release(device.ordinal);  // a lost one is nobody's to mend
  }
}

Result<CUcontext> CudaDriver::primary(int device, Step step) {
  if (!valid(device)) return Error{ErrorCode::invalid_device, step, static_cast<std::uint64_t>(device)};
  const MutexLock lock(retaining_);
  Device& used = devices_[static_cast<std::size_t>(device)];
  if (used.primary == nullptr) {
    CUcontext context = nullptr;
    const CUresult result = api_.primary_ctx_retain(&context, used.ordinal);
    if (result != kSuccess) return Error{code_of(result), step, static_cast<std::uint64_t>(device)};
    used.primary = context;
  }
  return used.primary;
}

bool CudaDriver::has_attribute(int device, int attribute) const {
  int value = 0;
  const CUdevice ordinal = devices_[static_cast<std::size_t>(device)].ordinal;
  return api_.device_get_attribute(&value, attribute, ordinal) == kSuccess && value != 0;
}

Result<DeviceProperties> CudaDriver::device_properties(int device) {
  const auto number = static_cast<std::uint64_t>(device);
  if (!valid(device)) return Error{ErrorCode::invalid_device, Step::properties, number};
  const CUdevice ordinal = devices_[static_cast<std::size_t>(device)].ordinal;
  DeviceProperties properties;
  std::array<char, 256> name{};
  std::size_t total = 0;
  CUresult result = api_.device_get_name(name.data(), static_cast<int>(name.size()) - 1, ordinal);
  if (result == kSuccess) result = api_.device_total_mem(&total, ordinal);
  if (result != kSuccess) return Error{code_of(result), Step::properties, number};
  properties.name = name.data();
  properties.total_bytes = total;
  properties.vmm_supported = has_attribute(device, kAttributeVmm);
  properties.rdma_supported = has_attribute(device, kAttributeRdma);
  properties.posix_fd_supported = has_attribute(device, kAttributePosixFd);
  properties.fabric_supported = has_attribute(device, kAttributeFabric);
  int node = -1;
  if (api_.device_get_attribute(&node, kAttributeHostNumaId, ordinal) == kSuccess && node >= 0) {
    properties.host_numa_node = node;
    // The attribute that says so is younger than the ability: whether it has a granularity tells both.
    properties.host_numa_supported =
        properties.vmm_supported && granularity({.location = {Location::Kind::host_numa, node}}).ok();
  }
  return properties;
}

Result<MemoryInfo> CudaDriver::memory_info(int device) {
  const Current current(*this, device, Step::memory_info);
  if (!current.status().ok()) return current.status().error();
  std::size_t free = 0;
  std::size_t total = 0;
  const CUresult result = api_.mem_get_info(&free, &total);
  if (result != kSuccess) return Error{code_of(result), Step::memory_info, static_cast<std::uint64_t>(device)};
  return MemoryInfo{free, total};
}

Result<std::uint64_t> CudaDriver::granularity(const MemoryProperties& properties) {
  const auto place = static_cast<std::uint64_t>(properties.location.id);
  if (!exists(properties.location)) return Error{ErrorCode::invalid_device, Step::properties, place};
  std::size_t bytes = 0;
  const CUmemAllocationProp allocation = allocation_of(properties);
  const CUresult result = api_.mem_get_granularity(&bytes, &allocation, kGranularityMinimum);
  if (result == kSuccess) return std::uint64_t{bytes};
  // It says invalid value of flags that the device lacks.
  return Error{result == kInvalidValue ? ErrorCode::not_supported : code_of(result), Step::properties, place};
}

bool CudaDriver::exists(const Location& location) const {
  return location.kind == Location::Kind::device ? valid(location.id) : is_numa_node(location.id);
}

Result<Address> CudaDriver::reserve(std::uint64_t bytes, std::uint64_t alignment) {
  CUdeviceptr address = 0;
  const CUresult result = api_.mem_address_reserve(&address, bytes, alignment, 0, 0);
  if (result == kSuccess) return Address{address};
  // Of ranges longer than there are addresses, and of alignments wider, it says invalid value.
  const bool too_much =
      (bytes > kAddresses && bytes % kPage == 0) || (alignment > kAddresses && std::has_single_bit(alignment));
  const ErrorCode code = result == kOutOfMemory || too_much ? ErrorCode::address_space : code_of(result);
  return Error{code, Step::reserve, bytes};
}

Status CudaDriver::address_free(Address address, std::uint64_t bytes) {
  return status_of(api_.mem_address_free(address, bytes), Step::address_free, address);
}

Result<Handle> CudaDriver::create(std::uint64_t bytes, const MemoryProperties& properties) {
  if (!exists(properties.location)) {
    return Error{ErrorCode::invalid_device, Step::create, static_cast<std::uint64_t>(properties.location.id)};
  }
  if (properties.location.kind == Location::Kind::device) {  // its context is there before its memory
    if (const auto context = primary(properties.location.id, Step::create); !context) return context.error();
  }
  CUmemGenericAllocationHandle handle = 0;
  const CUmemAllocationProp allocation = allocation_of(properties);
  const CUresult result = api_.mem_create(&handle, bytes, &allocation, 0);
  if (result != kSuccess) return Error{code_of(result), Step::create, bytes};
  return static_cast<Handle>(handle);
}

Status CudaDriver::release(Handle handle) {
  return status_of(api_.mem_release(static_cast<CUmemGenericAllocationHandle>(handle)), Step::release,
                   static_cast<std::uint64_t>(handle));
}

Result<int> CudaDriver::export_fd(Handle handle) {
  int fd = -1;
  const CUresult result = api_.mem_export(&fd, static_cast<CUmemGenericAllocationHandle>(handle), kHandlePosixFd, 0);
  if (result == kSuccess) return fd;
  // It says invalid value of a handle that was not made to be shared.
  return Error{result == kInvalidValue ? ErrorCode::not_supported : code_of(result), Step::share,
               static_cast<std::uint64_t>(handle)};
}

Result<Handle> CudaDriver::import_fd(int fd, std::uint64_t bytes, const MemoryProperties& properties) {
  if (!exists(properties.location)) {
    return Error{ErrorCode::invalid_device, Step::share, static_cast<std::uint64_t>(properties.location.id)};
  }
  if (properties.location.kind == Location::Kind::device) {
    if (const auto context = primary(properties.location.id, Step::share); !context) return context.error();
  }
  CUmemGenericAllocationHandle handle = 0;
  void* const shareable = std::bit_cast<void*>(static_cast<std::intptr_t>(fd));
  const CUresult result = api_.mem_import(&handle, shareable, kHandlePosixFd);
  if (result != kSuccess) return Error{code_of(result), Step::share, bytes};
  return static_cast<Handle>(handle);
}

Status CudaDriver::map(Address address, std::uint64_t bytes, Handle handle) {
  return status_of(api_.mem_map(address, bytes, 0, static_cast<CUmemGenericAllocationHandle>(handle), 0), Step::map,
                   address);
}

Status CudaDriver::unmap(Address address, std::uint64_t bytes) {
  return status_of(api_.mem_unmap(address, bytes), Step::unmap, address);
}

Status CudaDriver::set_access(Address address, std::uint64_t bytes, std::span<const int> devices) {
  // In batches, so that no memory is needed where it may have run out. Access is added; none is taken away.
  constexpr std::size_t kBatch = 16;
  std::array<CUmemAccessDesc, kBatch> access;
  if (devices.empty()) return Error{ErrorCode::invalid_value, Step::set_access, address};
  for (const int device : devices) {
    if (!valid(device)) return Error{ErrorCode::invalid_device, Step::set_access, static_cast<std::uint64_t>(device)};
  }
  for (std::size_t done = 0; done < devices.size(); done += kBatch) {
    const std::size_t count = std::min(kBatch, devices.size() - done);
    for (std::size_t i = 0; i < count; ++i) access[i].location = {kLocationDevice, devices[done + i]};
    const CUresult result = api_.mem_set_access(address, bytes, access.data(), count);
    if (result != kSuccess) return Error{code_of(result), Step::set_access, address};
  }
  return {};
}

Result<Stream> CudaDriver::make_stream(int device) {
  const Current current(*this, device, Step::properties);
  if (!current.status().ok()) return current.status().error();
  const MutexLock lock(retaining_);
  streams_.reserve(streams_.size() + 1);
  CUstream made = nullptr;
  const CUresult result = api_.stream_create(&made, kStreamNonBlocking);
  if (result != kSuccess) return Error{code_of(result), Step::properties, static_cast<std::uint64_t>(device)};
  streams_.push_back({device, std::bit_cast<std::uintptr_t>(made)});
  return streams_.back();
}

Result<Event> CudaDriver::event_create(int device) {
  const Current current(*this, device, Step::event_create);
  if (!current.status().ok()) return current.status().error();
  CUevent event = nullptr;
  const CUresult result = api_.event_create(&event, kEventDisableTiming);
  if (result != kSuccess) return Error{code_of(result), Step::event_create, static_cast<std::uint64_t>(device)};
  return static_cast<Event>(std::bit_cast<std::uintptr_t>(event));
}

Status CudaDriver::event_record(Event event, Stream stream) {
  const Current current(*this, stream.device, Step::event_record);
  if (!current.status().ok()) return current.status();
  return status_of(api_.event_record(event_of(event), stream_of(stream)), Step::event_record, number_of(event));
}

Result<bool> CudaDriver::event_query(Event event) {
  const CUresult result = api_.event_query(event_of(event));
  if (result == kSuccess) return true;
  if (result == kNotReady) return false;
  return Error{code_of(result), Step::event_query, number_of(event)};
}

Status CudaDriver::event_synchronize(Event event) {
  return status_of(api_.event_synchronize(event_of(event)), Step::event_synchronize, number_of(event));
}

Status CudaDriver::stream_wait(Stream stream, Event event) {
  if (is_of_another_thread(stream.handle)) return Error{ErrorCode::not_supported, Step::stream_wait, stream.handle};
  const Current current(*this, stream.device, Step::stream_wait);
  if (!current.status().ok()) return current.status();
  return status_of(api_.stream_wait_event(stream_of(stream), event_of(event), 0), Step::stream_wait, number_of(event));
}

Status CudaDriver::event_destroy(Event event) {
  return status_of(api_.event_destroy(event_of(event)), Step::event_destroy, number_of(event));
}

Status CudaDriver::clear(Stream stream, Address address, std::uint64_t bytes) {
  if (bytes == 0) return Error{ErrorCode::invalid_value, Step::clear, address};  // it takes that for done
  const Current current(*this, stream.device, Step::clear);
  if (!current.status().ok()) return current.status();
  return status_of(api_.memset_d8_async(address, 0, bytes, stream_of(stream)), Step::clear, address);
}

Result<bool> CudaDriver::stream_query(Stream stream) {
  if (is_of_another_thread(stream.handle)) return Error{ErrorCode::not_supported, Step::stream_query, stream.handle};
  const Current current(*this, stream.device, Step::stream_query);
  if (!current.status().ok()) return current.status().error();
  const CUresult result = api_.stream_query(stream_of(stream));
  if (result == kSuccess) return true;
  if (result == kNotReady) return false;
  return Error{code_of(result), Step::stream_query, stream.handle};
}

Result<CaptureState> CudaDriver::capture_state(Stream stream) {
  const Current current(*this, stream.device, Step::properties);
  if (!current.status().ok()) return current.status().error();
  int status = 0;
  const CUresult result = api_.stream_is_capturing(stream_of(stream), &status);
  if (result == kCaptureImplicit) return CaptureState::implicit;
  if (result != kSuccess) return Error{code_of(result), Step::properties, stream.handle};
  // CU_STREAM_CAPTURE_STATUS_NONE, _ACTIVE and _INVALIDATED.
  return status == 0 ? CaptureState::none : status == 1 ? CaptureState::active : CaptureState::invalidated;
}

// CU_STREAM_CAPTURE_MODE_GLOBAL, _THREAD_LOCAL and _RELAXED are numbered as CaptureMode is.
CaptureMode CudaDriver::exchange_capture_mode(CaptureMode mode) {
  int exchanged = static_cast<int>(mode);
  if (api_.thread_exchange_capture_mode(&exchanged) != kSuccess) return CaptureMode::global;
  return static_cast<CaptureMode>(exchanged);
}

std::uint64_t CudaDriver::clock_ns() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
}

}  // namespace gmlake::driver
