#include <array>
#include <charconv>
#include <cstring>
#include <optional>

#include "replay/address_table.hpp"
#include "replay/rmm_csv.hpp"
#include "replay/stream_table.hpp"

namespace gmlake::replay {
namespace {

constexpr std::size_t kColumns = 6;
constexpr std::size_t kMaxLineBytes = 4096;

// "0x7f00", "7f00" where a letter says that it is hexadecimal, "1024", and what printf makes of a null pointer.
std::optional<std::uint64_t> parse_number(std::string_view text) {
  if (text == "(nil)") return 0;
  int base = 10;
  if (text.starts_with("0x") || text.starts_with("0X")) {
    text.remove_prefix(2);
    base = 16;
  } else if (text.find_first_of("abcdefABCDEF") != std::string_view::npos) {
    base = 16;
  }
  std::uint64_t value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (code != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.back() == ' ' || text.back() == '\r' || text.back() == '\t')) text.remove_suffix(1);
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  return text;
}

class RmmCsvReader {
 public:
  explicit RmmCsvReader(ByteSource& source) : source_(source) {}

  InputResult<Trace> run() {
    std::string_view line;
    if (!next_line(line) || trim(without_mark(line)) != kRmmCsvHeader) {
      return error("the first line is not " + std::string(kRmmCsvHeader));
    }
    while (next_line(line)) {
      if (const std::string_view row = trim(line); !row.empty() && !read_row(row)) return error(std::move(reason_));
    }
    if (!reason_.empty()) return error(std::move(reason_));
    if (source_.damage()) return *source_.damage();
    if (trace_.events.empty()) return error("has no allocations");
    trace_.streams = streams_.handles();
    trace_.held_streams.assign(trace_.streams.size(), false);
    Trace trace;
    trace.devices.push_back(std::move(trace_));
    return trace;
  }

 private:
  InputError error(std::string reason) const {
    if (source_.damage()) return *source_.damage();
    return {source_.file(), InputPlace::line, line_, std::move(reason)};
  }
  bool fail(std::string reason) {
    reason_ = std::move(reason);
    return false;
  }

  static std::string_view without_mark(std::string_view line) {
    return line.starts_with("\xef\xbb\xbf") ? line.substr(3) : line;
  }

  // The last line may lack its newline.
  bool next_line(std::string_view& line) {
    if (!source_.fill(kMaxLineBytes) && source_.at() == source_.end()) return false;
    ++line_;
    const auto have = static_cast<std::size_t>(source_.end() - source_.at());
    const std::size_t looked = have < kMaxLineBytes ? have : kMaxLineBytes;
    const void* newline = std::memchr(source_.at(), '\n', looked);
    if (newline == nullptr && have >= kMaxLineBytes) return fail("is longer than 4096 bytes");
    const std::size_t length =
        newline == nullptr ? have : static_cast<std::size_t>(static_cast<const char*>(newline) - source_.at());
    line = {source_.at(), length};
    source_.set_at(source_.at() + length + (newline == nullptr ? 0 : 1));
    return true;
  }

  bool read_row(std::string_view row) {
    std::array<std::string_view, kColumns> fields;
    for (std::size_t i = 0; i < kColumns; ++i) {
      const std::size_t comma = row.find(',');
      if ((comma == std::string_view::npos) != (i + 1 == kColumns))
        return fail("has not the six columns of the header");
      fields[i] = trim(row.substr(0, comma));
      if (comma != std::string_view::npos) row.remove_prefix(comma + 1);
    }
    const std::string_view action = fields[2];
    if (action == "allocate failure") return true;
    const bool is_alloc = action == "allocate";
    if (!is_alloc && action != "free" && action != "deallocate") {
      return fail("unknown action " + quote_for_message(action));
    }
    const auto pointer = parse_number(fields[3]);
    const auto bytes = parse_number(fields[4]);
    const auto handle = parse_number(fields[5]);
    if (!pointer) return fail("pointer " + quote_for_message(fields[3]) + " is no number");
    if (!bytes) return fail("size " + quote_for_message(fields[4]) + " is no number");
    if (!handle) return fail("stream " + quote_for_message(fields[5]) + " is no number");
    if (*pointer == 0) return true;
    const auto stream = streams_.index_of(*handle);
    if (!stream) return fail("has more than 1024 streams");
    return is_alloc ? add_alloc(fields[3], *pointer, *bytes, *stream) : add_free(fields[3], *pointer, *stream);
  }

  bool add_alloc(std::string_view text, std::uint64_t pointer, std::uint64_t bytes, std::uint16_t stream) {
    if (bytes > kMaxBlockBytes) return fail("allocates more than 2^48 bytes");
    AddressTable::Entry& entry = addresses_.at(pointer);
    if (entry.state == AddressState::live)
      return fail("allocates " + quote_for_message(text) + ", which is still live");
    if (trace_.block_count == ~std::uint32_t{0}) return fail("has more than 2^32 - 1 allocations");
    entry.state = AddressState::live;
    entry.block = trace_.block_count++;
    streams_of_blocks_.push_back(stream);
    trace_.events.push_back({Op::alloc, 0, stream, entry.block, bytes});
    return true;
  }

  bool add_free(std::string_view text, std::uint64_t pointer, std::uint16_t stream) {
    if (addresses_.state_of(pointer) != AddressState::live) {
      return fail("frees " + quote_for_message(text) + ", which is not live");
    }
    AddressTable::Entry& entry = addresses_.at(pointer);
    entry.state = AddressState::freed;
    const std::uint16_t own = streams_of_blocks_[entry.block];
    if (stream != own) trace_.events.push_back({Op::record_stream, 0, stream, entry.block, 0});
    trace_.events.push_back({Op::free, 0, own, entry.block, 0});
    return true;
  }

  ByteSource& source_;
  std::uint64_t line_ = 0;
  std::string reason_;
  StreamTable streams_;
  AddressTable addresses_;
  std::vector<std::uint16_t> streams_of_blocks_;
  DeviceTrace trace_;
};

}  // namespace

InputResult<Trace> read_rmm_csv(ByteSource& source) { return RmmCsvReader(source).run(); }

}  // namespace gmlake::replay
