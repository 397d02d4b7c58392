#include "progress.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace gmlake::cli {
namespace {

constexpr int kBarColumns = 30;
constexpr std::chrono::milliseconds kRedraw{50};

int terminal_columns() {
  winsize size{};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

Progress::Progress(std::size_t steps) : shown_(::isatty(STDERR_FILENO) != 0), steps_(std::max<std::size_t>(steps, 1)) {}

void Progress::begin(const std::string& label) {
  label_ = label;
  ++begun_;
  last_ = {};
  update(0, 1);
}

void Progress::update(std::uint64_t done, std::uint64_t total) {
  if (!shown_) return;
  const auto now = std::chrono::steady_clock::now();
  if (drawn_ && now - last_ < kRedraw) return;
  last_ = now;
  const double part = total == 0 ? 0 : std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
  const double before = begun_ == 0 ? 0 : static_cast<double>(begun_ - 1);
  draw(std::min(1.0, (before + part) / static_cast<double>(steps_)));
}

void Progress::draw(double fraction) {
  const int full = static_cast<int>(fraction * kBarColumns);
  std::string line = '[' + std::string(static_cast<std::size_t>(full), '#') +
                     std::string(static_cast<std::size_t>(kBarColumns - full), ' ') + ']';
  char percent[16];
  std::snprintf(percent, sizeof percent, " %3d %%  ", static_cast<int>(fraction * 100));
  line += percent + label_;
  line.resize(std::min(line.size(), static_cast<std::size_t>(terminal_columns() - 1)));
  std::fprintf(stderr, "\r\033[K%s", line.c_str());
  std::fflush(stderr);
  drawn_ = true;
}

void Progress::clear() {
  if (!drawn_) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
  drawn_ = false;
}

}  // namespace gmlake::cli
