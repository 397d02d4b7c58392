#!/bin/sh
# Formats every C++ file of the repository; with --check, lists those that are not formatted and fails.
set -eu
cd "$(dirname "$0")/.."
formatter=$(command -v clang-format-14 || command -v clang-format || true)
[ -n "$formatter" ] || { echo "tools/format.sh: clang-format-14 is missing" >&2; exit 1; }
files=$(find include src cli tests bench examples python -name '*.cpp' -o -name '*.hpp' -o -name '*.h' | sort)
case "${1:-}" in
  --check) echo "$files" | xargs "$formatter" --dry-run -Werror ;;
  "") echo "$files" | xargs "$formatter" -i ;;
  *) echo "usage: tools/format.sh [--check]" >&2; exit 2 ;;
esac
