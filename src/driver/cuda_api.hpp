// The part of the CUDA driver API that is used here, found at run time in the driver that is installed: no toolkit, no
// cuda.h and no link to libcuda is needed to build or to run. Names, numbers and layouts are those of NVIDIA's "CUDA
// Driver API" reference, which the driver keeps compatible from CUDA 12.0 on; docs/driver.md lists the calls.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gmlake/result.hpp"

namespace gmlake::driver::cuda {

using CUresult = int;
using CUdevice = int;
using CUcontext = struct CUctx_st*;
using CUstream = struct CUstream_st*;
using CUevent = struct CUevent_st*;
using CUdeviceptr = unsigned long long;
using CUmemGenericAllocationHandle = unsigned long long;

inline constexpr CUresult kSuccess = 0;
inline constexpr CUresult kInvalidValue = 1;
inline constexpr CUresult kOutOfMemory = 2;
inline constexpr CUresult kNotInitialized = 3;
inline constexpr CUresult kDeinitialized = 4;
inline constexpr CUresult kNoDevice = 100;
inline constexpr CUresult kInvalidDevice = 101;
inline constexpr CUresult kEccUncorrectable = 214;
inline constexpr CUresult kNvlinkUncorrectable = 220;
inline constexpr CUresult kInvalidHandle = 400;
inline constexpr CUresult kNotReady = 600;
inline constexpr CUresult kIllegalAddress = 700;  // these, up to a failed launch, outlive the call that tells of them
inline constexpr CUresult kLaunchTimeout = 702;
inline constexpr CUresult kContextIsDestroyed = 709;
inline constexpr CUresult kAssert = 710;
inline constexpr CUresult kHardwareStackError = 714;
inline constexpr CUresult kLaunchFailed = 719;
inline constexpr CUresult kNotPermitted = 800;
inline constexpr CUresult kNotSupported = 801;
inline constexpr CUresult kFirstCapture = 900;
inline constexpr CUresult kCaptureImplicit = 906;
inline constexpr CUresult kCapturedEvent = 907;
inline constexpr CUresult kLastCapture = 908;

inline constexpr int kAttributeVmm = 102;  // CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED
inline constexpr int kAttributePosixFd = 103;
inline constexpr int kAttributeRdma = 110;  // GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED
inline constexpr int kAttributeFabric = 128;
inline constexpr int kAttributeHostNumaId = 134;

inline constexpr int kLocationDevice = 1;
inline constexpr int kLocationHostNuma = 3;
inline constexpr int kAllocationPinned = 1;
inline constexpr int kHandlePosixFd = 1;
inline constexpr int kHandleFabric = 8;
inline constexpr int kAccessReadWrite = 3;
inline constexpr int kGranularityMinimum = 0;
inline constexpr unsigned kEventDisableTiming = 2;
inline constexpr unsigned kStreamNonBlocking = 1;

struct CUmemLocation {
  int type = 0;
  int id = 0;
};

struct CUmemAllocationProp {
  int type = kAllocationPinned;
  int requested_handle_types = 0;
  CUmemLocation location;
  void* win32_handle_meta_data = nullptr;
  struct {
    unsigned char compression_type = 0;
    unsigned char gpu_direct_rdma_capable = 0;
    unsigned short usage = 0;
    unsigned char reserved[4] = {};
  } flags;
};
static_assert(sizeof(CUmemAllocationProp) == 32);

struct CUmemAccessDesc {
  CUmemLocation location;
  int flags = kAccessReadWrite;
};
static_assert(sizeof(CUmemAccessDesc) == 12);

struct Api {
  CUresult (*init)(unsigned flags);
  CUresult (*device_get_count)(int* count);
  CUresult (*device_get)(CUdevice* device, int ordinal);
  CUresult (*device_get_name)(char* name, int length, CUdevice device);
  CUresult (*device_total_mem)(std::size_t* bytes, CUdevice device);
  CUresult (*device_get_attribute)(int* value, int attribute, CUdevice device);
  CUresult (*primary_ctx_retain)(CUcontext* context, CUdevice device);
  CUresult (*primary_ctx_release)(CUdevice device);
  CUresult (*ctx_get_current)(CUcontext* context);
  CUresult (*ctx_push_current)(CUcontext context);
  CUresult (*ctx_pop_current)(CUcontext* context);
  CUresult (*mem_get_info)(std::size_t* free, std::size_t* total);
  CUresult (*mem_get_granularity)(std::size_t* bytes, const CUmemAllocationProp* properties, int option);
  CUresult (*mem_address_reserve)(CUdeviceptr* address, std::size_t bytes, std::size_t alignment, CUdeviceptr hint,
                                  unsigned long long flags);
  CUresult (*mem_address_free)(CUdeviceptr address, std::size_t bytes);
  CUresult (*mem_create)(CUmemGenericAllocationHandle* handle, std::size_t bytes, const CUmemAllocationProp* properties,
                         unsigned long long flags);
  CUresult (*mem_release)(CUmemGenericAllocationHandle handle);
  CUresult (*mem_export)(void* shareable, CUmemGenericAllocationHandle handle, int type, unsigned long long flags);
  CUresult (*mem_import)(CUmemGenericAllocationHandle* handle, void* shareable, int type);
  CUresult (*mem_map)(CUdeviceptr address, std::size_t bytes, std::size_t offset, CUmemGenericAllocationHandle handle,
                      unsigned long long flags);
  CUresult (*mem_unmap)(CUdeviceptr address, std::size_t bytes);
  CUresult (*mem_set_access)(CUdeviceptr address, std::size_t bytes, const CUmemAccessDesc* access, std::size_t count);
  CUresult (*event_create)(CUevent* event, unsigned flags);
  CUresult (*event_record)(CUevent event, CUstream stream);
  CUresult (*event_query)(CUevent event);
  CUresult (*event_synchronize)(CUevent event);
  CUresult (*event_destroy)(CUevent event);
  CUresult (*memset_d8_async)(CUdeviceptr address, unsigned char value, std::size_t bytes, CUstream stream);
  CUresult (*stream_create)(CUstream* stream, unsigned flags);
  CUresult (*stream_destroy)(CUstream stream);
  CUresult (*stream_query)(CUstream stream);
  CUresult (*stream_wait_event)(CUstream stream, CUevent event, unsigned flags);
  CUresult (*stream_is_capturing)(CUstream stream, int* status);
  CUresult (*thread_exchange_capture_mode)(int* mode);

  // The driver's functions, found once a process. Errors: no_driver (none is installed), not_supported (it is older
  // than CUDA 12.0, and lacks one of these). Any thread.
  static Result<const Api*> load();
};

}  // namespace gmlake::driver::cuda
