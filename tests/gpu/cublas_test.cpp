// A library that knows nothing of stitching computes on memory of every kind what it computes on the driver's own.
// libcublas is looked for where the loader looks, or at the path that GMLAKE_CUBLAS names; skipped where there is none.
#include <dlfcn.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <type_traits>
#include <vector>

#include "gpu/rig.hpp"

namespace gmlake::test {
namespace {

struct Cublas {
  int (*create)(void**);
  int (*destroy)(void*);
  int (*set_stream)(void*, void*);
  int (*sgemm)(void*, int, int, int, int, int, const float*, const float*, int, const float*, int, const float*, float*,
               int);

  bool find() {
    void* library = nullptr;
    for (const char* name :
         {std::getenv("GMLAKE_CUBLAS"), const_cast<char*>("libcublas.so.13"), const_cast<char*>("libcublas.so.12")}) {
      if (library == nullptr && name != nullptr) library = ::dlopen(name, RTLD_NOW);
    }
    if (library == nullptr) return false;
    const auto get = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(library, name));
      return function != nullptr;
    };
    return get(create, "cublasCreate_v2") && get(destroy, "cublasDestroy_v2") &&
           get(set_stream, "cublasSetStream_v2") && get(sgemm, "cublasSgemm_v2");
  }
};

TEST_P(OnEveryMemory, MultipliesMatricesAsOnTheDriversOwn) {
  Cublas blas{};
  if (!blas.find()) GTEST_SKIP() << "no cuBLAS here";
  constexpr int kSide = 3000;
  constexpr std::size_t kBytes = sizeof(float) * kSide * kSide;
  std::vector<float> values(kSide * kSide);
  std::mt19937 random(1);
  const Gpu::Stream stream = gpu_->make_stream();
  float* blocks[3];
  float* flat[3];
  for (int i = 0; i < 3; ++i) {
    blocks[i] = static_cast<float*>(block_of(kBytes));
    flat[i] = static_cast<float*>(gpu_->allocate(kBytes));
    ASSERT_NE(flat[i], nullptr);
    std::generate(values.begin(), values.end(), [&] { return static_cast<float>(random() % 2001) / 1000 - 1; });
    gpu_->copy(blocks[i], values.data(), kBytes, stream);
    gpu_->copy(flat[i], values.data(), kBytes, stream);
    gpu_->synchronize(stream);
  }
  void* handle = nullptr;
  ASSERT_EQ(blas.create(&handle), 0);
  ASSERT_EQ(blas.set_stream(handle, stream), 0);
  const float one = 1;
  const float zero = 0;
  for (float** of : {blocks, flat}) {
    ASSERT_EQ(blas.sgemm(handle, 0, 1, kSide, kSide, kSide, &one, of[0], kSide, of[1], kSide, &zero, of[2], kSide), 0);
  }
  gpu_->synchronize(stream);
  std::vector<float> expected(kSide * kSide);
  gpu_->copy(values.data(), blocks[2], kBytes, stream);
  gpu_->copy(expected.data(), flat[2], kBytes, stream);
  gpu_->synchronize(stream);
  EXPECT_EQ(std::memcmp(values.data(), expected.data(), kBytes), 0);
  EXPECT_GT(*std::max_element(values.begin(), values.end()), 1);
  EXPECT_EQ(blas.destroy(handle), 0);
  for (float* matrix : flat) gpu_->free(matrix);
}

}  // namespace
}  // namespace gmlake::test
