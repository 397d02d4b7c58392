#!/bin/sh
# Runs clang-tidy over the sources that a build folder knows: tools/tidy.sh BUILD [--unity FOLDER | --since COMMIT]
# With --since, only over files changed after COMMIT.
# With --unity, the checks run over the joined files of that other build folder, in a seventh of the time. One check looks
# at nothing that is included: it still runs over each file of BUILD.
set -eu
cd "$(dirname "$0")/.."
usage="usage: tools/tidy.sh BUILD [--unity FOLDER | --since COMMIT]"
build=${1:?$usage}
tidy=$(command -v clang-tidy-14 || command -v clang-tidy || true)
[ -n "$tidy" ] || { echo "tools/tidy.sh: clang-tidy-14 is missing" >&2; exit 1; }

# The files of the library and the tool that a build folder compiles, joined ones included; not of its own checkouts.
sources() {
  python3 - "$1" <<'PYTHON'
import json, os, sys
folder = os.path.realpath(sys.argv[1])
tops = [os.path.join(top, part) + os.sep for top in (os.getcwd(), folder) for part in ("src", "cli")]
path = os.path.join(folder, "compile_commands.json")
if not os.path.exists(path):
    sys.exit(f"tools/tidy.sh: there is no {path}: configure that folder first")
files = {entry["file"] for entry in json.load(open(path))}
names = sorted(name for name in files if name.startswith(tuple(tops)))
print("\n".join(names) or sys.exit(f"tools/tidy.sh: {folder} compiles nothing of src/ or cli/"))
PYTHON
}

run() {  # run FOLDER FILES-AT-ONCE CHECKS, the files on standard input
  xargs -P "$(nproc)" -n "$2" "$tidy" -p "$1" --quiet --checks="$3" --warnings-as-errors='*' \
    --extra-arg=-Wno-unknown-warning-option
}

files=$(sources "$build")
case "$files" in *"/Unity/"*)
  echo "tools/tidy.sh: $build joins source files; give a folder that does not" >&2
  exit 1 ;;
esac
case "${2:-}" in
  "") echo "$files" | run "$build" 4 "" ;;
  --since)
    changed=$(git diff --name-only "${3:?$usage}" -- src cli | sed "s|^|$PWD/|")
    files=$(echo "$files" | grep -Fx "$changed" || true)
    [ -z "$files" ] || echo "$files" | run "$build" 4 "" ;;
  --unity)
    joined=$(sources "${3:?$usage}")
    echo "$joined" | run "$3" 1 "-bugprone-suspicious-include"
    echo "$files" | run "$build" 4 "-*,misc-unused-using-decls" ;;
  *) echo "$usage" >&2; exit 2 ;;
esac
