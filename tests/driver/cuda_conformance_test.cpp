// The cuda backend under the driver contract, on the GPUs of this machine; skipped where there are none.
#include <dlfcn.h>

#include <atomic>
#include <bit>
#include <chrono>
#include <memory>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "driver/conformance.hpp"
#include "driver/cuda.hpp"
#include "driver/per_thread_stream.hpp"

namespace gmlake::driver::testing {
namespace {

using cuda::CUcontext;
using cuda::CUdevice;
using cuda::CUdeviceptr;
using cuda::CUresult;
using cuda::CUstream;

// What the suite needs of the driver beside what the library does.
struct Extra {
  CUresult (*stream_synchronize)(CUstream);
  CUresult (*launch_host_func)(CUstream, void (*)(void*), void*);
  CUresult (*copy_to)(CUdeviceptr, const void*, std::size_t);
  CUresult (*copy_from)(void*, CUdeviceptr, std::size_t);
  CUresult (*ctx_set_current)(CUcontext);

  static Extra find() {
    void* library = ::dlopen("libcuda.so.1", RTLD_NOW);
    Extra extra{};
    const auto get = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(library, name));
    };
    get(extra.stream_synchronize, "cuStreamSynchronize");
    get(extra.launch_host_func, "cuLaunchHostFunc");
    get(extra.copy_to, "cuMemcpyHtoD_v2");
    get(extra.copy_from, "cuMemcpyDtoH_v2");
    get(extra.ctx_set_current, "cuCtxSetCurrent");
    return extra;
  }
};

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(std::unique_ptr<CudaDriver> driver) : driver_(std::move(driver)) {
    const cuda::Api& api = **cuda::Api::load();
    for (int device = 0; device < driver_->device_count().value(); ++device) {
      CUdevice ordinal = 0;
      CUcontext context = nullptr;
      EXPECT_EQ(api.device_get(&ordinal, device), cuda::kSuccess);
      EXPECT_EQ(api.primary_ctx_retain(&context, ordinal), cuda::kSuccess);
      contexts_.push_back(context);
    }
  }
  ~CudaBackend() override {
    for (const auto& [handle, gate] : gates_) gate->store(true);
    for (const Stream& stream : streams_) (void)extra_.stream_synchronize(pointer_to(stream));
  }

  Driver& driver() override { return *driver_; }
  bool refuses_misuse() override { return false; }

  bool write(Address address, std::span<const std::byte> bytes) override {
    make_current(0);
    return extra_.copy_to(address, bytes.data(), bytes.size()) == cuda::kSuccess;
  }
  bool read(Address address, std::span<std::byte> bytes) override {
    make_current(0);
    return extra_.copy_from(bytes.data(), address, bytes.size()) == cuda::kSuccess;
  }

  Stream make_stream(int device) override {
    streams_.push_back(driver_->make_stream(device).value());
    return streams_.back();
  }

  // A host function that comes back when it is told to.
  bool block(Stream stream) override {
    make_current(stream.device);
    auto& gate = gates_[stream.handle];
    gate = std::make_unique<std::atomic<bool>>(false);
    const auto wait = [](void* open) {
      while (!static_cast<std::atomic<bool>*>(open)->load()) std::this_thread::sleep_for(std::chrono::microseconds(50));
    };
    return extra_.launch_host_func(pointer_to(stream), wait, gate.get()) == cuda::kSuccess;
  }
  void unblock(Stream stream) override {
    gates_.at(stream.handle)->store(true);
    (void)extra_.stream_synchronize(pointer_to(stream));
  }

 private:
  static CUstream pointer_to(Stream stream) {
    return std::bit_cast<CUstream>(static_cast<std::uintptr_t>(handle_of_stream(stream.handle)));
  }
  void make_current(int device) {
    EXPECT_EQ(extra_.ctx_set_current(contexts_[static_cast<std::size_t>(device)]), cuda::kSuccess);
  }

  std::unique_ptr<CudaDriver> driver_;
  const Extra extra_ = Extra::find();
  std::vector<CUcontext> contexts_;
  std::vector<Stream> streams_;
  std::unordered_map<std::uint64_t, std::unique_ptr<std::atomic<bool>>> gates_;
};

std::unique_ptr<Backend> make_cuda(const BackendSpec& spec) {
  if (spec.capacity_granules || spec.max_mappings || !spec.flags.empty()) return nullptr;  // it is as it is
  Result<std::unique_ptr<CudaDriver>> driver = CudaDriver::make();
  if (!driver || (*driver)->device_count().value() < spec.devices) return nullptr;
  return std::make_unique<CudaBackend>(std::move(*driver));
}

INSTANTIATE_TEST_SUITE_P(Cuda, DriverConformance, ::testing::Values(BackendCase{"Gpu", &make_cuda}),
                         [](const auto& test) { return test.param.name; });

TEST(CudaDriver, SaysWhereThereIsNoDriver) {
  const Result<std::unique_ptr<CudaDriver>> made = CudaDriver::make();
  if (made) GTEST_SKIP() << "this machine has one";
  EXPECT_THAT(made.error().code, ::testing::AnyOf(ErrorCode::no_driver, ErrorCode::not_supported));
}

TEST(CudaDriver, KnowsItsDevices) {
  const Result<std::unique_ptr<CudaDriver>> made = CudaDriver::make();
  if (!made) GTEST_SKIP() << "this machine has no GPU";
  const DeviceProperties properties = (*made)->device_properties(0).value();
  EXPECT_TRUE(properties.vmm_supported);
  EXPECT_FALSE(properties.name.empty());
  EXPECT_GT(properties.total_bytes, std::uint64_t{1} << 30);
  RecordProperty("device", properties.name);
}

}  // namespace
}  // namespace gmlake::driver::testing
