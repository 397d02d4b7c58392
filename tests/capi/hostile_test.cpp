// The C interface under arguments that make no sense: each is an error, and nothing changes.
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "capi/capi.hpp"
#include "gmlake/gmlake.h"

namespace gmlake::test {
namespace {

template <class Handle>
Handle* bogus(std::uint64_t bits) {
  return reinterpret_cast<Handle*>(static_cast<std::uintptr_t>(bits));
}

class Hostile : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(gmlake_allocator_create_on("model", nullptr, &allocator_), GMLAKE_OK);
    ASSERT_EQ(gmlake_allocate(allocator_, 3 * kMiB, 0, nullptr, &live_), GMLAKE_OK);
    ASSERT_EQ(gmlake_vir_block_create(allocator_, kMiB, 0, nullptr, &block_), GMLAKE_OK);
  }
  void TearDown() override {
    gmlake_stats stats = empty_stats();
    ASSERT_EQ(gmlake_get_stats(allocator_, 0, &stats), GMLAKE_OK);
    EXPECT_EQ(stats.allocations.current, 2u);
    EXPECT_EQ(gmlake_vir_block_destroy(block_), GMLAKE_OK);
    EXPECT_EQ(gmlake_deallocate(allocator_, live_), GMLAKE_OK);
    EXPECT_EQ(gmlake_allocator_destroy(allocator_), GMLAKE_OK);
  }

  // Every function that takes an allocator, with everything else as it should be.
  std::vector<std::function<gmlake_status(gmlake_allocator*)>> allocator_calls() {
    return {
        [](gmlake_allocator* a) {
          void* out = nullptr;
          return gmlake_allocate(a, 512, 0, nullptr, &out);
        },
        [this](gmlake_allocator* a) { return gmlake_deallocate(a, live_); },
        [this](gmlake_allocator* a) { return gmlake_deallocate_on(a, live_, nullptr); },
        [this](gmlake_allocator* a) { return gmlake_record_stream(a, live_, nullptr); },
        [](gmlake_allocator* a) { return gmlake_trim(a, 0); },
        [](gmlake_allocator* a) { return gmlake_set_limit(a, 0, 0); },
        [](gmlake_allocator* a) { return gmlake_set_limit_fraction(a, 0, 1.0); },
        [](gmlake_allocator* a) {
          std::uint64_t out = 0;
          return gmlake_get_limit(a, 0, &out);
        },
        [](gmlake_allocator* a) {
          int out = 0;
          return gmlake_device_count(a, &out);
        },
        [this](gmlake_allocator* a) {
          int out = 0;
          return gmlake_device_of(a, live_, &out);
        },
        [this](gmlake_allocator* a) {
          std::size_t out = 0;
          return gmlake_size_of(a, live_, &out);
        },
        [](gmlake_allocator* a) {
          gmlake_stats out = empty_stats();
          return gmlake_get_stats(a, 0, &out);
        },
        [](gmlake_allocator* a) {
          std::int64_t out = 0;
          return gmlake_get_stat(a, 0, "num_ooms", &out);
        },
        [](gmlake_allocator* a) { return gmlake_reset_peaks(a, 0); },
        [](gmlake_allocator* a) {
          gmlake_vir_block* out = nullptr;
          return gmlake_vir_block_create(a, 512, 0, nullptr, &out);
        },
        [](gmlake_allocator* a) { return gmlake_forget_stream(a, 0, nullptr); },
        [](gmlake_allocator* a) {
          return gmlake_begin_pool(
              a, 0, {1, 2}, [](void*, void*) { return 0; }, nullptr);
        },
        [](gmlake_allocator* a) {
          return gmlake_end_pool(a, 0, {1, 2});
        },
        [](gmlake_allocator* a) {
          return gmlake_retain_pool(a, 0, {1, 2});
        },
        [](gmlake_allocator* a) {
          return gmlake_release_pool(a, 0, {1, 2});
        },
        [](gmlake_allocator* a) {
          std::uint64_t out = 0;
          return gmlake_pool_references(a, 0, {1, 2}, &out);
        },
        [](gmlake_allocator* a) {
          int out = 0;
          return gmlake_background_step(a, &out);
        },
        [](gmlake_allocator* a) { return gmlake_write_pickle_snapshot(a, "/dev/null"); },
        [](gmlake_allocator* a) { return gmlake_write_json_snapshot(a, "/dev/null"); },
        [](gmlake_allocator* a) { return gmlake_keep_history(a, 0); },
        [](gmlake_allocator* a) {
          std::uint64_t first = 0;
          std::size_t count = 0;
          return gmlake_get_history(a, 0, 0, nullptr, 0, &first, &count);
        },
        [](gmlake_allocator* a) {
          gmlake_recorder* out = nullptr;
          return gmlake_recorder_create(a, "/dev/null", 0, &out);
        },
    };
  }
  static std::vector<std::function<gmlake_status(gmlake_vir_block*)>> block_calls() {
    return {
        [](gmlake_vir_block* b) {
          void* out = nullptr;
          return gmlake_vir_block_get(b, &out);
        },
        [](gmlake_vir_block* b) {
          std::size_t out = 0;
          return gmlake_vir_block_size(b, &out);
        },
        [](gmlake_vir_block* b) {
          int out = 0;
          return gmlake_vir_block_device(b, &out);
        },
        [](gmlake_vir_block* b) {
          std::size_t out = 0;
          return gmlake_vir_block_phy_blocks(b, nullptr, 0, &out);
        },
    };
  }

  gmlake_allocator* allocator_ = nullptr;
  gmlake_vir_block* block_ = nullptr;
  void* live_ = nullptr;
};

TEST_F(Hostile, HandlesOfEveryWrongKindAreRefusedEverywhere) {
  gmlake_allocator* gone = nullptr;
  gmlake_vir_block* gone_block = nullptr;
  ASSERT_EQ(gmlake_allocator_create_on("model", nullptr, &gone), GMLAKE_OK);
  ASSERT_EQ(gmlake_vir_block_create(gone, kMiB, 0, nullptr, &gone_block), GMLAKE_OK);
  ASSERT_EQ(gmlake_vir_block_destroy(gone_block), GMLAKE_OK);
  ASSERT_EQ(gmlake_allocator_destroy(gone), GMLAKE_OK);
  const auto handle = reinterpret_cast<std::uintptr_t>(allocator_);
  const auto block = reinterpret_cast<std::uintptr_t>(block_);
  const std::vector<std::uint64_t> wrong = {0,
                                            1,
                                            ~std::uint64_t{0},
                                            reinterpret_cast<std::uintptr_t>(&live_),
                                            reinterpret_cast<std::uintptr_t>(live_),
                                            handle ^ 1,
                                            handle ^ 1u << 25,
                                            handle ^ std::uint64_t{1} << 60};
  for (const auto& call : allocator_calls()) {
    for (const std::uint64_t bits : wrong) EXPECT_EQ(call(bogus<gmlake_allocator>(bits)), GMLAKE_INVALID_VALUE);
    EXPECT_EQ(call(gone), GMLAKE_INVALID_VALUE) << "destroyed";
    EXPECT_EQ(call(bogus<gmlake_allocator>(block)), GMLAKE_INVALID_VALUE) << "a vir_block";
  }
  for (const auto& call : block_calls()) {
    for (const std::uint64_t bits : wrong) EXPECT_EQ(call(bogus<gmlake_vir_block>(bits)), GMLAKE_INVALID_VALUE);
    EXPECT_EQ(call(gone_block), GMLAKE_INVALID_VALUE) << "destroyed";
    EXPECT_EQ(call(bogus<gmlake_vir_block>(handle)), GMLAKE_INVALID_VALUE) << "an allocator";
  }
  for (const std::uint64_t bits : wrong) {
    const gmlake_status nothing = bits == 0 ? GMLAKE_OK : GMLAKE_INVALID_VALUE;
    EXPECT_EQ(gmlake_allocator_destroy(bogus<gmlake_allocator>(bits)), nothing);
    EXPECT_EQ(gmlake_vir_block_destroy(bogus<gmlake_vir_block>(bits)), nothing);
    EXPECT_EQ(gmlake_recorder_destroy(bogus<gmlake_recorder>(bits)), nothing);
    EXPECT_EQ(gmlake_recorder_progress(bogus<gmlake_recorder>(bits), nullptr, nullptr), GMLAKE_INVALID_VALUE);
  }
}

TEST_F(Hostile, NullWhereAPointerMustBeIsRefusedEverywhere) {
  EXPECT_EQ(gmlake_allocator_create(nullptr, nullptr), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_allocator_create_on("model", nullptr, nullptr), GMLAKE_INVALID_VALUE);
  gmlake_allocator* out = nullptr;
  EXPECT_EQ(gmlake_allocator_create_on(nullptr, nullptr, &out), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_allocator_default(nullptr), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_allocate(allocator_, 512, 0, nullptr, nullptr), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_get_limit(allocator_, 0, nullptr), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_device_count(allocator_, nullptr), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_device_of(allocator_, live_, nullptr), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_size_of(allocator_, live_, nullptr), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_get_stats(allocator_, 0, nullptr), GMLAKE_INVALID_VALUE);
  std::int64_t value = 0;
  EXPECT_EQ(gmlake_get_stat(allocator_, 0, nullptr, &value), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_get_stat(allocator_, 0, "num_ooms", nullptr), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_vir_block_create(allocator_, 512, 0, nullptr, nullptr), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_vir_block_get(block_, nullptr), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_vir_block_size(block_, nullptr), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_vir_block_device(block_, nullptr), GMLAKE_INVALID_VALUE);
  std::size_t count = 77;
  EXPECT_EQ(gmlake_vir_block_phy_blocks(block_, nullptr, 0, nullptr), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_vir_block_phy_blocks(block_, nullptr, 1, &count), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(count, 77u);
}

TEST_F(Hostile, SizesThatCannotBeAreRefused) {
  constexpr std::size_t kMost = std::numeric_limits<std::size_t>::max();
  for (const std::size_t bytes : {kMost, kMost - 1, kMost - 511, kMost / 2, kMost / 2 + 1, std::size_t{1} << 63}) {
    void* pointer = &pointer;
    EXPECT_EQ(gmlake_allocate(allocator_, bytes, 0, nullptr, &pointer), GMLAKE_INVALID_SIZE);
    EXPECT_EQ(pointer, &pointer);
    gmlake_vir_block* block = nullptr;
    EXPECT_EQ(gmlake_vir_block_create(allocator_, bytes, 0, nullptr, &block), GMLAKE_INVALID_SIZE);
    EXPECT_EQ(block, nullptr);
  }
}

TEST_F(Hostile, DevicesThatAreNotThereAreRefused) {
  constexpr int kLeast = std::numeric_limits<int>::min();
  constexpr int kMost = std::numeric_limits<int>::max();
  for (const int device : {-1, 1, 64, kLeast, kMost}) {
    void* pointer = nullptr;
    gmlake_vir_block* block = nullptr;
    gmlake_stats stats = empty_stats();
    EXPECT_EQ(gmlake_allocate(allocator_, 512, device, nullptr, &pointer), GMLAKE_INVALID_DEVICE);
    EXPECT_EQ(gmlake_vir_block_create(allocator_, 512, device, nullptr, &block), GMLAKE_INVALID_DEVICE);
    EXPECT_EQ(gmlake_get_stats(allocator_, device, &stats), GMLAKE_INVALID_DEVICE);
    std::int64_t value = 0;
    EXPECT_EQ(gmlake_get_stat(allocator_, device, "num_ooms", &value), GMLAKE_INVALID_DEVICE);
    EXPECT_EQ(gmlake_reset_peaks(allocator_, device), GMLAKE_INVALID_DEVICE);
    std::uint64_t limit = 0;
    EXPECT_EQ(gmlake_set_limit(allocator_, device, kMiB), GMLAKE_INVALID_DEVICE);
    EXPECT_EQ(gmlake_set_limit_fraction(allocator_, device, 0.5), GMLAKE_INVALID_DEVICE);
    EXPECT_EQ(gmlake_get_limit(allocator_, device, &limit), GMLAKE_INVALID_DEVICE);
  }
}

TEST_F(Hostile, SharesThatAreNoneAreRefused) {
  using Limits = std::numeric_limits<double>;
  for (const double share : {-0.1, 1.1, Limits::infinity(), -Limits::infinity(), Limits::quiet_NaN(), Limits::max()}) {
    EXPECT_EQ(gmlake_set_limit_fraction(allocator_, 0, share), GMLAKE_INVALID_OPTION) << share;
  }
}

TEST_F(Hostile, PointersThatAreNoBlocksAreRefused) {
  char* const inside = static_cast<char*>(live_) + 512;
  for (void* const pointer : {static_cast<void*>(inside), static_cast<void*>(this), bogus<void>(1), bogus<void>(~0ull),
                              static_cast<void*>(allocator_)}) {
    int device = 77;
    std::size_t bytes = 77;
    EXPECT_EQ(gmlake_deallocate(allocator_, pointer), GMLAKE_INVALID_POINTER);
    EXPECT_EQ(gmlake_deallocate_on(allocator_, pointer, nullptr), GMLAKE_INVALID_POINTER);
    EXPECT_EQ(gmlake_record_stream(allocator_, pointer, nullptr), GMLAKE_INVALID_POINTER);
    EXPECT_EQ(gmlake_device_of(allocator_, pointer, &device), GMLAKE_INVALID_POINTER);
    EXPECT_EQ(gmlake_size_of(allocator_, pointer, &bytes), GMLAKE_INVALID_POINTER);
    EXPECT_EQ(device, 77);
    EXPECT_EQ(bytes, 77u);
  }
  EXPECT_EQ(gmlake_record_stream(allocator_, nullptr, nullptr), GMLAKE_INVALID_POINTER);
}

TEST_F(Hostile, StructsThatSayNonsenseAboutThemselvesAreRefused) {
  for (const std::uint32_t size : {0u, 1u, 4u, 7u, (1u << 16) + 1, ~0u}) {
    gmlake_stats stats = empty_stats();
    stats.size = size;
    stats.ooms = 77;
    EXPECT_EQ(gmlake_get_stats(allocator_, 0, &stats), GMLAKE_INVALID_VALUE);
    EXPECT_EQ(stats.ooms, 77u);
  }
  gmlake_stats unversioned = empty_stats();
  unversioned.version = 0;
  EXPECT_EQ(gmlake_get_stats(allocator_, 0, &unversioned), GMLAKE_INVALID_VALUE);
}

TEST_F(Hostile, OptionsOfAnyLengthAreRefusedInWords) {
  gmlake_allocator* out = nullptr;
  for (const std::string& options : {std::string(100'000, 'x'), std::string(",,,,:::"), std::string("limit"),
                                     std::string("limit:99999999999999999999999GiB"), std::string("\xff\xfe:\x01")}) {
    EXPECT_EQ(gmlake_allocator_create_on("model", options.c_str(), &out), GMLAKE_INVALID_OPTION) << options;
    EXPECT_LT(std::string(gmlake_last_error()).size(), 512u);
  }
  EXPECT_EQ(out, nullptr);
}

}  // namespace
}  // namespace gmlake::test
