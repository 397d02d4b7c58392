#!/bin/sh
# Puts the programs that test reliability into one folder, to be carried to a machine with many cores and run there, with
# python3 and bench/ alone: tools/proof_bundle.sh BUILD FUZZ_BUILD FOLDER, and there
#   python3 bench/reliability.py --programs FOLDER --jobs CORES [--seconds TIME] --out OUT
# BUILD is a release build, FUZZ_BUILD one of `cmake --preset fuzz`: its sanitizers are linked in. Any x86-64 Debian 12 or
# Ubuntu 22.04, or later, runs them.
set -eu
cd "$(dirname "$0")/.."
usage="usage: tools/proof_bundle.sh BUILD FUZZ_BUILD FOLDER"
build=${1:?$usage}
fuzz_build=${2:?$usage}
folder=${3:?$usage}
tests="alloc_interleavings_test alloc_fault_sweep_test alloc_failing_new_test"
fuzzers="capi csv options pickle program trace"
cmake --build "$build" --target random_programs_bench $tests
cmake --build "$fuzz_build" --target fuzzers
mkdir -p "$folder/fuzz"
programs="$build/bench/random_programs_bench"
for test in $tests; do programs="$programs $build/tests/alloc/$test"; done
for fuzzer in $fuzzers; do programs="$programs $fuzz_build/tests/fuzz/${fuzzer}_fuzzer"; done
cp $programs "$folder/"
cp -r tests/fuzz/corpus tests/fuzz/*.dict "$folder/fuzz/"
for program in $programs; do
  strip "$folder/$(basename "$program")"
  # Libraries that a bare machine may lack. What every one has is all that may be left.
  ldd "$program" | awk '/lib(fmt|z|gtest|gmock)[.-]/ {print $3}' | xargs -r -I{} cp -L {} "$folder/"
  others=$(ldd "$program" | awk '!/linux-vdso|ld-linux|lib(c|m|stdc\+\+|gcc_s|fmt|z|gtest|gmock)[.-]/ {print $1}')
  if [ -n "$others" ]; then
    echo "$program needs $others" >&2
    exit 1
  fi
done
python3 -c "import sys; sys.path.insert(0, 'bench'); import figures; print(figures.commit())" > "$folder/commit"
du -sh "$folder"
