// A progress bar on standard error, drawn only when that is a terminal; in a pipe or a log it writes nothing at all.
// One thread. Debian has no C++ library for this; what is needed fits here.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace gmlake::cli {

class Progress {
 public:
  // `steps`: how many pieces of work there are in all.
  explicit Progress(std::size_t steps);
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void begin(const std::string& label);                  // the next piece starts
  void update(std::uint64_t done, std::uint64_t total);  // how far the piece is
  void clear();                                          // wipes the bar, before other text is written

 private:
  void draw(double fraction);

  bool shown_;  // standard error is a terminal
  bool drawn_ = false;
  std::size_t steps_;
  std::size_t begun_ = 0;
  std::string label_;
  std::chrono::steady_clock::time_point last_{};
};

}  // namespace gmlake::cli
