// The limit that gmlake and native share, and what is said and done when memory runs out.
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <optional>

#include "torch_allocator.hpp"

namespace gmlake::torch_adapter {
namespace {

// As native writes sizes: frameworks read its message.
std::string format_size(std::uint64_t bytes) {
  std::array<char, 32> text{};
  if (bytes <= 1024) {
    std::snprintf(text.data(), text.size(), "%llu bytes", static_cast<unsigned long long>(bytes));
    return text.data();
  }
  double value = static_cast<double>(bytes) / 1024;
  const char* unit = "KiB";
  if (bytes > 1073741824ULL) {
    value = static_cast<double>(bytes) / 1073741824.0;
    unit = "GiB";
  } else if (bytes > 1048576) {
    value = static_cast<double>(bytes) / 1048576.0;
    unit = "MiB";
  }
  std::snprintf(text.data(), text.size(), "%.2f %s", value, unit);
  return text.data();
}

struct MemoryInfo {
  std::size_t free = 0;
  std::size_t total = 0;
};

MemoryInfo memory_info(c10::DeviceIndex device) {
  const c10::cuda::CUDAGuard guard(device);
  MemoryInfo info;
  C10_CUDA_CHECK(cudaMemGetInfo(&info.free, &info.total));
  return info;
}

}  // namespace

double TorchAllocator::getMemoryFraction(c10::DeviceIndex device) {
  const std::lock_guard lock(limits_);
  const auto index = static_cast<std::size_t>(device);
  return index < fractions_.size() ? fractions_[index] : inner_.getMemoryFraction(device);
}

void TorchAllocator::setMemoryFraction(double fraction, c10::DeviceIndex device) {
  inner_.setMemoryFraction(fraction, device);  // which refuses what is no fraction
  {
    const std::lock_guard lock(limits_);
    const auto index = static_cast<std::size_t>(device);
    if (index < fractions_.size()) fractions_[index] = fraction;
  }
  share_limit(device);
}

// One limit for both, the lower of the fraction and the option `limit`: each may hold what the other leaves of it. Done
// when native may have grown or shrunk, and when it is about to grow; gmlake's growth in between is seen by native the
// next time.
void TorchAllocator::share_limit(c10::DeviceIndex device) {
  if (lake() == nullptr) return;
  const std::lock_guard lock(limits_);
  const auto index = static_cast<std::size_t>(device);
  if (index >= fractions_.size()) return;
  const double fraction = fractions_[index];
  if (fraction >= 1.0 && limit_bytes_ == 0) {
    (void)lake()->set_limit_fraction(1.0, device);
    return;
  }
  const auto total = static_cast<double>(memory_info(device).total);
  const double limit = limit_bytes_ == 0 ? fraction : std::min(fraction, static_cast<double>(limit_bytes_) / total);
  const auto others = static_cast<double>(inner_.getDeviceStats(device).reserved_bytes[0].current);
  const auto own = static_cast<double>(lake()->stats(device).all.reserved_bytes.current);
  // Where native holds nothing, gmlake keeps to the option by itself, to the byte.
  (void)lake()->set_limit_fraction(others == 0 ? fraction : std::max(0.0, limit - others / total), device);
  inner_.setMemoryFraction(std::max(0.0, limit - own / total), device);
}

// The last rung before an error: PyTorch's callbacks, then what native has cached. True: try again.
bool TorchAllocator::release_memory(int device) {
  bool released = false;
  for (const auto& name : c10::FreeCudaMemoryCallbacksRegistry()->Keys()) {
    released |= c10::FreeCudaMemoryCallbacksRegistry()->Create(name)->Execute();
  }
  const auto index = static_cast<c10::DeviceIndex>(device);
  const auto before = inner_.getDeviceStats(index).reserved_bytes[0].current;
  if (before > 0 && !filters_.any()) {  // a capture may be under way, which freeing would break
    inner_.emptyCache(c10::MempoolId_t{0, 0});
    if (inner_.getDeviceStats(index).reserved_bytes[0].current < before) {
      released = true;
      share_limit(index);
    }
  }
  return released;
}

void TorchAllocator::attachOutOfMemoryObserver(native::OutOfMemoryObserver observer) {
  const std::lock_guard lock(observers_);
  oom_observers_.push_back(std::move(observer));
}

void TorchAllocator::tell_observers(std::int64_t device, std::size_t bytes, std::size_t total, std::size_t free) {
  std::vector<native::OutOfMemoryObserver> observers;
  {
    const std::lock_guard lock(observers_);
    observers = oom_observers_;
  }
  for (const auto& observer : observers) observer(device, bytes, total, free);
}

// Native's words as far as they go, since frameworks look for them, and then what gmlake knows.
void TorchAllocator::refuse(c10::DeviceIndex device, std::size_t bytes, const OutOfMemoryReport& report) {
  const TorchStats stats = getDeviceStats(device);
  const auto allocated = static_cast<std::uint64_t>(stats.allocated_bytes[0].current);
  const auto reserved = static_cast<std::uint64_t>(stats.reserved_bytes[0].current);
  c10::reportOutOfMemoryToProfiler(static_cast<std::int64_t>(bytes), allocated, reserved,
                                   c10::Device(c10::DeviceType::CUDA, device));
  const bool limited = report.limit_bytes < report.device_total_bytes;
  tell_observers(device, bytes, limited ? report.limit_bytes : report.device_total_bytes, report.device_free_bytes);
  std::array<char, kReportTextBytes> remedy{};
  write_remedy(report, remedy.data(), remedy.size());
  TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory. Tried to allocate ", format_size(bytes), ". GPU ",
                   static_cast<int>(device), " has a total capacity of ", format_size(report.device_total_bytes),
                   " of which ", format_size(report.device_free_bytes), " is free. ",
                   limited ? format_size(report.limit_bytes) + " allowed; " : std::string(), "Of the allocated memory ",
                   format_size(allocated), " is allocated by PyTorch, and ",
                   format_size(reserved - std::min(reserved, allocated)),
                   " is reserved by PyTorch but unallocated. gmlake: ", remedy.data());
}

// Every other error. Some are out of memory to PyTorch, and to the frameworks that catch that.
void TorchAllocator::refuse(c10::DeviceIndex device, std::size_t bytes, const Error& error) {
  Lake& lake = *this->lake();
  switch (error.code) {
    case ErrorCode::invalid_size: {  // more than the device has: refused unseen, and not counted by gmlake
      const MemoryInfo info = memory_info(device);
      OutOfMemoryReport report;
      report.error = error;
      report.device = device;
      report.requested_bytes = bytes;
      report.device_total_bytes = info.total;
      report.device_free_bytes = info.free;
      report.device_free_known = true;
      const Result<std::uint64_t> limit = lake.limit(device);
      report.limit_bytes = limit ? *limit : info.total;
      report.remedy = Remedy::free_memory;
      report.remedy_bytes = bytes;
      statistics_.correct_ooms(device, 1);
      refuse(device, bytes, report);
    }
    case ErrorCode::too_many_mappings:
    case ErrorCode::address_space:
      if (const std::optional<OutOfMemoryReport> report = lake.last_oom(device)) refuse(device, bytes, *report);
      break;
    case ErrorCode::device_lost:
      C10_CUDA_CHECK(cudaFree(nullptr));  // throws what happened to it, in CUDA's words
      break;
    default:
      break;
  }
  TORCH_CHECK(false, "gmlake: ", describe(error));
}

}  // namespace gmlake::torch_adapter
