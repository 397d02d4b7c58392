// validate() finds each way in which a trace can be wrong.
#include "replay/trace.hpp"

#include <gtest/gtest.h>

#include "replay/random_trace.hpp"

namespace gmlake::replay {
namespace {

DeviceTrace good() {
  DeviceTrace trace;
  trace.streams = {0, 5, ~std::uint64_t{0}};
  trace.held_streams = {false, false, true};
  trace.block_count = 2;
  trace.events = {{Op::alloc, 0, 0, 0, 10}, {Op::alloc, 0, 1, 1, 0},   {Op::record_stream, 0, 2, 0, 0},
                  {Op::free, 0, 0, 0, 0},   {Op::advance, 0, 2, 0, 1}, {Op::trim, 0, 0, 0, 0}};
  trace.recorded_segments = {{0, 0, 7, 8}, {3, 1, 6, 8}};
  return trace;
}

TEST(Validate, PassesGoodTraces) {
  EXPECT_EQ(validate(good()), std::nullopt);
  EXPECT_EQ(validate(DeviceTrace()), std::nullopt);
}

TEST(Validate, NamesEachFault) {
  const auto reason = [](auto change) {
    DeviceTrace trace = good();
    change(trace);
    return validate(trace).value_or("valid");
  };
  EXPECT_EQ(reason([](auto& t) { t.streams.clear(); }), "has 0 streams, not 1 to 1024");
  EXPECT_EQ(reason([](auto& t) { t.streams.resize(kMaxStreams + 1); }), "has 1025 streams, not 1 to 1024");
  EXPECT_EQ(reason([](auto& t) { t.held_streams.pop_back(); }), "says of 2 streams whether they are held, but has 3");
  EXPECT_EQ(reason([](auto& t) { t.device = -1; }), "has device number -1");
  EXPECT_EQ(reason([](auto& t) { t.block_count = 7; }), "claims more blocks than it has events");
  EXPECT_EQ(reason([](auto& t) { t.block_count = 3; }), "claims 3 blocks, but allocates 2");
  EXPECT_EQ(reason([](auto& t) { t.block_count = 1; }), "event 1 allocates a block out of order");
  EXPECT_EQ(reason([](auto& t) { t.events[1].id = 0; }), "event 1 allocates a block out of order");
  EXPECT_EQ(reason([](auto& t) { t.events[0].stream = 3; }), "event 0 is on a stream that the trace does not have");
  EXPECT_EQ(reason([](auto& t) { t.events[0].reserved = 1; }), "event 0 has a reserved byte that is not 0");
  EXPECT_EQ(reason([](auto& t) { t.events[0].bytes = kMaxBlockBytes + 1; }), "event 0 allocates more than 2^48 bytes");
  EXPECT_EQ(reason([](auto& t) { t.events[3].bytes = 1; }), "event 3 is a free with a size");
  EXPECT_EQ(reason([](auto& t) { t.events[3].id = 2; }), "event 3 frees a block that is not live");
  EXPECT_EQ(reason([](auto& t) { t.events[3].id = 1; }),
            "event 3 frees a block on another stream than it was allocated on");
  EXPECT_EQ(reason([](auto& t) { t.events[4] = t.events[3]; }), "event 4 frees a block that is not live");
  EXPECT_EQ(reason([](auto& t) { t.events[2].bytes = 1; }), "event 2 is a record_stream with a size");
  EXPECT_EQ(reason([](auto& t) { t.events[2].id = 9; }), "event 2 uses a block that is not live");
  EXPECT_EQ(reason([](auto& t) { std::swap(t.events[2], t.events[3]); }), "event 3 uses a block that is not live");
  EXPECT_EQ(reason([](auto& t) { t.events[4].id = 1; }), "event 4 is an advance with a block");
  EXPECT_EQ(reason([](auto& t) { t.events[4].stream = 1; }), "event 4 advances a stream that is not held");
  EXPECT_EQ(reason([](auto& t) { t.events[4].bytes = 2; }), "event 4 completes uses that were never recorded");
  EXPECT_EQ(reason([](auto& t) { t.events[4].bytes = 0; }), "event 4 completes uses that were never recorded");
  EXPECT_EQ(reason([](auto& t) { t.events[5].bytes = 1; }), "event 5 is a trim with arguments");
  EXPECT_EQ(reason([](auto& t) { t.events[5].op = static_cast<Op>(5); }), "event 5 has an unknown op");
  EXPECT_EQ(reason([](auto& t) { t.recorded_segments[1].event = 6; }), "has a recorded segment out of order");
  EXPECT_EQ(reason([](auto& t) { t.recorded_segments[0].event = 4; }), "has a recorded segment out of order");
  EXPECT_EQ(reason([](auto& t) { t.recorded_segments[0].stream = 3; }),
            "has a recorded segment on a stream that it does not have");
}

TEST(Validate, BoundsTheSumOfLiveBytes) {
  DeviceTrace trace;
  for (std::uint32_t i = 0; i <= 4096; ++i) trace.events.push_back({Op::alloc, 0, 0, i, kMaxBlockBytes});
  trace.block_count = 4097;
  EXPECT_EQ(validate(trace), "event 4096 makes more than 2^60 bytes live");
}

RC_GTEST_PROP(Validate, PassesEveryTraceMadeOfNumbers, (const std::vector<std::uint32_t>& numbers)) {
  RC_ASSERT(validate(trace_of_numbers(numbers)) == std::nullopt);
}

}  // namespace
}  // namespace gmlake::replay
