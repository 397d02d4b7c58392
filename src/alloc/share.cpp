// The way of a shared block through a Unix socket: a head, the sizes of its PhyBlocks, and then the descriptors, as
// many at a time as a message may carry.
#include "gmlake/share.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <new>

namespace gmlake {
namespace {

struct Head {
  std::uint64_t magic = 0x31'6B'6C'62'6B'6C'6D'67;  // "gmlkblk1"
  std::uint64_t bytes = 0;
  std::uint64_t offset = 0;
  std::uint64_t count = 0;
};

constexpr std::uint64_t kMaxPhyBlocks = 1 << 20;  // more descriptors than a process has
constexpr std::size_t kFdsPerMessage = 128;       // the kernel takes 253

constexpr Error kBroken{ErrorCode::invalid_value, Step::share, 0};

bool send_all(int socket, const void* data, std::size_t size) {
  for (const char* next = static_cast<const char*>(data); size > 0;) {
    const ssize_t sent = send(socket, next, size, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    next += sent;
    size -= static_cast<std::size_t>(sent);
  }
  return true;
}

bool receive_all(int socket, void* data, std::size_t size) {
  for (char* next = static_cast<char*>(data); size > 0;) {
    const ssize_t received = recv(socket, next, size, 0);
    if (received < 0 && errno == EINTR) continue;
    if (received <= 0) return false;
    next += received;
    size -= static_cast<std::size_t>(received);
  }
  return true;
}

// One byte, with room for descriptors beside it.
struct Message {
  char byte = 'f';
  iovec data{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kFdsPerMessage * sizeof(int))> control{};
  msghdr header{};

  explicit Message(std::size_t fds) {
    header.msg_iov = &data;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(fds * sizeof(int));
  }
};

bool send_fds(int socket, std::span<const int> fds) {
  Message message(fds.size());
  cmsghdr* const control = CMSG_FIRSTHDR(&message.header);
  control->cmsg_level = SOL_SOCKET;
  control->cmsg_type = SCM_RIGHTS;
  control->cmsg_len = CMSG_LEN(fds.size_bytes());
  std::memcpy(CMSG_DATA(control), fds.data(), fds.size_bytes());
  ssize_t sent = 0;
  do {
    sent = sendmsg(socket, &message.header, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent == 1;
}

// Every descriptor that comes is taken, so that none is left open. `fds` has room for those that are wanted.
bool receive_fds(int socket, std::size_t wanted, std::vector<int>& fds) {
  Message message(wanted);
  ssize_t received = 0;
  do {
    received = recvmsg(socket, &message.header, MSG_CMSG_CLOEXEC);
  } while (received < 0 && errno == EINTR);
  if (received != 1) return false;
  std::size_t count = 0;
  for (cmsghdr* control = CMSG_FIRSTHDR(&message.header); control != nullptr;
       control = CMSG_NXTHDR(&message.header, control)) {
    if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t here = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < here; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(control) + i * sizeof(int), sizeof fd);
      if (count++ < wanted) {
        fds.push_back(fd);
      } else {
        close(fd);
      }
    }
  }
  return count == wanted && (message.header.msg_flags & MSG_CTRUNC) == 0;
}

}  // namespace

SharedBlock::~SharedBlock() {
  for (const int fd : fds_) close(fd);
}

Status send_block(int socket, const SharedBlock& block) {
  const SharedLayout& layout = block.layout();
  Head head;
  head.bytes = layout.bytes;
  head.offset = layout.offset;
  head.count = layout.phy_block_bytes.size();
  if (!send_all(socket, &head, sizeof head)) return kBroken;
  if (!send_all(socket, layout.phy_block_bytes.data(), head.count * sizeof(std::uint64_t))) return kBroken;
  for (std::span<const int> left = block.fds(); !left.empty();) {
    const std::size_t next = std::min(left.size(), kFdsPerMessage);
    if (!send_fds(socket, left.first(next))) return kBroken;
    left = left.subspan(next);
  }
  return {};
}

Result<SharedBlock> receive_block(int socket) try {
  Head head;
  const std::uint64_t magic = head.magic;
  if (!receive_all(socket, &head, sizeof head) || head.magic != magic || head.count == 0 ||
      head.count > kMaxPhyBlocks) {
    return kBroken;
  }
  SharedLayout layout{head.bytes, head.offset, std::vector<std::uint64_t>(head.count)};
  if (!receive_all(socket, layout.phy_block_bytes.data(), head.count * sizeof(std::uint64_t))) return kBroken;
  std::vector<int> fds;
  fds.reserve(head.count);
  bool whole = true;
  while (whole && fds.size() < head.count) {
    whole = receive_fds(socket, std::min<std::size_t>(head.count - fds.size(), kFdsPerMessage), fds);
  }
  SharedBlock block(std::move(layout), std::move(fds));  // closes what came of a message that broke off
  if (!whole) return kBroken;
  return block;
} catch (const std::bad_alloc&) {
  return Error{ErrorCode::out_of_memory, Step::share, 0};
}

}  // namespace gmlake
