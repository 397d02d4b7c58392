// How recorded events become a trace: blocks from before, frees that wait, and recordings that contradict themselves.
#include "replay/recording.hpp"

#include <gtest/gtest.h>

namespace gmlake::replay {
namespace {

using A = RecordedAction;

// Events as {action, address, bytes}; an index of each is its place.
struct Step {
  A action;
  std::uint64_t address;
  std::uint64_t bytes = 512;
};

DeviceRecording recording_of(const std::vector<Step>& steps) {
  DeviceRecording recording;
  for (const Step& step : steps) {
    const auto index = static_cast<std::uint32_t>(recording.events.size());
    recording.events.push_back({step.address, step.bytes, index, 0, step.action});
  }
  return recording;
}

DeviceTrace translated(const DeviceRecording& recording) {
  DeviceTrace trace;
  const auto reason = translate(recording, trace);
  EXPECT_EQ(reason, std::nullopt);
  EXPECT_EQ(validate(trace), std::nullopt);
  return trace;
}

std::string refusal(const std::vector<Step>& steps) {
  DeviceTrace trace;
  return translate(recording_of(steps), trace).value_or("translated");
}

// "a0 f0" for alloc 0, free 0; "r0@1" for a use on stream 1; "v1" for its advance.
std::string shape(const DeviceTrace& trace) {
  std::string out;
  for (const Event& event : trace.events) {
    if (!out.empty()) out += ' ';
    const std::string id = std::to_string(event.id), stream = std::to_string(event.stream);
    switch (event.op) {
      case Op::alloc:
        out += "a" + id;
        break;
      case Op::free:
        out += "f" + id;
        break;
      case Op::record_stream:
        out += "r" + id + "@" + stream;
        break;
      case Op::advance:
        out += "v" + stream;
        break;
      case Op::trim:
        out += "t";
        break;
    }
  }
  return out;
}

TEST(Recording, AFreeThatCompletesAtOnceIsPlain) {
  EXPECT_EQ(shape(translated(recording_of(
                {{A::alloc, 1}, {A::free_requested, 1}, {A::segment_free, 9}, {A::free_completed, 1}, {A::alloc, 1}}))),
            "a0 f0 a1");
}

TEST(Recording, AFreeThatWaitsIsAUseOfAHeldStream) {
  EXPECT_EQ(shape(translated(recording_of(
                {{A::alloc, 1}, {A::free_requested, 1}, {A::alloc, 2}, {A::free_completed, 1}, {A::alloc, 1}}))),
            "a0 r0@1 f0 a1 v1 a2");
}

TEST(Recording, FreesThatCompleteInOrderShareALane) {
  EXPECT_EQ(shape(translated(recording_of({{A::alloc, 1},
                                           {A::alloc, 2},
                                           {A::free_requested, 1},
                                           {A::free_requested, 2},
                                           {A::free_completed, 1},
                                           {A::free_completed, 2}}))),
            "a0 a1 r0@1 f0 r1@1 f1 v1 v1");
}

TEST(Recording, FreesThatCompleteOutOfOrderNeedTwoLanes) {
  const DeviceTrace trace = translated(recording_of({{A::alloc, 1},
                                                     {A::alloc, 2},
                                                     {A::free_requested, 1},
                                                     {A::free_requested, 2},
                                                     {A::alloc, 3},
                                                     {A::free_completed, 2},
                                                     {A::free_completed, 1}}));
  EXPECT_EQ(shape(trace), "a0 a1 r0@1 f0 r1@2 f1 a2 v2 v1");
  EXPECT_EQ(trace.held_streams, (std::vector<bool>{false, true, true}));
  EXPECT_NE(trace.streams[1], trace.streams[2]);
}

TEST(Recording, UsesThatNeverCompleteShareALaneAtItsEnd) {
  const DeviceTrace trace = translated(recording_of({{A::alloc, 1},
                                                     {A::alloc, 2},
                                                     {A::alloc, 3},
                                                     {A::free_requested, 1},
                                                     {A::free_requested, 2},
                                                     {A::alloc, 4},
                                                     {A::free_completed, 1},
                                                     {A::free_requested, 3},
                                                     {A::alloc, 5}}));
  EXPECT_EQ(shape(trace), "a0 a1 a2 r0@1 f0 r1@1 f1 a3 v1 r2@1 f2 a4");
}

TEST(Recording, FreesOfUnknownAddressesWereLiveBefore) {
  EXPECT_EQ(shape(translated(recording_of({{A::alloc, 5},
                                           {A::free_requested, 7, 70},
                                           {A::free_completed, 7, 70},
                                           {A::free_requested, 6, 60},
                                           {A::free_completed, 6, 60}}))),
            "a0 a1 a2 f1 f0");  // by address, before the first event
}

TEST(Recording, ACompletionWithoutItsRequestHoldsTheBlockUntilThen) {
  EXPECT_EQ(shape(translated(recording_of({{A::alloc, 5}, {A::free_completed, 7}, {A::alloc, 7}}))), "a0 a1 f0 a2");
}

TEST(Recording, BlocksInUseAtTheEndWithNoEventWereLiveThroughout) {
  DeviceRecording recording = recording_of({{A::alloc, 1}});
  recording.blocks = {{1, 512, 0}, {2, 100, 0}, {2, 100, 0}};
  const DeviceTrace trace = translated(recording);
  EXPECT_EQ(shape(trace), "a0 a1");
  EXPECT_EQ(trace.events[0].bytes, 100u);
}

TEST(Recording, BlocksInUseAtTheEndThatWereFreedCameAfterTheLastEvent) {
  DeviceRecording recording = recording_of({{A::alloc, 1}, {A::free_requested, 1}, {A::free_completed, 1}});
  recording.blocks = {{1, 100, 0}};
  EXPECT_EQ(shape(translated(recording)), "a0 f0 a1");
}

TEST(Recording, RefusesWhatContradictsItselfWithTheEvent) {
  EXPECT_EQ(refusal({{A::alloc, 0x10}, {A::alloc, 0x10}}),
            "event 1 of device 0 (alloc): address 0x10 is still live, since event 0");
  EXPECT_EQ(refusal({{A::alloc, 1}, {A::free_requested, 1}, {A::alloc, 1}}),
            "event 2 of device 0 (alloc): address 0x1 still waits for its free of event 1");
  EXPECT_EQ(refusal({{A::alloc, 1}, {A::free_completed, 1}}),
            "event 1 of device 0 (free_completed): address 0x1 was never requested to be freed");
  EXPECT_EQ(refusal({{A::alloc, 1}, {A::free_requested, 1}, {A::free_requested, 1}}),
            "event 2 of device 0 (free_requested): address 0x1 was freed before, by event 1");
  EXPECT_EQ(refusal({{A::alloc, 1}, {A::free_requested, 1}, {A::free_completed, 1}, {A::free_requested, 1}}),
            "event 3 of device 0 (free_requested): address 0x1 is not live");
  EXPECT_EQ(refusal({{A::alloc, 1}, {A::free_requested, 1}, {A::free_completed, 1}, {A::free_completed, 1}}),
            "event 3 of device 0 (free_completed): address 0x1 is not live");
}

TEST(Recording, PeakReservedCountsSegmentsPagesAndWhatWasThereBefore) {
  EXPECT_EQ(translated(recording_of({{A::segment_alloc, 1, 10},
                                     {A::alloc, 1},
                                     {A::segment_free, 1, 10},
                                     {A::segment_map, 2, 7},
                                     {A::segment_unmap, 2, 7}}))
                .recorded_peak_reserved_bytes,
            10u);
  DeviceRecording recording = recording_of({{A::alloc, 1}, {A::segment_alloc, 1, 10}, {A::segment_free, 9, 4}});
  recording.segments = {{1, 10, 0, false}, {100, 90, 0, true}};
  EXPECT_EQ(translated(recording).recorded_peak_reserved_bytes, 104u);  // 94 before, 10 more, then 4 less
  EXPECT_EQ(translated(recording_of({{A::alloc, 1}, {A::segment_free, 9, 4}})).recorded_peak_reserved_bytes, 4u);
}

TEST(Recording, HostileSizesDoNotOverflowThePeak) {
  const std::uint64_t huge = ~std::uint64_t{0};
  EXPECT_GT(
      translated(
          recording_of(
              {{A::alloc, 1}, {A::segment_alloc, 1, huge}, {A::segment_alloc, 2, huge}, {A::segment_free, 3, huge}}))
          .recorded_peak_reserved_bytes,
      0u);
}

TEST(Recording, SegmentsAreNamedWithTheEventTheyWereMadeFor) {
  DeviceRecording recording =
      recording_of({{A::alloc, 1}, {A::segment_alloc, 0x20, 8}, {A::alloc, 0x20}, {A::segment_alloc, 0x40, 9}});
  recording.segments = {{0x20, 8, 0, false}, {0x8, 5, 0, false}};
  const DeviceTrace trace = translated(recording);
  // The one that no event made was there before; the one that no event used is left out.
  EXPECT_EQ(trace.recorded_segments, (std::vector<RecordedSegment>{{0, 0, 0x8, 5}, {1, 0, 0x20, 8}}));
}

}  // namespace
}  // namespace gmlake::replay
