#!/usr/bin/env python3
"""How many branches of the library's core the tests take: both sides of every condition in src/memory, stitch and alloc.

Builds the tests with clang's source-based coverage in build-coverage/, runs each program once, and counts the sides of
conditions from llvm-cov's export: a condition that was true and false is two of two. Source-based, because gcov's
branches are those of the machine code, where every call that may throw is one. Left out: conditions inside the checks of
what cannot happen (GMLAKE_CHECK and its like), whose other side ends the process; what is constant; and the way past all
cases of a switch, which the compiler refuses where an enumerator is missing. Functions made from one template count once:
a side is taken where any of them took it.

Writes bench/results/reliability/coverage.json: {"what", "command", "commit", "machine", "counts", "found", "passed",
"seconds", "files"}, where `found` is how many sides no test took. Exits 1 below the bound.

  tools/coverage.py             builds, runs and counts: some ten minutes
  tools/coverage.py --missing   also prints each side that no test took
  tools/coverage.py --count     counts again what the last run left
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench"))
from figures import commit, machine  # noqa: E402

BOUND = 0.95
FOLDERS = ("src/memory", "src/stitch", "src/alloc")
PROGRAMS = ("memory/memory_test", "stitch/stitch_test", "alloc/*_test", "capi/capi_test", "observe/observe_test",
            "process/process_fork_test", "process/process_share_test", "process/process_life")
LEFT_OUT = "alloc/alloc_figures_test"  # replays whole jobs, for minutes
CHECK = re.compile(r"\bGMLAKE_(?:CHECK|CHECK_EQ|DCHECK|AUDIT)\(")


def run(*command, **options):
    subprocess.run([str(part) for part in command], check=True, **options)


def wanted(target):
    path = pathlib.PurePath(target)
    return any(path.match(pattern) for pattern in PROGRAMS) and not path.match(LEFT_OUT)


def build(folder, jobs):
    environment = {**os.environ, "CCACHE_BASEDIR": str(ROOT), "CCACHE_NOHASHDIR": "1"}
    flags = "-fprofile-instr-generate -fcoverage-mapping"
    run("cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_C_COMPILER=clang-14",
        "-DCMAKE_CXX_COMPILER=clang++-14", f"-DCMAKE_C_FLAGS={flags}", f"-DCMAKE_CXX_FLAGS={flags}",
        "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG", "-DGMLAKE_BUILD_TOOLS=OFF", "-DGMLAKE_BUILD_BENCH=OFF",
        "-DGMLAKE_BUILD_C_LIBRARY=OFF", stdout=subprocess.DEVNULL, env=environment)
    chosen = list(filter(wanted, targets(folder)))
    run("cmake", "--build", folder, f"-j{jobs}", "--target", *(pathlib.PurePath(target).name for target in chosen),
        env=environment)
    return [folder / target for target in chosen]


def targets(folder):
    listed = subprocess.run(["ninja", "-C", folder, "-t", "targets", "all"], capture_output=True, text=True, check=True)
    return sorted({line.split(":")[0] for line in listed.stdout.splitlines()
                   if re.match(r"tests/\w+/\w+: CXX_EXECUTABLE_LINKER", line)})


def play(folder, programs):
    """Runs the programs, and gives the merged profile."""
    profiles = folder / "profiles"
    profiles.mkdir(exist_ok=True)
    for old in profiles.iterdir():
        old.unlink()
    environment = {**os.environ, "LLVM_PROFILE_FILE": str(profiles / "%m.profraw")}  # one file for each program
    for program in programs:
        print(f"runs {program.name}", flush=True)
        if program.name == "process_life":  # a scenario a process
            run("ctest", "--test-dir", folder, "-L", "process", "-E", "^Fork", "--no-tests=error",
                stdout=subprocess.DEVNULL, env=environment)
        else:
            run(program, "--gtest_brief=1", cwd=program.parent, stdout=subprocess.DEVNULL, env=environment)
    run("llvm-profdata-14", "merge", "-sparse", *sorted(profiles.glob("*.profraw")), "-o", folder / "tests.profdata")


def checks_of(text):
    """The (first, last) places, each a (line, column), of the checks of a file."""
    spans = []
    for found in CHECK.finditer(text):
        depth, at = 1, found.end()
        while depth > 0 and at < len(text):
            depth += {"(": 1, ")": -1}.get(text[at], 0)
            at += 1
        spans.append((place(text, found.start()), place(text, at)))
    return spans


def place(text, offset):
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def count(folder, programs):
    """{file: {place: [times true, times false]}} of the conditions that count."""
    exported = subprocess.run(["llvm-cov-14", "export", "-instr-profile", str(folder / "tests.profdata"), str(programs[0]),
                               *(f"-object={program}" for program in programs[1:])],
                              capture_output=True, check=True)
    taken, spans, lines = {}, {}, {}
    for function in json.loads(exported.stdout)["data"][0]["functions"]:
        for first, column, _, _, true, false, file, _, _ in function["branches"]:
            name = os.path.relpath(function["filenames"][file], ROOT)
            if not name.startswith(FOLDERS):
                continue
            if name not in spans:
                text = (ROOT / name).read_text()
                lines[name], spans[name] = text.splitlines(), checks_of(text)
            if any(begin <= (first, column) < end for begin, end in spans[name]):
                continue
            if lines[name][first - 1][:column - 1].endswith("switch ("):
                continue
            sides = taken.setdefault(name, {}).setdefault((first, column), [0, 0])
            sides[0] += true
            sides[1] += false
    return taken


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", action="store_true")
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "build-coverage")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench" / "results" / "reliability" / "coverage.json")
    options = parser.parse_args()
    begin = time.monotonic()
    if options.count:
        programs = [options.folder / target for target in filter(wanted, targets(options.folder))]
    else:
        programs = build(options.folder, options.jobs)
        play(options.folder, programs)
    taken = count(options.folder, programs)
    files, missed = {}, 0
    for name, conditions in sorted(taken.items()):
        sides = 2 * len(conditions)
        missing = [(at, side) for at, both in sorted(conditions.items()) for side, times in zip(("true", "false"), both)
                   if times == 0]
        files[name] = {"sides": sides, "taken": sides - len(missing)}
        missed += len(missing)
        print(f"{1 - len(missing) / sides:7.1%}  {sides - len(missing):4} of {sides:4}  {name}")
        if options.missing:
            lines = (ROOT / name).read_text().splitlines()
            for (line, column), side in missing:
                print(f"    {name}:{line}:{column}: never {side}: {lines[line - 1].strip()[:100]}")
    sides = sum(file["sides"] for file in files.values())
    share = 1 - missed / sides
    print(f"{share:7.2%}  {sides - missed} of {sides} sides of conditions")
    record = {"what": "coverage", "command": "tools/coverage.py", "commit": commit(), "machine": machine(),
              "counts": {"sides": sides, "taken": sides - missed, "share": round(share, 4)}, "found": missed,
              "passed": share >= BOUND, "seconds": round(time.monotonic() - begin, 1), "files": files}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    return 0 if share >= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
