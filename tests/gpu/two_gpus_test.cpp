// One allocator and two GPUs: each uses its own memory and, where it may, the other's.
#include <algorithm>
#include <random>
#include <thread>
#include <vector>

#include "gpu/rig.hpp"

namespace gmlake::test {
namespace {

// Blocks come and go on one stream of a GPU, each with a pattern of its own, all out of little memory.
void fill_and_check(Allocator& allocator, Gpu& gpu, int device, std::uint64_t blocks) {
  gpu.make_current();
  const Gpu::Stream stream = gpu.make_stream();
  std::mt19937_64 random(7 + static_cast<std::uint64_t>(device));
  std::vector<Live> live;
  std::uint64_t bytes = 0;
  for (std::uint64_t seed = 1; seed <= blocks; ++seed) {
    const std::size_t size = (1 + random() % 32) * 2 * kMiB + 512 * (random() % 2000);
    while (bytes + size > 700 * kMiB) {
      std::swap(live[random() % live.size()], live.back());
      gpu.check(live.back().address, live.back().bytes, live.back().seed, stream);
      allocator.deallocate(live.back().address, stream);
      bytes -= live.back().bytes;
      live.pop_back();
    }
    live.push_back({allocator.allocate(size, device, stream), size, seed});
    gpu.fill(live.back().address, size, seed, stream);
    bytes += size;
  }
  for (const Live& block : live) {
    gpu.check(block.address, block.bytes, block.seed, stream);
    allocator.deallocate(block.address, stream);
  }
  EXPECT_EQ(gpu.wrong_words(), 0u) << "device " << device;
}

TEST_F(OnTwoGpus, AreServedAtOnce) {
  make({.limit_bytes = kGiB, .slack = 0, .max_phy_block_bytes = 2 * kMiB});
  const std::uint64_t blocks = std::max<std::uint64_t>(rounds(20'000) / 8, 300);
  std::thread other([&] { EXPECT_NO_THROW(fill_and_check(*allocator_, *peer_, 1, blocks)); });
  EXPECT_NO_THROW(fill_and_check(*allocator_, *gpu_, 0, blocks));
  other.join();
  gpu_->make_current();
  for (const int device : {0, 1}) EXPECT_GT(allocator_->stats(device).moved_bytes, kGiB);
}

// Kernels of the other GPU use stitched memory, that which was there when it was let in and that which came later.
TEST_F(OnTwoGpus, SeeWhatIsStitchedOnceTheyMay) {
  make({.slack = 0, .max_phy_block_bytes = 2 * kMiB});
  std::vector<void*> live;
  void* before = make_stitched(64 * kMiB, live);
  gpu_->fill(before, 64 * kMiB, 1, nullptr);
  ASSERT_TRUE(allocator_->enable_peer_access(0, 1).ok());
  void* after = make_stitched(96 * kMiB, live);
  gpu_->fill(after, 96 * kMiB, 2, nullptr);
  gpu_->synchronize(nullptr);
  peer_->make_current();
  peer_->check(before, 64 * kMiB, 1, nullptr);
  peer_->check(after, 96 * kMiB, 2, nullptr);
  EXPECT_EQ(peer_->wrong_words(), 0u);
  peer_->fill(after, 96 * kMiB, 3, nullptr);
  peer_->synchronize(nullptr);
  gpu_->make_current();
  gpu_->check(after, 96 * kMiB, 3, nullptr);
  for (void* block : live) allocator_->deallocate(block);
  allocator_->deallocate(before);
  allocator_->deallocate(after);
}

TEST_F(OnTwoGpus, SpillToEachOtherBeforeTheyRunOutOfMemory) {
  make({.limit_bytes = 64 * kMiB, .spill = SpillTo::peers_then_host});
  void* local = allocator_->allocate(32 * kMiB);
  const Result<void*> to_the_peer = allocator_->try_allocate(64 * kMiB);
  ASSERT_TRUE(to_the_peer.ok()) << describe(to_the_peer.error());
  EXPECT_EQ(stats().placed_peer_bytes, 32 * kMiB);
  EXPECT_EQ(stats().placed_host_bytes, 0u);
  const Result<void*> to_both = allocator_->try_allocate(64 * kMiB);  // the peer has 32 MiB left
  ASSERT_TRUE(to_both.ok()) << describe(to_both.error());
  EXPECT_EQ(stats().placed_peer_bytes, 64 * kMiB);
  EXPECT_EQ(stats().placed_host_bytes, 32 * kMiB);
  EXPECT_EQ(stats().num_ooms, 0u);
  std::uint64_t seed = 30;
  for (void* block : {*to_the_peer, *to_both}) gpu_->fill(block, 64 * kMiB, ++seed, nullptr);
  gpu_->fill(local, 32 * kMiB, 33, nullptr);
  seed = 30;
  for (void* block : {*to_the_peer, *to_both}) gpu_->check(block, 64 * kMiB, ++seed, nullptr);
  gpu_->check(local, 32 * kMiB, 33, nullptr);
  EXPECT_EQ(gpu_->wrong_words(), 0u);
  for (void* block : {*to_the_peer, *to_both, local}) allocator_->deallocate(block);
  EXPECT_TRUE(allocator_->trim().ok());
  EXPECT_EQ(stats().placed_blocks, 0u);
}

// Blocks of every placement come and go on two streams of both GPUs, and keep what was written.
TEST_F(OnTwoGpus, KeepContentsInRandomPlacements) {
  make({.limit_bytes = kGiB, .slack = 0});
  std::mt19937_64 random(11);
  struct Placed : Live {
    int device = 0;
  };
  Gpu* const gpus[] = {gpu_.get(), peer_.get()};
  Gpu::Stream streams[2][2];
  for (int device : {0, 1}) {
    gpus[device]->make_current();
    for (Gpu::Stream& stream : streams[device]) stream = gpus[device]->make_stream();
  }
  std::vector<Placed> live;
  std::uint64_t refused = 0;
  const std::uint64_t wanted = rounds(20'000) / 20;
  const auto free_one = [&] {
    std::swap(live[random() % live.size()], live.back());
    const Placed gone = live.back();
    live.pop_back();
    gpus[gone.device]->make_current();
    gpus[gone.device]->check(gone.address, gone.bytes, gone.seed, streams[gone.device][gone.stream]);
    allocator_->deallocate(gone.address, streams[gone.device][gone.stream]);
  };
  for (std::uint64_t seed = 1; seed <= wanted; ++seed) {
    const int device = static_cast<int>(random() % 2);
    const int other = 1 - device;
    const std::size_t stream = random() % 2;
    const std::size_t size = (1 + random() % 48) * 2 * kMiB + 512 * (random() % 2000);
    const Placement placements[] = {{},
                                    Placement::spill({other}, false),
                                    Placement::spill({}),
                                    Placement::spill({other}),
                                    Placement::stripe({0, 1})};
    const Placement& placement = placements[random() % std::size(placements)];
    const Result<void*> block = allocator_->try_allocate(size, placement, device, streams[device][stream]);
    if (!block) {
      ASSERT_EQ(block.error().code, ErrorCode::out_of_memory) << describe(block.error());
      ++refused;
      for (int i = 0; i < 8 && !live.empty(); ++i) free_one();
      continue;
    }
    live.push_back({{*block, size, seed, stream}, device});
    gpus[device]->make_current();
    gpus[device]->fill(*block, size, seed, streams[device][stream]);
    if (live.size() > 30) free_one();
  }
  EXPECT_LT(refused, wanted / 4);
  while (!live.empty()) free_one();
  for (Gpu* gpu : {peer_.get(), gpu_.get()}) {
    gpu->make_current();
    EXPECT_EQ(gpu->wrong_words(), 0u);
  }
  EXPECT_TRUE(allocator_->trim().ok());
  for (const int device : {0, 1}) EXPECT_EQ(allocator_->stats(device).placed_blocks, 0u);
}

}  // namespace
}  // namespace gmlake::test
