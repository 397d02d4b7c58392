// The recorder: a thread that moves events out of each device's history into a file without a name, one for each
// device; stop() puts the trace together from these. Memory: a few KiB, what is live, and the history itself. Whoever
// is still recording when the process exits is stopped then, from the list of all recorders.
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "base/mutex.hpp"
#include "base/process.hpp"
#include "gmlake/observe.hpp"
#include "observe/crc32.hpp"
#include "observe/output_file.hpp"
#include "observe/trace_encoder.hpp"
#include "observe/varint.hpp"

namespace gmlake {
namespace {

using observe::OutputFile;

constexpr auto kPause = std::chrono::milliseconds(10);
constexpr std::size_t kAtOnce = 512;  // events copied under one hold of the allocator's lock: 20 KB, some microseconds
constexpr std::size_t kBuffer = std::size_t{256} << 10;

// Bytes that are kept on disk until they are wanted, in a file that no folder names: beside the target, where there is
// room for them, unless that is no file.
class Spill {
 public:
  explicit Spill(const std::string& target) {
    const bool no_file = target == "-" || target.starts_with("/dev/") || target.starts_with("/proc/");
    std::string name = (no_file ? "/tmp/gmlake" : target) + ".events.XXXXXX";
    fd_ = ::mkostemp(name.data(), O_CLOEXEC);
    if (fd_ < 0) {
      failure_ = std::string("cannot make a temporary file beside it: ") + std::strerror(errno);
    } else {
      ::unlink(name.c_str());
    }
  }
  ~Spill() {
    if (fd_ >= 0) ::close(fd_);
  }
  Spill(const Spill&) = delete;
  Spill& operator=(const Spill&) = delete;

  const std::string& failure() const { return failure_; }
  std::uint64_t bytes() const { return bytes_; }

  void append(std::string_view bytes) {
    while (!bytes.empty() && failure_.empty()) {
      const ssize_t wrote = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(bytes_));
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote < 0) {
        failure_ = std::string("cannot write: ") + std::strerror(errno);
        return;
      }
      bytes_ += static_cast<std::uint64_t>(wrote);
      bytes.remove_prefix(static_cast<std::size_t>(wrote));
    }
  }

  // Calls take(std::string_view) with all of it, in pieces.
  template <class Take>
  void read(Take&& take) {
    std::string buffer(kBuffer, '\0');
    for (std::uint64_t at = 0; at < bytes_ && failure_.empty();) {
      const ssize_t got = ::pread(fd_, buffer.data(), buffer.size(), static_cast<off_t>(at));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) {
        failure_ = std::string("cannot read its events back: ") + (got < 0 ? std::strerror(errno) : "too short");
        return;
      }
      take(std::string_view(buffer.data(), static_cast<std::size_t>(got)));
      at += static_cast<std::uint64_t>(got);
    }
  }

 private:
  int fd_ = -1;
  std::uint64_t bytes_ = 0;
  std::string failure_;
};

std::string fixed(std::uint64_t value, std::size_t bytes) {
  std::string out;
  for (std::size_t i = 0; i < bytes; ++i) out += static_cast<char>(static_cast<unsigned char>(value >> (8 * i)));
  return out;
}

}  // namespace

class Recorder::Work {
 public:
  Work(Allocator& allocator, std::string path) : allocator_(allocator), path_(std::move(path)) {}

  FileError start(const RecorderOptions& options) {
    const MutexLock one(stop_mutex_);
    try {
      FileError error = begin(options);
      if (error.ok()) thread_ = std::thread([this] { move_events(); });
      recording_ = error.ok();
      return error;
    } catch (...) {
      (void)allocator_.keep_history(0).ok();
      recording_ = false;
      throw;
    }
  }

  // The one function that two threads may be in: the recorder's own, and that which exits the process.
  FileError stop() {
    if (!origin_.intact()) {  // the thread is the parent's, or gone, and so may be who holds the lock
      if (thread_.joinable()) thread_.detach();
      return {"cannot write: the process was forked, or ends"};
    }
    const MutexLock one(stop_mutex_);
    if (!thread_.joinable()) return {failure_};
    {
      const MutexLock lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    thread_.join();
    (void)allocator_.keep_history(0).ok();  // shrinking takes no memory
    recording_ = false;
    const MutexLock lock(mutex_);
    failure_ = assemble();
    return {failure_};
  }

  const Allocator& allocator() const { return allocator_; }
  bool records(const Allocator& allocator) const { return recording_ && &allocator_ == &allocator; }

  std::uint64_t events() const {
    const MutexLock lock(mutex_);
    std::uint64_t sum = 0;
    for (const auto& device : devices_) sum += device->encoder.event_count();
    return sum;
  }
  std::uint64_t dropped() const {
    const MutexLock lock(mutex_);
    return dropped_;
  }

 private:
  struct Device {
    explicit Device(const std::string& path) : spill(path) {}
    Spill spill;
    observe::TraceEncoder encoder;
    std::string buffer;
    std::uint64_t next = 0;  // number of the event to read
  };

  FileError begin(const RecorderOptions& options) {
    const auto count = static_cast<std::size_t>(allocator_.device_count());
    const MutexLock lock(mutex_);
    for (std::size_t i = 0; i < count; ++i) {
      devices_.push_back(std::make_unique<Device>(path_));
      if (const std::string& failure = devices_.back()->spill.failure(); !failure.empty()) return {failure};
    }
    if (const Status kept = allocator_.keep_history(options.events); !kept.ok()) return {describe(kept.error())};
    // The history is on: what a snapshot shows, and the events after it, are all that happens from now on.
    const Snapshot snapshot = allocator_.snapshot();
    for (const DeviceSnapshot& live : snapshot.devices) {
      Device& device = *devices_[static_cast<std::size_t>(live.device)];
      device.encoder.begin(live, device.buffer);
      device.next = live.history_end;
    }
    return {};
  }

  void move_events() {
    for (bool last = false; !last;) {
      const MutexLock lock(mutex_);
      if (!stopping_) wake_.wait_for(mutex_, kPause);
      last = stopping_;
      for (std::size_t i = 0; i < devices_.size(); ++i) drain(static_cast<int>(i), *devices_[i]);
    }
  }

  void drain(int number, Device& device) GMLAKE_REQUIRES(mutex_) {
    // Up to what is there now: a busy device must not keep the others waiting.
    std::uint64_t end = device.next + 1;
    for (bool first = true; device.next < end; first = false) {
      HistoryPart part;
      try {
        part = allocator_.history(number, device.next, kAtOnce);
      } catch (const std::bad_alloc&) {
        return;  // the next visit may have more luck
      }
      if (first) end = part.end;
      dropped_ += part.first - std::min(part.first, device.next);
      device.next = std::max(part.first, device.next);
      for (const HistoryEvent& event : part.events) device.encoder.add(event, device.buffer);
      device.next += part.events.size();
      if (device.buffer.size() >= kBuffer) flush(device);
      if (part.events.empty()) return;
    }
  }

  static void flush(Device& device) {
    device.spill.append(device.buffer);
    device.buffer.clear();
  }

  std::string assemble() GMLAKE_REQUIRES(mutex_) {
    std::vector<std::pair<std::string, Device*>> parts;  // what comes before the events of each device
    std::string name = path_.substr(path_.rfind('/') + 1);
    name = name.substr(0, name.rfind('.'));
    std::string start;
    observe::append_varint(start, name.size());
    start += name;
    std::uint64_t used = 0;
    for (const auto& device : devices_) used += device->encoder.event_count() != 0;
    observe::append_varint(start, used);
    std::uint64_t length = start.size();
    std::uint32_t crc = observe::crc32(0, start);
    for (std::size_t i = 0; i < devices_.size(); ++i) {
      Device& device = *devices_[i];
      if (device.encoder.event_count() == 0) continue;
      flush(device);
      const int number = static_cast<int>(i);
      parts.emplace_back(device.encoder.head(number, allocator_.stats(number).all.reserved_bytes.peak), &device);
      crc = observe::crc32(crc, parts.back().first);
      device.spill.read([&](std::string_view bytes) { crc = observe::crc32(crc, bytes); });
      length += parts.back().first.size() + device.spill.bytes();
    }
    OutputFile file(path_);
    file.write(observe::kTraceFileMagic);
    file.write(fixed(observe::kTraceFileVersion, 1) + fixed(0, 1) + fixed(crc, 4) + fixed(length, 8) +
               fixed(length, 8));
    file.write(start);
    for (const auto& [head, device] : parts) {
      file.write(head);
      device->spill.read([&file](std::string_view bytes) { file.write(bytes); });
      if (!device->spill.failure().empty()) return device->spill.failure();
    }
    return file.commit().value_or(std::string());
  }

  Allocator& allocator_;
  const std::string path_;
  const process::Origin origin_;
  std::atomic<bool> recording_{true};
  Mutex stop_mutex_ GMLAKE_ACQUIRED_BEFORE(mutex_);
  mutable Mutex mutex_;
  std::condition_variable_any wake_;
  bool stopping_ GMLAKE_GUARDED_BY(mutex_) = false;
  std::vector<std::unique_ptr<Device>> devices_ GMLAKE_GUARDED_BY(mutex_);
  std::uint64_t dropped_ GMLAKE_GUARDED_BY(mutex_) = 0;
  std::thread thread_;
  std::string failure_;
};

// Every recorder of this process, for its exit. Never destroyed; in the child of a fork it is the parent's, and the
// first recorder there makes another.
struct Recorder::All {
  const process::Origin origin;
  Mutex mutex;
  std::vector<std::weak_ptr<Work>> recorders GMLAKE_GUARDED_BY(mutex);

  static inline constinit std::atomic<All*> current{nullptr};

  static All& get() {
    All* found = current.load(std::memory_order_acquire);
    if (found != nullptr && !found->origin.forked()) return *found;
    auto made = std::make_unique<All>();
    // Exit handlers run last one first: this one before that of the first allocator, from which on nothing is served.
    // One that is registered twice finds nothing to do the second time.
    if (std::atexit(stop_all) != 0 || std::at_quick_exit(stop_all) != 0) throw std::bad_alloc();
    return current.compare_exchange_strong(found, made.get()) ? *made.release() : *found;
  }

  // False where its allocator has a recorder already: the two would take the history from each other.
  bool add(const std::shared_ptr<Work>& work) {
    const MutexLock lock(mutex);
    std::erase_if(recorders, [](const std::weak_ptr<Work>& each) { return each.expired(); });
    for (const std::weak_ptr<Work>& each : recorders) {
      const std::shared_ptr<Work> other = each.lock();
      if (other != nullptr && other->records(work->allocator())) return false;
    }
    recorders.push_back(work);
    return true;
  }

  static void stop_all() {
    All* const all = current.load(std::memory_order_acquire);
    if (all == nullptr || all->origin.forked()) return;
    const MutexLock lock(all->mutex);
    for (const std::weak_ptr<Work>& each : all->recorders) {
      if (const std::shared_ptr<Work> work = each.lock()) (void)stop_quietly(*work);
    }
  }

  static FileError stop_quietly(Work& work) noexcept {
    try {
      return work.stop();
    } catch (...) {  // host memory ran out: there is no file
      return {};
    }
  }
};

Recorder::Recorder(std::shared_ptr<Work> work) : work_(std::move(work)) {}

Recorder::~Recorder() { (void)All::stop_quietly(*work_); }

std::unique_ptr<Recorder> Recorder::start(Allocator& allocator, const std::string& path, FileError& error,
                                          const RecorderOptions& options) {
  auto work = std::make_shared<Work>(allocator, path);
  std::unique_ptr<Recorder> recorder(new Recorder(work));
  if (!All::get().add(work)) {
    error = {"the allocator is being recorded already"};
    return nullptr;
  }
  error = work->start(options);
  return error.ok() ? std::move(recorder) : nullptr;
}

FileError Recorder::stop() { return work_->stop(); }
std::uint64_t Recorder::events() const { return work_->events(); }
std::uint64_t Recorder::dropped() const { return work_->dropped(); }

}  // namespace gmlake
