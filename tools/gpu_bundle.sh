#!/bin/sh
# Puts what the GPU suite and the GPU benches need into one folder, to be carried to a machine with a GPU and run there by
# `python3 bench/gpu.py --bin FOLDER --out OUT`: tools/gpu_bundle.sh BUILD FOLDER
set -eu
cd "$(dirname "$0")/.."
build=${1:?usage: tools/gpu_bundle.sh BUILD FOLDER}
folder=${2:?usage: tools/gpu_bundle.sh BUILD FOLDER}
programs="gmlake bench/gpu_bench bench/peers_bench bench/calls_bench bench/clock_bench tests/gpu/gpu_test tests/gpu/gpu_neighbour_test tests/driver/driver_cuda_test"
cmake --build "$build" --target gmlake_tool gpu_bench peers_bench calls_bench clock_bench gpu_test gpu_neighbour_test driver_cuda_test
mkdir -p "$folder"
for program in $programs; do
  cp "$build/$program" "$folder/"
  strip "$folder/$(basename "$program")"
  # Libraries that a bare machine may lack.
  ldd "$build/$program" | awk '/libfmt/ {print $3}' | xargs -r -I{} cp -L {} "$folder/"
done
git rev-parse HEAD > "$folder/commit"
