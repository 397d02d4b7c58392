// Another process on the same GPU takes what is left, and gives it back. A program of its own: the other process is a
// fork, which must come before this one knows of a driver.
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>
#include <vector>

#include "gpu/rig.hpp"

namespace gmlake::test {
namespace {

// Another process: takes what the device has but `leave` bytes, writes a byte, and gives it back when told.
[[noreturn]] void be_the_neighbour(int told, int tells, std::uint64_t leave) {
  const std::unique_ptr<Gpu> gpu = Gpu::make();
  std::vector<void*> held;
  char byte = gpu == nullptr ? 'n' : 'y';
  while (gpu != nullptr && gpu->free_bytes() > leave + kGiB) {
    void* more = gpu->allocate(kGiB);
    if (more == nullptr) break;
    held.push_back(more);
  }
  if (write(tells, &byte, 1) != 1 || read(told, &byte, 1) != 1) _exit(1);
  for (void* block : held) gpu->free(block);
  if (write(tells, &byte, 1) != 1 || read(told, &byte, 1) != 1) _exit(1);
  _exit(0);
}

TEST(OnGpuWithANeighbour, RecoversFromOutOfMemoryWhenTheOtherProcessGivesBack) {
  int to_child[2];
  int from_child[2];
  ASSERT_EQ(pipe(to_child), 0);
  ASSERT_EQ(pipe(from_child), 0);
  const pid_t child = fork();  // before this process knows of a driver, which no fork survives
  if (child == 0) be_the_neighbour(to_child[0], from_child[1], 6 * kGiB);
  char byte = 0;
  ASSERT_EQ(read(from_child[0], &byte, 1), 1);
  const bool there = byte == 'y';
  {
    const std::unique_ptr<Gpu> gpu = there ? Gpu::make() : nullptr;
    if (gpu != nullptr) {
      const std::unique_ptr<Allocator> allocator = Allocator::create().value();
      auto* live = static_cast<char*>(allocator->allocate(kGiB));
      gpu->fill(live, kGiB, 5, nullptr);
      std::optional<OutOfMemoryReport> report;
      try {
        allocator->allocate(16 * kGiB);
      } catch (const OutOfMemoryError& error) {
        report = error.report();
      }
      EXPECT_TRUE(report.has_value());
      if (report) {
        EXPECT_EQ(report->remedy, Remedy::other_processes) << describe(*report);
        EXPECT_LT(report->device_free_bytes, 8 * kGiB);
      }
      EXPECT_EQ(write(to_child[1], &byte, 1), 1);
      EXPECT_EQ(read(from_child[0], &byte, 1), 1);
      void* now = allocator->allocate(16 * kGiB);
      gpu->fill(now, 16 * kGiB, 6, nullptr);
      gpu->check(live, kGiB, 5, nullptr);
      gpu->check(now, 16 * kGiB, 6, nullptr);
      EXPECT_EQ(gpu->wrong_words(), 0u);
      allocator->check();
    } else {
      EXPECT_EQ(write(to_child[1], &byte, 1), 1);
    }
    EXPECT_EQ(write(to_child[1], &byte, 1), 1);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  for (const int end : {to_child[0], to_child[1], from_child[0], from_child[1]}) close(end);
  if (!there) GTEST_SKIP() << "this machine has no GPU";
}

// A block out of pieces, filled by kernels of one process, read and filled anew by those of another, which is gone
// then.
int be_the_importer(int socket) {
  const Result<SharedBlock> shared = receive_block(socket);
  const std::unique_ptr<Gpu> gpu = Gpu::make();
  if (!shared || gpu == nullptr) return 2;
  const std::unique_ptr<Allocator> allocator = Allocator::create().value();
  const Result<void*> block = allocator->import_block(shared->layout(), shared->fds());
  if (!block) return 3;
  gpu->check(*block, shared->layout().bytes, 11, nullptr);
  if (gpu->wrong_words() != 0) return 4;
  gpu->fill(*block, shared->layout().bytes, 12, nullptr);
  gpu->synchronize(nullptr);
  return 0;
}

TEST(OnGpuWithANeighbour, SharesABlockWithIt) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  const pid_t child = fork();  // before this process knows of a driver
  if (child == 0) {
    close(ends[0]);
    _exit(be_the_importer(ends[1]));
  }
  close(ends[1]);
  const std::unique_ptr<Gpu> gpu = Gpu::make();
  if (gpu != nullptr) {
    const std::unique_ptr<Allocator> allocator =
        Allocator::create({.slack = 0, .max_phy_block_bytes = 2 * kMiB}).value();
    std::vector<void*> freed;
    std::vector<void*> kept;
    for (int i = 0; i < 16; ++i) {
      freed.push_back(allocator->allocate(2 * kMiB));
      kept.push_back(allocator->allocate(2 * kMiB));
    }
    for (void* block : freed) allocator->deallocate(block);
    void* block = allocator->allocate(32 * kMiB);
    EXPECT_GT(allocator->phy_blocks(block).size(), 8u);
    gpu->fill(block, 32 * kMiB, 11, nullptr);
    gpu->synchronize(nullptr);
    {
      const Result<SharedBlock> shared = allocator->export_block(block);
      EXPECT_TRUE(shared.ok()) << describe(shared.ok() ? Error{} : shared.error());
      EXPECT_TRUE(shared.ok() && send_block(ends[0], *shared).ok());
    }
    close(ends[0]);
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << WEXITSTATUS(status);
    gpu->check(block, 32 * kMiB, 12, nullptr);
    EXPECT_EQ(gpu->wrong_words(), 0u);
    allocator->check();
    return;
  }
  close(ends[0]);
  EXPECT_EQ(waitpid(child, nullptr, 0), child);
  GTEST_SKIP() << "this machine has no GPU";
}

}  // namespace
}  // namespace gmlake::test
