// What only the host driver has: real pages. Faults, forks, memory given back, and the kernel's bound on mappings.
#include "driver/host.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "driver/one_device.hpp"

namespace gmlake::driver {
namespace {

constexpr std::uint64_t kMiBytes = std::uint64_t{1} << 20;

volatile std::uint64_t& word(Address address) { return *reinterpret_cast<volatile std::uint64_t*>(address); }

// The sanitizers take faults for themselves and exit with a code of their own.
bool faulted(int status) {
  return (WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) || (WIFEXITED(status) && WEXITSTATUS(status) != 0);
}

// How many mappings of the driver's file the kernel has for this process.
std::uint64_t kernel_mappings() {
  std::ifstream maps("/proc/self/maps");
  std::uint64_t count = 0;
  for (std::string line; std::getline(maps, line);) count += line.find("gmlake-host-driver") != std::string::npos;
  return count;
}

class HostTest : public ::testing::Test {
 protected:
  void start(const HostOptions& options) { driver_ = HostDriver::make(options).value(); }
  Handle map_new(Address address, std::uint64_t bytes) {
    const Handle handle = driver_->create(bytes, {}).value();
    EXPECT_TRUE(driver_->map(address, bytes, handle).ok());
    EXPECT_TRUE(driver_->set_access(address, bytes, kDevices).ok());
    return handle;
  }
  std::unique_ptr<HostDriver> driver_ = HostDriver::make().value();
};

using HostDeathTest = HostTest;

TEST_F(HostDeathTest, TouchingARangeWithoutAccessFaults) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const Address address = driver_->reserve(4 * kGranule, 0).value();
  const Handle handle = map_new(address, kGranule);
  word(address) = 1;
  EXPECT_TRUE(driver_->map(address + kGranule, kGranule, handle).ok());
  EXPECT_EXIT(word(address + 2 * kGranule) = 1, faulted, "") << "never mapped";
  EXPECT_EXIT(word(address + kGranule) = 1, faulted, "") << "mapped, no access yet";
  ASSERT_TRUE(driver_->unmap(address, kGranule).ok());
  EXPECT_EXIT(word(address) = 1, faulted, "") << "unmapped";
}

// The child faults, or finds something of its own: what its runtime maps may land where the memory was.
TEST_F(HostTest, AForkLeavesTheMemoryToTheParent) {
  const Address address = driver_->reserve(kGranule, 0).value();
  map_new(address, kGranule);
  word(address) = 41;
  constexpr int kSawTheMemory = 7;
  const pid_t child = fork();
  if (child == 0) {
    dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);  // what a sanitizer says of the fault
    const bool same = word(address) == 41;
    word(address) = 42;
    _exit(same ? kSawTheMemory : 0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_FALSE(WIFEXITED(status) && WEXITSTATUS(status) == kSawTheMemory);
  EXPECT_EQ(word(address), 41u);
}

TEST_F(HostTest, OnlyTouchedPagesCostMemory) {
  constexpr std::uint64_t kGranules = 2000;
  const Address address = driver_->reserve(kGranules * kGranule, 0).value();
  std::vector<Handle> handles;
  for (std::uint64_t at = 0; at < kGranules; ++at) {
    handles.push_back(map_new(address + at * kGranule, kGranule));
    word(address + at * kGranule) = at;
  }
  EXPECT_LE(driver_->resident_bytes(), kGranules * 4096 * 2);
  for (std::uint64_t at = 0; at < kGranules; ++at) ASSERT_EQ(word(address + at * kGranule), at);
}

TEST_F(HostTest, GivesMemoryBackWithTheLastMappingAndHandle) {
  const Address address = driver_->reserve(64 * kMiBytes, 0).value();
  const Handle first = map_new(address, 16 * kMiBytes);
  const Handle second = map_new(address + 16 * kMiBytes, 16 * kMiBytes);
  for (std::uint64_t at = 0; at < 32 * kMiBytes; at += 4096) word(address + at) = at;
  EXPECT_GE(driver_->resident_bytes(), 32 * kMiBytes);
  ASSERT_TRUE(driver_->unmap(address, 16 * kMiBytes).ok());
  EXPECT_GE(driver_->resident_bytes(), 32 * kMiBytes);  // the handle holds it
  ASSERT_TRUE(driver_->release(first).ok());
  EXPECT_LT(driver_->resident_bytes(), 17 * kMiBytes);
  ASSERT_TRUE(driver_->release(second).ok());
  EXPECT_GE(driver_->resident_bytes(), 16 * kMiBytes);  // the mapping holds it
  EXPECT_EQ(word(address + 20 * kMiBytes), 20 * kMiBytes);
  ASSERT_TRUE(driver_->unmap(address + 16 * kMiBytes, 16 * kMiBytes).ok());
  EXPECT_EQ(driver_->resident_bytes(), 0u);
}

TEST_F(HostTest, CountsMemoryOfEachLocationByItself) {
  start({.devices = 2, .capacity_bytes = 8 * kMiBytes, .host_bytes = 4 * kMiBytes});
  EXPECT_TRUE(driver_->create(8 * kMiBytes, {}).ok());
  EXPECT_TRUE(driver_->create(8 * kMiBytes, {.location = {Location::Kind::device, 1}}).ok());
  EXPECT_TRUE(driver_->create(4 * kMiBytes, {.location = {Location::Kind::host_numa, 0}}).ok());
  EXPECT_EQ(driver_->create(kGranule, {}).error().code, ErrorCode::out_of_memory);
}

TEST_F(HostTest, SmallGranulesWork) {
  start({.granularity = 4096});
  const Address address = driver_->reserve(8 * 4096, 0).value();
  const Handle handle = map_new(address + 4096, 4096);
  word(address + 4096) = 9;
  ASSERT_TRUE(driver_->map(address + 4 * 4096, 4096, handle).ok());
  ASSERT_TRUE(driver_->set_access(address + 4 * 4096, 4096, kDevices).ok());
  EXPECT_EQ(word(address + 4 * 4096), 9u);
}

// Maps two handles in alternation, so that no two neighbours merge, until the kernel takes no more.
TEST_F(HostTest, ReportsTheKernelsBoundOnMappings) {
  std::uint64_t bound = 0;
  std::ifstream("/proc/sys/vm/max_map_count") >> bound;
  if (bound == 0 || bound > 200'000) GTEST_SKIP() << "the kernel's bound is " << bound;
  start({.granularity = 4096});
  const std::uint64_t pages = 2 * bound;
  const Address address = driver_->reserve(pages * 4096, 0).value();
  const Handle handles[] = {driver_->create(4096, {}).value(), driver_->create(4096, {}).value()};
  for (std::uint64_t at = 0; at < pages; ++at) {
    ASSERT_TRUE(driver_->map(address + at * 4096, 4096, handles[at % 2]).ok());
  }
  const Status all = driver_->set_access(address, pages * 4096, kDevices);
  ASSERT_FALSE(all.ok());
  EXPECT_EQ(all.error(), (Error{ErrorCode::too_many_mappings, Step::set_access, pages * 4096}));
  EXPECT_FALSE(driver_->has_access(address, 0));
  EXPECT_EQ(driver_->usage().accessible, 0u);
  EXPECT_EQ(kernel_mappings(), 1u);  // the driver's spare one: the rest was rolled back for real
  // One by one up to the bound; then what is there works, and there is room again after an unmap.
  std::uint64_t opened = 0;
  while (opened < pages && driver_->set_access(address + opened * 4096, 4096, kDevices).ok()) ++opened;
  ASSERT_LT(opened, pages);
  EXPECT_GT(opened, bound / 2);
  EXPECT_EQ(driver_->usage().accessible, opened);
  word(address) = 5;
  word(address + (opened - 1) * 4096) = 6;
  EXPECT_EQ(word(address + 2 * 4096), word(address));
  driver_->check();
  ASSERT_TRUE(driver_->unmap(address, 100 * 4096).ok());
  EXPECT_TRUE(driver_->set_access(address + opened * 4096, 4096, kDevices).ok());
  ASSERT_TRUE(driver_->unmap(address + 100 * 4096, (pages - 100) * 4096).ok());
  EXPECT_TRUE(driver_->address_free(address, pages * 4096).ok());
}

TEST_F(HostTest, NeighboursCreatedInOrderCountAsOneMapping) {
  start({.granularity = 4096});
  constexpr std::uint64_t kPages = 40'000;
  const Address address = driver_->reserve(kPages * 4096, 0).value();
  for (std::uint64_t at = 0; at < kPages; ++at) {
    const Handle handle = driver_->create(4096, {}).value();
    ASSERT_TRUE(driver_->map(address + at * 4096, 4096, handle).ok());
    ASSERT_TRUE(driver_->set_access(address + at * 4096, 4096, kDevices).ok());
    ASSERT_TRUE(driver_->release(handle).ok());
  }
  EXPECT_EQ(kernel_mappings(), 1u + 1);  // and the driver's spare one
  EXPECT_TRUE(driver_->unmap(address, kPages * 4096).ok());
}

}  // namespace
}  // namespace gmlake::driver
