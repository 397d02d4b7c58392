// Kernels, copies in every direction and memset, over a block of whatever memory, at no boundary of any kind.
#include <vector>

#include "gpu/rig.hpp"

namespace gmlake::test {
namespace {

TEST_P(OnEveryMemory, CopiesGoOverItInEveryDirection) {
  constexpr std::size_t kBytes = 64 * kMiB;
  auto* block = static_cast<char*>(block_of(kBytes));
  auto* other = static_cast<char*>(block_of(kBytes));
  auto* flat = static_cast<char*>(gpu_->allocate(kBytes));
  auto* pinned = static_cast<char*>(gpu_->allocate_pinned(kBytes));
  std::vector<char> pageable(kBytes);
  ASSERT_NE(flat, nullptr);
  const Gpu::Stream stream = gpu_->make_stream();
  // Across the joints: from 8 bytes in to 8 bytes before the end.
  const auto copy = [&](char* to, char* from) { gpu_->copy(to + 8, from + 8, kBytes - 16, stream); };
  std::uint64_t seed = 100;
  for (char* source : {flat, pinned, pageable.data(), other}) {
    ++seed;
    gpu_->fill(block, kBytes, seed, stream);
    copy(source, block);
    gpu_->set(block, 0xFFFFFFFF, kBytes, stream);
    copy(block, source);
    gpu_->synchronize(stream);
    std::vector<std::uint64_t> words(kBytes / 8);
    gpu_->copy(words.data(), block, kBytes, stream);
    gpu_->synchronize(stream);
    EXPECT_EQ(words.front(), ~std::uint64_t{0});
    EXPECT_EQ(words.back(), ~std::uint64_t{0});
    std::uint64_t wrong = 0;
    for (std::size_t i = 1; i + 1 < words.size(); ++i) wrong += words[i] != Gpu::pattern(seed, i);
    EXPECT_EQ(wrong, 0u);
  }
  gpu_->free(flat);
  gpu_->free_pinned(pinned);
}

INSTANTIATE_TEST_SUITE_P(Memory, OnEveryMemory,
                         ::testing::Values(Memory::stitched, Memory::half_on_host, Memory::half_on_peer,
                                           Memory::striped),
                         name_of);

}  // namespace
}  // namespace gmlake::test
