// Text tables for people: columns as wide as they need, names to the left, numbers to the right.
#pragma once

#include <string>
#include <vector>

namespace gmlake::cli {

class Table {
 public:
  // The first column is aligned to the left, the others to the right.
  explicit Table(std::vector<std::string> header) : rows_{std::move(header)} {}

  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }

  // Lines of equal width, each ended by a newline; a rule under the header.
  std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace gmlake::cli
