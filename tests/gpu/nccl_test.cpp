// NCCL sums up what lies in memory of every kind, over all GPUs of this machine (two at most). libnccl is looked for
// where the loader looks, or at the path that GMLAKE_NCCL names; skipped where there is none.
#include <dlfcn.h>

#include <type_traits>
#include <vector>

#include "gpu/rig.hpp"

namespace gmlake::test {
namespace {

struct Nccl {
  int (*init_all)(void**, int, const int*);
  int (*destroy)(void*);
  int (*group_start)();
  int (*group_end)();
  int (*all_reduce)(const void*, void*, std::size_t, int, int, void*, void*);

  bool find() {
    void* library = nullptr;
    for (const char* name : {std::getenv("GMLAKE_NCCL"), const_cast<char*>("libnccl.so.2")}) {
      if (library == nullptr && name != nullptr) library = ::dlopen(name, RTLD_NOW);
    }
    if (library == nullptr) return false;
    const auto get = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(library, name));
      return function != nullptr;
    };
    return get(init_all, "ncclCommInitAll") && get(destroy, "ncclCommDestroy") && get(group_start, "ncclGroupStart") &&
           get(group_end, "ncclGroupEnd") && get(all_reduce, "ncclAllReduce");
  }
};

constexpr int kUint64 = 5;  // nccl.h
constexpr int kSum = 0;

TEST_P(OnEveryMemory, IsSummedUpOverAllGpus) {
  Nccl nccl{};
  if (!nccl.find()) GTEST_SKIP() << "no NCCL here";
  constexpr std::size_t kBytes = 64 * kMiB;
  const std::unique_ptr<Gpu> peer = two_gpus_ ? Gpu::make(1) : nullptr;
  const int count = two_gpus_ ? 2 : 1;
  Gpu* const gpus[] = {gpu_.get(), peer.get()};
  const int devices[] = {0, 1};
  void* comms[2] = {};
  Gpu::Stream streams[2] = {};
  void* blocks[2] = {};
  gpu_->make_current();
  blocks[0] = block_of(kBytes);
  if (two_gpus_) {
    // Of one process NCCL may read another GPU's memory where it lies.
    ASSERT_TRUE(allocator_->enable_peer_access(0, 1).ok() && allocator_->enable_peer_access(1, 0).ok());
    blocks[1] = allocator_->allocate(kBytes, 1);
    blocks_.push_back(blocks[1]);
  }
  ASSERT_EQ(nccl.init_all(comms, count, devices), 0);
  for (int i = 0; i < count; ++i) {
    gpus[i]->make_current();
    streams[i] = gpus[i]->make_stream();
  }
  for (std::uint64_t round = 0; round < 3; ++round) {
    for (int i = 0; i < count; ++i) {
      gpus[i]->make_current();
      gpus[i]->fill(blocks[i], kBytes, 500 + 10 * round + static_cast<std::uint64_t>(i), streams[i]);
    }
    ASSERT_EQ(nccl.group_start(), 0);
    for (int i = 0; i < count; ++i) {
      ASSERT_EQ(nccl.all_reduce(blocks[i], blocks[i], kBytes / 8, kUint64, kSum, comms[i], streams[i]), 0);
    }
    ASSERT_EQ(nccl.group_end(), 0);
    for (int i = 0; i < count; ++i) {
      gpus[i]->make_current();
      std::vector<std::uint64_t> words(kBytes / 8);
      gpus[i]->copy(words.data(), blocks[i], kBytes, streams[i]);
      gpus[i]->synchronize(streams[i]);
      std::uint64_t wrong = 0;
      for (std::size_t word = 0; word < words.size(); ++word) {
        const std::uint64_t seed = 500 + 10 * round;
        const std::uint64_t sum = Gpu::pattern(seed, word) + (two_gpus_ ? Gpu::pattern(seed + 1, word) : 0);
        wrong += words[word] != sum;
      }
      EXPECT_EQ(wrong, 0u) << "GPU " << i << ", round " << round;
    }
  }
  for (int i = 0; i < count; ++i) EXPECT_EQ(nccl.destroy(comms[i]), 0);
  if (peer != nullptr) {
    peer->make_current();
    EXPECT_EQ(peer->wrong_words(), 0u);
  }
  gpu_->make_current();
}

}  // namespace
}  // namespace gmlake::test
