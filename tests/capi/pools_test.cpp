// Private pools, forgotten streams and background steps through the C interface: the rules are tested in tests/alloc,
// here that each function does what the library's does.
#include <gtest/gtest.h>

#include <cstdint>

#include "capi/capi.hpp"
#include "gmlake/gmlake.h"

namespace gmlake::test {
namespace {

constexpr gmlake_pool_id kPool = {3, 4};

void* stream_of(std::uintptr_t number) { return reinterpret_cast<void*>(number); }
int is_that_stream(void* stream, void* context) { return stream == context ? 1 : 0; }

class CApiPools : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(gmlake_allocator_create_on("model", "background_worker:false", &allocator_), GMLAKE_OK);
  }
  void TearDown() override { EXPECT_EQ(gmlake_allocator_destroy(allocator_), GMLAKE_OK); }

  void* allocate(std::size_t bytes, void* stream) {
    void* pointer = nullptr;
    EXPECT_EQ(gmlake_allocate(allocator_, bytes, 0, stream, &pointer), GMLAKE_OK) << gmlake_last_error();
    return pointer;
  }
  std::uint64_t references() {
    std::uint64_t count = 77;
    EXPECT_EQ(gmlake_pool_references(allocator_, 0, kPool, &count), GMLAKE_OK);
    return count;
  }
  std::int64_t stat(const char* name) {
    std::int64_t value = -1;
    EXPECT_EQ(gmlake_get_stat(allocator_, 0, name, &value), GMLAKE_OK) << name;
    return value;
  }

  gmlake_allocator* allocator_ = nullptr;
};

TEST_F(CApiPools, KeepWhatWasAllocatedInThemUntilTheyAreReleased) {
  void* const stream = stream_of(1);
  EXPECT_EQ(references(), 0u);
  ASSERT_EQ(gmlake_begin_pool(allocator_, 0, kPool, is_that_stream, stream), GMLAKE_OK);
  EXPECT_EQ(references(), 1u);
  void* const inside = allocate(8 * kMiB, stream);
  void* const outside = allocate(8 * kMiB, nullptr);
  ASSERT_EQ(gmlake_end_pool(allocator_, 0, kPool), GMLAKE_OK);
  ASSERT_EQ(gmlake_deallocate(allocator_, inside), GMLAKE_OK);
  ASSERT_EQ(gmlake_deallocate(allocator_, outside), GMLAKE_OK);
  ASSERT_EQ(gmlake_trim(allocator_, 0), GMLAKE_OK);
  EXPECT_GE(stat("reserved_bytes.all.current"), static_cast<std::int64_t>(8 * kMiB)) << "the pool keeps its memory";
  EXPECT_LT(stat("reserved_bytes.all.current"), static_cast<std::int64_t>(16 * kMiB)) << "and the cache does not";
  ASSERT_EQ(gmlake_begin_pool(allocator_, 0, kPool, is_that_stream, stream), GMLAKE_OK);
  void* const again = allocate(8 * kMiB, stream);
  EXPECT_EQ(again, inside) << "at the same address";
  ASSERT_EQ(gmlake_end_pool(allocator_, 0, kPool), GMLAKE_OK);
  ASSERT_EQ(gmlake_retain_pool(allocator_, 0, kPool), GMLAKE_OK);
  EXPECT_EQ(references(), 3u);
  ASSERT_EQ(gmlake_deallocate(allocator_, again), GMLAKE_OK);
  for (int reference = 0; reference < 3; ++reference) {
    ASSERT_EQ(gmlake_release_pool(allocator_, 0, kPool), GMLAKE_OK);
  }
  ASSERT_EQ(gmlake_trim(allocator_, 0), GMLAKE_OK);
  EXPECT_EQ(stat("reserved_bytes.all.current"), 0);
}

TEST_F(CApiPools, RefuseWhatMakesNoSense) {
  constexpr gmlake_pool_id kNone = {0, 0};
  void* const stream = stream_of(1);
  EXPECT_EQ(gmlake_begin_pool(allocator_, 0, kPool, nullptr, nullptr), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_begin_pool(allocator_, 0, kNone, is_that_stream, stream), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_retain_pool(allocator_, 0, kNone), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_end_pool(allocator_, 0, kPool), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_release_pool(allocator_, 0, kPool), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_pool_references(allocator_, 0, kPool, nullptr), GMLAKE_INVALID_VALUE);
  for (const int device : {-1, 1, 64}) {
    std::uint64_t count = 77;
    EXPECT_EQ(gmlake_begin_pool(allocator_, device, kPool, is_that_stream, stream), GMLAKE_INVALID_DEVICE);
    EXPECT_EQ(gmlake_end_pool(allocator_, device, kPool), GMLAKE_INVALID_DEVICE);
    EXPECT_EQ(gmlake_retain_pool(allocator_, device, kPool), GMLAKE_INVALID_DEVICE);
    EXPECT_EQ(gmlake_release_pool(allocator_, device, kPool), GMLAKE_INVALID_DEVICE);
    EXPECT_EQ(gmlake_pool_references(allocator_, device, kPool, &count), GMLAKE_INVALID_DEVICE);
    EXPECT_EQ(gmlake_forget_stream(allocator_, device, stream), GMLAKE_INVALID_DEVICE);
    EXPECT_EQ(count, 77u);
  }
  ASSERT_EQ(gmlake_begin_pool(allocator_, 0, kPool, is_that_stream, stream), GMLAKE_OK);
  EXPECT_EQ(gmlake_begin_pool(allocator_, 0, kPool, is_that_stream, stream), GMLAKE_INVALID_VALUE) << "begun twice";
  EXPECT_EQ(references(), 1u);
  ASSERT_EQ(gmlake_end_pool(allocator_, 0, kPool), GMLAKE_OK);
  ASSERT_EQ(gmlake_release_pool(allocator_, 0, kPool), GMLAKE_OK);
}

TEST_F(CApiPools, AreToldApartByBothOfTheirNumbers) {
  constexpr gmlake_pool_id kOther = {kPool.first, kPool.second + 1};
  ASSERT_EQ(gmlake_retain_pool(allocator_, 0, kPool), GMLAKE_OK);
  EXPECT_EQ(gmlake_release_pool(allocator_, 0, kOther), GMLAKE_INVALID_VALUE);
  ASSERT_EQ(gmlake_retain_pool(allocator_, 0, kOther), GMLAKE_OK);
  EXPECT_EQ(references(), 1u);
  ASSERT_EQ(gmlake_release_pool(allocator_, 0, kOther), GMLAKE_OK);
  EXPECT_EQ(references(), 1u);
  ASSERT_EQ(gmlake_release_pool(allocator_, 0, kPool), GMLAKE_OK);
}

TEST_F(CApiPools, AStreamThatIsForgottenLeavesItsMemoryToOthers) {
  void* const first = allocate(64 * kMiB, stream_of(1));
  ASSERT_EQ(gmlake_deallocate(allocator_, first), GMLAKE_OK);
  ASSERT_EQ(gmlake_forget_stream(allocator_, 0, stream_of(1)), GMLAKE_OK);
  EXPECT_EQ(gmlake_forget_stream(allocator_, 0, stream_of(99)), GMLAKE_OK) << "unknown: nothing to do";
  ASSERT_EQ(gmlake_set_limit(allocator_, 0, 64 * kMiB), GMLAKE_OK);
  void* const second = allocate(64 * kMiB, stream_of(2));
  ASSERT_EQ(gmlake_deallocate(allocator_, second), GMLAKE_OK);
}

TEST_F(CApiPools, BackgroundStepsComeToAnEnd) {
  for (int i = 0; i < 8; ++i) ASSERT_EQ(gmlake_deallocate(allocator_, allocate((8u + i) * kMiB, nullptr)), GMLAKE_OK);
  int more = 1;
  for (int step = 0; step < 1000 && more != 0; ++step) {
    ASSERT_EQ(gmlake_background_step(allocator_, &more), GMLAKE_OK);
  }
  EXPECT_EQ(more, 0);
  EXPECT_EQ(gmlake_background_step(allocator_, nullptr), GMLAKE_INVALID_VALUE);
}

}  // namespace
}  // namespace gmlake::test
