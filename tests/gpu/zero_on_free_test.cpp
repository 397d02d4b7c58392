// The option zero_on_free on the GPU: zeros are there before anyone else has freed memory, however far behind the
// streams are, and no graph writes them where others are by then.
#include <algorithm>
#include <vector>

#include "gpu/rig.hpp"

namespace gmlake::test {
namespace {

constexpr std::size_t kBytes = 64 * kMiB;

class ZeroOnFree : public OnGpu {
 protected:
  void SetUp() override {
    OnGpu::SetUp();
    if (gpu_ == nullptr) return;
    make({.limit_bytes = kBytes + kBytes / 2, .zero_on_free = true});  // the next stream needs the memory of the last
  }
  std::uint64_t words_not_zero(const void* block, Gpu::Stream stream) {
    std::vector<std::uint64_t> words(kBytes / 8);
    gpu_->copy(words.data(), block, kBytes, stream);
    gpu_->synchronize(stream);
    return words.size() - static_cast<std::uint64_t>(std::count(words.begin(), words.end(), 0));
  }
};

TEST_F(ZeroOnFree, WhoeverIsNextFindsZeros) {
  const std::vector<Gpu::Stream> streams = {gpu_->make_stream(), gpu_->make_stream()};
  for (std::size_t round = 0; round < 8; ++round) {
    const Gpu::Stream owner = streams[round % 2];
    const Gpu::Stream next = streams[round / 2 % 2];
    void* block = allocator_->allocate(kBytes, 0, owner);
    gpu_->spin(20'000'000, owner);
    gpu_->fill(block, kBytes, round, owner);
    allocator_->deallocate(block, owner);
    void* again = allocator_->allocate(kBytes, 0, next);
    EXPECT_EQ(words_not_zero(again, next), 0u) << "round " << round;
    allocator_->deallocate(again, next);
  }
}

TEST_F(ZeroOnFree, BehindTheOtherStreamsThatUseIt) {
  const Gpu::Stream owner = gpu_->make_stream();
  const Gpu::Stream user = gpu_->make_stream();
  void* block = allocator_->allocate(kBytes, 0, owner);
  gpu_->spin(50'000'000, user);
  gpu_->fill(block, kBytes, 7, user);
  allocator_->record_stream(block, user);
  allocator_->deallocate(block, owner);
  void* again = allocator_->allocate(kBytes, 0, owner);  // waits: there is no other memory
  EXPECT_EQ(words_not_zero(again, owner), 0u);
  allocator_->deallocate(again, owner);
}

TEST_F(ZeroOnFree, WhatAGraphWroteIsClearedWhenItsPoolIsReleased) {
  const Gpu::Stream stream = gpu_->make_stream();
  void* before = allocator_->allocate(kBytes / 4, 0, stream);
  ASSERT_TRUE(allocator_->begin_pool({1, 0}, 0, [](StreamHandle) { return true; }).ok());
  const Gpu::Graph graph = gpu_->capture(stream, [&] {
    void* inside = allocator_->allocate(kBytes, 0, stream);
    gpu_->fill(inside, kBytes, 8, stream);
    allocator_->deallocate(inside, stream);
    allocator_->deallocate(before, stream);  // of the common cache: cleared after the capture, and by no launch
  });
  ASSERT_NE(graph, nullptr);
  EXPECT_TRUE(allocator_->end_pool({1, 0}, 0).ok());
  void* after = allocator_->allocate(kBytes / 4, 0, stream);
  gpu_->fill(after, kBytes / 4, 9, stream);
  gpu_->launch(graph, stream);
  gpu_->check(after, kBytes / 4, 9, stream);
  EXPECT_EQ(gpu_->wrong_words(), 0u);
  gpu_->destroy(graph);
  EXPECT_TRUE(allocator_->release_pool({1, 0}, 0).ok());
  void* block = allocator_->allocate(kBytes, 0, stream);  // there is no other memory
  EXPECT_EQ(words_not_zero(block, stream), 0u);
  allocator_->deallocate(block, stream);
  allocator_->deallocate(after, stream);
}

// A memset over memory of the device and of the host.
TEST_F(ZeroOnFree, MemoryThatIsPartlyTheHostsIsGivenBack) {
  const Gpu::Stream stream = gpu_->make_stream();
  void* live = allocator_->allocate(kBytes, 0, stream);
  const Result<void*> spilled = allocator_->try_allocate(kBytes, Placement::spill({}, true), 0, stream);
  ASSERT_TRUE(spilled.ok()) << describe(spilled.error());
  EXPECT_GT(stats().placed_host_bytes, 0u);
  gpu_->fill(*spilled, kBytes, 1, stream);
  allocator_->deallocate(*spilled, stream);
  EXPECT_TRUE(allocator_->trim().ok());
  EXPECT_EQ(stats().placed_host_bytes, 0u);
  allocator_->deallocate(live, stream);
}

// At the end of a program that has synchronized: the zeros come after that.
TEST_F(ZeroOnFree, TheAllocatorMayEndAtOnce) {
  const Gpu::Stream stream = gpu_->make_stream();
  for (int round = 0; round < 20; ++round) {
    void* block = allocator_->allocate(kBytes, 0, stream);
    gpu_->fill(block, kBytes, 2, stream);
    gpu_->synchronize(stream);
    allocator_->deallocate(block, stream);
    make({.limit_bytes = kBytes + kBytes / 2, .zero_on_free = true});
  }
  EXPECT_EQ(gpu_->wrong_words(), 0u);
}

}  // namespace
}  // namespace gmlake::test
