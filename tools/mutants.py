#!/usr/bin/env python3
"""Applies the named mutants of tests/mutants/list.py one at a time, and says whether the tests notice.

In a copy of the tree (build-mutants/), which is built once without any mutant; then, for each, the edit is made, the one
test program is built, and it has to fail: by a failed expectation, a failed check, a crash, or by not ending. The named
tests first pass without the mutant. A mutant that survives is a hole in the tests: write the test.
Prints a table, and writes bench/results/reliability/mutants.json: {"what", "command", "commit", "machine", "counts",
"found", "passed", "seconds", "mutants"}, where `found` is how many were noticed. Each mutant has the commit that it was
tried at: a run of some replaces their rows, and leaves those of the others, whose files and tests must not have changed
since. The commit of the record is that of its last run.

  tools/mutants.py            all of them: tens of minutes
  tools/mutants.py NAME...    those whose names or files contain one of the words
  tools/mutants.py --since COMMIT    those whose files changed after it, and those that were never tried
  tools/mutants.py --check    only whether every edit still finds its text
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests" / "mutants")]
from figures import commit, machine  # noqa: E402
from list import MUTANTS  # noqa: E402

PATIENCE = 300  # seconds after which a program counts as one that does not end


def mutated(text, edits):
    for old, new in edits:
        if text.count(old) != 1:
            raise ValueError(f"{text.count(old)} times in the file: {old!r}")
        text = text.replace(old, new)
    return text


def check():
    lost = 0
    for mutant in MUTANTS:
        try:
            mutated((ROOT / mutant.file).read_text(), mutant.edits)
        except (OSError, ValueError) as error:
            lost += 1
            print(f"{mutant.file}: {mutant.name}: {error}", file=sys.stderr)
    if len({mutant.name for mutant in MUTANTS}) != len(MUTANTS):
        sys.exit("two mutants have one name")
    print(f"{len(MUTANTS)} mutants, {lost} of which no longer apply")
    return 1 if lost else 0


def run(*command, **options):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)


class Copy:
    """The tree as it is now, and its own build."""

    def __init__(self, options):
        self.jobs = options.jobs
        self.tree = options.folder / "tree"
        self.build_folder = options.folder / "build"
        self.tree.mkdir(parents=True, exist_ok=True)
        files = [name for name in run("git", "-C", ROOT, "ls-files", "--cached", "--others",
                                      "--exclude-standard").stdout.split("\n") if name and (ROOT / name).is_file()]
        for name in files:
            self.put(name, (ROOT / name).read_bytes())
        for path in self.tree.rglob("*"):  # what is gone from the tree
            if path.is_file() and not (ROOT / path.relative_to(self.tree)).is_file():
                path.unlink()
        self.environment = {**os.environ, "CCACHE_BASEDIR": str(self.tree), "CCACHE_NOHASHDIR": "1"}
        configured = run("cmake", "-S", self.tree, "-B", self.build_folder, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
                         "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG", "-DGMLAKE_BUILD_TOOLS=OFF",
                         "-DGMLAKE_BUILD_BENCH=OFF", env=self.environment)
        if configured.returncode != 0:
            sys.exit(configured.stdout + configured.stderr)

    def put(self, name, data):
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != data:  # what is the same keeps its time
            path.write_bytes(data)

    def build(self, *programs):
        return run("cmake", "--build", self.build_folder, f"-j{self.jobs}", "--target", *programs, env=self.environment)

    def test(self, mutant):
        """How the test ended; empty where it passed."""
        program = next((self.build_folder / "tests").glob(f"*/{mutant.program}"))
        try:
            ended = run(program, f"--gtest_filter={mutant.filter}", "--gtest_fail_fast", timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return "does not end"
        if "Running 0 tests" in ended.stdout:
            return "has no such test"
        if ended.returncode == 0:
            return ""
        if ended.returncode < 0:
            says = [line for line in ended.stderr.splitlines() if "check" in line.lower()]
            return f"ends by signal {-ended.returncode}" + (f" ({says[0].strip()})" if says else "")
        failed = [line.split("]", 1)[1].split("(")[0].split(",")[0].strip() for line in ended.stdout.splitlines()
                  if line.startswith("[  FAILED  ]")]
        return failed[0] if failed else f"ends with {ended.returncode}"


def keep(options, rows, begin):
    """Writes the record: these rows, and of the last record those of mutants that were not tried now."""
    last = json.loads(options.out.read_text()) if options.out.is_file() else {"mutants": [], "seconds": 0}
    by_name = {row["name"]: {"commit": last.get("commit"), **row} for row in last["mutants"]}
    by_name.update({row["name"]: row for row in rows})
    kept = [by_name[mutant.name] for mutant in MUTANTS if mutant.name in by_name]
    found = sum(was_noticed(row) for row in kept)
    every = len(rows) == len(kept)
    record = {"what": "mutants", "command": "tools/mutants.py", "commit": rows[0]["commit"], "machine": machine(),
              "counts": {"mutants": len(kept)}, "found": found, "complete": len(kept) == len(MUTANTS),
              "passed": found == len(MUTANTS),
              "seconds": round(time.monotonic() - begin + (0 if every else last["seconds"]), 1), "mutants": kept}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")


def was_noticed(row):
    return bool(row["noticed"]) and row["noticed"] != "does not compile"


def choose(options):
    """The mutants that the options name."""
    if options.since:
        changed = run("git", "-C", ROOT, "diff", "--name-only", options.since).stdout.split("\n")
        tried = {row["name"] for row in json.loads(options.out.read_text())["mutants"]} if options.out.is_file() else {}
        return [mutant for mutant in MUTANTS if mutant.file in changed or mutant.name not in tried]
    return [mutant for mutant in MUTANTS
            if not options.names or any(name in mutant.name or name in mutant.file for name in options.names)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--since", metavar="COMMIT")
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "build-mutants")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench" / "results" / "reliability" / "mutants.json")
    options = parser.parse_args()
    if options.check:
        return check()
    chosen = choose(options)
    if check() != 0 or not chosen:
        return 1
    begin = time.monotonic()
    tried_at = commit()
    copy = Copy(options)
    built = copy.build(*sorted({mutant.program for mutant in chosen}))
    if built.returncode != 0:
        sys.exit(built.stdout + built.stderr)
    wrong = 0
    for program, which in sorted({(mutant.program, mutant.filter) for mutant in chosen}):
        if ended := copy.test(Mutantless(program, which)):
            wrong += 1
            print(f"without any mutant, {program} {which}: {ended}", file=sys.stderr)
    if wrong:
        return 1
    rows = []
    for mutant in chosen:
        original = (copy.tree / mutant.file).read_text()  # as it was when the run began
        copy.put(mutant.file, mutated(original, mutant.edits).encode())
        built = copy.build(mutant.program)
        noticed = "does not compile" if built.returncode != 0 else copy.test(mutant)
        copy.put(mutant.file, original.encode())
        rows.append({"name": mutant.name, "file": mutant.file, "program": mutant.program, "tests": mutant.filter,
                     "noticed": noticed, "commit": tried_at})
        print(f"{'SURVIVES' if not noticed else 'noticed':8}  {mutant.file}: {mutant.name}: {noticed}", flush=True)
    found = sum(map(was_noticed, rows))
    print(f"{found} of {len(rows)} mutants noticed")
    keep(options, rows, begin)
    return 0 if found == len(rows) else 1


class Mutantless:
    def __init__(self, program, which):
        self.program, self.filter = program, which


if __name__ == "__main__":
    sys.exit(main())
