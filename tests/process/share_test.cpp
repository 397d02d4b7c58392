// Two processes that have the same memory: the bytes of one are those of the other, whoever dies first; and what is
// sent wrongly is refused. On ordinary memory; tests/gpu has the same on a GPU.
#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "driver/host.hpp"
#include "process/child.hpp"
#include "support/machine.hpp"

namespace gmlake::test {
namespace {

constexpr std::size_t kWords = 5 * kGranule / 8 + 1000;

Options on_host() {
  Options options;
  options.driver = DriverKind::host;
  options.slack = 0;
  return options;
}

std::unique_ptr<Allocator> make_allocator() { return Allocator::create(on_host()).value(); }

struct Sockets {
  int ends[2] = {-1, -1};
  Sockets() { EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0); }
  ~Sockets() {
    for (const int end : ends) close(end);
  }
  bool tell(int end, char byte = 'x') const { return write(ends[end], &byte, 1) == 1; }
  bool hear(int end) const {
    char byte = 0;
    return read(ends[end], &byte, 1) == 1;
  }
};

std::size_t open_descriptors() {
  std::size_t count = 0;
  for (int fd = 0; fd < 1024; ++fd) count += fcntl(fd, F_GETFD) >= 0;
  return count;
}

// The exporter is a child, so that this process has no allocator when it forks. It makes a block out of pieces, shares
// it, and then does as it is told: a byte a step.
int export_one(const Sockets& sockets) {
  const std::unique_ptr<Allocator> allocator = make_allocator();
  std::vector<void*> freed;
  std::vector<void*> kept;
  for (int i = 0; i < 8; ++i) {
    freed.push_back(allocator->allocate(kGranule));
    kept.push_back(allocator->allocate(kGranule));
  }
  for (void* block : freed) allocator->deallocate(block);
  const std::unique_ptr<VirBlock> block = create_vir_block(kWords * 8, {.allocator = allocator.get()});
  if (block->phy_blocks().size() < 5) return 2;
  auto* words = static_cast<std::uint64_t*>(block->get_block());
  for (std::size_t i = 0; i < kWords; ++i) words[i] = i * 3;
  const Result<SharedBlock> shared = block->share();
  if (!shared || shared->fds().size() != block->phy_blocks().size()) return 3;
  if (!send_block(sockets.ends[1], *shared).ok()) return 4;
  if (!sockets.hear(1)) return 5;  // the importer has written
  for (std::size_t i = 0; i < kWords; ++i) {
    if (words[i] != i * 5) return 6;
  }
  if (!sockets.tell(1) || !sockets.hear(1)) return 7;
  _exit(0);  // with everything in its hands
}

TEST(Share, ShowsBothProcessesTheSameBytesWhoeverDiesFirst) {
  const Sockets sockets;
  const pid_t child = fork();
  if (child == 0) _exit(export_one(sockets));
  const std::unique_ptr<Allocator> allocator = make_allocator();
  {
    const Result<SharedBlock> shared = receive_block(sockets.ends[0]);
    ASSERT_TRUE(shared.ok());
    EXPECT_EQ(shared->layout().bytes, (kWords * 8 + 511) & ~std::uint64_t{511});
    Result<std::unique_ptr<VirBlock>> made = import_vir_block(*shared, {.allocator = allocator.get()});
    ASSERT_TRUE(made.ok()) << describe(made.error());
    const std::unique_ptr<VirBlock> block = std::move(*made);
    auto* words = static_cast<std::uint64_t*>(block->get_block());
    for (std::size_t i = 0; i < kWords; ++i) ASSERT_EQ(words[i], i * 3);
    EXPECT_EQ(allocator->stats().placed_blocks, 1u);
    EXPECT_GE(allocator->stats().imported_bytes, kWords * 8);
    EXPECT_EQ(allocator->stats().all.reserved_bytes.current, 0u) << "it is the other's memory";
    for (std::size_t i = 0; i < kWords; ++i) words[i] = i * 5;
    EXPECT_TRUE(sockets.tell(0));
    EXPECT_TRUE(sockets.hear(0)) << "the exporter has seen them";
    EXPECT_TRUE(sockets.tell(0));
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << WEXITSTATUS(status);
    for (std::size_t i = 0; i < kWords; ++i) ASSERT_EQ(words[i], i * 5) << "the exporter is dead, its memory is not";
    words[0] = 1;
    allocator->check();
    EXPECT_TRUE(block->release().ok());
  }
  EXPECT_EQ(allocator->stats().placed_blocks, 0u);
  EXPECT_EQ(allocator->stats().imported_bytes, 0u);
  allocator->check();
}

TEST(Share, DoesNotTellTheExporterOfTheImportersDeath) {
  Machine machine(std::move(driver::HostDriver::make()).value(), {});
  auto* words = static_cast<std::uint64_t*>(machine.allocate(kWords * 8));
  words[kWords - 1] = 7;
  const Sockets sockets;
  const pid_t child = fork();
  if (child == 0) {
    const std::unique_ptr<Allocator> own = make_allocator();
    const Result<SharedBlock> shared = receive_block(sockets.ends[1]);
    if (!shared) _exit(2);
    const Result<void*> pointer = own->import_block(shared->layout(), shared->fds());
    if (!pointer || static_cast<std::uint64_t*>(*pointer)[kWords - 1] != 7) _exit(3);
    static_cast<std::uint64_t*>(*pointer)[0] = 8;
    std::abort();
  }
  {
    const Result<SharedBlock> shared = machine.allocator().export_block(words);
    ASSERT_TRUE(shared.ok());
    EXPECT_TRUE(send_block(sockets.ends[0], *shared).ok());
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(words[0], 8u);
  machine.deallocate(words);
  EXPECT_TRUE(machine.allocator().trim().ok());
}

TEST(Share, GoesOnAfterAPlacementAndThroughManyDescriptors) {
  Options options;
  options.max_phy_block_bytes = kGranule;
  Machine machine(std::move(driver::HostDriver::make()).value(), options);
  const std::size_t before = open_descriptors();
  const Result<void*> pointer =
      machine.allocator().try_allocate(300 * kGranule, Placement::stripe({0}));  // more than a message takes
  ASSERT_TRUE(pointer.ok());
  *static_cast<int*>(*pointer) = 9;
  {
    const Result<SharedBlock> shared = machine.allocator().export_block(*pointer);
    ASSERT_TRUE(shared.ok()) << describe(shared.error());
    ASSERT_EQ(shared->fds().size(), 300u);
    const Sockets sockets;
    ASSERT_TRUE(send_block(sockets.ends[0], *shared).ok());
    const Result<SharedBlock> received = receive_block(sockets.ends[1]);
    ASSERT_TRUE(received.ok());
    EXPECT_EQ(received->layout(), shared->layout());
    const Result<void*> alias = machine.allocator().import_block(received->layout(), received->fds());
    ASSERT_TRUE(alias.ok()) << describe(alias.error());
    EXPECT_EQ(*static_cast<int*>(*alias), 9) << "a process may import its own";
    machine.deallocate(*alias);
  }
  machine.deallocate(*pointer);
  EXPECT_EQ(open_descriptors(), before);
}

TEST(Share, RefusesWhatMakesNoSense) {
  Machine machine(std::move(driver::HostDriver::make()).value(), {});
  void* pointer = machine.allocate(2 * kGranule);
  const std::size_t before = open_descriptors();
  {
    const Result<SharedBlock> shared = machine.allocator().export_block(pointer);
    ASSERT_TRUE(shared.ok());
    const std::span<const int> fds = shared->fds();
    const auto refused = [&](SharedLayout layout, std::span<const int> with) {
      const Result<void*> imported = machine.allocator().import_block(layout, with);
      machine.allocator().check();
      EXPECT_EQ(machine.stats().placed_blocks, 0u);
      return !imported.ok() && imported.error().code == ErrorCode::invalid_value;
    };
    const SharedLayout good = shared->layout();
    SharedLayout bad = good;
    bad.bytes = 0;
    EXPECT_TRUE(refused(bad, fds));
    bad.bytes = UINT64_MAX;
    EXPECT_TRUE(refused(bad, fds));
    bad = good;
    bad.offset = UINT64_MAX - 7;
    EXPECT_TRUE(refused(bad, fds));
    bad = good;
    bad.phy_block_bytes.front() += 1;
    EXPECT_TRUE(refused(bad, fds));
    bad.phy_block_bytes.assign(fds.size(), std::uint64_t{1} << 63);
    EXPECT_TRUE(refused(bad, fds));
    EXPECT_TRUE(refused(good, fds.first(fds.size() - 1)));
    EXPECT_TRUE(refused({}, {}));
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const std::vector<int> pipes(fds.size(), ends[0]);
    EXPECT_TRUE(refused(good, pipes)) << "no memory";
    const std::vector<int> closed(fds.size(), 1023);
    EXPECT_TRUE(refused(good, closed));
    close(ends[0]);
    close(ends[1]);
    EXPECT_EQ(machine.allocator().export_block(static_cast<char*>(pointer) + 512).error().code,
              ErrorCode::invalid_pointer);
    EXPECT_EQ(machine.allocator().import_block(good, fds, 5).error().code, ErrorCode::invalid_device);
  }
  EXPECT_EQ(open_descriptors(), before);
  machine.deallocate(pointer);
  Machine books;  // a model has no memory to share
  void* nothing = books.allocate(kGranule);
  EXPECT_EQ(books.allocator().export_block(nothing).error().code, ErrorCode::not_supported);
  books.deallocate(nothing);
}

TEST(Share, RefusesMessagesThatAreNone) {
  const std::size_t before = open_descriptors();
  {
    const Sockets sockets;
    const std::vector<char> noise(64, 'n');
    ASSERT_EQ(write(sockets.ends[0], noise.data(), noise.size()), 64);
    EXPECT_EQ(receive_block(sockets.ends[1]).error().code, ErrorCode::invalid_value);
  }
  {
    Sockets sockets;
    close(std::exchange(sockets.ends[0], -1));
    EXPECT_EQ(receive_block(sockets.ends[1]).error().code, ErrorCode::invalid_value);
    EXPECT_FALSE(send_block(sockets.ends[1], SharedBlock()).ok());
  }
  EXPECT_EQ(open_descriptors(), before);
}

// Each driver call on both ways fails, once or from then on.
TEST(Share, UndoesWhateverCallFails) {
  for (std::uint64_t nth = 1;; ++nth) {
    Machine machine(std::move(driver::HostDriver::make()).value(), {});
    void* pointer = machine.allocate(6 * kGranule);
    machine.fault().arm({.nth = nth, .sticky = nth % 2 == 0, .code = ErrorCode::unknown});
    {
      const Result<SharedBlock> shared = machine.allocator().export_block(pointer);
      machine.allocator().check();
      if (shared) {
        const Result<void*> alias = machine.allocator().import_block(shared->layout(), shared->fds());
        machine.allocator().check();
        EXPECT_TRUE(!alias || machine.allocator().try_deallocate(*alias).ok());
      }
    }
    const bool reached = machine.fault().reached();
    machine.fault().heal();
    EXPECT_TRUE(machine.allocator().trim().ok());
    EXPECT_EQ(machine.stats().placed_blocks, 0u);
    machine.deallocate(pointer);
    if (!reached) {
      EXPECT_GT(nth, 8u);
      return;
    }
  }
}

}  // namespace
}  // namespace gmlake::test
