// An allocator on the GPU of this machine, and the GPU beside it. Tests of this folder are skipped where there is none.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <utility>

#include "gmlake/gmlake.hpp"
#include "support/gpu.hpp"

namespace gmlake::test {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

class OnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    gpu_ = Gpu::make();
    if (gpu_ == nullptr) GTEST_SKIP() << "this machine has no GPU";
    make({});
  }
  void TearDown() override {
    if (gpu_ == nullptr) return;
    EXPECT_EQ(gpu_->wrong_words(), 0u);
    if (allocator_ != nullptr) allocator_->check();
    allocator_.reset();
  }

  // As a program gets it: on the GPU, with no more words.
  void make(const Options& options) {
    allocator_.reset();
    allocator_ = Allocator::create(options).value();
  }
  DeviceStats stats() const { return allocator_->stats(); }

  // How often the long tests go round: the number given, or that of the variable GMLAKE_GPU_ROUNDS.
  static std::uint64_t rounds(std::uint64_t usual) {
    const char* set = std::getenv("GMLAKE_GPU_ROUNDS");
    return set == nullptr ? usual : std::strtoull(set, nullptr, 10);
  }

  std::unique_ptr<Gpu> gpu_;
  std::unique_ptr<Allocator> allocator_;
};

}  // namespace gmlake::test
