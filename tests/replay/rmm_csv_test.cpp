// RMM's logs: what rows mean, what is refused with its line, and that a log survives being written and read.
#include "replay/rmm_csv.hpp"

#include <gtest/gtest.h>

#include <cstdio>
#include <iterator>
#include <map>

#include "replay/random_trace.hpp"
#include "replay/read_trace.hpp"
#include "replay/write_trace.hpp"

namespace gmlake::replay {
namespace {

const std::string kColumns = "Thread,Time,Action,Pointer,Size,Stream\n";

InputResult<Trace> read_rows(const std::string& rows) { return read_trace_from(kColumns + rows, "log.csv"); }

TEST(RmmCsv, ReadsWhatRmmWrites) {
  const auto trace = read_rows(
      "11,12:00:00.000001,allocate,0x7f0000000000,1024,0x0\n"
      "12,12:00:00.000002,allocate,0x7f0000000400,100,0x55d0c0ffee00\n"
      "12,12:00:00.000003,allocate failure,(nil),1099511627776,0x0\n"
      "11,12:00:00.000004,free,0x7f0000000000,1024,0x0\n"
      "11,12:00:00.000005,allocate,0x7f0000000000,7,0x0\n"
      "12,12:00:00.000006,free,0x7f0000000400,100,0x0\n");
  ASSERT_TRUE(trace) << trace.error().text();
  DeviceTrace expected;
  expected.streams = {0, 0x55d0c0ffee00};
  expected.held_streams = {false, false};
  expected.block_count = 3;
  expected.events = {{Op::alloc, 0, 0, 0, 1024}, {Op::alloc, 0, 1, 1, 100},       {Op::free, 0, 0, 0, 0},
                     {Op::alloc, 0, 0, 2, 7},    {Op::record_stream, 0, 0, 1, 0}, {Op::free, 0, 1, 1, 0}};
  ASSERT_EQ(trace->devices.size(), 1u);
  EXPECT_EQ(trace->devices[0], expected);
}

TEST(RmmCsv, TakesDecimalNumbersCarriageReturnsMarksAndNoLastNewline) {
  const auto trace = read_trace_from(
      "\xef\xbb\xbfThread,Time,Action,Pointer,Size,Stream\r\n"
      "1, 0.5, allocate, 4096, 0x10, 0\r\n\r\n1,0.6,deallocate,0x1000,16,0",
      "f");
  ASSERT_TRUE(trace) << trace.error().text();
  EXPECT_EQ(trace->devices[0].events, (std::vector<Event>{{Op::alloc, 0, 0, 0, 16}, {Op::free, 0, 0, 0, 0}}));
}

TEST(RmmCsv, SkipsRequestsOfNoBytes) {
  const auto trace = read_rows("1,0,allocate,0x0,0,0x0\n1,0,free,(nil),0,0x0\n1,0,allocate,0x1,5,0x0\n");
  ASSERT_TRUE(trace) << trace.error().text();
  EXPECT_EQ(trace->devices[0].block_count, 1u);
}

TEST(RmmCsv, RefusesMalformedRowsWithTheirLine) {
  const std::string good = "1,0,allocate,0x1,5,0x0\n";
  const std::vector<std::pair<std::string, std::string>> cases{
      {"1,0,allocate,0x1,5\n", "log.csv:3: has not the six columns of the header"},
      {"1,0,allocate,0x1,5,0x0,\n", "log.csv:3: has not the six columns of the header"},
      {"garbage", "log.csv:3: has not the six columns of the header"},
      {"1,0,resize,0x1,5,0x0\n", "log.csv:3: unknown action \"resize\""},
      {"1,0,\x1b[31mred,0x1,5,0x0\n", "log.csv:3: unknown action \"?[31mred\""},
      {"1,0,allocate,0xg,5,0x0\n", "log.csv:3: pointer \"0xg\" is no number"},
      {"1,0,allocate,0x,5,0x0\n", "log.csv:3: pointer \"0x\" is no number"},
      {"1,0,allocate,0x2,-5,0x0\n", "log.csv:3: size \"-5\" is no number"},
      {"1,0,allocate,0x2,99999999999999999999,0x0\n", "log.csv:3: size \"99999999999999999999\" is no number"},
      {"1,0,allocate,0x2,281474976710657,0x0\n", "log.csv:3: allocates more than 2^48 bytes"},
      {"1,0,allocate,0x2,5,x\n", "log.csv:3: stream \"x\" is no number"},
      {"1,0,allocate,0x1,5,0x0\n", "log.csv:3: allocates \"0x1\", which is still live"},
      {"1,0,free,0x2,5,0x0\n", "log.csv:3: frees \"0x2\", which is not live"},
      {std::string(5000, '1'), "log.csv:3: is longer than 4096 bytes"},
  };
  for (const auto& [row, text] : cases) {
    const auto trace = read_rows(good + row);
    ASSERT_FALSE(trace) << row;
    EXPECT_EQ(trace.error().text(), text);
  }
  const auto twice = read_rows(good + "1,0,free,0x1,5,0x0\n1,0,free,0x1,5,0x0\n");
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().text(), "log.csv:4: frees \"0x1\", which is not live");
}

TEST(RmmCsv, RefusesLogsWithoutAllocationsAndOtherHeaders) {
  const auto empty = read_rows("");
  ASSERT_FALSE(empty);
  EXPECT_EQ(empty.error().reason, "has no allocations");
  const auto other = read_trace_from("Thread,Time,Pointer\n", "f");
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().text(), "f:1: the first line is not Thread,Time,Action,Pointer,Size,Stream");
}

TEST(RmmCsv, TruncationAtEveryByteDoesNoHarm) {
  const std::string whole =
      kColumns + "11,12:00:00.000001,allocate,0x7f0000000000,1024,0x0\n1,0,free,0x7f0000000000,1,0\n";
  for (std::size_t length = 0; length < whole.size(); ++length) {
    const auto trace = read_trace_from(std::string_view(whole).substr(0, length), "f");
    if (trace) {
      EXPECT_EQ(validate(trace->devices[0]), std::nullopt);
    }
  }
}

RC_GTEST_PROP(RmmCsvProperty, AllocsAndFreesSurviveWritingAndReading, (const std::vector<std::uint32_t>& numbers)) {
  Trace trace;
  trace.devices.push_back(trace_of_numbers(numbers));
  RC_PRE(trace.devices[0].block_count > 0);
  const auto bytes = encode_trace(trace, TraceFormat::rmm_csv, "f");
  RC_ASSERT(bytes.ok());
  const auto again = read_trace_from(*bytes, "f");
  RC_ASSERT(again.ok());
  const auto was = allocs_and_frees(trace.devices[0]), is = allocs_and_frees(again->devices[0]);
  RC_ASSERT(was.size() == is.size());
  for (std::size_t i = 0; i < was.size(); ++i) {  // streams are numbered anew, by their first use
    RC_ASSERT(was[i].op == is[i].op && was[i].id == is[i].id && was[i].bytes == is[i].bytes);
    RC_ASSERT(trace.devices[0].streams[was[i].stream] == again->devices[0].streams[is[i].stream]);
  }
}

RC_GTEST_PROP(RmmCsvProperty, LiveBlocksNeverShareBytes, (const std::vector<std::uint32_t>& numbers)) {
  const DeviceTrace trace = trace_of_numbers(numbers);
  const std::string csv = write_rmm_csv(trace);
  std::map<std::uint64_t, std::uint64_t> live;
  std::size_t at = csv.find('\n') + 1;
  while (at < csv.size()) {
    unsigned long long pointer = 0, bytes = 0;
    char action[16] = {};
    RC_ASSERT(std::sscanf(csv.c_str() + at, "1,%*[^,],%15[^,],0x%llx,%llu", action, &pointer, &bytes) == 3);
    if (action[0] == 'f') {
      RC_ASSERT(live.erase(pointer) == 1u);
    } else {
      const auto next = live.lower_bound(pointer);
      // RC_ASSERT looks at both sides of an ||, so the questions are asked before it.
      const bool ends_before = next == live.end() || pointer + bytes <= next->first;
      const bool begins_after = next == live.begin() || std::prev(next)->first + std::prev(next)->second <= pointer;
      RC_ASSERT(ends_before);
      RC_ASSERT(begins_after);
      live.emplace(pointer, bytes);
    }
    at = csv.find('\n', at) + 1;
  }
}

}  // namespace
}  // namespace gmlake::replay
