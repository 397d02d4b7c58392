// How a command gives up: an exception with an exit code, caught in main() alone. The library below never throws it.
#pragma once

#include <stdexcept>
#include <string>

namespace gmlake::cli {

// What the process returns. Scripts rely on these: docs/cli.md lists them.
enum class ExitCode : int {
  done = 0,
  check_failed = 1,  // wrong bytes, or out of memory where none is allowed
  bad_input = 2,     // bad usage, bad input, or an output that cannot be written
  internal = 70,     // a bug in gmlake (EX_SOFTWARE)
};

class CommandError : public std::runtime_error {
 public:
  explicit CommandError(const std::string& message, ExitCode code = ExitCode::bad_input)
      : std::runtime_error(message), code_(code) {}

  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

// "gmlake: MESSAGE" on standard error.
void complain(const std::string& message);

}  // namespace gmlake::cli
