// The allocator on a GPU: its memory under kernels, copies and graphs, and its limit.
#include <thread>
#include <utility>
#include <vector>

#include "gpu/rig.hpp"

namespace gmlake::test {
namespace {

TEST_F(OnGpu, GivesMemoryThatKernelsCanUseAndTakesItBack) {
  const std::uint64_t free_before = gpu_->free_bytes();
  void* block = allocator_->allocate(256 * kMiB);
  gpu_->fill(block, 256 * kMiB, 1, nullptr);
  gpu_->check(block, 256 * kMiB, 1, nullptr);
  EXPECT_EQ(gpu_->wrong_words(), 0u);
  gpu_->check(block, 8 * kMiB, 2, nullptr);
  EXPECT_EQ(gpu_->wrong_words(), kMiB) << "a pattern that is another's is noticed";
  EXPECT_LE(gpu_->free_bytes(), free_before - 256 * kMiB);
  allocator_->deallocate(block);
  EXPECT_TRUE(allocator_->trim().ok());
  EXPECT_EQ(stats().all.reserved_bytes.current, 0u);
  EXPECT_GE(gpu_->free_bytes() + 8 * kMiB, free_before);
}

TEST_F(OnGpu, StitchesWhatLiesInPieces) {
  make({.slack = 0});
  std::vector<void*> live;
  const DeviceStats before = stats();
  void* block = make_stitched(64 * kMiB, live);
  const DeviceStats after = stats();
  EXPECT_GE(after.moved_bytes - before.moved_bytes, 56 * kMiB);
  EXPECT_GT(allocator_->phy_blocks(block).size(), 1u);
  gpu_->fill(block, 64 * kMiB, 9, nullptr);
  gpu_->check(block, 64 * kMiB, 9, nullptr);
  for (void* other : live) allocator_->deallocate(other);
  allocator_->deallocate(block);
}

TEST_F(OnGpu, KeepsItsLimitAndSaysWhatWouldHelp) {
  make({.limit_bytes = kGiB});
  void* most = allocator_->allocate(900 * kMiB);
  try {
    allocator_->allocate(200 * kMiB);
    ADD_FAILURE() << "past the limit";
  } catch (const OutOfMemoryError& error) {
    EXPECT_EQ(error.report().remedy, Remedy::raise_limit) << error.what();
  }
  allocator_->deallocate(most);
  allocator_->deallocate(allocator_->allocate(200 * kMiB));
}

// One after the other, threads have the same memory, each on its own per-thread default stream, while the work of those
// before still runs: also that of threads that have ended.
TEST_F(OnGpu, KeepsThreadsApartThatNameTheirOwnDefaultStream) {
  constexpr std::size_t kBytes = 700 * kMiB;
  make({.limit_bytes = kGiB});
  auto* const own = reinterpret_cast<Gpu::Stream>(std::uintptr_t{2});  // CU_STREAM_PER_THREAD
  const auto work = [&](std::uint64_t seed) {
    gpu_->make_current();
    void* block = allocator_->allocate(kBytes, 0, own);
    gpu_->spin(50'000'000, own);
    gpu_->fill(block, kBytes, seed, own);
    gpu_->spin(50'000'000, own);
    gpu_->check(block, kBytes, seed, own);
    allocator_->deallocate(block, own);
  };
  for (std::uint64_t i = 0; i < 8; ++i) {
    if (i % 4 == 3) work(i);  // this thread, which lives on
    if (i % 4 != 3) std::thread(work, i).join();
  }
  EXPECT_EQ(stats().rung_wait, 0u);
  EXPECT_LE(stats().all.reserved_bytes.peak, kGiB);
}

// During a capture, whether of a blocking stream or of one that is not, another thread's work is waited for or left
// alone: what ends the capture says whether something broke it.
TEST_F(OnGpu, BreaksNoCaptureWithTheDefaultStreamOfAnotherThread) {
  constexpr std::size_t kBytes = 400 * kMiB;
  make({.limit_bytes = kGiB});
  auto* const own = reinterpret_cast<Gpu::Stream>(std::uintptr_t{2});
  Gpu::Stream other = gpu_->make_stream();
  for (const int mode : {0, 1, 2}) {
    for (Gpu::Stream captured : {gpu_->make_stream(), own}) {
      std::thread([&] {
        gpu_->make_current();
        void* block = allocator_->allocate(kBytes, 0, own);
        gpu_->spin(30'000'000, own);
        gpu_->fill(block, kBytes, 1, own);
        gpu_->check(block, kBytes, 1, own);
        allocator_->deallocate(block, own);
      }).join();
      void* held = allocator_->allocate(kMiB, 0, captured);
      void* block = nullptr;
      const Gpu::Graph graph = gpu_->capture(
          captured,
          [&] {
            gpu_->set(held, 7, kMiB, captured);
            block = allocator_->allocate(kBytes, 0, other);
          },
          mode);
      gpu_->fill(block, kBytes, 2, other);
      gpu_->check(block, kBytes, 2, other);
      gpu_->launch(graph, captured);
      gpu_->synchronize(captured);
      gpu_->synchronize(other);
      gpu_->destroy(graph);
      allocator_->deallocate(block, other);
      allocator_->deallocate(held, captured);
    }
  }
}

// A graph's memory comes from a private pool: replayed while other memory is stitched all around it, it finds its own.
TEST_F(OnGpu, GraphsKeepTheirMemoryUnderCaptureAndReplay) {
  make({.limit_bytes = kGiB, .slack = 0});
  const Gpu::Stream stream = gpu_->make_stream();
  const PoolId id{7, 0};
  const std::vector<std::size_t> sizes = {24 * kMiB, 6 * kMiB, 512, 48 * kMiB};
  for (int mode = 0; mode < 3; ++mode) {  // global, thread-local, relaxed
    std::vector<void*> outside;
    for (int i = 0; i < 40; ++i) outside.push_back(allocator_->allocate(8 * kMiB, 0, stream));
    for (int i = 0; i < 40; i += 2) allocator_->deallocate(std::exchange(outside[i], nullptr));
    ASSERT_TRUE(allocator_->begin_pool(id, 0, [stream](StreamHandle asked) { return asked == stream; }).ok());
    void* kept = nullptr;
    const Gpu::Graph graph = gpu_->capture(
        stream,
        [&] {
          kept = allocator_->allocate(20 * kMiB, 0, stream);
          for (std::size_t i = 0; i < sizes.size(); ++i) {
            void* block = allocator_->allocate(sizes[i], 0, stream);
            gpu_->fill(block, sizes[i], 200 + i, stream);
            gpu_->check(block, sizes[i], 200 + i, stream);
            allocator_->deallocate(block, stream);
          }
          gpu_->fill(kept, 20 * kMiB, 300, stream);
        },
        mode);
    ASSERT_TRUE(allocator_->end_pool(id, 0).ok());
    for (int replay = 0; replay < 20; ++replay) {
      std::vector<void*> around;
      for (int i = 0; i < 6; ++i) {
        around.push_back(allocator_->allocate((30 + 7 * i) * kMiB, 0, stream));
        gpu_->fill(around.back(), (30 + 7 * i) * kMiB, 400 + i, stream);
      }
      gpu_->launch(graph, stream);
      for (int i = 0; i < 6; ++i) {
        gpu_->check(around[i], (30 + 7 * i) * kMiB, 400 + i, stream);
        allocator_->deallocate(around[i], stream);
      }
      gpu_->check(kept, 20 * kMiB, 300, stream);
    }
    EXPECT_EQ(gpu_->wrong_words(), 0u) << "capture mode " << mode;
    gpu_->destroy(graph);
    allocator_->deallocate(kept, stream);
    ASSERT_TRUE(allocator_->release_pool(id, 0).ok());
    for (void* block : outside) allocator_->deallocate(block);
    allocator_->check();
  }
}

// Half of a block on the host, past the limit: kernels see one range.
TEST_F(OnGpu, SpillsToTheHostBeforeItRunsOutOfMemory) {
  make({.limit_bytes = 64 * kMiB, .spill = SpillTo::host});
  void* local = allocator_->allocate(32 * kMiB);
  const Result<void*> spilled = allocator_->try_allocate(64 * kMiB);
  ASSERT_TRUE(spilled.ok()) << describe(spilled.error());
  EXPECT_EQ(stats().spills, 1u);
  EXPECT_EQ(stats().placed_host_bytes, 32 * kMiB);
  gpu_->fill(*spilled, 64 * kMiB, 21, nullptr);
  gpu_->fill(local, 32 * kMiB, 22, nullptr);
  gpu_->check(*spilled, 64 * kMiB, 21, nullptr);
  gpu_->check(local, 32 * kMiB, 22, nullptr);
  allocator_->deallocate(*spilled);
  allocator_->deallocate(local);
  EXPECT_TRUE(allocator_->trim().ok());
  EXPECT_EQ(stats().placed_blocks, 0u);
}

}  // namespace
}  // namespace gmlake::test
