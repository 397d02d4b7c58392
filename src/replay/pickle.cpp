#include "replay/pickle.hpp"

#include <limits>

namespace gmlake::replay {

const char* to_string(PickleKind kind) {
  switch (kind) {
    case PickleKind::none:
      return "None";
    case PickleKind::boolean:
      return "a bool";
    case PickleKind::integer:
      return "an int";
    case PickleKind::real:
      return "a float";
    case PickleKind::text:
      return "a str";
    case PickleKind::bytes:
      return "bytes";
    case PickleKind::list:
      return "a list";
    case PickleKind::tuple:
      return "a tuple";
    case PickleKind::set:
      return "a set";
    case PickleKind::dict:
      return "a dict";
  }
  return "?";
}

PickleKind PickleDocument::kind(PickleValue value) const {
  switch (value.tag()) {
    case PickleValue::Tag::absent:
      return PickleKind::none;
    case PickleValue::Tag::special:
      return value.payload() == 0 ? PickleKind::none : PickleKind::boolean;
    case PickleValue::Tag::small_integer:
    case PickleValue::Tag::wide_integer:
      return PickleKind::integer;
    case PickleValue::Tag::real:
      return PickleKind::real;
    case PickleValue::Tag::string:
      return texts_[value.payload()].is_bytes ? PickleKind::bytes : PickleKind::text;
    case PickleValue::Tag::container:
      return containers_[value.payload()].kind;
  }
  return PickleKind::none;
}

std::optional<std::uint64_t> PickleDocument::as_wide_unsigned(PickleValue value) const {
  if (value.tag() != PickleValue::Tag::wide_integer) return std::nullopt;
  const WideInteger& wide = wide_integers_[value.payload()];
  return wide.negative ? std::nullopt : std::optional(wide.bits);
}

std::optional<std::int64_t> PickleDocument::as_signed(PickleValue value) const {
  if (value.tag() == PickleValue::Tag::small_integer) return value.signed_payload();
  if (value.tag() != PickleValue::Tag::wide_integer) return std::nullopt;
  const WideInteger& wide = wide_integers_[value.payload()];
  constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (!wide.negative && wide.bits > kMax) return std::nullopt;
  return static_cast<std::int64_t>(wide.bits);
}

std::optional<double> PickleDocument::as_real(PickleValue value) const {
  if (value.tag() != PickleValue::Tag::real) return std::nullopt;
  return reals_[value.payload()];
}

std::optional<bool> PickleDocument::as_boolean(PickleValue value) const {
  if (value.tag() != PickleValue::Tag::special || value.payload() == 0) return std::nullopt;
  return value.payload() == 1;
}

std::optional<std::string_view> PickleDocument::as_text(PickleValue value) const {
  if (value.tag() != PickleValue::Tag::string) return std::nullopt;
  const Text& text = texts_[value.payload()];
  return std::string_view(text.data, text.size);
}

std::size_t PickleDocument::item_count(PickleValue value) const {
  if (value.tag() != PickleValue::Tag::container) return 0;
  const Container& container = containers_[value.payload()];
  return container.kind == PickleKind::dict ? static_cast<std::size_t>(std::popcount(container.count))
                                            : container.count;
}

}  // namespace gmlake::replay
