#include "stitch/layout.hpp"

#include <bit>
#include <cstdlib>
#include <sstream>

namespace gmlake::stitch::testing {
namespace {

std::vector<PhyPart> parse_parts(const std::string& text) {
  std::vector<PhyPart> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, '+');) {
    char* end = nullptr;
    auto granules = static_cast<unsigned>(std::strtoul(part.c_str(), &end, 10));
    const std::string name = end;
    for (; name.empty() && !std::has_single_bit(granules); granules -= std::bit_floor(granules)) {
      parts.push_back({std::bit_floor(granules), ""});
    }
    parts.push_back({granules, name});
  }
  return parts;
}

double sum(const std::vector<PhyPart>& parts) {
  double granules = 0;
  for (const PhyPart& part : parts) granules += part.granules;
  return granules;
}

}  // namespace

std::vector<LayoutItem> parse_layout(std::string_view text) {
  std::vector<LayoutItem> items;
  std::istringstream in{std::string(text)};
  bool inside = false;
  for (std::string word; in >> word;) {
    if (word.front() == '[') {
      const std::vector<PhyPart> parts = parse_parts(word.substr(1));
      items.push_back({'M', sum(parts), parts});
      inside = true;
      continue;
    }
    const bool last = word.back() == ']';
    if (last) word.pop_back();
    const char kind = word.front();
    const std::string rest = word.substr(1);
    if (inside || kind == 'H') {
      items.push_back({kind, std::strtod(rest.c_str(), nullptr), {}});
    } else {
      const std::vector<PhyPart> parts = parse_parts(rest);
      const bool mapped = kind == 'L' || kind == 'P' || kind == 'F' || kind == 'f';
      if (mapped) items.push_back({'M', sum(parts), parts});
      items.push_back({kind, sum(parts), mapped ? std::vector<PhyPart>{} : parts});
    }
    if (last) inside = false;
  }
  return items;
}

}  // namespace gmlake::stitch::testing
