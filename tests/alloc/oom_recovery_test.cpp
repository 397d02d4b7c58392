// After an out-of-memory: live memory is intact, to the byte where there are bytes, and the request that failed
// succeeds once there is room, from wherever it comes.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "alloc/growth_policy.hpp"
#include "driver/host.hpp"
#include "support/contents.hpp"
#include "support/forwarding_driver.hpp"
#include "support/machine.hpp"

namespace gmlake::test {
namespace {

constexpr std::uint64_t kHostGranule = 256_KiB;
constexpr std::uint64_t kHostGranules = 100;

// Ordinary memory, a quarter of it live and stamped in pieces that other blocks lie between.
class OomRecovery : public testing::Test {
 protected:
  OomRecovery() : machine_(host(), Options{}) {
    for (int i = 0; i < 16; ++i) blocks_.push_back(machine_.allocate(kBlock));
    for (std::size_t i = 0; i < blocks_.size(); ++i) work(i, true);
    for (std::size_t i = 0; i < blocks_.size(); i += 2) {
      machine_.deallocate(blocks_[i]);
      blocks_[i] = nullptr;
    }
  }
  ~OomRecovery() override {
    expect_contents();
    for (void* block : blocks_) {
      if (block != nullptr) machine_.deallocate(block);
    }
  }

  static std::unique_ptr<driver::SimulatedDriver> host() {
    driver::HostOptions options;
    options.granularity = kHostGranule;
    options.capacity_bytes = kHostGranules * kHostGranule;
    return std::move(driver::HostDriver::make(options)).value();
  }

  void work(std::size_t i, bool write) {
    const driver::Address address = address_of(blocks_[i]);
    const auto kernel = [address, i, write] {
      if (write) return write_stamps(address, kBlock, i);
      EXPECT_EQ(wrong_stamps(address, kBlock, i), 0u) << "in block " << i;
    };
    EXPECT_TRUE(machine_.device().launch({0, 0}, {{address, kBlock, write}}, kernel).ok());
  }
  void expect_contents() {
    for (std::size_t i = 1; i < blocks_.size(); i += 2) {
      if (blocks_[i] != nullptr) work(i, false);
    }
  }

  // Refused again and again, with everything that lives as it was.
  void refuse(std::uint64_t bytes) {
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(machine_.refused(bytes).code, ErrorCode::out_of_memory);
      expect_contents();
    }
  }
  void serve(std::uint64_t bytes) {
    void* pointer = machine_.allocate(bytes);
    ASSERT_NE(pointer, nullptr);
    EXPECT_TRUE(
        machine_.device()
            .launch({0, 0}, {{address_of(pointer), bytes, true}}, [=] { write_stamps(address_of(pointer), bytes, 99); })
            .ok());
    expect_contents();
    machine_.deallocate(pointer);
  }

  static constexpr std::uint64_t kBlock = 3 * kHostGranule + 1024;
  Machine machine_;
  std::vector<void*> blocks_;
};

TEST_F(OomRecovery, ComesWithARaisedLimit) {
  ASSERT_TRUE(machine_.allocator().set_limit(60 * kHostGranule).ok());
  refuse(60 * kHostGranule);
  ASSERT_TRUE(machine_.allocator().set_limit(0).ok());
  serve(60 * kHostGranule);
}

TEST_F(OomRecovery, ComesWhenAnotherProcessGivesMemoryBack) {
  ASSERT_TRUE(machine_.allocator().trim().ok());
  const std::uint64_t left = kHostGranules * kHostGranule - machine_.device().usage().physical_bytes;
  const driver::Handle taken = machine_.take_memory(left);
  refuse(10 * kHostGranule);
  EXPECT_EQ(machine_.allocator().last_oom()->device_free_bytes, 0u);
  machine_.return_memory(taken, left);
  serve(10 * kHostGranule);
}

TEST_F(OomRecovery, ComesWhenABlockIsFreed) {
  void* large = machine_.allocate(60 * kHostGranule);
  refuse(50 * kHostGranule);
  machine_.deallocate(large);
  serve(50 * kHostGranule);
}

TEST_F(OomRecovery, ComesWhenTheWorkOfAnotherStreamIsDone) {
  void* large = machine_.allocate(60 * kHostGranule);
  for (const std::uint64_t stream : {1, 2}) {  // two of them: for one, the device would wait
    machine_.streams().hold({0, stream});
    ASSERT_TRUE(machine_.device().launch({0, stream}, {{address_of(large), 60 * kHostGranule, false}}).ok());
    ASSERT_TRUE(machine_.allocator().try_record_stream(large, stream_handle(stream)).ok());
  }
  machine_.deallocate(large);
  machine_.fault().arm({.kind = Step::event_synchronize, .nth = 1, .sticky = true, .code = ErrorCode::unknown});
  for (int i = 0; i < 3; ++i) EXPECT_EQ(machine_.refused(50 * kHostGranule).code, ErrorCode::unknown);
  machine_.fault().heal();
  machine_.streams().advance_all();
  serve(50 * kHostGranule);
}

TEST_F(OomRecovery, ComesWhenACallbackSpills) {
  void* large = machine_.allocate(60 * kHostGranule);
  refuse(50 * kHostGranule);
  machine_.allocator().add_release_callback([&](const OutOfMemoryReport&) {
    machine_.allocator().deallocate(large);
    return true;
  });
  serve(50 * kHostGranule);
}

// Another process takes and gives; whatever the moment, a request either fails cleanly or is there in full.
TEST_F(OomRecovery, FollowsAnotherProcessUpAndDown) {
  int served = 0;
  int refused = 0;
  for (std::uint64_t round = 0; round < 60; ++round) {
    ASSERT_TRUE(machine_.allocator().trim().ok());
    const std::uint64_t left = kHostGranules * kHostGranule - machine_.device().usage().physical_bytes;
    const std::uint64_t bytes = left / kHostGranule * (round * 7 % 10) / 10 * kHostGranule;
    const driver::Handle taken = bytes == 0 ? driver::Handle::none : machine_.take_memory(bytes);
    const std::uint64_t wanted = (1 + round * 13 % 60) * kHostGranule;
    const Result<void*> pointer = machine_.allocator().try_allocate(wanted);
    EXPECT_EQ(pointer.ok(), wanted <= left - bytes);
    if (pointer) {
      ++served;
      write_stamps(address_of(*pointer), wanted, round);
      machine_.deallocate(*pointer);
    } else {
      ++refused;
    }
    expect_contents();
    if (bytes != 0) machine_.return_memory(taken, bytes);
  }
  EXPECT_GT(served, 10);
  EXPECT_GT(refused, 10);
}

// What another process leaves may lie in pieces: the driver says how much it is, and has no long one.
TEST(OutOfMemory, FindsMemoryThatTheDriverHasInSingleGranulesAlone) {
  static bool in_pieces;
  class InPieces final : public ForwardingDriver {
   public:
    using ForwardingDriver::ForwardingDriver;
    Result<driver::Handle> create(std::uint64_t bytes, const driver::MemoryProperties& properties) override {
      if (in_pieces && bytes > kGranule) return Error{ErrorCode::out_of_memory, Step::create, bytes};
      return ForwardingDriver::create(bytes, properties);
    }
  };
  in_pieces = false;
  constexpr std::uint64_t kMany = 3 * alloc::kMostBlocks;  // of which a share is more than a granule
  Machine machine(std::make_unique<driver::ModelDriver>(small_model(kMany + 64)), {}, [](driver::Driver& inner) {
    return std::unique_ptr<driver::Driver>(std::make_unique<InPieces>(inner));
  });
  void* most = machine.allocate(kMany * kGranule);
  in_pieces = true;
  void* rest = machine.allocate(32 * kGranule);
  EXPECT_EQ(machine.allocator().phy_blocks(rest).size(), 32u);
  machine.deallocate(rest);
  machine.deallocate(most);
}

}  // namespace
}  // namespace gmlake::test
