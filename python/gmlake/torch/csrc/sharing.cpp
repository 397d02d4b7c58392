#include "sharing.hpp"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <thread>

namespace gmlake::torch_adapter {
namespace {

constexpr std::string_view kPrefix = "gmlake:1:";  // PyTorch's own handles begin with 'c' or 'e' or hold no text

// A descriptor, closed at the end of the scope.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

// Names of sockets that are in no file system begin with a null byte.
socklen_t address_of(const std::string& name, sockaddr_un& address) {
  address = {};
  address.sun_family = AF_UNIX;
  TORCH_CHECK(name.size() + 1 < sizeof(address.sun_path), "gmlake: a shared block's name is too long");
  std::memcpy(address.sun_path + 1, name.data(), name.size());
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
}

bool same_user(int connection) {
  ucred peer{};
  socklen_t size = sizeof(peer);
  return ::getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == ::geteuid();
}

template <class Call>
auto retried(Call&& call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

}  // namespace

bool Sharing::is_name(std::string_view handle) { return handle.substr(0, kPrefix.size()) == kPrefix; }

// With the lock held.
void Sharing::begin() {
  if (process_ == ::getpid()) return;
  numbers_.clear();
  blocks_.clear();
  opened_.clear();
  std::uint64_t random = 0;
  TORCH_CHECK(::getrandom(&random, sizeof(random), 0) == sizeof(random), "gmlake: no random numbers to be had");
  socket_ = "gmlake-" + std::to_string(::getpid()) + "-" + std::to_string(random);
  sockaddr_un address{};
  const socklen_t size = address_of(socket_, address);
  Descriptor listening(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  TORCH_CHECK(listening.get() >= 0 && ::bind(listening.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0 &&
                  ::listen(listening.get(), 64) == 0,
              "gmlake: no socket to share CUDA memory through: ", std::strerror(errno));
  std::thread([this, fd = listening.get()] { serve(fd); }).detach();
  static_cast<void>(listening.release());
  process_ = ::getpid();
}

void Sharing::serve(int listening) {
  for (;;) {
    const Descriptor connection(retried([&] { return ::accept4(listening, nullptr, nullptr, SOCK_CLOEXEC); }));
    if (connection.get() < 0) {
      if (errno == ECONNABORTED || errno == EMFILE || errno == ENFILE) continue;
      return;
    }
    const timeval patience{10, 0};  // one that asks nothing keeps others waiting no longer
    std::uint64_t number = 0;
    if (!same_user(connection.get()) ||
        ::setsockopt(connection.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) != 0 ||
        retried([&] { return ::recv(connection.get(), &number, sizeof(number), MSG_WAITALL); }) != sizeof(number)) {
      continue;
    }
    std::shared_ptr<SharedBlock> block;
    {
      const std::lock_guard lock(mutex_);
      if (const auto known = blocks_.find(number); known != blocks_.end()) block = known->second;
    }
    // Where it is gone, or cannot be sent, the connection ends, and the other end says so.
    if (block != nullptr) static_cast<void>(send_block(connection.get(), *block));
  }
}

std::string Sharing::name(gmlake::Allocator& allocator, void* pointer) {
  const std::lock_guard lock(mutex_);
  begin();
  auto known = numbers_.find(pointer);
  if (known == numbers_.end()) {
    Result<SharedBlock> exported = allocator.export_block(pointer);
    TORCH_CHECK(exported.ok(),
                "gmlake: this CUDA memory cannot be shared with other processes: ", describe(exported.error()));
    auto block = std::make_shared<SharedBlock>(std::move(*exported));
    blocks_.emplace(next_, std::move(block));
    known = numbers_.emplace(pointer, next_++).first;
    any_.store(true, std::memory_order_relaxed);
  }
  return std::string(kPrefix) + std::to_string(known->second) + ":" + socket_;
}

void Sharing::freed(const void* pointer) {
  std::shared_ptr<SharedBlock> ended;  // its descriptors are closed after the lock
  const std::lock_guard lock(mutex_);
  const auto known = numbers_.find(pointer);
  if (known == numbers_.end()) return;
  const auto block = blocks_.find(known->second);
  ended = std::move(block->second);
  blocks_.erase(block);
  numbers_.erase(known);
}

std::shared_ptr<void> Sharing::open(gmlake::Allocator& allocator, const std::string& name, int device) {
  {
    const std::lock_guard lock(mutex_);
    if (const auto known = opened_.find(name); known != opened_.end()) {
      if (std::shared_ptr<void> held = known->second.lock()) return held;
    }
  }
  const std::size_t colon = name.find(':', kPrefix.size());
  TORCH_CHECK(colon != std::string::npos, "gmlake: this is no name of shared CUDA memory");
  const std::uint64_t number = std::stoull(name.substr(kPrefix.size(), colon - kPrefix.size()));
  sockaddr_un address{};
  const socklen_t size = address_of(name.substr(colon + 1), address);
  const Descriptor connection(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  TORCH_CHECK(
      connection.get() >= 0 && retried([&] {
                                 return ::connect(connection.get(), reinterpret_cast<const sockaddr*>(&address), size);
                               }) == 0 &&
          ::send(connection.get(), &number, sizeof(number), MSG_NOSIGNAL) == sizeof(number),
      "gmlake: the process that shares this CUDA memory cannot be reached, or has ended: ", std::strerror(errno));
  const Result<SharedBlock> block = receive_block(connection.get());
  TORCH_CHECK(block.ok(), "gmlake: the process that shared this CUDA memory has freed it, or has ended");
  const Result<void*> imported = allocator.import_block(block->layout(), block->fds(), device, nullptr);
  TORCH_CHECK(imported.ok(), "gmlake: shared CUDA memory cannot be opened: ", describe(imported.error()));
  std::shared_ptr<void> held(*imported, [&allocator, device](void* pointer) {
    // Work of any stream may use it still. Errors are the end of the process, or of the device: nothing is left to do.
    const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device));
    static_cast<void>(cudaDeviceSynchronize());
    allocator.deallocate(pointer);
  });
  const std::lock_guard lock(mutex_);
  opened_[name] = held;
  return held;
}

}  // namespace gmlake::torch_adapter
