// Memory goes from one block to the next, and from one address to another, while kernels are still at work on it: each
// block is filled with a pattern of its own on the device, and checked there before it is freed, with no wait between.
// A hand-over that came too early, or an address that shows another's memory, is a wrong word.
#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "gpu/rig.hpp"

namespace gmlake::test {
namespace {

// Chunks of 2 MiB that were taken from one address and given to another.
std::uint64_t hand_overs(const DeviceStats& stats) { return (stats.moved_bytes + stats.revived_bytes) / (2 * kMiB); }

void report(const char* name, const DeviceStats& stats, std::uint64_t blocks) {
  std::printf("%s: %llu blocks, %llu chunks of 2 MiB handed over to another address, %llu created\n", name,
              static_cast<unsigned long long>(blocks), static_cast<unsigned long long>(hand_overs(stats)),
              static_cast<unsigned long long>(stats.phy_blocks_created));
}

std::size_t some_size(std::mt19937_64& random) {
  const std::size_t granules = std::size_t{1} << random() % 6;  // 2 to 64 MiB and a bit
  return granules * 2 * kMiB + 512 * (random() % 2000);
}

TEST_F(OnGpu, HandsMemoryOverInStreamOrder) {
  make({.limit_bytes = kGiB, .slack = 0, .max_phy_block_bytes = 2 * kMiB});
  std::mt19937_64 random(1);
  const Gpu::Stream stream = gpu_->make_stream();
  std::vector<Live> live;
  std::uint64_t seed = 0;
  std::uint64_t bytes = 0;
  const std::uint64_t wanted = rounds(20'000);
  while (hand_overs(stats()) < wanted && !HasFailure()) {
    for (int step = 0; step < 256; ++step) {
      const std::size_t size = some_size(random);
      while (bytes + size > 768 * kMiB) {
        std::swap(live[random() % live.size()], live.back());
        const Live gone = live.back();
        live.pop_back();
        gpu_->check(gone.address, gone.bytes, gone.seed, stream);
        allocator_->deallocate(gone.address, stream);
        bytes -= gone.bytes;
      }
      live.push_back({allocator_->allocate(size, 0, stream), size, ++seed, 0});
      gpu_->fill(live.back().address, size, seed, stream);
      bytes += size;
    }
    EXPECT_EQ(gpu_->wrong_words(), 0u);
  }
  report("stream order", stats(), seed);
  for (const Live& block : live) {
    gpu_->check(block.address, block.bytes, block.seed, stream);
    allocator_->deallocate(block.address, stream);
  }
  EXPECT_GE(hand_overs(stats()), wanted);
  EXPECT_EQ(stats().num_ooms, 0u);
}

// Three streams that use each other's blocks; small requests too, and everything that changes mappings in between.
TEST_F(OnGpu, HandsMemoryOverBehindEventsInRandomPrograms) {
  const std::uint64_t wanted = rounds(20'000) / 4;
  for (std::uint64_t program = 1; program <= 4 && !HasFailure(); ++program) {
    Options options{.limit_bytes = kGiB, .slack = 0, .max_phy_block_bytes = 2 * kMiB};
    options.background_worker = program % 2 == 0;
    options.stream_wait = program < 3 ? StreamWait::before_growth : StreamWait::never;
    make(options);
    std::mt19937_64 random(program);
    std::vector<Gpu::Stream> streams;
    for (int i = 0; i < 3; ++i) streams.push_back(gpu_->make_stream());
    std::vector<Live> live;
    std::uint64_t seed = 1'000'000 * program;
    std::uint64_t ooms = 0;
    const auto free_one = [&] {
      std::swap(live[random() % live.size()], live.back());
      const Live gone = live.back();
      live.pop_back();
      const std::size_t user = random() % streams.size();
      if (user != gone.stream) {  // its last use is on another stream, behind what its own has done to it
        gpu_->wait_for(streams[user], streams[gone.stream]);
        if (random() % 2 == 0) {
          allocator_->record_stream(gone.address, streams[user]);
          gpu_->check(gone.address, gone.bytes, gone.seed, streams[user]);
          allocator_->deallocate(gone.address, streams[gone.stream]);
        } else {
          gpu_->check(gone.address, gone.bytes, gone.seed, streams[user]);
          allocator_->deallocate(gone.address, streams[user]);
        }
        return;
      }
      gpu_->check(gone.address, gone.bytes, gone.seed, streams[user]);
      allocator_->deallocate(gone.address);
    };
    while (hand_overs(stats()) < wanted && !HasFailure()) {
      for (int step = 0; step < 256; ++step) {
        const std::uint64_t choice = random() % 1000;
        if (choice < 2) {
          EXPECT_TRUE(allocator_->trim(choice * 256 * kMiB).ok());
        } else if (choice < 300 && !live.empty()) {
          free_one();
        } else {
          const std::size_t size = choice < 500 ? 512 * (1 + random() % 1500) : some_size(random);
          const std::size_t stream = random() % streams.size();
          const auto block = allocator_->try_allocate(size, 0, streams[stream]);
          if (block) {
            live.push_back({*block, size & ~std::size_t{7}, ++seed, stream});
            gpu_->fill(*block, live.back().bytes, seed, streams[stream]);
          } else {
            ASSERT_EQ(block.error().code, ErrorCode::out_of_memory) << describe(block.error());
            ++ooms;
            for (int i = 0; i < 8 && !live.empty(); ++i) free_one();
          }
        }
      }
      EXPECT_EQ(gpu_->wrong_words(), 0u) << "program " << program;
    }
    report(("program " + std::to_string(program)).c_str(), stats(), seed - 1'000'000 * program);
    std::printf("  %llu requests found no memory\n", static_cast<unsigned long long>(ooms));
    while (!live.empty()) free_one();
    EXPECT_EQ(gpu_->wrong_words(), 0u);
    allocator_->check();
    EXPECT_TRUE(allocator_->trim().ok());
    EXPECT_EQ(stats().all.allocation.current, 0u);
  }
}

}  // namespace
}  // namespace gmlake::test
