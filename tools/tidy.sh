#!/bin/sh
# Runs clang-tidy over the sources that a build folder knows: tools/tidy.sh BUILD [--since COMMIT]
# With --since, only over files changed after COMMIT.
set -eu
cd "$(dirname "$0")/.."
build=${1:?usage: tools/tidy.sh BUILD [--since COMMIT]}
tidy=$(command -v clang-tidy-14 || command -v clang-tidy || true)
[ -n "$tidy" ] || { echo "tools/tidy.sh: clang-tidy-14 is missing" >&2; exit 1; }
files=$(python3 - "$build/compile_commands.json" <<'PYTHON'
import json, os, sys
here = os.getcwd() + os.sep
files = {entry["file"] for entry in json.load(open(sys.argv[1]))}
print("\n".join(sorted(name[len(here):] for name in files if name.startswith((here + "src", here + "cli")))))
PYTHON
)
if [ "${2:-}" = --since ]; then
  changed=$(git diff --name-only "${3:?}" -- src cli include)
  files=$(echo "$files" | grep -Fx "$changed" || true)
fi
if [ -z "$files" ]; then
  [ "${2:-}" = --since ] && exit 0
  echo "tools/tidy.sh: $build knows no source file by itself; give a folder that is no unity build" >&2
  exit 1
fi
echo "$files" | xargs -P "$(nproc)" -n 4 "$tidy" -p "$build" --quiet --warnings-as-errors='*' --extra-arg=-Wno-unknown-warning-option
