#include <charconv>

#include "replay/made_up_addresses.hpp"
#include "replay/rmm_csv.hpp"

namespace gmlake::replay {
namespace {

void append_number(std::string& out, std::uint64_t value, int base = 10) {
  char digits[20];
  out.append(digits, std::to_chars(digits, digits + sizeof digits, value, base).ptr);
}

// HH:MM:SS.microseconds, as RMM writes it: an event is a microsecond.
void append_time(std::string& out, std::uint64_t microseconds) {
  const auto padded = [&](std::uint64_t value, std::size_t width) {
    const std::string digits = std::to_string(value);
    if (digits.size() < width) out.append(width - digits.size(), '0');
    out += digits;
  };
  const std::uint64_t seconds = microseconds / 1'000'000;
  padded(seconds / 3600 % 24, 2);
  out += ':';
  padded(seconds / 60 % 60, 2);
  out += ':';
  padded(seconds % 60, 2);
  out += '.';
  padded(microseconds % 1'000'000, 6);
}

}  // namespace

std::string write_rmm_csv(const DeviceTrace& trace) {
  struct Block {
    std::uint64_t address = 0;
    std::uint64_t bytes = 0;
  };
  std::string out(kRmmCsvHeader);
  out += '\n';
  std::vector<Block> blocks(trace.block_count);
  MadeUpAddresses addresses;
  for (std::size_t i = 0; i < trace.events.size(); ++i) {
    const Event& event = trace.events[i];
    if (event.op != Op::alloc && event.op != Op::free) continue;
    Block& block = blocks[event.id];
    if (event.op == Op::alloc) block = {addresses.take(event.bytes), event.bytes};
    out += "1,";
    append_time(out, i);
    out += event.op == Op::alloc ? ",allocate,0x" : ",free,0x";
    append_number(out, block.address, 16);
    out += ',';
    append_number(out, block.bytes);
    out += ",0x";
    append_number(out, trace.streams[event.stream], 16);
    out += '\n';
    if (event.op == Op::free) addresses.give(block.address, block.bytes);
  }
  return out;
}

}  // namespace gmlake::replay
