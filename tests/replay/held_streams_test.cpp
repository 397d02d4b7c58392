// Streams that fall behind: uses complete in order, where the trace says so, with what was enqueued behind each.
#include "replay/held_streams.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "gmlake/bytes.hpp"
#include "replay/trace_builder.hpp"

namespace gmlake::replay {
namespace {

using namespace gmlake::literals;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr driver::Stream kStream{0, 99};

class HeldStreamsTest : public testing::Test {
 protected:
  driver::Event event_now() {
    const driver::Event event = simulator_.event_create(0);
    EXPECT_TRUE(simulator_.event_record(event, kStream).ok());
    return event;
  }
  bool passed(driver::Event event) { return *simulator_.event_query(event); }
  bool use(std::uint32_t id, driver::Address address = 512) { return *held_.use(1, kStream, id, address, 512); }

  driver::StreamSimulator simulator_;
  std::vector<std::uint32_t> done_;
  HeldStreams held_{&simulator_, 2, [this](std::uint32_t id) { done_.push_back(id); }};
};

TEST_F(HeldStreamsTest, CompleteTheOldestUsesWithTheEventsBehindThem) {
  EXPECT_TRUE(use(10));
  const driver::Event first = event_now();
  EXPECT_TRUE(use(11));
  const driver::Event second = event_now();
  const driver::Event third = event_now();
  EXPECT_TRUE(use(12));
  held_.advance(1, 1);
  EXPECT_THAT(done_, ElementsAre(10));
  EXPECT_TRUE(passed(first));
  EXPECT_FALSE(passed(second));
  held_.advance(1, 1);
  EXPECT_THAT(done_, ElementsAre(10, 11));
  EXPECT_TRUE(passed(second));
  EXPECT_TRUE(passed(third));
}

TEST_F(HeldStreamsTest, KeepUpWithTheHostWhileNothingIsInUse) {
  EXPECT_TRUE(passed(event_now()));
  use(1);
  const driver::Event during = event_now();
  EXPECT_FALSE(passed(during));
  held_.advance(1, 1);
  EXPECT_TRUE(passed(during));
  EXPECT_TRUE(passed(event_now()));
  use(2);
  EXPECT_FALSE(passed(event_now()));
  held_.finish();
  EXPECT_THAT(done_, ElementsAre(1, 2));
}

TEST_F(HeldStreamsTest, TellOfUsesThatTheAllocatorWaitedFor) {
  use(1);
  const driver::Event first = event_now();
  use(2);
  EXPECT_TRUE(simulator_.event_synchronize(first).ok());
  EXPECT_THAT(done_, ElementsAre(1));
  held_.advance(1, 1);  // that one: the second goes on
  EXPECT_THAT(done_, ElementsAre(1));
  held_.advance(1, 1);
  EXPECT_THAT(done_, ElementsAre(1, 2));
}

TEST_F(HeldStreamsTest, CountTheUsesOfRefusedBlocks) {
  EXPECT_TRUE(use(1));
  EXPECT_FALSE(use(2, 0));
  EXPECT_TRUE(use(3));
  held_.advance(1, 2);
  EXPECT_THAT(done_, ElementsAre(1));
  held_.advance(1, 1);
  EXPECT_THAT(done_, ElementsAre(1, 3));
}

TEST_F(HeldStreamsTest, RefuseToUnmapWhatIsInUse) {
  use(1, 4_MiB);
  EXPECT_FALSE(simulator_.check_unmap(4_MiB, 2_MiB).ok());
  EXPECT_TRUE(simulator_.check_unmap(8_MiB, 2_MiB).ok());
  held_.advance(1, 1);
  EXPECT_TRUE(simulator_.check_unmap(4_MiB, 2_MiB).ok());
}

TEST(HeldStreamsOfARealDevice, AreNotHeld) {
  std::vector<std::uint32_t> done;
  HeldStreams held(nullptr, 2, [&](std::uint32_t id) { done.push_back(id); });
  EXPECT_FALSE(*held.use(1, kStream, 0, 512, 512));
  held.advance(1, 1);
  EXPECT_THAT(done, IsEmpty());
}

TEST(HeldStreamsOfATrace, KeepMemoryUntilTheAdvance) {
  TraceBuilder late;
  const auto held = late.add_held_stream();
  const auto block = late.alloc(20_MiB);
  late.use(block, held);
  late.free(block);
  TraceBuilder early = late;
  late.alloc(20_MiB);
  late.advance(held, 1);
  early.advance(held, 1);
  early.alloc(20_MiB);
  for (const char* name : {"torch-native", "torch-expandable", "direct"}) {
    EXPECT_EQ(ModelRig(name).replay(late.trace()).peak_reserved_bytes, 40_MiB) << name;
    EXPECT_EQ(ModelRig(name).replay(early.trace()).peak_reserved_bytes, 20_MiB) << name;
  }
}

}  // namespace
}  // namespace gmlake::replay
