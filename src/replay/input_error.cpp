#include "replay/input_error.hpp"

namespace gmlake::replay {
namespace {

// Bytes from 0x80 up stay: file names may be UTF-8.
std::string one_line(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) c = '?';
  }
  return out;
}

}  // namespace

std::string InputError::text() const {
  std::string out = file;
  switch (place) {
    case InputPlace::whole_file:
      break;
    case InputPlace::byte:
      out.append(": at byte ").append(std::to_string(position));
      break;
    case InputPlace::inflated_byte:
      out.append(": at inflated byte ").append(std::to_string(position));
      break;
    case InputPlace::line:
      out.append(":").append(std::to_string(position));
      break;
  }
  out += ": ";
  out += reason;
  return one_line(out);
}

std::string quote_for_message(std::string_view text) {
  constexpr std::size_t kShown = 40;
  std::string out(1, '"');
  for (const char c : text.substr(0, kShown)) {
    // A hostile string is no place for bytes that a terminal might act on, so this one is stricter than one_line().
    out += c >= 0x20 && c < 0x7f ? c : '?';
  }
  out += text.size() > kShown ? "...\"" : "\"";
  return out;
}

}  // namespace gmlake::replay
