// Snapshots as Python writes them: every protocol gives the same trace, and no damage to a file does harm.
#include "replay/snapshot_reader.hpp"

#include <gtest/gtest.h>

#include "replay/files.hpp"
#include "replay/read_trace.hpp"

namespace gmlake::replay {
namespace {

using namespace std::string_literals;

// What data/make_fixtures.py describes.
DeviceTrace expected_trace() {
  DeviceTrace trace;
  trace.device = 1;
  trace.streams = {0, 0x55d0c0ffee00, ~std::uint64_t{0}};
  trace.held_streams = {false, false, true};
  trace.block_count = 6;
  trace.events = {
      {Op::alloc, 0, 0, 0, 700},  // live before: freed by the first event
      {Op::alloc, 0, 1, 1, 300},  // live before: its free was requested earlier still
      {Op::alloc, 0, 0, 2, 44},   // live before and after
      {Op::free, 0, 0, 0, 0},          {Op::free, 0, 1, 1, 0},          {Op::alloc, 0, 0, 3, 1000},
      {Op::alloc, 0, 1, 4, 2000},      {Op::record_stream, 0, 2, 3, 0},  // its free waits for another stream
      {Op::free, 0, 0, 3, 0},          {Op::alloc, 0, 0, 5, 5},         {Op::advance, 0, 2, 0, 1},
      {Op::record_stream, 0, 2, 5, 0},  // its free never completes
      {Op::free, 0, 0, 5, 0},
  };
  const std::uint64_t base = std::uint64_t{0x7f} << 40;
  trace.recorded_segments = {{0, 0, base, 2 << 20}, {5, 0, base + 0x200000, 2 << 20}};
  trace.recorded_peak_reserved_bytes = 8 << 20;  // 4 MiB at the end, 4 MiB given back
  return trace;
}

TEST(SnapshotReader, ReadsEveryProtocolToTheSameTrace) {
  for (const char* name : {"snapshot_protocol_0.pickle", "snapshot_protocol_1.pickle", "snapshot_protocol_2.pickle",
                           "snapshot_protocol_3.pickle", "snapshot_protocol_4.pickle", "snapshot_protocol_5.pickle",
                           "snapshot_protocol_4.pickle.gz"}) {
    const auto trace = read_trace(fixture(name));
    ASSERT_TRUE(trace) << trace.error().text();
    ASSERT_EQ(trace->devices.size(), 1u);
    EXPECT_EQ(trace->devices[0], expected_trace()) << name;
  }
}

TEST(SnapshotReader, ReadsEventsThatAreOneObjectManyTimesOver) {
  const auto trace = read_trace(fixture("shared_events.pickle"));
  ASSERT_TRUE(trace) << trace.error().text();
  EXPECT_EQ(trace->devices[0].block_count, 700u);
  EXPECT_EQ(trace->devices[0].events.size(), 1400u);
}

TEST(SnapshotReader, DoesNotExpandListsThatDoubleByReference) {
  const auto trace = read_trace(fixture("doubling.pickle"));
  ASSERT_TRUE(trace) << trace.error().text();
  EXPECT_EQ(trace->devices[0].block_count, 1u);
}

TEST(SnapshotReader, RefusesCodeByItsOpcode) {
  for (const auto& [name, opcode] :
       std::vector<std::pair<std::string, std::string>>{{"calls_code_0.pickle", "GLOBAL"},
                                                        {"calls_code_2.pickle", "GLOBAL"},
                                                        {"calls_code_4.pickle", "STACK_GLOBAL"}}) {
    const auto trace = read_trace(fixture(name));
    ASSERT_FALSE(trace);
    EXPECT_NE(trace.error().text().find("opcode " + opcode + " would run code: refused"), std::string::npos);
  }
}

TEST(SnapshotReader, SaysHowToRecordWhereNoEventsAre) {
  const auto trace = read_trace(fixture("no_events.pickle"));
  ASSERT_FALSE(trace);
  EXPECT_NE(trace.error().text().find("_record_memory_history"), std::string::npos);
}

TEST(SnapshotReader, SaysWhatAPickleIsThatIsNoSnapshot) {
  const auto trace = read_trace(fixture("list_of_segments.pickle"));
  ASSERT_FALSE(trace);
  EXPECT_EQ(trace.error().reason, "is a pickle of a list, not a memory snapshot");
}

std::string text_of(std::string_view text) { return "\x8c"s + static_cast<char>(text.size()) + std::string(text); }

TEST(SnapshotReader, RefusesEventsThatLackWhatTheyNeedWithTheirIndex) {
  const auto reason = [](const std::string& event) {
    const auto trace = read_trace_from("\x80\x04}" + text_of("device_traces") + "](](}" + event + "eesu."s, "f");
    return trace ? "read"s : trace.error().reason;
  };
  EXPECT_NE(reason(text_of("addr") + "K\x01s").find("no"), std::string::npos);
  const auto one = [](const std::string& pairs) {
    const auto trace = read_trace_from("\x80\x04}" + text_of("device_traces") + "](](}(" + pairs + "uees.", "f");
    return trace ? "read"s : trace.error().reason;
  };
  EXPECT_EQ(one(text_of("addr") + "K\x01"), "event 0 of device 0 has no action");
  EXPECT_EQ(one(text_of("action") + "K\x01"),
            "has no recorded events: call torch.cuda.memory._record_memory_history() "
            "before the part of the run to be traced, and _dump_snapshot() after it");
  EXPECT_EQ(one(text_of("action") + text_of("alloc")), "event 0 of device 0 lacks addr, size or stream");
  const std::string rest = text_of("addr") + "K\x01" + text_of("stream") + "K\x00"s;
  EXPECT_EQ(one(text_of("action") + text_of("alloc") + rest + text_of("size") + "J\xff\xff\xff\xff"),
            "event 0 of device 0 has an addr, size or stream that is no such number");
  EXPECT_EQ(one(text_of("action") + text_of("alloc") + rest + text_of("size") + "K\x07"), "read");
}

TEST(SnapshotReader, BoundsListsThatAreNamedAgainAndAgain) {
  // A list of 1,000 events that is the trace of 1,000 devices would be a million events in a few kilobytes.
  std::string pickle = "\x80\x04}" + text_of("device_traces") + "](](";
  pickle += "}(" + text_of("action") + text_of("alloc") + "u\x94";
  for (int i = 0; i < 1000; ++i) pickle += "h\0"s;
  pickle += "e\x94";
  for (int i = 0; i < 1000; ++i) pickle += "h\1";
  pickle += "es.";
  const auto trace = read_trace_from(pickle, "f");
  ASSERT_FALSE(trace);  // already the first event lacks its fields; with unknown actions all are walked:
  const std::size_t alloc = pickle.find("alloc");
  pickle.replace(alloc, 5, "other");
  const auto walked = read_trace_from(pickle, "f");
  ASSERT_FALSE(walked);
  EXPECT_EQ(walked.error().reason, "names the same lists again and again");
}

TEST(SnapshotReader, TruncationAtEveryByteIsAnError) {
  for (const char* name :
       {"snapshot_protocol_0.pickle", "snapshot_protocol_4.pickle", "snapshot_protocol_4.pickle.gz"}) {
    const std::string whole = bytes_of(fixture(name));
    for (std::size_t length = 0; length < whole.size(); ++length) {
      const auto trace = read_trace_from(std::string_view(whole).substr(0, length), "f");
      EXPECT_FALSE(trace) << name << " cut to " << length;
    }
  }
}

TEST(SnapshotReader, BitFlipsAtEveryByteDoNoHarm) {
  for (const char* name :
       {"snapshot_protocol_0.pickle", "snapshot_protocol_4.pickle", "snapshot_protocol_4.pickle.gz"}) {
    const std::string whole = bytes_of(fixture(name));
    for (std::size_t at = 0; at < whole.size(); ++at) {
      for (int bit = 0; bit < 8; ++bit) {
        std::string damaged = whole;
        damaged[at] = static_cast<char>(damaged[at] ^ 1 << bit);
        const auto trace = read_trace_from(damaged, "f");
        if (!trace) {
          EXPECT_EQ(trace.error().text().find('\n'), std::string::npos);
        } else {
          for (const DeviceTrace& device : trace->devices) EXPECT_EQ(validate(device), std::nullopt);
        }
      }
    }
  }
}

}  // namespace
}  // namespace gmlake::replay
