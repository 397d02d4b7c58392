// Runs a piece of a test in the child of a fork.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

extern "C" [[gnu::weak]] int __llvm_profile_write_file();  // where tools/coverage.py counts; null else

namespace gmlake::test {

// What `work` returned in the child, 0 to 125; 1,000 and the number of the signal where one ended it.
template <class Work>
int in_child(Work&& work) {
  const pid_t child = fork();
  if (child == 0) {
    const int result = work();
    if (__llvm_profile_write_file != nullptr) __llvm_profile_write_file();
    _exit(result);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

}  // namespace gmlake::test
