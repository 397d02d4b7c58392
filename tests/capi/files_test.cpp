// History, snapshots and recordings through the C interface: what is in them is tested in tests/observe, here that each
// function gives what the library gives, and says why where it cannot.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "../replay/files.hpp"
#include "capi/capi.hpp"
#include "gmlake/gmlake.h"
#include "replay/read_trace.hpp"

namespace gmlake::test {
namespace {

using replay::TemporaryFolder;

class CApiFiles : public testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(gmlake_allocator_create_on("model", nullptr, &allocator_), GMLAKE_OK); }
  void TearDown() override { EXPECT_EQ(gmlake_allocator_destroy(allocator_), GMLAKE_OK) << gmlake_last_error(); }

  static void use(gmlake_allocator* allocator, std::size_t bytes) {
    void* pointer = nullptr;
    ASSERT_EQ(gmlake_allocate(allocator, bytes, 0, nullptr, &pointer), GMLAKE_OK) << gmlake_last_error();
    ASSERT_EQ(gmlake_deallocate(allocator, pointer), GMLAKE_OK);
  }
  static std::uint64_t blocks_in(const std::string& path) {
    const auto trace = replay::read_trace(path);
    EXPECT_TRUE(trace.ok()) << (trace.ok() ? "" : trace.error().text());
    return trace.ok() && !trace->devices.empty() ? trace->devices[0].block_count : 0;
  }

  TemporaryFolder folder_;
  gmlake_allocator* allocator_ = nullptr;
};

TEST_F(CApiFiles, TheHistoryIsReadInParts) {
  ASSERT_EQ(gmlake_keep_history(allocator_, 64), GMLAKE_OK);
  for (std::size_t i = 1; i <= 10; ++i) use(allocator_, i * 1000);
  std::vector<gmlake_event> all;
  for (std::uint64_t next = 0;;) {
    gmlake_event events[7];
    std::uint64_t first = 77;
    std::size_t count = 77;
    ASSERT_EQ(gmlake_get_history(allocator_, 0, next, events, 7, &first, &count), GMLAKE_OK);
    ASSERT_EQ(first, next);
    ASSERT_LE(count, 7u);
    if (count == 0) break;
    all.insert(all.end(), events, events + count);
    next = first + count;
  }
  std::vector<std::uint64_t> requested;
  std::uint64_t frees = 0;
  for (const gmlake_event& event : all) {
    if (event.action == GMLAKE_ALLOC) requested.push_back(event.bytes);
    if (event.action == GMLAKE_FREE_REQUESTED) ++frees;
    EXPECT_GT(event.time_us, 0u);
  }
  EXPECT_EQ(requested, (std::vector<std::uint64_t>{1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000, 10000}));
  EXPECT_EQ(frees, 10u);
  EXPECT_EQ(gmlake_keep_history(allocator_, 0), GMLAKE_OK);
}

TEST_F(CApiFiles, TheHistoryRefusesWhatMakesNoSense) {
  std::uint64_t first = 77;
  std::size_t count = 77;
  gmlake_event event;
  EXPECT_EQ(gmlake_get_history(allocator_, 0, 0, nullptr, 1, &first, &count), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_get_history(allocator_, 0, 0, &event, 1, nullptr, &count), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_get_history(allocator_, 0, 0, &event, 1, &first, nullptr), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_get_history(allocator_, 1, 0, &event, 1, &first, &count), GMLAKE_INVALID_DEVICE);
  EXPECT_EQ(gmlake_keep_history(allocator_, ~std::size_t{0}), GMLAKE_INVALID_SIZE);
  EXPECT_EQ(first, 77u);
  EXPECT_EQ(count, 77u);
  EXPECT_EQ(gmlake_get_history(allocator_, 0, 0, nullptr, 0, &first, &count), GMLAKE_OK);
  EXPECT_EQ(count, 0u);
}

TEST_F(CApiFiles, SnapshotsAreWrittenInBothForms) {
  ASSERT_EQ(gmlake_keep_history(allocator_, 1024), GMLAKE_OK);
  for (std::size_t i = 1; i <= 10; ++i) use(allocator_, i * kMiB);
  const std::string pickle = folder_ / "snapshot.pickle";
  const std::string json = folder_ / "snapshot.json";
  ASSERT_EQ(gmlake_write_pickle_snapshot(allocator_, pickle.c_str()), GMLAKE_OK) << gmlake_last_error();
  ASSERT_EQ(gmlake_write_json_snapshot(allocator_, json.c_str()), GMLAKE_OK) << gmlake_last_error();
  EXPECT_EQ(blocks_in(pickle), 10u);
  EXPECT_EQ(replay::bytes_of(json).substr(0, 1), "{");
  EXPECT_EQ(gmlake_write_pickle_snapshot(allocator_, nullptr), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_write_json_snapshot(allocator_, (folder_ / "no/folder").c_str()), GMLAKE_FILE_ERROR);
  EXPECT_NE(std::string(gmlake_last_error()).find("gmlake_write_json_snapshot: file error: "), std::string::npos);
  EXPECT_EQ(folder_.file_count(), 2u);
}

TEST_F(CApiFiles, ARecorderWritesItsTraceWhenItIsDestroyed) {
  const std::string path = folder_ / "job.gmtrace";
  gmlake_recorder* recorder = nullptr;
  ASSERT_EQ(gmlake_recorder_create(allocator_, path.c_str(), 0, &recorder), GMLAKE_OK) << gmlake_last_error();
  gmlake_recorder* second = nullptr;
  EXPECT_EQ(gmlake_recorder_create(allocator_, path.c_str(), 0, &second), GMLAKE_FILE_ERROR) << "one at a time";
  for (std::size_t i = 1; i <= 10; ++i) use(allocator_, i * kMiB);
  std::uint64_t dropped = 77;
  EXPECT_EQ(gmlake_recorder_progress(recorder, nullptr, &dropped), GMLAKE_OK);
  EXPECT_EQ(dropped, 0u);
  ASSERT_EQ(gmlake_recorder_destroy(recorder), GMLAKE_OK) << gmlake_last_error();
  EXPECT_EQ(blocks_in(path), 10u);
  EXPECT_EQ(gmlake_recorder_destroy(recorder), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_recorder_progress(recorder, &dropped, nullptr), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_recorder_destroy(nullptr), GMLAKE_OK);
  EXPECT_EQ(gmlake_recorder_create(allocator_, nullptr, 0, &second), GMLAKE_INVALID_VALUE);
  EXPECT_EQ(gmlake_recorder_create(allocator_, path.c_str(), 0, nullptr), GMLAKE_INVALID_VALUE);
  ASSERT_EQ(gmlake_recorder_create(allocator_, path.c_str(), 16, &second), GMLAKE_OK) << "after it, the next";
  EXPECT_EQ(gmlake_recorder_destroy(second), GMLAKE_OK);
}

TEST_F(CApiFiles, ARecorderOutlivesItsAllocatorsHandle) {
  gmlake_allocator* allocator = nullptr;
  gmlake_recorder* recorder = nullptr;
  ASSERT_EQ(gmlake_allocator_create_on("model", nullptr, &allocator), GMLAKE_OK);
  ASSERT_EQ(gmlake_recorder_create(allocator, (folder_ / "late.gmtrace").c_str(), 0, &recorder), GMLAKE_OK);
  use(allocator, kMiB);
  ASSERT_EQ(gmlake_allocator_destroy(allocator), GMLAKE_OK);
  ASSERT_EQ(gmlake_recorder_destroy(recorder), GMLAKE_OK);
  EXPECT_EQ(blocks_in(folder_ / "late.gmtrace"), 1u);
}

TEST_F(CApiFiles, TheOptionRecordsFromTheStartToTheEnd) {
  const std::string path = folder_ / "whole.gmtrace";
  gmlake_allocator* allocator = nullptr;
  ASSERT_EQ(gmlake_allocator_create_on("model", ("record:" + path).c_str(), &allocator), GMLAKE_OK);
  for (int i = 0; i < 5; ++i) use(allocator, kMiB);
  ASSERT_EQ(gmlake_allocator_destroy(allocator), GMLAKE_OK) << gmlake_last_error();
  EXPECT_EQ(blocks_in(path), 5u);
}

TEST_F(CApiFiles, AnAllocatorThatCannotBeRecordedAsAskedIsNotMade) {
  gmlake_allocator* allocator = nullptr;
  const std::string options = "record:" + (folder_ / "no/such/folder/a.gmtrace");
  EXPECT_EQ(gmlake_allocator_create_on("model", options.c_str(), &allocator), GMLAKE_FILE_ERROR);
  EXPECT_EQ(allocator, nullptr);
}

TEST_F(CApiFiles, ARecordingThatCannotBeWrittenIsSaidAtTheEnd) {
  const std::string path = folder_ / "taken";
  gmlake_allocator* allocator = nullptr;
  ASSERT_EQ(gmlake_allocator_create_on("model", ("record:" + path).c_str(), &allocator), GMLAKE_OK);
  std::filesystem::create_directory(path);
  EXPECT_EQ(gmlake_allocator_destroy(allocator), GMLAKE_FILE_ERROR);
  EXPECT_EQ(gmlake_allocator_destroy(allocator), GMLAKE_INVALID_VALUE) << "and it is gone";
}

}  // namespace
}  // namespace gmlake::test
