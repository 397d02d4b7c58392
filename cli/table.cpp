#include "table.hpp"

#include <algorithm>

namespace gmlake::cli {
namespace {

void trim_end(std::string& text) { text.erase(text.find_last_not_of(' ') + 1); }

}  // namespace

std::string Table::text() const {
  std::vector<std::size_t> widths(rows_.front().size(), 0);
  for (const auto& row : rows_) {
    for (std::size_t column = 0; column < row.size(); ++column)
      widths[column] = std::max(widths[column], row[column].size());
  }
  std::string out;
  for (const auto& row : rows_) {
    std::string line;
    for (std::size_t column = 0; column < row.size(); ++column) {
      const std::string padding(widths[column] - row[column].size(), ' ');
      if (column > 0) line += "  ";
      line += column == 0 ? row[column] + padding : padding + row[column];
    }
    trim_end(line);
    out += line + '\n';
    if (&row != &rows_.front()) continue;
    for (std::size_t column = 0; column < widths.size(); ++column)
      out += (column > 0 ? "  " : "") + std::string(widths[column], '-');
    out += '\n';
  }
  return out;
}

}  // namespace gmlake::cli
