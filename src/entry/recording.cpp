#include "entry/recording.hpp"

#include <unistd.h>

#include <string>

namespace gmlake::entry {

std::unique_ptr<Recorder> start_recording(Allocator& allocator, const Options& options, FileError& error) {
  if (options.record.empty()) return nullptr;
  std::string path = options.record;
  const std::string process = std::to_string(::getpid());
  for (std::size_t at = 0; (at = path.find("%p", at)) != std::string::npos; at += process.size()) {
    path.replace(at, 2, process);
  }
  return Recorder::start(allocator, path, error);
}

}  // namespace gmlake::entry
