#include "driver/cuda_api.hpp"

#include <dlfcn.h>

#include <type_traits>

namespace gmlake::driver::cuda {
namespace {

constexpr int kVersion = 12000;  // the interface whose functions are asked for

// cuGetProcAddress_v2, of which the version of each function follows from kVersion.
using GetProcAddress = CUresult (*)(const char* name, void** function, int version, unsigned long long flags,
                                    int* status);

Result<Api> find_all() {
  // Never closed: the driver has exit handlers of its own.
  void* library = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return Error{ErrorCode::no_driver};
  const auto get = reinterpret_cast<GetProcAddress>(::dlsym(library, "cuGetProcAddress_v2"));
  if (get == nullptr) return Error{ErrorCode::not_supported};
  Api api{};
  bool complete = true;
  const auto find = [&](auto& function, const char* name) {
    void* found = nullptr;
    if (get(name, &found, kVersion, 0, nullptr) != kSuccess || found == nullptr) complete = false;
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(found);
  };
  find(api.init, "cuInit");
  find(api.device_get_count, "cuDeviceGetCount");
  find(api.device_get, "cuDeviceGet");
  find(api.device_get_name, "cuDeviceGetName");
  find(api.device_total_mem, "cuDeviceTotalMem");
  find(api.device_get_attribute, "cuDeviceGetAttribute");
  find(api.primary_ctx_retain, "cuDevicePrimaryCtxRetain");
  find(api.primary_ctx_release, "cuDevicePrimaryCtxRelease");
  find(api.ctx_get_current, "cuCtxGetCurrent");
  find(api.ctx_push_current, "cuCtxPushCurrent");
  find(api.ctx_pop_current, "cuCtxPopCurrent");
  find(api.mem_get_info, "cuMemGetInfo");
  find(api.mem_get_granularity, "cuMemGetAllocationGranularity");
  find(api.mem_address_reserve, "cuMemAddressReserve");
  find(api.mem_address_free, "cuMemAddressFree");
  find(api.mem_create, "cuMemCreate");
  find(api.mem_release, "cuMemRelease");
  find(api.mem_export, "cuMemExportToShareableHandle");
  find(api.mem_import, "cuMemImportFromShareableHandle");
  find(api.mem_map, "cuMemMap");
  find(api.mem_unmap, "cuMemUnmap");
  find(api.mem_set_access, "cuMemSetAccess");
  find(api.event_create, "cuEventCreate");
  find(api.event_record, "cuEventRecord");
  find(api.event_query, "cuEventQuery");
  find(api.event_synchronize, "cuEventSynchronize");
  find(api.event_destroy, "cuEventDestroy");
  find(api.memset_d8_async, "cuMemsetD8Async");
  find(api.stream_create, "cuStreamCreate");
  find(api.stream_destroy, "cuStreamDestroy");
  find(api.stream_query, "cuStreamQuery");
  find(api.stream_wait_event, "cuStreamWaitEvent");
  find(api.stream_is_capturing, "cuStreamIsCapturing");
  find(api.thread_exchange_capture_mode, "cuThreadExchangeStreamCaptureMode");
  if (!complete) return Error{ErrorCode::not_supported};
  return api;
}

}  // namespace

Result<const Api*> Api::load() {
  static const Result<Api> api = find_all();
  if (!api) return api.error();
  return &*api;
}

}  // namespace gmlake::driver::cuda
