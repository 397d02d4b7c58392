// A reader of the safe subset of Python's pickle format: plain data out of dicts, lists, tuples, sets, strings, bytes,
// integers, floats, booleans and None, in protocols 0 to 5. Every opcode that would import or call code is refused.
// The result is a graph of shared nodes in flat arrays, so reading needs no recursion and a list that a pickle names a
// thousand times is held once. Its memory is bounded by the length of the input; see pickle_budget_bytes().
// A Document is immutable once read: any thread may look at it.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "replay/input_error.hpp"

namespace gmlake::replay {

enum class PickleKind : std::uint8_t { none, boolean, integer, real, text, bytes, list, tuple, set, dict };
const char* to_string(PickleKind kind);

// A value of a document, in 8 bytes: small things themselves, others by their number. Meaningful with its document
// only.
class PickleValue {
 public:
  PickleValue() = default;
  friend bool operator==(PickleValue, PickleValue) = default;

 private:
  friend class PickleDocument;
  friend class PickleMachine;
  enum class Tag : std::uint8_t { absent, special, small_integer, wide_integer, real, string, container };
  static constexpr unsigned kTagBits = 3;

  PickleValue(Tag tag, std::uint64_t payload) : bits_(payload << kTagBits | static_cast<std::uint64_t>(tag)) {}
  Tag tag() const { return static_cast<Tag>(bits_ & ((1u << kTagBits) - 1)); }
  std::uint64_t payload() const { return bits_ >> kTagBits; }
  std::int64_t signed_payload() const { return static_cast<std::int64_t>(bits_) >> kTagBits; }

  std::uint64_t bits_ = 0;  // Tag::absent
};

// What reading a pickle of `bytes` bytes may take besides the input: 64 MiB or 4 times the input, whichever is more.
// A recorded snapshot takes about 1.8 times its length.
constexpr std::uint64_t pickle_budget_bytes(std::uint64_t bytes) {
  constexpr std::uint64_t kFloor = std::uint64_t{64} << 20;
  return bytes * 4 > kFloor ? bytes * 4 : kFloor;
}

class PickleDocument {
 public:
  PickleDocument(PickleDocument&&) = default;
  PickleDocument& operator=(PickleDocument&&) = default;

  // `data` must outlive the document: its strings are views of it. `file` and `place` (byte or inflated_byte) are for
  // errors. Bytes after the pickle's STOP are ignored, as Python does.
  static InputResult<PickleDocument> read(std::string_view data, const std::string& file, InputPlace place);

  PickleValue root() const { return root_; }
  PickleKind kind(PickleValue value) const;

  // Nothing where the value is of another kind, or the integer does not fit the type.
  std::optional<std::uint64_t> as_unsigned(PickleValue value) const;
  std::optional<std::int64_t> as_signed(PickleValue value) const;
  std::optional<double> as_real(PickleValue value) const;
  std::optional<bool> as_boolean(PickleValue value) const;
  std::optional<std::string_view> as_text(PickleValue value) const;  // str; bytes too, which is what Python 2 wrote

  // Items of a list, tuple or set; keys and values of a dict, counted apart. 0 for anything else.
  std::size_t item_count(PickleValue value) const;

  // Calls visit(item) for each item of a list, tuple or set, in order, until it returns false. Returns whether all were
  // visited. A dict gives its keys and values in turn. Other values have no items.
  template <class Visit>
  bool for_each_item(PickleValue value, Visit&& visit) const {
    if (value.tag() != PickleValue::Tag::container) return true;
    std::uint32_t chunk = containers_[value.payload()].first;
    while (chunk != 0) {
      const std::uint64_t header = values_[chunk].bits_;
      const std::uint32_t count = static_cast<std::uint32_t>(header);
      for (std::uint32_t i = 0; i < count; ++i) {
        if (!visit(values_[chunk + 1 + i])) return false;
      }
      chunk = static_cast<std::uint32_t>(header >> 32);
    }
    return true;
  }

  // Calls visit(key, value) for each pair of a dict, in the order in which they were set; a key may come again.
  template <class Visit>
  void for_each_pair(PickleValue dict, Visit&& visit) const {
    if (dict.tag() != PickleValue::Tag::container) return;
    const Container& container = containers_[dict.payload()];
    if (container.kind != PickleKind::dict) return;
    std::uint32_t chunk = container.first;
    while (chunk != 0) {  // a pair never spans two chunks
      const std::uint64_t header = values_[chunk].bits_;
      const std::uint32_t count = static_cast<std::uint32_t>(header);
      for (std::uint32_t i = 0; i < count; i += 2) visit(values_[chunk + 1 + i], values_[chunk + 2 + i]);
      chunk = static_cast<std::uint32_t>(header >> 32);
    }
  }

  // The value of a text key, the last where it was set twice; nothing where it is missing or `dict` is no dict.
  std::optional<PickleValue> find(PickleValue dict, std::string_view key) const;

 private:
  friend class PickleMachine;
  PickleDocument() = default;

  struct Text {
    const char* data = nullptr;
    std::uint32_t size = 0;
    bool is_bytes = false;
  };
  struct WideInteger {
    std::uint64_t bits = 0;
    bool negative = false;  // then bits are two's complement
  };
  // A container's items lie in chunks of values_: a header (count, and the index of the next chunk), then the items.
  // The pickler writes at most 1,000 items at a time, so a chunk is copied once and never moved. Index 0 is no chunk.
  struct Container {
    std::uint32_t first = 0;
    std::uint32_t last = 0;
    std::uint32_t count = 0;
    PickleKind kind = PickleKind::list;
  };

  PickleValue root_;
  std::vector<PickleValue> values_;
  std::vector<Container> containers_;
  std::vector<Text> texts_;
  std::vector<WideInteger> wide_integers_;
  std::vector<double> reals_;
  std::deque<std::string> unescaped_;  // strings of protocol 0, which are not in the input as they are
};

}  // namespace gmlake::replay
