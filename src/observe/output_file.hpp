// Writes a file whole or not at all: to a temporary file beside it, then flushed and renamed over it. Callable from any
// thread; two writers of one path leave the file of one of them.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace gmlake::observe {

// Returns why it failed, or nothing; then a file that was there before is as it was. A symbolic link is followed and
// stays. A pipe, a device, "-" (standard output) and what lies in /dev or /proc are written straight: there is nothing
// to rename. The file's permissions stay as they were; a new file gets the usual ones.
std::optional<std::string> write_file_atomically(const std::string& path, std::string_view bytes);

// The same for what comes in pieces: bounded memory, and nothing at `path` before commit(). One thread.
class OutputFile {
 public:
  explicit OutputFile(const std::string& path);
  ~OutputFile();  // without commit(): as if nothing had been written
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::string_view bytes);  // what fails is said by commit()
  std::optional<std::string> commit();

 private:
  void flush();

  std::string target_;
  std::string temporary_;  // empty: written straight
  std::string buffer_;
  std::optional<std::string> failure_;
  std::optional<unsigned> mode_;  // of the file that was there
  int fd_ = -1;
};

}  // namespace gmlake::observe
