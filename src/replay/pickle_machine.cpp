// The stack machine that reads a pickle into a PickleDocument. Every read checks what is left of the input, every
// growth of memory is charged to a budget, and nothing recurses. Used by PickleDocument::read alone; no state is
// shared. Longer than most files here: a pickle has 60 opcodes, and one switch over them is easier to check than five.
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>

#include "replay/pickle.hpp"
#include "replay/pickle_text.hpp"

namespace gmlake::replay {
namespace {

// Opcodes that import or call code, or reach outside the file. Python's own unpickler would run what they name.
const char* refused_opcode(unsigned char opcode) {
  switch (opcode) {
    case 'c':
      return "GLOBAL";
    case 'R':
      return "REDUCE";
    case 'b':
      return "BUILD";
    case 'i':
      return "INST";
    case 'o':
      return "OBJ";
    case 'P':
      return "PERSID";
    case 'Q':
      return "BINPERSID";
    case 0x81:
      return "NEWOBJ";
    case 0x82:
      return "EXT1";
    case 0x83:
      return "EXT2";
    case 0x84:
      return "EXT4";
    case 0x92:
      return "NEWOBJ_EX";
    case 0x93:
      return "STACK_GLOBAL";
    case 0x97:
      return "NEXT_BUFFER";
    case 0x98:
      return "READONLY_BUFFER";
    default:
      return nullptr;
  }
}

template <class T>
T load_little_endian(const char* bytes) {
  T value;
  static_assert(std::endian::native == std::endian::little, "the loads below assume it");
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

}  // namespace

// These run for each of millions of opcodes, and calls would double their cost.
#define GMLAKE_HOT __attribute__((always_inline)) inline

class PickleMachine {
 public:
  PickleMachine(ByteSource& source, std::span<const std::string_view> keys)
      : source_(source), keys_(keys), at_(source.at()), end_(source.end()) {}

  InputResult<PickleDocument> run();

 private:
  using Tag = PickleValue::Tag;

  InputResult<PickleDocument> stop() {
    if (top_ == fence_) return error("STOP with no value on the stack");
    document_.root_ = stack_[top_ - 1];
    source_.set_at(at_);
    if (!source_.finish()) return *source_.damage();
    return std::move(document_);
  }

  InputError error(std::string reason) const {
    if (source_.damage()) return *source_.damage();
    if (opcode_at_ != nullptr) return source_.error_at(opcode_at_, std::move(reason));
    InputError error = source_.error_at(source_.at(), std::move(reason));
    error.position = opcode_offset_;
    return error;
  }
  bool fail(std::string reason) {
    reason_ = std::move(reason);
    return false;
  }

  // Memory is charged before it is taken. The counts that the input claims are never a reason to take any.
  bool charge(std::size_t bytes) {
    if (bytes <= budget_) {
      budget_ -= bytes;
      return true;
    }
    return fail("holds more values than a snapshot of its length can");
  }

  // Input. The current opcode's place is kept as an offset once the window moves on.
  bool refill(std::size_t need) {
    if (opcode_at_ != nullptr) opcode_offset_ = source_.offset_of(opcode_at_);
    opcode_at_ = nullptr;
    const std::uint64_t received = source_.received();
    source_.set_at(at_);
    const bool enough = source_.fill(need);
    at_ = source_.at();
    end_ = source_.end();
    budget_ += pickle_budget_bytes(source_.received()) - pickle_budget_bytes(received);
    return enough;
  }
  GMLAKE_HOT bool have(std::size_t bytes) { return static_cast<std::size_t>(end_ - at_) >= bytes || refill(bytes); }
  bool take(std::uint64_t bytes, const char*& from) {
    if (!have(bytes)) return fail("claims " + std::to_string(bytes) + " bytes, more than are left");
    from = at_;
    at_ += bytes;
    return true;
  }
  template <class T>
  GMLAKE_HOT bool take_number(T& value) {
    if (!have(sizeof(T))) return fail("ends within an opcode");
    value = load_little_endian<T>(at_);
    at_ += sizeof(T);
    return true;
  }
  bool take_line(std::string_view& line) {
    std::size_t seen = 0;
    while (true) {
      const std::size_t length = static_cast<std::size_t>(end_ - at_);
      if (const void* newline = length == seen ? nullptr : std::memchr(at_ + seen, '\n', length - seen)) {
        line = {at_, static_cast<std::size_t>(static_cast<const char*>(newline) - at_)};
        at_ = static_cast<const char*>(newline) + 1;
        return true;
      }
      seen = length;
      if (!refill(length + 1)) return fail("ends within a line");
    }
  }

  // Stack. Opcodes reach down to the last MARK and no further.
  GMLAKE_HOT bool push(PickleValue value) {
    if (top_ == stack_.size() && !grow_stack()) return false;
    stack_[top_++] = value;
    return true;
  }
  bool grow_stack() {
    const std::size_t more = stack_.empty() ? 256 : stack_.size();
    if (!charge(more * sizeof(PickleValue))) return false;
    stack_.resize(stack_.size() + more);
    return true;
  }
  GMLAKE_HOT bool need(std::size_t count) {
    if (top_ - fence_ >= count) return true;
    return fail("takes more values than are on the stack");
  }
  GMLAKE_HOT bool push_mark() {
    if (!charge(2 * sizeof(std::size_t))) return false;
    marks_.push_back(fence_);
    fence_ = top_;
    return true;
  }
  // The height of the stack at the last MARK, which is taken away.
  GMLAKE_HOT bool pop_mark(std::size_t& height) {
    if (marks_.empty()) return fail("finds no MARK");
    height = fence_;
    fence_ = marks_.back();
    marks_.pop_back();
    budget_ += 2 * sizeof(std::size_t);
    return true;
  }

  // Values.
  static PickleValue special(std::uint64_t which) { return {Tag::special, which}; }
  GMLAKE_HOT bool push_integer(std::int64_t value) {
    constexpr std::int64_t kLimit = std::int64_t{1} << (63 - PickleValue::kTagBits);
    if (value >= -kLimit && value < kLimit) return push({Tag::small_integer, static_cast<std::uint64_t>(value)});
    return push_wide(static_cast<std::uint64_t>(value), value < 0);
  }
  bool push_wide(std::uint64_t bits, bool negative) {
    if (!charge(2 * sizeof(PickleDocument::WideInteger))) return false;
    document_.wide_integers_.push_back({bits, negative});
    return push({Tag::wide_integer, document_.wide_integers_.size() - 1});
  }
  bool push_unsigned(std::uint64_t value) {
    constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    return value <= kMax ? push_integer(static_cast<std::int64_t>(value)) : push_wide(value, false);
  }
  bool push_real(double value) {
    if (!charge(2 * sizeof(double))) return false;
    document_.reals_.push_back(value);
    return push({Tag::real, document_.reals_.size() - 1});
  }
  bool push_text(std::uint64_t bytes, bool is_bytes) {
    const char* data = nullptr;
    if (!take(bytes, data)) return false;
    return push_text_at({data, static_cast<std::size_t>(bytes)}, is_bytes);
  }
  bool push_text_at(std::string_view text, bool is_bytes) {
    if (!charge(2 * sizeof(PickleDocument::Text) + text.size())) return false;
    std::int8_t key = -1;
    for (std::size_t i = 0; i < keys_.size(); ++i) {
      if (keys_[i] == text) key = static_cast<std::int8_t>(i);
    }
    document_.texts_.push_back({keep(text), static_cast<std::uint32_t>(text.size()), is_bytes, key});
    return push({Tag::string, document_.texts_.size() - 1});
  }
  // The window moves on; texts stay.
  const char* keep(std::string_view text) {
    constexpr std::size_t kBlock = std::size_t{4} << 10;
    if (text.size() > text_left_) {
      text_left_ = text.size() > kBlock ? text.size() : kBlock;
      document_.text_blocks_.push_back(std::make_unique_for_overwrite<char[]>(text_left_));
      text_at_ = document_.text_blocks_.back().get();
    }
    char* const kept = text_at_;
    if (!text.empty()) std::memcpy(kept, text.data(), text.size());
    text_at_ += text.size();
    text_left_ -= text.size();
    return kept;
  }
  bool push_unescaped(std::string_view line, bool (*unescape)(std::string_view, std::string&)) {
    std::string text;
    if (!unescape(line, text)) return fail("has a malformed string");
    return push_text_at(text, false);
  }

  // Containers.
  bool push_container(PickleKind kind) {
    if (!charge(sizeof(PickleDocument::Container) * 3 / 2)) return false;
    document_.containers_.push_back({0, 0, 0, kind});
    return push({Tag::container, document_.containers_.size() - 1});
  }
  // Moves what is above `height` on the stack into the container.
  GMLAKE_HOT bool fill(PickleValue target, std::size_t height) {
    PickleDocument::Container& container = document_.containers_[target.payload()];
    const std::size_t count = top_ - height;
    if (count == 0) return true;
    top_ = height;
    const PickleValue* const items = stack_.data() + height;
    return container.kind == PickleKind::dict ? fill_dict(container, items, count) : fill_list(container, items, count);
  }
  bool fill_list(PickleDocument::Container& container, const PickleValue* items, std::size_t count) {
    if (!charge((count + 1) * sizeof(PickleValue))) return false;
    std::vector<PickleValue>& values = document_.values_;
    const std::uint32_t last = container.last;
    const std::uint64_t last_header = last == 0 ? 0 : values[last].bits_;
    if (last != 0 && last + 1 + static_cast<std::uint32_t>(last_header) == values.size()) {
      values[last].bits_ = last_header + count;  // the container was the last to grow: its chunk just gets longer
    } else {
      const auto chunk = static_cast<std::uint32_t>(values.size());
      values.emplace_back().bits_ = count;
      if (last == 0) {
        container.first = chunk;
      } else {
        values[last].bits_ = last_header | std::uint64_t{chunk} << 32;
      }
      container.last = chunk;
    }
    values.insert(values.end(), items, items + count);
    container.count += static_cast<std::uint32_t>(count);
    return true;
  }
  GMLAKE_HOT bool fill_dict(PickleDocument::Container& dict, const PickleValue* items, std::size_t count) {
    PickleValue fields[kMaxPickleKeys];
    std::uint32_t kept = dict.count;
    std::vector<PickleValue>& values = document_.values_;
    std::uint32_t from = dict.first;
    for (std::uint32_t rest = kept; rest != 0; rest &= rest - 1) fields[std::countr_zero(rest)] = values[from++];
    for (std::size_t i = 0; i < count; i += 2) {
      if (items[i].tag() != Tag::string) continue;
      const auto known = document_.texts_[items[i].payload()].key;
      if (known < 0) continue;
      const auto key = static_cast<unsigned char>(known);
      fields[key] = items[i + 1];
      kept |= std::uint32_t{1} << key;
    }
    if (kept == 0) return true;
    const auto fields_kept = static_cast<std::size_t>(std::popcount(kept));
    if (!charge(fields_kept * sizeof(PickleValue))) return false;
    // A dict that is filled a second time moves: rare, since the pickler writes 1,000 keys at a time.
    dict.first = static_cast<std::uint32_t>(values.size());
    dict.count = kept;
    for (std::uint32_t rest = kept; rest != 0; rest &= rest - 1) values.push_back(fields[std::countr_zero(rest)]);
    return true;
  }
  // LIST, DICT, TUPLE, FROZENSET: a new container of what lies above `height`.
  bool collect(PickleKind kind, std::size_t height) {
    if (kind == PickleKind::dict && (top_ - height) % 2 != 0) return fail("makes a dict with a key without value");
    if (!charge(sizeof(PickleDocument::Container) * 3 / 2)) return false;
    document_.containers_.push_back({0, 0, 0, kind});
    const PickleValue made{Tag::container, document_.containers_.size() - 1};
    return fill(made, height) && push(made);
  }
  bool collect_to_mark(PickleKind kind) {
    std::size_t height = 0;
    return pop_mark(height) && collect(kind, height);
  }
  bool collect_top(std::size_t count) { return need(count) && collect(PickleKind::tuple, top_ - count); }
  // APPENDS, SETITEMS, ADDITEMS, APPEND, SETITEM: the container lies right below `height`.
  bool fill_below(PickleKind kind, std::size_t height) {
    if (height < fence_ + 1) return fail("finds no container to fill");
    const PickleValue target = stack_[height - 1];
    if (target.tag() != Tag::container || document_.containers_[target.payload()].kind != kind) {
      return fail(std::string("fills what is not ") + to_string(kind));
    }
    if (kind == PickleKind::dict && (top_ - height) % 2 != 0) return fail("sets a key without value");
    return fill(target, height);
  }
  bool fill_to_mark(PickleKind kind) {
    std::size_t height = 0;
    return pop_mark(height) && fill_below(kind, height);
  }

  // Memo. A pickler numbers its memo from 0 and each PUT takes two bytes, so a larger index is made up.
  bool memo_put(std::uint64_t index) {
    if (!need(1)) return false;
    if (index >= memo_.size()) {
      if (index > source_.received() / 2) return fail("puts to a memo index beyond any use");
      if (!charge((index + 1 - memo_.size()) * 2 * sizeof(PickleValue))) return false;
      memo_.resize(index + 1);
    }
    memo_[index] = stack_[top_ - 1];
    return true;
  }
  GMLAKE_HOT bool memoize() {
    if (!need(1)) return false;
    if (memo_.size() == memo_.capacity()) {
      const std::size_t grown = memo_.capacity() < 1024 ? 1024 : memo_.capacity() * 2;
      if (!charge((grown - memo_.capacity()) * sizeof(PickleValue))) return false;
      memo_.reserve(grown);
    }
    memo_.push_back(stack_[top_ - 1]);
    return true;
  }
  GMLAKE_HOT bool memo_get(std::uint64_t index) {
    if (index >= memo_.size() || memo_[index].tag() == Tag::absent) return fail("gets a memo entry that was never put");
    return push(memo_[index]);
  }

  GMLAKE_HOT bool execute(unsigned char opcode);
  bool decimal(std::string_view line);
  bool long_bytes(std::uint64_t bytes);
  bool float_line();
  bool pop();

  ByteSource& source_;
  std::span<const std::string_view> keys_;
  const char* at_;
  const char* end_;
  const char* opcode_at_ = nullptr;  // of the current opcode, while the window holds it
  std::uint64_t opcode_offset_ = 0;  // after that
  std::string reason_;
  std::size_t budget_ = 0;
  std::size_t fence_ = 0;  // the height of the stack at the last MARK
  std::vector<std::size_t> marks_;
  std::vector<PickleValue> stack_;  // as far as it ever grew; top_ says how much of it counts
  std::size_t top_ = 0;
  std::vector<PickleValue> memo_;
  char* text_at_ = nullptr;  // the rest of the last block of texts
  std::size_t text_left_ = 0;
  PickleDocument document_;
};

bool PickleMachine::decimal(std::string_view line) {
  const char* const last = line.data() + line.size();
  std::int64_t value = 0;
  if (const auto [end, code] = std::from_chars(line.data(), last, value); code == std::errc() && end == last) {
    return push_integer(value);
  }
  std::uint64_t wide = 0;
  const auto [end, code] = std::from_chars(line.data(), last, wide);
  if (code == std::errc::result_out_of_range) return fail("holds an integer wider than 64 bits");
  if (code != std::errc() || end != last) return fail("has a malformed integer");
  return push_unsigned(wide);
}

// Two's complement, little-endian, of any length that still fits 64 bits.
bool PickleMachine::long_bytes(std::uint64_t bytes) {
  const char* from = nullptr;
  if (!take(bytes, from)) return false;
  if (bytes == 0) return push_integer(0);
  std::uint64_t value = 0;
  const std::size_t low = bytes < 8 ? static_cast<std::size_t>(bytes) : 8;
  std::memcpy(&value, from, low);
  const bool negative = (static_cast<unsigned char>(from[bytes - 1]) & 0x80u) != 0;
  if (bytes < 8) {
    if (negative) value |= ~std::uint64_t{0} << (8 * bytes);
    return push_integer(static_cast<std::int64_t>(value));
  }
  for (std::uint64_t i = 8; i < bytes; ++i) {
    if (static_cast<unsigned char>(from[i]) != (negative ? 0xffu : 0u))
      return fail("holds an integer wider than 64 bits");
  }
  if (!negative) return push_unsigned(value);
  if (static_cast<std::int64_t>(value) >= 0) return fail("holds an integer wider than 64 bits");
  return push_integer(static_cast<std::int64_t>(value));
}

bool PickleMachine::float_line() {
  std::string_view line;
  if (!take_line(line)) return false;
  double value = 0;
  const auto [end, code] = std::from_chars(line.data(), line.data() + line.size(), value);
  if (code != std::errc() || end != line.data() + line.size()) return fail("has a malformed float");
  return push_real(value);
}

bool PickleMachine::pop() {
  if (top_ > fence_) {
    --top_;
    return true;
  }
  std::size_t height = 0;
  return pop_mark(height);  // POP right after MARK takes the mark away
}

GMLAKE_HOT bool PickleMachine::execute(unsigned char opcode) {
  std::uint8_t u8 = 0;
  std::uint16_t u16 = 0;
  std::uint32_t u32 = 0;
  std::uint64_t u64 = 0;
  std::size_t height = 0;
  std::string_view line;
  switch (opcode) {
    case 0x80:  // PROTO
      if (!take_number(u8)) return false;
      return u8 <= 5 || fail("is of pickle protocol " + std::to_string(u8) + ", newer than 5");
    case 0x95:  // FRAME: how far one read could go; what it claims is not needed
      return take_number(u64);
    case '(':
      return push_mark();
    case '0':
      return pop();
    case '1':  // POP_MARK
      if (!pop_mark(height)) return false;
      top_ = height;
      return true;
    case '2':
      return need(1) && push(stack_[top_ - 1]);  // DUP

    case 'N':
      return push(special(0));
    case 0x88:
      return push(special(1));  // NEWTRUE
    case 0x89:
      return push(special(2));  // NEWFALSE
    case 'K':
      return take_number(u8) && push_integer(u8);  // BININT1
    case 'M':
      return take_number(u16) && push_integer(u16);  // BININT2
    case 'J':
      return take_number(u32) && push_integer(static_cast<std::int32_t>(u32));  // BININT
    case 0x8a:
      return take_number(u8) && long_bytes(u8);  // LONG1
    case 0x8b:                                   // LONG4
      if (!take_number(u32)) return false;
      return u32 <= 0x7fffffffu ? long_bytes(u32) : fail("claims an integer of negative length");
    case 'I':  // INT; protocol 0 writes booleans as 00 and 01
      if (!take_line(line)) return false;
      return line == "01" || line == "00" ? push(special(line == "01" ? 1 : 2)) : decimal(line);
    case 'L':  // LONG
      if (!take_line(line)) return false;
      return decimal(line.ends_with('L') ? line.substr(0, line.size() - 1) : line);
    case 'F':
      return float_line();
    case 'G':  // BINFLOAT, the one big-endian number
      return take_number(u64) && push_real(std::bit_cast<double>(__builtin_bswap64(u64)));

    case 0x8c:
      return take_number(u8) && push_text(u8, false);  // SHORT_BINUNICODE
    case 'X':
      return take_number(u32) && push_text(u32, false);  // BINUNICODE
    case 0x8d:
      return take_number(u64) && push_text(u64, false);  // BINUNICODE8
    case 'V':
      return take_line(line) && push_unescaped(line, &unescape_raw_unicode);
    case 'S':
      return take_line(line) && push_unescaped(line, &unescape_quoted);
    case 'U':
      return take_number(u8) && push_text(u8, false);  // SHORT_BINSTRING
    case 'T':
      return take_number(u32) && push_text(u32, false);  // BINSTRING
    case 'C':
      return take_number(u8) && push_text(u8, true);  // SHORT_BINBYTES
    case 'B':
      return take_number(u32) && push_text(u32, true);  // BINBYTES
    case 0x8e:                                          // BINBYTES8
    case 0x96:
      return take_number(u64) && push_text(u64, true);  // BYTEARRAY8

    case ']':
      return push_container(PickleKind::list);
    case '}':
      return push_container(PickleKind::dict);
    case ')':
      return push_container(PickleKind::tuple);
    case 0x8f:
      return push_container(PickleKind::set);
    case 'l':
      return collect_to_mark(PickleKind::list);
    case 'd':
      return collect_to_mark(PickleKind::dict);
    case 't':
      return collect_to_mark(PickleKind::tuple);
    case 0x91:
      return collect_to_mark(PickleKind::set);  // FROZENSET
    case 0x85:
      return collect_top(1);
    case 0x86:
      return collect_top(2);
    case 0x87:
      return collect_top(3);
    case 'a':
      return need(2) && fill_below(PickleKind::list, top_ - 1);  // APPEND
    case 's':
      return need(3) && fill_below(PickleKind::dict, top_ - 2);  // SETITEM
    case 'e':
      return fill_to_mark(PickleKind::list);  // APPENDS
    case 'u':
      return fill_to_mark(PickleKind::dict);  // SETITEMS
    case 0x90:
      return fill_to_mark(PickleKind::set);  // ADDITEMS

    case 0x94:
      return memoize();
    case 'q':
      return take_number(u8) && memo_put(u8);
    case 'r':
      return take_number(u32) && memo_put(u32);
    case 'h':
      return take_number(u8) && memo_get(u8);
    case 'j':
      return take_number(u32) && memo_get(u32);
    case 'p':
    case 'g': {
      if (!take_line(line)) return false;
      const auto [end, code] = std::from_chars(line.data(), line.data() + line.size(), u64);
      if (code != std::errc() || end != line.data() + line.size()) return fail("has a malformed memo index");
      return opcode == 'p' ? memo_put(u64) : memo_get(u64);
    }
    default:
      break;
  }
  if (const char* name = refused_opcode(opcode)) {
    return fail(std::string("opcode ") + name + " would run code: refused");
  }
  constexpr char kHex[] = "0123456789abcdef";
  return fail(std::string("unknown pickle opcode 0x") + kHex[opcode >> 4] + kHex[opcode & 15]);
}

InputResult<PickleDocument> PickleMachine::run() {
  budget_ = pickle_budget_bytes(source_.received());
  // Address space alone until it is written, and a little more than a recorded snapshot uses.
  const std::size_t expected = source_.expected_bytes();
  document_.values_.reserve(expected / 12 + 1);
  document_.containers_.reserve(expected / 64);
  memo_.reserve(expected / 64);
  document_.values_.emplace_back();  // index 0 is no chunk
  while (at_ != end_ || refill(1)) {
    opcode_at_ = at_;
    const auto opcode = static_cast<unsigned char>(*at_++);
    if (opcode == '.') return stop();
    if (!execute(opcode)) return error(std::move(reason_));
  }
  opcode_at_ = at_;
  return error("ends before the pickle's STOP");
}

InputResult<PickleDocument> PickleDocument::read(ByteSource& source, std::span<const std::string_view> keys) {
  return PickleMachine(source, keys).run();
}

}  // namespace gmlake::replay
