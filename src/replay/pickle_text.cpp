#include "replay/pickle_text.hpp"

#include <charconv>
#include <cstdint>

namespace gmlake::replay {
namespace {

bool parse_digits(std::string_view text, std::size_t at, std::size_t count, int base, std::uint32_t& value) {
  if (at + count > text.size()) return false;
  const char* const last = text.data() + at + count;
  const auto [end, code] = std::from_chars(text.data() + at, last, value, base);
  return code == std::errc() && end == last;
}

bool append_utf8(std::uint32_t point, std::string& out) {
  const auto byte = [&](std::uint32_t value) { out += static_cast<char>(static_cast<unsigned char>(value)); };
  if (point < 0x80) {
    byte(point);
  } else if (point < 0x800) {
    byte(0xc0 | point >> 6), byte(0x80 | (point & 0x3f));
  } else if (point < 0x10000) {
    byte(0xe0 | point >> 12), byte(0x80 | (point >> 6 & 0x3f)), byte(0x80 | (point & 0x3f));
  } else if (point < 0x110000) {
    byte(0xf0 | point >> 18), byte(0x80 | (point >> 12 & 0x3f));
    byte(0x80 | (point >> 6 & 0x3f)), byte(0x80 | (point & 0x3f));
  } else {
    return false;
  }
  return true;
}

// The character that a one-letter escape stands for, or 0.
char simple_escape(char letter) {
  switch (letter) {
    case '\\':
      return '\\';
    case '\'':
      return '\'';
    case '"':
      return '"';
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 't':
      return '\t';
    case 'a':
      return '\a';
    case 'b':
      return '\b';
    case 'f':
      return '\f';
    case 'v':
      return '\v';
    default:
      return 0;
  }
}

}  // namespace

bool unescape_raw_unicode(std::string_view line, std::string& out) {
  std::size_t i = 0;
  while (i < line.size()) {
    const bool escape = line[i] == '\\' && i + 1 < line.size() && (line[i + 1] == 'u' || line[i + 1] == 'U');
    if (!escape) {
      append_utf8(static_cast<unsigned char>(line[i++]), out);
      continue;
    }
    const std::size_t digits = line[i + 1] == 'u' ? 4 : 8;
    std::uint32_t point = 0;
    if (!parse_digits(line, i + 2, digits, 16, point) || !append_utf8(point, out)) return false;
    i += 2 + digits;
  }
  return true;
}

bool unescape_quoted(std::string_view line, std::string& out) {
  if (line.size() < 2 || line.front() != line.back() || (line.front() != '\'' && line.front() != '"')) return false;
  const std::string_view body = line.substr(1, line.size() - 2);
  std::size_t i = 0;
  while (i < body.size()) {
    if (body[i] != '\\') {
      out += body[i++];
      continue;
    }
    if (i + 1 == body.size()) return false;
    const char letter = body[i + 1];
    std::uint32_t value = 0;
    if (const char plain = simple_escape(letter); plain != 0) {
      out += plain;
      i += 2;
    } else if (letter == 'x' && parse_digits(body, i + 2, 2, 16, value)) {
      out += static_cast<char>(value);
      i += 4;
    } else if (parse_digits(body, i + 1, 3, 8, value) && value < 256) {
      out += static_cast<char>(value);
      i += 4;
    } else {
      return false;
    }
  }
  return true;
}

}  // namespace gmlake::replay
