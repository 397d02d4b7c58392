// A reader of the safe subset of Python's pickle format: plain data out of dicts, lists, tuples, sets, strings, bytes,
// integers, floats, booleans and None, in protocols 0 to 5. Every opcode that would import or call code is refused.
// The result is a graph of shared nodes in flat arrays, so reading needs no recursion and a list that a pickle names a
// thousand times is held once. Of dicts, only the keys that the caller asks for are kept: a snapshot has seven for each
// of a million events. Memory is bounded by the length of the input; see pickle_budget_bytes().
// A Document is immutable once read: any thread may look at it.
#pragma once

#include <bit>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "replay/byte_source.hpp"
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

// What reading a pickle of `bytes` bytes may take besides the input: 32 MiB and 4 times its length.
// A recorded snapshot takes about as much as its length.
constexpr std::uint64_t pickle_budget_bytes(std::uint64_t bytes) { return (std::uint64_t{32} << 20) + 4 * bytes; }

inline constexpr std::size_t kMaxPickleKeys = 32;

class PickleDocument {
 public:
  PickleDocument(PickleDocument&&) = default;
  PickleDocument& operator=(PickleDocument&&) = default;

  // Reads one pickle from the source, and the source to its end. Of dicts, the values of the text keys in `keys` are
  // kept, at most kMaxPickleKeys. Bytes after the pickle's STOP are ignored, as Python does.
  static InputResult<PickleDocument> read(ByteSource& source, std::span<const std::string_view> keys);

  PickleValue root() const { return root_; }
  PickleKind kind(PickleValue value) const;

  // Nothing where the value is of another kind, or the integer does not fit the type.
  std::optional<std::uint64_t> as_unsigned(PickleValue value) const {
    if (value.tag() == PickleValue::Tag::small_integer && value.signed_payload() >= 0) {
      return static_cast<std::uint64_t>(value.signed_payload());
    }
    return as_wide_unsigned(value);
  }
  std::optional<std::int64_t> as_signed(PickleValue value) const;
  std::optional<double> as_real(PickleValue value) const;
  std::optional<bool> as_boolean(PickleValue value) const;
  std::optional<std::string_view> as_text(PickleValue value) const;  // str; bytes too, which is what Python 2 wrote

  // Items of a list, tuple or set; of a dict the keys that were kept. 0 for anything else.
  std::size_t item_count(PickleValue value) const;

  // Calls visit(item) for each item of a list, tuple or set, in order, until it returns false. Returns whether all were
  // visited. Other values have no items.
  template <class Visit>
  bool for_each_item(PickleValue value, Visit&& visit) const {
    if (value.tag() != PickleValue::Tag::container) return true;
    const Container& container = containers_[value.payload()];
    if (container.kind == PickleKind::dict) return true;
    std::uint32_t chunk = container.first;
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

  // The kept values of a dict, in the order of the keys, and which keys they have: bit k for keys[k]. Of a key that was
  // set twice, the last. Nothing where the value is no dict. Valid as long as the document.
  struct Fields {
    std::uint32_t keys = 0;
    const PickleValue* values = nullptr;
    std::optional<PickleValue> find(std::size_t key) const {
      const std::uint32_t bit = std::uint32_t{1} << key;
      if ((keys & bit) == 0) return std::nullopt;
      return values[std::popcount(keys & (bit - 1))];
    }
  };
  Fields fields(PickleValue dict) const {
    if (dict.tag() != PickleValue::Tag::container) return {};
    const Container& container = containers_[dict.payload()];
    if (container.kind != PickleKind::dict) return {};
    return {container.count, values_.data() + container.first};
  }
  std::optional<PickleValue> field(PickleValue dict, std::size_t key) const { return fields(dict).find(key); }

 private:
  friend class PickleMachine;
  PickleDocument() = default;
  std::optional<std::uint64_t> as_wide_unsigned(PickleValue value) const;

  struct Text {
    const char* data = nullptr;
    std::uint32_t size = 0;
    bool is_bytes = false;
    std::int8_t key = -1;  // its index in the keys that are kept
  };
  struct WideInteger {
    std::uint64_t bits = 0;
    bool negative = false;  // then bits are two's complement
  };
  // The items of a list, tuple or set lie in chunks of values_: a header (count, and the index of the next chunk), then
  // the items. The pickler writes at most 1,000 items at a time, so a chunk is copied once and never moved. Index 0 is
  // no chunk. A dict has the values of its kept keys at `first`, in the order of the keys; `count` has their bits.
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
  std::vector<std::unique_ptr<char[]>> text_blocks_;  // what texts_ point into
};

}  // namespace gmlake::replay
