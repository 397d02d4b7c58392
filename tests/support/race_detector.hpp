// Finds races of simulated kernels, also those through two addresses of one physical page, to which ThreadSanitizer is
// blind. It lies over a driver, sees every call, and is told of every kernel. Each stream has a vector clock, and so
// has the host; two touches of the same physical bytes, one of them a write, have to be ordered by
// - the order of one stream,
// - an event recorded after the first, and waited for on the device before the second,
// - an event recorded after the first, and seen passed by the host (a query that said so, a synchronization) before it
//   enqueued the second.
// Nothing else orders: not the moments at which kernels happen to run. So it finds in any one schedule what would go
// wrong in another. Bytes are known by the driver's handle and the offset in it, whatever the address. To unmap a range
// is a touch by the host: it has to have seen every kernel that came through that mapping.
// One thread.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "driver/stream_simulator.hpp"
#include "support/forwarding_driver.hpp"

namespace gmlake::test {

struct Race {
  enum class Touch : std::uint8_t { read, write, unmap };  // the last by the host, which has no stream
  struct Side {
    Touch touch = Touch::read;
    driver::Stream stream = {};
    driver::Address address = 0;  // of the first of the bytes in question, as this side saw it
  };
  Side first;
  Side second;
  driver::Handle handle = driver::Handle::none;
  std::uint64_t offset = 0;  // in the handle
  std::uint64_t bytes = 0;
};

std::string describe(const Race& race);

class RaceDetector final : public ForwardingDriver {
 public:
  using ForwardingDriver::ForwardingDriver;

  // A kernel that is enqueued now; the caller enqueues it where it runs.
  void kernel(Stream stream, std::span<const driver::Access> accesses);
  // The host waits for everything, by means of its own.
  void synchronize();

  std::uint64_t race_count() const { return race_count_; }
  const std::vector<Race>& races() const { return races_; }  // the first few
  std::uint64_t touches() const { return touches_; }         // ranges of one handle that were looked at

  Status release(Handle handle) override;
  Status map(Address address, std::uint64_t bytes, Handle handle) override;
  Status unmap(Address address, std::uint64_t bytes) override;
  Status event_record(Event event, Stream stream) override;
  Result<bool> event_query(Event event) override;
  Status event_synchronize(Event event) override;
  Status stream_wait(Stream stream, Event event) override;
  Status event_destroy(Event event) override;
  Status clear(Stream stream, Address address, std::uint64_t bytes) override;

 private:
  using Clock = std::vector<std::uint64_t>;  // by index of stream: how many of its operations come before
  struct StreamState {
    Stream name;
    Clock clock;               // of its latest operation
    std::uint64_t joined = 0;  // the host's age when the host's clock was last joined
  };
  struct Mark {  // one kernel's touch
    std::uint32_t stream = 0;
    std::uint64_t point = 0;  // of its stream; 0: there was none
    Address address = 0;      // of the begin of the range that it is kept for
    bool write = false;
  };
  struct Cell {  // a range of one handle, all of whose bytes were touched by the same kernels last
    std::uint64_t end = 0;
    Mark write;
    std::vector<Mark> reads;  // since then, the last of each stream
  };
  struct Memory {
    std::map<std::uint64_t, Cell> cells;  // by offset
    std::uint64_t mappings = 0;
    bool released = false;
  };
  struct Mapping {
    std::uint64_t bytes = 0;
    Handle handle = Handle::none;
    Memory* memory = nullptr;  // its own: nodes of the table stay where they are
    std::vector<Mark> last;    // through it, of each stream
  };

  std::uint32_t index_of(Stream stream);
  StreamState& enqueue(Stream stream);
  static void join(Clock& clock, const Clock& other);
  static bool before(const Mark& mark, const Clock& clock);
  void observe(Event event);
  static void cut(std::map<std::uint64_t, Cell>& cells, std::uint64_t offset);
  void touch(const Clock& clock, Mapping& mapping, std::uint64_t begin, std::uint64_t end, const Mark& mark);
  void check(const Clock& clock, Handle handle, std::uint64_t begin, std::uint64_t end, const Mark& earlier,
             const Race::Side& later);
  Race::Side side_of(const Mark& mark) const;
  void drop_if_gone(Handle handle);

  std::vector<StreamState> streams_;
  Clock host_;                  // what the host has seen complete
  std::uint64_t host_age_ = 1;  // advances with it
  std::unordered_map<std::uint64_t, Clock> events_;
  std::map<Address, Mapping> mappings_;
  std::unordered_map<std::uint64_t, Memory> memories_;  // by handle
  std::uint64_t touches_ = 0;
  std::uint64_t race_count_ = 0;
  std::vector<Race> races_;
};

}  // namespace gmlake::test
