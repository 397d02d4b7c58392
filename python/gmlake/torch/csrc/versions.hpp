// What differs between the versions of PyTorch that this is built against: 2.9 to 2.12. Its headers are the only ones
// that know, so everything is settled when it is compiled.
#pragma once

#include <c10/cuda/CUDACachingAllocator.h>
#if __has_include(<torch/version.h>)
#include <torch/version.h>
#elif __has_include(<torch/headeronly/version.h>)
#include <torch/headeronly/version.h>
#endif

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#if !defined(TORCH_VERSION_MAJOR) || !defined(TORCH_VERSION_MINOR)
#error "gmlake: PyTorch's headers do not say which version they are"
#endif
#define GMLAKE_TORCH_AT_LEAST(minor) (TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= (minor))
#if TORCH_VERSION_MAJOR != 2 || TORCH_VERSION_MINOR < 9 || TORCH_VERSION_MINOR > 12
#error "gmlake serves PyTorch 2.9 to 2.12"
#endif

namespace gmlake::torch_adapter {

namespace native = c10::cuda::CUDACachingAllocator;

// Their namespaces move from one version to the next; the structs that they are members of do not.
using TorchSnapshot = native::SnapshotInfo;
using TorchSegment = decltype(TorchSnapshot::segments)::value_type;
using TorchBlock = decltype(TorchSegment::blocks)::value_type;
using TorchTrace = decltype(TorchSnapshot::device_traces)::value_type;
using TorchEvent = TorchTrace::value_type;
using TorchStats = native::DeviceStats;
using Context = std::shared_ptr<c10::GatheredContext>;

inline TorchEvent torch_event(TorchEvent::Action action, c10::DeviceIndex device, std::uint64_t address,
                              std::uint64_t bytes, std::uint64_t stream, Context context = nullptr,
                              std::string compile_context = {}) {
  return TorchEvent(action, device, address, bytes, reinterpret_cast<decltype(TorchEvent::stream_)>(stream), {0, 0}, 0,
                    std::move(context), std::move(compile_context));
}

#if GMLAKE_TORCH_AT_LEAST(11)
using PoolAllocator = std::shared_ptr<native::CUDAAllocator>;
#else
using PoolAllocator = native::CUDAAllocator*;
#endif

}  // namespace gmlake::torch_adapter
