#!/bin/sh
# Installs what is missing to build and test gmlake on Debian 12, and does nothing, quietly, when nothing is missing.
#   tools/setup.sh        what `make build`, `make test` and `make demo` need
#   tools/setup.sh ci     also what .ci/run needs: clang, sanitizers, formatter, linter
set -eu

packages="g++ cmake ninja-build python3 python3-jsonschema zlib1g-dev libcli11-dev libfmt-dev nlohmann-json3-dev libgtest-dev
  libgmock-dev librapidcheck-dev"
case "${1:-build}" in
  build) ;;
  ci) packages="$packages python3-venv make git ccache clang-14 libclang-rt-14-dev clang-format-14 clang-tidy-14" ;;
  *) echo "usage: tools/setup.sh [build|ci]" >&2; exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null 2>&1; then
  echo "tools/setup.sh: this machine has no dpkg; on Debian 12 these packages would be installed:" $packages >&2
  echo "Install their like, then run: cmake --preset release && cmake --build --preset release" >&2
  exit 1
fi

missing=""
for package in $packages; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ]; then
  as_root=""
elif command -v sudo >/dev/null 2>&1; then
  as_root="sudo"
else
  echo "tools/setup.sh: these packages are missing, and there is neither root nor sudo to install them:$missing" >&2
  exit 1
fi

echo "Installing:$missing" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { $as_root env DEBIAN_FRONTEND=noninteractive apt-get update &&
       $as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $missing; } \
     </dev/null >"$log" 2>&1; then
  cat "$log" >&2
  echo "tools/setup.sh: apt-get failed" >&2
  exit 1
fi
