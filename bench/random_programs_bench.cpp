// The long run of random programs: the tests' own, from other seeds and in any number. Each program is run against the
// reference and the race detector of tests/support. Prints one line of JSON for every part of it; exits with 1 where
// a program failed, with its report in the line. bench/reliability.py makes the record of it.
//
//   random_programs_bench CONDITIONS SEED OPERATIONS    CONDITIONS by name; --list prints the names and their shares
//   random_programs_bench --smoke                       a little of each
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "support/program.hpp"

namespace {

using gmlake::test::Batch;
using gmlake::test::NamedConditions;

constexpr std::uint64_t kPart = 1'000'000;  // operations a line

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '\n') {
      result += "\\n";
    } else if (c == '"' || c == '\\') {
      result += std::string("\\") + c;
    } else {
      result += c;
    }
  }
  return result + "\"";
}

bool run(const NamedConditions& named, std::uint64_t seed, std::uint64_t operations) {
  for (std::uint64_t left = operations; left > 0;) {
    const auto start = std::chrono::steady_clock::now();
    const Batch batch =
        gmlake::test::run_random_programs(named.conditions, seed, left < kPart ? left : kPart, named.length);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    const auto number = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
    std::printf(
        "{\"conditions\": \"%s\", \"first_seed\": %llu, \"last_seed\": %llu, \"operations\": %llu, "
        "\"out_of_memory\": %llu, \"waits\": %llu, \"faults\": %llu, \"spared\": %llu, \"seconds\": %.1f, \"failure\": "
        "%s}\n",
        named.name, number(seed), number(batch.last_seed), number(batch.sum.operations), number(batch.sum.ooms),
        number(batch.sum.waits), number(batch.sum.faults), number(batch.sum.spared), seconds.count(),
        quoted(batch.failure).c_str());
    std::fflush(stdout);
    if (!batch.failure.empty()) return false;
    seed = batch.last_seed + 1;
    left -= left < batch.sum.operations ? left : batch.sum.operations;
  }
  return true;
}

}  // namespace

int main(int count, char** arguments) {
  const std::string_view first = count > 1 ? arguments[1] : "";
  bool passed = true;
  bool known = false;
  for (const NamedConditions& named : gmlake::test::named_conditions()) {
    if (first == "--smoke" || first == "--list") {
      known = true;
      if (first == "--list") {
        std::printf("%s %s %llu\n", named.conditions.host ? "host" : "model", named.name,
                    static_cast<unsigned long long>(named.share));
      } else {
        passed = run(named, 1, 2 * named.length) && passed;
      }
    } else if (count == 4 && first == named.name) {
      known = true;
      passed = run(named, std::strtoull(arguments[2], nullptr, 10), std::strtoull(arguments[3], nullptr, 10));
    }
  }
  if (!known) std::fprintf(stderr, "usage: random_programs_bench --list | --smoke | CONDITIONS SEED OPERATIONS\n");
  return !known ? 2 : passed ? 0 : 1;
}
