// Streams: memory goes back to its own stream at once, and to any other only behind a fence. Whatever happens, nothing
// waits for the device while there is memory.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <vector>

#include "support/machine.hpp"

namespace gmlake::test {
namespace {

// Streams 1 to 9 are on hold: they complete work when the test says so.
class Streams : public testing::Test {
 protected:
  explicit Streams(std::uint64_t granules = 512) : machine_(small_model(granules)) {
    for (std::uint64_t stream = 1; stream < 10; ++stream) machine_.streams().hold({0, stream});
  }
  void TearDown() override {
    machine_.streams().advance_all();
    EXPECT_EQ(machine_.streams().synchronizations(), 0u);
  }

  void record(void* pointer, std::uint64_t stream) {
    EXPECT_TRUE(machine_.allocator().try_record_stream(pointer, stream_handle(stream)).ok());
  }
  void use(void* pointer, std::uint64_t bytes, std::uint64_t stream) {
    EXPECT_TRUE(machine_.device().launch({0, stream}, {{address_of(pointer), bytes, true}}).ok());
  }
  std::uint64_t pending_bytes() const {
    const DeviceStats stats = machine_.stats();
    return stats.all.active_bytes.current - stats.all.allocated_bytes.current;
  }

  Machine machine_;
};

class ScarceStreams : public Streams {
 protected:
  ScarceStreams() : Streams(40) {}
};

TEST_F(Streams, ReuseTheirOwnMemoryAtOnceWithNoDriverCall) {
  void* pointer = machine_.allocate(10 * kGranule, 1);
  use(pointer, 10 * kGranule, 1);
  machine_.deallocate(pointer, 1);
  const std::uint64_t calls = machine_.calls().total();
  EXPECT_EQ(machine_.allocate(10 * kGranule, 1), pointer);
  machine_.deallocate(pointer, 1);
  EXPECT_EQ(machine_.calls().total(), calls);
}

TEST_F(Streams, DoNotGetEachOthersMemoryBeforeItsFence) {
  void* pointer = machine_.allocate(10 * kGranule, 1);
  use(pointer, 10 * kGranule, 1);
  machine_.deallocate(pointer, 1);
  void* other = machine_.allocate(10 * kGranule, 2);
  EXPECT_EQ(machine_.stats().all.reserved_bytes.current, 20 * kGranule);
  EXPECT_EQ(machine_.calls().stream_wait, 0u);
  machine_.deallocate(other, 2);
}

TEST_F(ScarceStreams, GetEachOthersMemoryOnceItsFenceHasPassed) {
  void* pointer = machine_.allocate(30 * kGranule, 1);
  use(pointer, 30 * kGranule, 1);
  machine_.deallocate(pointer, 1);
  machine_.streams().advance_all({0, 1});
  machine_.streams().resume({0, 1});  // it keeps up from now on: the mark that the request makes passes too
  void* other = machine_.allocate(30 * kGranule, 2);
  EXPECT_EQ(machine_.stats().rung_passed_streams, 1u);
  EXPECT_EQ(machine_.calls().stream_wait, 0u);
  machine_.deallocate(other, 2);
}

TEST_F(ScarceStreams, GetEachOthersMemoryBehindAWaitThatIsPlacedFirst) {
  void* pointer = machine_.allocate(30 * kGranule, 1);
  use(pointer, 30 * kGranule, 1);
  machine_.deallocate(pointer, 1);
  void* other = machine_.allocate(30 * kGranule, 2);
  EXPECT_EQ(machine_.stats().rung_stream_wait, 1u);
  EXPECT_GE(machine_.calls().stream_wait, 1u);
  use(other, 30 * kGranule, 2);
  machine_.streams().advance_all({0, 2});
  EXPECT_GT(machine_.streams().pending({0, 2}), 0u);  // it waits, on the device
  machine_.streams().advance_all({0, 1});
  machine_.streams().advance_all({0, 2});
  EXPECT_EQ(machine_.streams().pending({0, 2}), 0u);
  machine_.deallocate(other, 2);
}

// The stream that first had the memory gets it back behind the stream that has it now.
TEST_F(ScarceStreams, PassMemoryOnAndBack) {
  void* pointer = machine_.allocate(30 * kGranule, 1);
  for (std::uint64_t stream = 1; stream < 8; ++stream) {
    use(pointer, 30 * kGranule, stream);
    machine_.deallocate(pointer, stream);
    pointer = machine_.allocate(30 * kGranule, stream % 2 + 1 == stream ? stream + 1 : stream + 1);
  }
  use(pointer, 30 * kGranule, 8);
  machine_.deallocate(pointer, 8);
  machine_.streams().advance_all({0, 8});
  EXPECT_GT(machine_.streams().pending({0, 8}), 0u);  // behind seven others
  for (std::uint64_t stream = 1; stream < 9; ++stream) machine_.streams().advance_all({0, stream});
  EXPECT_EQ(machine_.streams().pending({0, 8}), 0u);
  EXPECT_LE(machine_.stats().all.reserved_bytes.current, 40 * kGranule);
}

TEST_F(Streams, KeepABlockUntilEveryRecordedStreamIsDone) {
  for (std::uint64_t count = 1; count < 10; ++count) {
    void* pointer = machine_.allocate(10 * kGranule);
    for (std::uint64_t stream = 1; stream <= count; ++stream) {
      use(pointer, 10 * kGranule, stream);
      record(pointer, stream);
      record(pointer, stream);  // once is enough, twice does no harm
    }
    record(pointer, 0);  // its own
    machine_.deallocate(pointer);
    for (std::uint64_t stream = 1; stream <= count; ++stream) {
      EXPECT_EQ(pending_bytes(), 10 * kGranule);
      void* elsewhere = machine_.allocate(10 * kGranule);
      EXPECT_NE(elsewhere, pointer);
      machine_.deallocate(elsewhere);
      machine_.streams().advance_all({0, stream});
    }
    // The next request that no cached run fits finds it.
    void* twice = machine_.allocate(20 * kGranule);
    EXPECT_EQ(pending_bytes(), 0u);
    machine_.deallocate(twice);
    ASSERT_TRUE(machine_.allocator().trim().ok());
  }
}

TEST_F(Streams, ComeBackOneByOneAsTheirFencesPass) {
  std::vector<void*> pointers;
  for (std::uint64_t stream = 1; stream < 5; ++stream) {
    pointers.push_back(machine_.allocate(10 * kGranule));
    use(pointers.back(), 10 * kGranule, stream);
    record(pointers.back(), stream);
  }
  for (void* pointer : pointers) machine_.deallocate(pointer);
  std::uint64_t pending = 40 * kGranule;
  EXPECT_EQ(pending_bytes(), pending);
  for (std::uint64_t stream = 4; stream > 0; --stream) {
    machine_.streams().advance_all({0, stream});
    (void)machine_.allocate(50 * kGranule);  // no run fits: it looks
    pending -= 10 * kGranule;
    EXPECT_EQ(pending_bytes(), pending);
  }
}

TEST_F(Streams, OfAFreeCountAsUses) {
  void* pointer = machine_.allocate(10 * kGranule, 1);
  use(pointer, 10 * kGranule, 1);
  use(pointer, 10 * kGranule, 2);  // ordered by the caller
  machine_.deallocate(pointer, 2);
  EXPECT_EQ(pending_bytes(), 10 * kGranule);
  machine_.streams().advance_all({0, 2});
  void* again = machine_.allocate(10 * kGranule, 1);
  EXPECT_EQ(again, pointer);  // the memory is its first stream's
  EXPECT_EQ(machine_.stats().all.reserved_bytes.current, 10 * kGranule);
  machine_.deallocate(again, 1);
}

TEST_F(Streams, OfAFreeCountAsUsesBesideTheRecordedOnes) {
  void* pointer = machine_.allocate(10 * kGranule);
  for (std::uint64_t stream = 1; stream < 4; ++stream) use(pointer, 10 * kGranule, stream);
  record(pointer, 1);
  record(pointer, 2);
  machine_.deallocate(pointer, 3);
  for (const std::uint64_t stream : {2, 3, 1}) {
    EXPECT_NE(machine_.allocate(kGranule + stream * kGranule), pointer);
    EXPECT_EQ(pending_bytes(), 10 * kGranule);
    machine_.streams().advance_all({0, stream});
  }
  EXPECT_EQ(machine_.allocate(10 * kGranule), pointer);
}

TEST_F(Streams, LeaveNothingBehindWhereASmallRunIsSharedByManyBlocks) {
  std::vector<void*> pointers;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    pointers.push_back(machine_.allocate(512 + i));
    if (i % 3 != 0) {
      use(pointers.back(), 512 + i, 1 + i % 3);
      record(pointers.back(), 1 + i % 3);
    }
  }
  for (void* pointer : pointers) machine_.deallocate(pointer);
  machine_.streams().advance_all();
  machine_.deallocate(machine_.allocate(1 << 20));
  EXPECT_EQ(pending_bytes(), 0u);
  ASSERT_TRUE(machine_.allocator().trim().ok());
  EXPECT_EQ(machine_.stats().all.reserved_bytes.current, 0u);
}

TEST_F(Streams, OneThousandOfThemShareOneDevice) {
  driver::ModelOptions options = small_model(4096);
  Machine machine(options);
  std::vector<void*> pointers;
  for (std::uint64_t stream = 1; stream <= 1000; ++stream) {
    if (stream % 2 == 0) machine.streams().hold({0, stream});
    const Result<void*> pointer = machine.allocator().try_allocate(2 * kGranule, 0, stream_handle(stream));
    ASSERT_TRUE(pointer.ok()) << describe(pointer.error());
    for (std::uint64_t other = 1; other < 4; ++other) {
      ASSERT_TRUE(machine.allocator().try_record_stream(*pointer, stream_handle((stream + other) % 1000 + 1)).ok());
    }
    pointers.push_back(*pointer);
  }
  machine.allocator().check();
  for (std::uint64_t stream = 1; stream <= 1000; ++stream) {
    ASSERT_TRUE(machine.allocator().try_deallocate(pointers[stream - 1], stream_handle(stream)).ok());
  }
  EXPECT_LE(machine.stats().events_pending, 4000u);
  machine.streams().advance_all();
  void* pointer = machine.allocate(3000 * kGranule, 1);
  EXPECT_LE(machine.stats().all.reserved_bytes.current, 4096 * kGranule);
  EXPECT_EQ(machine.streams().synchronizations(), 0u);
  machine.deallocate(pointer, 1);
}

// What goes wrong in a program that frees into a stream it has destroyed: that stream's memory stays out of reach, and
// everyone else goes on.
TEST_F(Streams, ThatAreDestroyedDoNotKeepOthersFromMemory) {
  Machine machine(small_model(40));
  void* pointer = machine.allocate(10 * kGranule, 30);
  machine.deallocate(pointer, 30);
  machine.restart();
  pointer = machine.allocate(10 * kGranule, 31);
  machine.deallocate(pointer, 31);
  driver::Fault lost{.kind = Step::event_record, .nth = 1, .sticky = true, .code = ErrorCode::invalid_value};
  machine.fault().arm(lost);
  void* other = machine.allocate(20 * kGranule, 32);  // there is memory that needs no event
  EXPECT_NE(other, nullptr);
  machine.fault().heal();
  machine.deallocate(other, 32);
}

// A job of 18 GiB, far from any limit: stream 1 has nearly all of it, but both have blocks of a granule.
class PhyBlocksOfStreams : public testing::Test {
 protected:
  PhyBlocksOfStreams() : machine_(small_model(65536)) {
    settled_ = machine_.allocate(8192 * kGranule, 1);
    for (const std::uint64_t stream : {1, 2}) {
      for (int i = 0; i < 96; ++i) short_[stream].push_back(machine_.allocate(kGranule, stream));
    }
    machine_.deallocate(machine_.allocate(256 * kGranule, 1), 1);  // memory is being freed from now on
    kept_ = machine_.allocate(256 * kGranule, 1);                  // and none of that is cached
  }
  ~PhyBlocksOfStreams() override {
    for (const std::uint64_t stream : {1, 2}) {
      for (void* pointer : short_[stream]) machine_.deallocate(pointer, stream);
    }
    machine_.deallocate(kept_, 1);
    machine_.deallocate(settled_, 1);
  }

  // Leaves a stream with 48 free runs of a granule each.
  void scatter(std::uint64_t stream) {
    std::vector<void*> left;
    for (std::size_t i = 0; i < 96; ++i) {
      if (i % 2 == 0) {
        machine_.deallocate(short_[stream][i], stream);
      } else {
        left.push_back(short_[stream][i]);
      }
    }
    short_[stream] = left;
  }
  // Of what stream 1 is given, the longest PhyBlock, in granules.
  std::uint64_t longest_created() {
    void* pointer = machine_.allocate(512 * kGranule, 1);
    std::uint64_t longest = 0;
    for (const PhyBlockInfo& block : machine_.allocator().phy_blocks(pointer)) longest = std::max(longest, block.bytes);
    machine_.deallocate(pointer, 1);
    return longest / kGranule;
  }

  Machine machine_;
  void* settled_ = nullptr;
  void* kept_ = nullptr;
  std::array<std::vector<void*>, 3> short_;
};

TEST_F(PhyBlocksOfStreams, AreHalfAsLongWhereOneHasTheFreeRuns) {
  scatter(1);
  EXPECT_EQ(longest_created(), 4u);
}

TEST_F(PhyBlocksOfStreams, CountTheRequestAsARunOfItsStream) {
  scatter(2);  // stream 1 has none
  EXPECT_EQ(longest_created(), 2u);
}

TEST_F(PhyBlocksOfStreams, AreAQuarterAsLongWhereTwoHaveAsMany) {
  scatter(1);
  scatter(2);
  EXPECT_EQ(longest_created(), 2u);
}

}  // namespace
}  // namespace gmlake::test
