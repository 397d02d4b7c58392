// Streams and pools, as names: what the allocator is told about who uses memory, and in which order.
#pragma once

#include <cstdint>
#include <functional>

namespace gmlake {

// A CUstream or cudaStream_t; null is the device's default stream, which is the legacy one however the caller was
// compiled. Its other name (CU_STREAM_LEGACY, 0x1) counts as a stream of its own: memory passes between the two behind
// fences. The per-thread default stream (CU_STREAM_PER_THREAD, 0x2) is that of the thread that makes the call; reports,
// histories and snapshots show it as 2^52 and more, a number of its own for every thread, which is no handle. It is
// forgotten by itself when its thread has ended and another has come. Where a program names this stream, kernels on
// blocking streams must not wait for each other, or run without end: decision 0009 says why.
using StreamHandle = void*;

// A pool of the caller's choice, as PyTorch's MempoolId_t. {0, 0} is no pool: the cache that all others share.
struct PoolId {
  std::uint64_t first = 0;
  std::uint64_t second = 0;

  friend auto operator<=>(const PoolId&, const PoolId&) = default;  // NOLINT(modernize-use-nullptr): of its zero
};

// Which allocations belong to a pool: asked, on the allocating thread, for the stream of each. It may call the driver,
// but nothing of the allocator that asks, and throws nothing.
using StreamFilter = std::function<bool(StreamHandle)>;

}  // namespace gmlake
