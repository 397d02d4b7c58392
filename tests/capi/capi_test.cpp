// The C interface says what the library says: statuses, texts, figures, versions, ownership.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "capi/capi.hpp"
#include "gmlake/gmlake.h"
#include "gmlake/gmlake.hpp"
#include "process/child.hpp"
#include "support/host_default.hpp"

namespace gmlake::test {
namespace {

class CApi : public testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(gmlake_allocator_create_on("model", nullptr, &allocator_), GMLAKE_OK); }
  void TearDown() override {
    if (allocator_ != nullptr) {
      EXPECT_EQ(gmlake_allocator_destroy(allocator_), GMLAKE_OK);
    }
  }

  void* allocate(std::size_t bytes, void* stream = nullptr) {
    void* pointer = nullptr;
    EXPECT_EQ(gmlake_allocate(allocator_, bytes, 0, stream, &pointer), GMLAKE_OK) << gmlake_last_error();
    return pointer;
  }
  gmlake_stats stats() {
    gmlake_stats stats = empty_stats();
    EXPECT_EQ(gmlake_get_stats(allocator_, 0, &stats), GMLAKE_OK);
    return stats;
  }

  gmlake_allocator* allocator_ = nullptr;
};

TEST(CApiStatus, HasATextForEveryNumber) {
  EXPECT_STREQ(gmlake_status_text(GMLAKE_OK), "ok");
  for (int number = GMLAKE_OUT_OF_MEMORY; number <= GMLAKE_CAPTURED; ++number) {
    EXPECT_STREQ(gmlake_status_text(static_cast<gmlake_status>(number)), to_string(static_cast<ErrorCode>(number - 1)));
  }
  EXPECT_STREQ(gmlake_status_text(GMLAKE_FILE_ERROR), "file error");
  for (const int number : {-1, static_cast<int>(GMLAKE_CAPTURED) + 1, static_cast<int>(GMLAKE_FILE_ERROR) + 1}) {
    EXPECT_STREQ(gmlake_status_text(static_cast<gmlake_status>(number)), "unknown status");
  }
}

TEST(CApiStatus, HasTheVersionOfTheHeader) {
  EXPECT_EQ(gmlake_version_string(), std::to_string(GMLAKE_VERSION_MAJOR) + "." + std::to_string(GMLAKE_VERSION_MINOR) +
                                         "." + std::to_string(GMLAKE_VERSION_PATCH));
  EXPECT_EQ(gmlake_version() / 1'000'000, std::uint32_t{GMLAKE_VERSION_MAJOR});
}

TEST_F(CApi, NamesTheFunctionTheStepAndTheValueOfAFailure) {
  void* const foreign = &allocator_;
  EXPECT_EQ(gmlake_deallocate(allocator_, foreign), GMLAKE_INVALID_POINTER);
  const std::string text = gmlake_last_error();
  EXPECT_EQ(text, "gmlake_deallocate: deallocate: not the start of a live block (" +
                      std::to_string(reinterpret_cast<std::uintptr_t>(foreign)) + ")");
  void* pointer = allocate(512);
  EXPECT_EQ(gmlake_deallocate(allocator_, pointer), GMLAKE_OK);
  EXPECT_EQ(gmlake_last_error(), text) << "a call that succeeds leaves it";
}

TEST_F(CApi, KeepsTheLastErrorOfEachThreadApart) {
  EXPECT_EQ(gmlake_deallocate(allocator_, this), GMLAKE_INVALID_POINTER);
  std::thread([&] {
    EXPECT_STREQ(gmlake_last_error(), "");
    EXPECT_EQ(gmlake_trim(nullptr, 0), GMLAKE_INVALID_VALUE);
    EXPECT_NE(std::string(gmlake_last_error()).find("gmlake_trim"), std::string::npos);
  }).join();
  EXPECT_NE(std::string(gmlake_last_error()).find("gmlake_deallocate"), std::string::npos);
}

TEST_F(CApi, TakesOptionsAndNamesThoseItRefuses) {
  gmlake_allocator* limited = nullptr;
  ASSERT_EQ(gmlake_allocator_create_on("model", "limit:64MiB,max_stale:2", &limited), GMLAKE_OK);
  void* pointer = nullptr;
  EXPECT_EQ(gmlake_allocate(limited, 64 * kMiB, 0, nullptr, &pointer), GMLAKE_OK);
  void* more = &pointer;
  EXPECT_EQ(gmlake_allocate(limited, 2 * kMiB, 0, nullptr, &more), GMLAKE_OUT_OF_MEMORY);
  EXPECT_EQ(more, &pointer) << "a call that fails leaves the out pointer";
  EXPECT_EQ(gmlake_allocator_destroy(limited), GMLAKE_OK);

  gmlake_allocator* none = nullptr;
  EXPECT_EQ(gmlake_allocator_create_on("model", "no_such_key:1", &none), GMLAKE_INVALID_OPTION);
  EXPECT_NE(std::string(gmlake_last_error()).find("no_such_key"), std::string::npos) << gmlake_last_error();
  EXPECT_EQ(gmlake_allocator_create_on("model", "limit:-4", &none), GMLAKE_INVALID_OPTION);
  EXPECT_EQ(gmlake_allocator_create_on("no such driver", nullptr, &none), GMLAKE_NOT_SUPPORTED);
  EXPECT_EQ(none, nullptr);
}

TEST_F(CApi, ChangesTheLimit) {
  std::uint64_t limit = 0;
  EXPECT_EQ(gmlake_get_limit(allocator_, 0, &limit), GMLAKE_OK);
  const std::uint64_t whole = limit;
  EXPECT_EQ(gmlake_set_limit(allocator_, 0, 64 * kMiB), GMLAKE_OK);
  EXPECT_EQ(gmlake_get_limit(allocator_, 0, &limit), GMLAKE_OK);
  EXPECT_EQ(limit, 64 * kMiB);
  void* pointer = nullptr;
  EXPECT_EQ(gmlake_allocate(allocator_, 65 * kMiB, 0, nullptr, &pointer), GMLAKE_OUT_OF_MEMORY);
  EXPECT_EQ(gmlake_set_limit(allocator_, 0, 0), GMLAKE_OK);
  EXPECT_EQ(gmlake_set_limit_fraction(allocator_, 0, 0.5), GMLAKE_OK);
  EXPECT_EQ(gmlake_get_limit(allocator_, 0, &limit), GMLAKE_OK);
  EXPECT_EQ(limit, whole / 2);
  (void)allocate(65 * kMiB);
}

TEST_F(CApi, GivesNothingForNoBytes) {
  void* pointer = &pointer;
  EXPECT_EQ(gmlake_allocate(allocator_, 0, 0, nullptr, &pointer), GMLAKE_OK);
  EXPECT_EQ(pointer, nullptr);
  EXPECT_EQ(gmlake_deallocate(allocator_, nullptr), GMLAKE_OK);
  gmlake_vir_block* block = nullptr;
  EXPECT_EQ(gmlake_vir_block_create(allocator_, 0, 0, nullptr, &block), GMLAKE_INVALID_SIZE);
}

// The figures are those of the library, each in its place: every field is made to differ from the others where it can.
TEST_F(CApi, TellsTheFiguresOfTheLibrary) {
  std::vector<void*> blocks;
  for (std::size_t i = 1; i <= 6; ++i) blocks.push_back(allocate(i * kMiB + 100));
  for (std::size_t i = 0; i < 6; i += 2) EXPECT_EQ(gmlake_deallocate(allocator_, blocks[i]), GMLAKE_OK);
  void* stitched = allocate(9 * kMiB);
  const gmlake_stats seen = stats();
  EXPECT_EQ(seen.allocations.current, 4u);
  EXPECT_EQ(seen.allocations.allocated, 7u);
  EXPECT_EQ(seen.allocations.freed, 3u);
  EXPECT_EQ(seen.requested_bytes.current, (2 + 4 + 6 + 9) * kMiB + 300);
  EXPECT_EQ(seen.allocated_bytes.current, (2 + 4 + 6 + 9) * kMiB + 3 * 512);
  EXPECT_EQ(seen.active_bytes.current, seen.allocated_bytes.current);
  EXPECT_GE(seen.reserved_bytes.current, seen.allocated_bytes.current);
  EXPECT_GE(seen.reserved_bytes.peak, seen.reserved_bytes.current);
  EXPECT_GT(seen.address_bytes, seen.reserved_bytes.current);
  EXPECT_GT(seen.mappings, 0u);
  EXPECT_GT(seen.stitches, 0u);
  EXPECT_EQ(seen.ooms, 0u);
  EXPECT_EQ(gmlake_reset_peaks(allocator_, 0), GMLAKE_OK);
  EXPECT_EQ(stats().requested_bytes.peak, stats().requested_bytes.current);
  EXPECT_EQ(gmlake_deallocate(allocator_, stitched), GMLAKE_OK);
}

TEST_F(CApi, TellsEveryCounterByItsName) {
  (void)allocate(5 * kMiB);
  std::size_t count = 0;
  for (; gmlake_stat_name(count) != nullptr; ++count) {
    std::int64_t value = -77;
    EXPECT_EQ(gmlake_get_stat(allocator_, 0, gmlake_stat_name(count), &value), GMLAKE_OK) << gmlake_stat_name(count);
    EXPECT_NE(value, -77) << gmlake_stat_name(count);
  }
  EXPECT_EQ(count, named_stats({}).size());
  std::int64_t bytes = 0;
  EXPECT_EQ(gmlake_get_stat(allocator_, 0, "requested_bytes.all.current", &bytes), GMLAKE_OK);
  EXPECT_EQ(bytes, static_cast<std::int64_t>(5 * kMiB));
  EXPECT_EQ(gmlake_get_stat(allocator_, 0, "requested_bytes.all", &bytes), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_get_stat(allocator_, 0, "", &bytes), GMLAKE_INVALID_VALUE);
}

// A caller that was built when the struct ended after its first figure, and one of the future, whose struct is longer.
TEST_F(CApi, FillsStructsOfOtherVersions) {
  (void)allocate(5 * kMiB);
  gmlake_stats old_stats;
  std::memset(&old_stats, 0xAB, sizeof old_stats);
  old_stats.size = offsetof(gmlake_stats, requested_bytes);
  old_stats.version = 1;
  ASSERT_EQ(gmlake_get_stats(allocator_, 0, &old_stats), GMLAKE_OK);
  EXPECT_EQ(old_stats.allocated_bytes.current, 5 * kMiB);
  EXPECT_EQ(old_stats.requested_bytes.current, 0xABABABABABABABABu) << "past the end of the caller's struct";

  struct Future {
    gmlake_stats known;
    std::uint64_t more[4];
  } future;
  std::memset(&future, 0xAB, sizeof future);
  future.known.size = sizeof future;
  future.known.version = 2;
  ASSERT_EQ(gmlake_get_stats(allocator_, 0, &future.known), GMLAKE_OK);
  EXPECT_EQ(future.known.allocated_bytes.current, 5 * kMiB);
  EXPECT_EQ(future.known.grown_bytes, 6 * kMiB) << "the last field";
  for (const std::uint64_t field : future.more) EXPECT_EQ(field, 0u);
  EXPECT_EQ(future.known.size, sizeof future);

  struct Head {
    std::uint32_t size = sizeof(Head);
    std::uint32_t version = 1;
    std::uint64_t after = 7;
  } head;
  head.size = 8;
  EXPECT_EQ(gmlake_get_stats(allocator_, 0, reinterpret_cast<gmlake_stats*>(&head)), GMLAKE_OK);
  EXPECT_EQ(head.after, 7u);
}

TEST_F(CApi, KeepsAnAllocatorForTheVirBlocksThatAreLeft) {
  gmlake_vir_block* first = nullptr;
  gmlake_vir_block* second = nullptr;
  gmlake_allocator* host = nullptr;
  ASSERT_EQ(gmlake_allocator_create_on("host", nullptr, &host), GMLAKE_OK);
  ASSERT_EQ(gmlake_vir_block_create(host, 4 * kMiB, 0, nullptr, &first), GMLAKE_OK);
  ASSERT_EQ(gmlake_vir_block_create(host, 4 * kMiB, 0, nullptr, &second), GMLAKE_OK);
  EXPECT_EQ(gmlake_allocator_destroy(host), GMLAKE_OK);
  void* address = nullptr;
  EXPECT_EQ(gmlake_allocate(host, 512, 0, nullptr, &address), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_vir_block_destroy(first), GMLAKE_OK);
  ASSERT_EQ(gmlake_vir_block_get(second, &address), GMLAKE_OK);
  std::memset(address, 1, 4 * kMiB);
  EXPECT_EQ(gmlake_vir_block_destroy(second), GMLAKE_OK);
}

TEST_F(CApi, TellsOfAVirBlockThatWasFreedByItsAddress) {
  gmlake_vir_block* block = nullptr;
  ASSERT_EQ(gmlake_vir_block_create(allocator_, 4 * kMiB, 0, nullptr, &block), GMLAKE_OK);
  void* address = nullptr;
  ASSERT_EQ(gmlake_vir_block_get(block, &address), GMLAKE_OK);
  ASSERT_EQ(gmlake_deallocate(allocator_, address), GMLAKE_OK);
  EXPECT_EQ(gmlake_vir_block_destroy(block), GMLAKE_INVALID_POINTER);
  EXPECT_EQ(gmlake_vir_block_destroy(block), GMLAKE_INVALID_VALUE) << "it is gone all the same";
}

TEST(CApiDefault, IsTheAllocatorOfTheProcess) {
  gmlake_allocator* allocator = nullptr;
  ASSERT_EQ(gmlake_allocator_default(&allocator), GMLAKE_OK);
  void* pointer = nullptr;
  ASSERT_EQ(gmlake_allocate(allocator, kMiB, 0, nullptr, &pointer), GMLAKE_OK);
  EXPECT_EQ(default_allocator().size_of(pointer), kMiB);
  EXPECT_TRUE(default_allocator().try_deallocate(pointer).ok());
}

TEST(CApiDefault, IsOneForThreadsThatComeFirstAtTheSameTime) {
  std::vector<gmlake_allocator*> found(4, nullptr);
  std::vector<std::thread> threads;
  for (gmlake_allocator*& one : found) {
    threads.emplace_back([&one] { EXPECT_EQ(gmlake_allocator_default(&one), GMLAKE_OK); });
  }
  for (std::thread& thread : threads) thread.join();
  for (gmlake_allocator* one : found) EXPECT_EQ(one, found.front());
}

TEST_F(CApi, TellsTheChildOfAForkSo) {
  gmlake_vir_block* block = nullptr;
  ASSERT_EQ(gmlake_vir_block_create(allocator_, 4 * kMiB, 0, nullptr, &block), GMLAKE_OK);
  EXPECT_EQ(in_child([&] {
              void* pointer = nullptr;
              gmlake_stats stats = empty_stats();
              if (gmlake_allocate(allocator_, 512, 0, nullptr, &pointer) != GMLAKE_FORKED) return 1;
              if (gmlake_deallocate(allocator_, nullptr) != GMLAKE_FORKED) return 2;
              if (gmlake_get_stats(allocator_, 0, &stats) != GMLAKE_FORKED) return 3;
              if (gmlake_vir_block_get(block, &pointer) != GMLAKE_FORKED) return 4;
              if (gmlake_vir_block_destroy(block) != GMLAKE_FORKED) return 5;
              if (gmlake_allocator_destroy(allocator_) != GMLAKE_FORKED) return 6;
              gmlake_allocator* own = nullptr;
              if (gmlake_allocator_create_on("host", nullptr, &own) != GMLAKE_OK) return 7;
              if (gmlake_allocate(own, 512, 0, nullptr, &pointer) != GMLAKE_OK) return 8;
              if (gmlake_allocator_destroy(own) != GMLAKE_OK) return 9;
              return 0;
            }),
            0);
  EXPECT_EQ(gmlake_vir_block_destroy(block), GMLAKE_OK);
}

TEST_F(CApi, ServesManyThreads) {
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  for (std::uintptr_t number = 0; number < 4; ++number) {
    threads.emplace_back([&, number] {
      for (int round = 0; round < 300; ++round) {
        void* pointer = nullptr;
        gmlake_vir_block* block = nullptr;
        void* const stream = reinterpret_cast<void*>(number);
        bool fine = gmlake_allocate(allocator_, 3 * kMiB, 0, stream, &pointer) == GMLAKE_OK;
        fine = fine && gmlake_vir_block_create(allocator_, kMiB, 0, stream, &block) == GMLAKE_OK;
        fine = fine && gmlake_deallocate(allocator_, pointer) == GMLAKE_OK;
        fine = fine && gmlake_vir_block_destroy(block) == GMLAKE_OK;
        if (!fine) ++failures;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(stats().allocations.current, 0u);
}

}  // namespace
}  // namespace gmlake::test
