#!/usr/bin/env python3
"""Runs the machines that test reliability to their full figures, and writes what each did to bench/results/reliability/.

One file a machine, WHAT.json: {"what", "command", "commit", "machine", "counts", "found", "complete", "passed",
"seconds"}. `found` is how many of what the machine looks for it found: races, mismatches, failures, of which there should
be none; and planted bugs, of which it should be all. `seconds` are those of one core. WHAT.jsonl beside it has a line for
each part of the run.

  random-model     100,000,000 operations on the model driver against the reference and the race detector
  random-host      1,000,000 on real mappings, contents included
  interleavings    all interleavings of 3 streams of 4 operations, and random ones of more
  planted-races    bugs planted under the allocator, which the detector has to find
  faults           every driver call of the scenarios fails, alone
  fault-pairs      and two of them in one run
  host-memory      every `operator new` of them fails
  processes        programs that fork, exit, and unload the library: with ctest, in a build folder alone
  fuzz-NAME        10 minutes of one core for each fuzzer, with the address and undefined-behaviour sanitizers and full
                   audits; --fuzz-build is the folder of `cmake --preset fuzz`, and what they find useful stays there

Everything runs as parts, --jobs of them at a time: random programs by some hundred thousand operations with seeds of their
own, tests one by one, fuzzers in slices of a minute that share what they find. After --seconds the rest is left; with
--resume, what the logs of the same commit have is not run again. Programs are copied first: a build meanwhile disturbs
nothing. --programs FOLDER takes them from what tools/proof_bundle.sh gathered, on a machine that needs no more than
python3; the commit is then what FOLDER/commit says, or GMLAKE_COMMIT.

tools/mutants.py and tools/coverage.py write the other two records of that folder; `tools/make_tables.py --print
reliability` makes one table of them all.
"""
import argparse
import concurrent.futures
import json
import math
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from figures import ROOT, commit, machine

SEEDS_A_PART = 1_000_000
GTESTS = {  # what: (program, filter, what its tests find)
    "interleavings": ("alloc_interleavings_test", "*Interleavings*", "races"),
    "planted-races": ("alloc_interleavings_test", "*PlantedBugs*", "passes"),
    "faults": ("alloc_fault_sweep_test", "*EveryFailure*", "failures"),
    "fault-pairs": ("alloc_fault_sweep_test", "*PairsOfFailures*", "failures"),
    "host-memory": ("alloc_failing_new_test", "*", "failures"),
}
COUNTED = ("interleavings", "operations", "kernels", "races", "calls", "points")  # properties of tests
FUZZERS = ("capi", "csv", "options", "pickle", "program", "trace")
FUZZ_SECONDS = 600  # of one core
SLICE = 60
SHORTEST_SLICE = 5
RANDOM = {  # what: (backend, operations, of one part: less than a line of the program's)
    "random-model": ("model", 100_000_000, 500_000),
    "random-host": ("host", 1_000_000, 100_000),
}


class Late(Exception):
    """The time is up: what was running is not counted."""


def execute(options, command, environment=None):
    """Runs a program to its end: (exit status, what it printed, its complaints, CPU seconds). Raises Late."""
    with tempfile.TemporaryFile("w+", errors="replace") as out, \
            tempfile.TemporaryFile("w+", errors="replace") as err:
        libraries = f"{options.copies}:{os.environ.get('LD_LIBRARY_PATH', '')}"
        program = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                   start_new_session=True,  # it may have children, to be ended with it
                                   env={**os.environ, "LD_LIBRARY_PATH": libraries, **(environment or {})})
        late = False
        while True:
            ended, status, usage = os.wait4(program.pid, os.WNOHANG)
            if ended:
                break
            if not late and time.monotonic() > options.deadline:
                late = True
                os.killpg(program.pid, signal.SIGKILL)
            time.sleep(0.02)
        program.returncode = os.waitstatus_to_exitcode(status)
        if late:
            raise Late
        out.seek(0)
        err.seek(0)
        return program.returncode, out.read(), err.read(), round(usage.ru_utime + usage.ru_stime, 1)


class Machine:
    """One of the machines: its log, what of it is left to do, and its record. Lines are known by their `key`."""

    def __init__(self, options, what):
        self.options, self.what = options, what
        self.lock = threading.Lock()
        self.lines = {}
        self.path = options.out / f"{what}.jsonl"
        if options.resume and self.path.exists():
            kept = [line for line in map(json.loads, self.path.read_text().splitlines())
                    if line["commit"] == options.commit]
            self.lines = {self.key(line): line for line in kept}
        self.path.write_text("".join(json.dumps(line) + "\n" for line in self.lines.values()))

    def program(self, name):
        """Where its copy lies."""
        return self.options.copies / name

    def add(self, line):
        with self.lock:
            self.lines[self.key(line)] = line = {**line, "commit": self.options.commit}
            with self.path.open("a") as log:
                log.write(json.dumps(line) + "\n")

    def sum(self, field):
        return sum(line.get(field, 0) for line in self.lines.values())

    def record(self):
        """Writes it; True where all was run and found as it should be."""
        counts, found, right = self.judge()
        complete = not self.tasks()
        passed = right and complete
        command = f"bench/reliability.py {self.what}" + self.arguments()
        record = {"what": self.what, "command": command, "commit": self.options.commit, "machine": machine(),
                  "counts": counts, "found": found, "complete": complete, "passed": passed,
                  "seconds": round(self.sum("cpu_seconds"), 1)}
        (self.options.out / f"{self.what}.json").write_text(json.dumps(record, indent=1) + "\n")
        print(f"{self.what}: {counts}, found {found}, "
              f"{'passed' if passed else 'not finished' if right else 'FAILED'}", flush=True)
        return passed

    def arguments(self):
        return ""


class Tests(Machine):
    """Tests of one program, one process each."""

    def __init__(self, options, what):
        super().__init__(options, what)
        self.file, self.filter, self.finds = GTESTS[what]
        listed = execute(options, [self.program(self.file), "--gtest_list_tests", f"--gtest_filter={self.filter}"])[1]
        self.names = []
        suite = ""
        for line in listed.splitlines():
            name = line.split("#")[0].strip()
            if not line.startswith(" "):
                suite = name if name.endswith(".") else suite
            else:
                self.names.append(suite + name)

    @staticmethod
    def key(line):
        return line["test"]

    def tasks(self):
        return [lambda name=name: self.run(name) for name in self.names if name not in self.lines]

    def run(self, name):
        report = self.options.copies / f"{self.what}-{name.replace('/', '-')}.json"
        status, out, err, seconds = execute(
            self.options, [self.program(self.file), f"--gtest_filter={name}", f"--gtest_output=json:{report}"],
            {"GMLAKE_TEST_FULL": "1"})
        tests = []
        if report.exists():  # else it did not come to its end
            tests = [test for suite in json.loads(report.read_text())["testsuites"] for test in suite["testsuite"]]
        counts = {key: int(test[key]) for test in tests for key in COUNTED if key in test}
        failed = status != 0 or len(tests) != 1
        self.add({"test": name, **counts, "cpu_seconds": seconds, "failure": (out + err)[-4000:] if failed else ""})

    def judge(self):
        lines = self.lines.values()
        counts = {"tests": len(lines)}
        counts.update({key: self.sum(key) for key in COUNTED if any(key in line for line in lines)})
        failed = sum(bool(line["failure"]) for line in lines)
        found = {"failures": failed, "passes": len(lines) - failed, "races": counts.get("races", 0)}[self.finds]
        return counts, found, failed == 0 and len(self.names) > 0


class RandomPrograms(Machine):
    """Random programs under the conditions of one backend, by their shares."""

    def __init__(self, options, what):
        super().__init__(options, what)
        backend, operations, part = RANDOM[what]
        self.operations = options.operations or operations
        listed = execute(options, [self.program("random_programs_bench"), "--list"])[1]
        self.parts = []  # (conditions, first seed, operations), the kinds in turn
        for kind, name, share in map(str.split, listed.splitlines()):
            left, number = self.operations * int(share) // 1000, 0
            while kind == backend and left > 0:
                self.parts.append((number, name, 10_000_000 + number * SEEDS_A_PART, min(part, left)))
                left, number = left - min(part, left), number + 1
        self.parts.sort(key=lambda part: part[0])

    @staticmethod
    def key(line):
        return line["conditions"], line["part"]

    def arguments(self):
        return f" --operations {self.operations}"

    def tasks(self):
        def done(name, seed, count):
            line = self.lines.get((name, seed))
            return line is not None and (line["failure"] or line["operations"] >= count)
        return [lambda part=part: self.run(*part[1:]) for part in self.parts if not done(*part[1:])]

    def run(self, name, seed, count):
        status, out, err, seconds = execute(self.options, [self.program("random_programs_bench"), name, seed, count])
        rows = [json.loads(row) for row in out.splitlines()]
        row = rows[0] if len(rows) == 1 else {"conditions": name, "first_seed": seed, "operations": 0, "failure": ""}
        if status != 0 or len(rows) != 1:
            row["failure"] = row["failure"] or f"it ended with status {status}: {err[-4000:]}"
        self.add({**row, "part": seed, "cpu_seconds": seconds})
        print(f"{self.what}: {self.sum('operations'):,} of {self.operations:,} operations", flush=True)

    def judge(self):
        counts = {key: self.sum(key) for key in ("operations", "out_of_memory", "waits", "faults", "spared")}
        found = sum(bool(line["failure"]) for line in self.lines.values())
        return counts, found, found == 0


class Processes(Machine):
    """What ctest runs of a build folder."""

    @staticmethod
    def key(_):
        return "ctest"

    def tasks(self):
        return [] if self.lines else [self.run]

    def run(self):
        status, out, err, seconds = execute(self.options, ["ctest", "--test-dir", self.options.build, "-L", "process",
                                                           "--no-tests=error"])
        says = re.search(r"(\d+) tests failed out of (\d+)", out)
        failed, tests = map(int, says.groups()) if says else (1, 0)
        self.add({"tests": tests, "failed": max(failed, int(status != 0)), "cpu_seconds": seconds,
                  "failure": (out + err)[-4000:] if status != 0 else ""})

    def judge(self):
        return {"tests": self.sum("tests")}, self.sum("failed"), self.sum("failed") == 0


def without_aslr():
    """AddressSanitizer of these compilers knows no address layout with 32 random bits."""
    bits = pathlib.Path("/proc/sys/vm/mmap_rnd_bits")
    command = ["setarch", os.uname().machine, "-R"]
    if not bits.exists() or int(bits.read_text()) <= 28 or not shutil.which("setarch"):
        return []
    allowed = subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    return command if allowed else []


class Fuzzer(Machine):
    """A fuzzer in slices, which start from what the others have found."""

    def __init__(self, options, what):
        super().__init__(options, what)
        self.subject = what.removeprefix("fuzz-")
        self.found = options.found / self.subject
        self.found.mkdir(parents=True, exist_ok=True)
        self.layout = without_aslr()

    @staticmethod
    def key(line):
        return line["seed"]

    def arguments(self):
        return f" --fuzz-seconds {self.options.fuzz_seconds}"

    def crashed(self):
        return any(line["crash"] for line in list(self.lines.values()))

    def tasks(self):
        left = self.options.fuzz_seconds - self.sum("cpu_seconds")
        if left <= 0 or self.crashed():
            return []
        slices = math.ceil(left / SLICE)
        first = max(self.lines, default=0) + 1
        return [lambda seed=seed: self.run(seed, math.ceil(left / slices)) for seed in range(first, first + slices)]

    def run(self, seed, seconds):
        seconds = int(min(seconds, self.options.deadline - time.monotonic() - SHORTEST_SLICE))
        if seconds < 1 or self.crashed():
            return
        words = self.options.fuzz_sources / f"{self.subject}.dict"
        crash_prefix = self.options.out / f"crash-{self.subject}-"
        status, _, text, cpu = execute(
            self.options,
            [*self.layout, self.program(f"{self.subject}_fuzzer"), f"-max_total_time={seconds}", f"-seed={seed}",
             "-max_len=4096", "-rss_limit_mb=2048", "-print_final_stats=1", f"-artifact_prefix={crash_prefix}",
             *([f"-dict={words}"] if words.exists() else []), self.found,
             self.options.fuzz_sources / "corpus" / self.subject])
        runs = re.search(r"number_of_executed_units: (\d+)", text)
        edges = re.findall(r"cov: (\d+)", text)
        self.add({"seed": seed, "runs": int(runs[1]) if runs else 0, "edges": int(edges[-1]) if edges else 0,
                  "cpu_seconds": cpu, "crash": text[-4000:] if status != 0 else ""})

    def judge(self):
        lines = self.lines.values()
        counts = {"runs": self.sum("runs"), "edges": max((line["edges"] for line in lines), default=0),
                  "cpu_seconds": round(self.sum("cpu_seconds"))}
        crashes = sum(bool(line["crash"]) for line in lines)
        return counts, crashes, crashes == 0


def class_of(what):
    if what in GTESTS:
        return Tests
    if what in RANDOM:
        return RandomPrograms
    return Processes if what == "processes" else Fuzzer


def programs_of(what):
    """The program of a machine, and in which folder of a build it is made."""
    if what in GTESTS:
        return [("tests/alloc", GTESTS[what][0])]
    if what in RANDOM:
        return [("bench", "random_programs_bench")]
    return [] if what == "processes" else [("tests/fuzz", f"{what.removeprefix('fuzz-')}_fuzzer")]


def copy_programs(options, chosen):
    for what in chosen:
        for folder, program in programs_of(what):
            build = options.fuzz_build if what.startswith("fuzz-") else options.build
            shutil.copy((options.programs or build / folder) / program, options.copies)
    for library in options.programs.glob("*.so*") if options.programs else []:  # that a bare machine may lack
        shutil.copy(library, options.copies)


def commit_of(options):
    if options.programs and (options.programs / "commit").exists():
        return (options.programs / "commit").read_text().strip()
    return os.environ.get("GMLAKE_COMMIT") or commit()


def attempt(task, options):
    if time.monotonic() > options.deadline:
        return
    try:
        task()
    except Late:
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # The shortest parts come last, so that all cores end together.
    everything = ["processes", *GTESTS, *(f"fuzz-{name}" for name in FUZZERS), "random-host", "random-model"]
    parser.add_argument("what", nargs="*", choices=[*everything, []], metavar="WHAT", help=", ".join(everything))
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--programs", type=pathlib.Path, metavar="FOLDER", help="of tools/proof_bundle.sh")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench" / "results" / "reliability")
    parser.add_argument("--operations", type=int, help="of the random programs, in place of their figures")
    parser.add_argument("--fuzz-build", type=pathlib.Path, default=ROOT / "build-fuzz")
    parser.add_argument("--fuzz-seconds", type=int, default=FUZZ_SECONDS, help="of one core, for each fuzzer")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=math.inf, help="after which the rest is left")
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    options.deadline = time.monotonic() + options.seconds
    options.out.mkdir(parents=True, exist_ok=True)
    options.commit = commit_of(options)
    options.found = (options.programs or options.fuzz_build) / "found"
    options.fuzz_sources = options.programs / "fuzz" if options.programs else ROOT / "tests" / "fuzz"
    chosen = options.what or [what for what in everything if what != "processes" or not options.programs]
    with tempfile.TemporaryDirectory() as copies:
        options.copies = pathlib.Path(copies)
        copy_programs(options, chosen)
        machines = [class_of(what)(options, what) for what in chosen]
        while time.monotonic() < options.deadline:  # fuzzers may need another round
            tasks = [task for one in machines for task in one.tasks()]
            before = sum(len(one.lines) for one in machines)
            if not tasks:
                break
            with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
                for _ in pool.map(lambda task: attempt(task, options), tasks):
                    pass
            if sum(len(one.lines) for one in machines) == before:  # too little time is left for any
                break
        passed = [one.record() for one in machines]
        for one in machines:
            for line in one.lines.values():
                if line.get("failure") or line.get("crash"):
                    print(f"{one.what}: {line.get('failure') or line.get('crash')}", file=sys.stderr)
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
