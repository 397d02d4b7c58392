// Turns the history of one device into the events of a .gmtrace, as they come. What the rules of a trace forbid,
// because events were dropped, is mended or left out: a free of what was never seen, a second alloc of one address. One
// thread.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "gmlake/history.hpp"
#include "gmlake/snapshot.hpp"
#include "observe/trace_file_layout.hpp"

namespace gmlake::observe {

class TraceEncoder {
 public:
  // What is live already, by address.
  void begin(const DeviceSnapshot& device, std::string& out);
  // Appends what the event becomes in the trace, if anything.
  void add(const HistoryEvent& event, std::string& out);

  std::uint64_t event_count() const { return events_; }
  // What a trace has of the device before its events.
  std::string head(int device, std::uint64_t peak_reserved_bytes) const;

 private:
  struct Block {
    std::uint32_t id = 0;
    std::uint16_t stream = 0;
  };

  std::uint16_t index_of(std::uint64_t stream);
  void alloc(std::uint64_t address, std::uint64_t bytes, std::uint64_t stream, std::string& out);
  void use(const Block& block, std::uint16_t stream, std::string& out);
  void free(std::unordered_map<std::uint64_t, Block>::iterator block, std::string& out);
  void tag(TraceOp op, unsigned char flags, std::string& out);

  std::unordered_map<std::uint64_t, Block> live_;
  std::unordered_map<std::uint64_t, std::uint16_t> index_by_handle_{{0, std::uint16_t{0}}};
  std::vector<std::uint64_t> handles_{0};
  std::uint64_t events_ = 0;
  std::uint32_t blocks_ = 0;
  std::uint16_t last_stream_ = 0;
  std::uint64_t last_bytes_ = 0;
};

}  // namespace gmlake::observe
