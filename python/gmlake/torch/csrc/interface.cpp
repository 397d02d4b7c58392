// What Python calls: gmlake_torch.h. Nothing is thrown across it.
#include <cstdlib>
#include <exception>
#include <string>

#include "gmlake_torch.h"
#include "torch_allocator.hpp"

namespace gmlake::torch_adapter {
namespace {

std::atomic<TorchAllocator*> the_allocator{nullptr};
std::mutex installing;

// One text a function and a thread, valid until the next call.
template <class Call>
const char* text_of(std::string& kept, Call&& call) {
  try {
    kept = call();
  } catch (const std::exception& error) {
    kept = error.what();
  }
  return kept.empty() ? nullptr : kept.c_str();
}

std::string install(const char* text) {
  const std::lock_guard lock(installing);
  Options options;
  const OptionsError refused = text == nullptr ? options_from_environment(options) : parse_options(text, options);
  if (!refused.ok()) return "option: " + refused.message;
  options.driver = DriverKind::cuda;
  if (TorchAllocator* known = installed()) {
    if (text != nullptr && *text != '\0' && !known->set_options(options)) {
      return "option: CUDA memory is in use already, so settings can no longer change";
    }
    return {};
  }
  native::CUDAAllocator* inner = native::allocator.load();
  if (inner == nullptr) return "PyTorch has no CUDA allocator to stand in for";
  if (inner->name() != "native") {
    return "PyTorch's allocator is '" + inner->name() + "', and gmlake stands in for the native one alone";
  }
  auto made = std::make_unique<TorchAllocator>(*inner, std::move(options));
  if (inner->initialized()) {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess) return "the CUDA runtime counts no devices";
    made->init(devices);
  }
  the_allocator.store(made.get(), std::memory_order_release);
  native::allocator.store(made.get());
  c10::SetAllocator(c10::DeviceType::CUDA, made.release(), 255);  // the highest priority there is
  return {};
}

void add_number(std::string& json, std::string_view name, std::int64_t value) {
  json += json.size() > 1 ? ", \"" : "\"";
  json.append(name).append("\": ").append(std::to_string(value));
}

std::string stats_json(int device) {
  TorchAllocator* known = installed();
  if (known == nullptr || known->lake() == nullptr) return "{}";
  std::string json = "{";
  for (const NamedStat& stat : named_stats(known->lake()->stats(device))) {
    add_number(json, stat.name, static_cast<std::int64_t>(stat.value));
  }
  const TorchStats inner = known->inner().getDeviceStats(static_cast<c10::DeviceIndex>(device));
  add_number(json, "native.allocated_bytes.all.current", inner.allocated_bytes[0].current);
  add_number(json, "native.allocated_bytes.all.peak", inner.allocated_bytes[0].peak);
  add_number(json, "native.reserved_bytes.all.current", inner.reserved_bytes[0].current);
  add_number(json, "native.reserved_bytes.all.peak", inner.reserved_bytes[0].peak);
  return json + "}";
}

Lake& lake() {
  TorchAllocator* known = installed();
  TORCH_CHECK(known != nullptr && known->lake() != nullptr, "gmlake holds no CUDA memory yet");
  return *known->lake();
}

}  // namespace

TorchAllocator* installed() { return the_allocator.load(std::memory_order_acquire); }

}  // namespace gmlake::torch_adapter

using namespace gmlake::torch_adapter;  // NOLINT: the names below are C's

extern "C" {

const char* gmlake_torch_install(const char* options) {
  thread_local std::string kept;
  return text_of(kept, [&] { return install(options); });
}

int gmlake_torch_is_installed(void) { return installed() != nullptr ? 1 : 0; }

const char* gmlake_torch_stats_json(int device) {
  thread_local std::string kept;
  const char* text = text_of(kept, [&] { return stats_json(device); });
  return text == nullptr || *text != '{' ? "{}" : text;
}

const char* gmlake_torch_snapshot(const char* path) {
  thread_local std::string kept;
  return text_of(kept, [&] {
    const std::string to = path;
    const bool json = to.size() >= 5 && to.compare(to.size() - 5, 5, ".json") == 0;
    return (json ? gmlake::write_json_snapshot(lake(), to) : gmlake::write_pickle_snapshot(lake(), to)).message;
  });
}

const char* gmlake_torch_trim(uint64_t bytes) {
  thread_local std::string kept;
  return text_of(kept, [&] {
    const gmlake::Status trimmed = lake().trim(bytes);
    return trimmed.ok() ? std::string() : gmlake::describe(trimmed.error());
  });
}

const char* gmlake_torch_end_recording(void) {
  thread_local std::string kept;
  return text_of(kept, [] {
    TorchAllocator* known = installed();
    return known == nullptr ? std::string("nothing is recorded") : known->end_recording().message;
  });
}

const char* gmlake_torch_torch_version(void) {
  static const std::string version = std::to_string(TORCH_VERSION_MAJOR) + "." + std::to_string(TORCH_VERSION_MINOR) +
                                     "." + std::to_string(TORCH_VERSION_PATCH);
  return version.c_str();
}
}
