// An allocator on the GPU of this machine, and the GPU beside it. Tests of this folder are skipped where there is none.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmlake/gmlake.hpp"
#include "support/gpu.hpp"

namespace gmlake::test {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

// A block that holds the pattern of `seed`, and which of a test's streams it is on.
struct Live {
  void* address = nullptr;
  std::size_t bytes = 0;
  std::uint64_t seed = 0;
  std::size_t stream = 0;
};

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

  // A block over PhyBlocks that lay free in pieces between live ones: `live` receives these.
  void* make_stitched(std::size_t bytes, std::vector<void*>& live) {
    std::vector<void*> freed;
    for (std::size_t made = 0; made < bytes; made += 4 * kMiB) {
      freed.push_back(allocator_->allocate(4 * kMiB));
      live.push_back(allocator_->allocate(4 * kMiB));
    }
    for (void* block : freed) allocator_->deallocate(block);
    return allocator_->allocate(bytes);
  }

  // How often the long tests go round: the number given, or that of the variable GMLAKE_GPU_ROUNDS.
  static std::uint64_t rounds(std::uint64_t usual) {
    const char* set = std::getenv("GMLAKE_GPU_ROUNDS");
    return set == nullptr ? usual : std::strtoull(set, nullptr, 10);
  }

  std::unique_ptr<Gpu> gpu_;
  std::unique_ptr<Allocator> allocator_;
};

// Beside a second GPU, that of the machine's number 1. Who enqueues there makes it current, and gpu_ again afterwards.
class OnTwoGpus : public OnGpu {
 protected:
  void SetUp() override {
    peer_ = Gpu::make(1);
    if (peer_ == nullptr) GTEST_SKIP() << "this machine has no two GPUs";
    OnGpu::SetUp();
  }
  void TearDown() override {
    if (peer_ == nullptr) return;
    peer_->make_current();
    EXPECT_EQ(peer_->wrong_words(), 0u);
    peer_.reset();
    gpu_->make_current();
    OnGpu::TearDown();
  }

  std::unique_ptr<Gpu> peer_;
};

// What a block of GPU 0 may be made of.
enum class Memory { stitched, half_on_host, half_on_peer, striped };

class OnEveryMemory : public OnGpu, public ::testing::WithParamInterface<Memory> {
 protected:
  void SetUp() override {
    OnGpu::SetUp();
    if (gpu_ == nullptr) return;
    two_gpus_ = allocator_->device_count() > 1;
    if (GetParam() >= Memory::half_on_peer && !two_gpus_) GTEST_SKIP() << "this machine has no two GPUs";
    make({.slack = 0, .max_phy_block_bytes = 2 * kMiB});
  }
  void TearDown() override {
    if (gpu_ == nullptr) return;
    for (void* block : blocks_) allocator_->deallocate(block);
    OnGpu::TearDown();
  }

  // A live block of that memory, until the test ends.
  void* block_of(std::size_t bytes) {
    void* block = nullptr;
    if (GetParam() == Memory::stitched) {
      const std::uint64_t moved = stats().moved_bytes;
      block = make_stitched(bytes, blocks_);
      EXPECT_GT(stats().moved_bytes - moved, bytes / 2);
    } else if (GetParam() == Memory::striped) {
      block = allocator_->try_allocate(bytes, Placement::stripe({0, 1})).value();
    } else {
      const DeviceStats before = stats();
      EXPECT_TRUE(allocator_
                      ->set_limit(before.all.reserved_bytes.current + before.placed_device_bytes +
                                  round_up(bytes / 2, 2 * kMiB))
                      .ok());
      const Placement half =
          GetParam() == Memory::half_on_peer ? Placement::spill({1}, false) : Placement::spill({}, true);
      block = allocator_->try_allocate(bytes, half).value();
      EXPECT_TRUE(allocator_->set_limit(0).ok());
    }
    EXPECT_EQ(stats().placed_host_bytes > 0, GetParam() == Memory::half_on_host);
    EXPECT_EQ(stats().placed_peer_bytes > 0, GetParam() >= Memory::half_on_peer);
    EXPECT_GT(allocator_->phy_blocks(block).size(), 1u);
    blocks_.push_back(block);
    return block;
  }

  bool two_gpus_ = false;
  std::vector<void*> blocks_;
};

inline std::string name_of(const ::testing::TestParamInfo<Memory>& memory) {
  switch (memory.param) {
    case Memory::stitched:
      return "Stitched";
    case Memory::half_on_host:
      return "HalfOnTheHost";
    case Memory::half_on_peer:
      return "HalfOnThePeer";
    case Memory::striped:
      return "Striped";
  }
  return "";
}

}  // namespace gmlake::test
