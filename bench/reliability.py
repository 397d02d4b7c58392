#!/usr/bin/env python3
"""Runs the machines that test reliability to their full figures, and writes what each did to bench/results/reliability/.

One file a machine, WHAT.json: {"what", "command", "commit", "machine", "counts", "found", "passed", "seconds"}. `found` is
how many of what the machine looks for it found: races, mismatches, failures, of which there should be none; and planted
bugs, of which it should be all. The random programs leave WHAT.jsonl too, one line for each part of the run.

  random-model     100,000,000 operations on the model driver against the reference and the race detector
  random-host      1,000,000 on real mappings, contents included
  interleavings    all interleavings of 3 streams of 4 operations, and random ones of more
  planted-races    bugs planted under the allocator, which the detector has to find
  faults           every driver call of the scenarios fails, alone
  fault-pairs      and two of them in one run
  host-memory      every `operator new` of them fails
  processes        programs that fork, exit, and unload the library
  fuzz-NAME        10 minutes of one core for each fuzzer, with the address and undefined-behaviour sanitizers and full
                   audits; --fuzz-build is the folder of `cmake --preset fuzz`, and what they find useful stays there

Random programs run as parts of some million operations, each with seeds of its own, --jobs at a time, and fuzzers in
slices of a minute; with --resume, what the log of the same commit has is not run again. Programs are copied first: a
build meanwhile disturbs nothing. tools/mutants.py and tools/coverage.py write the other two records of that folder;
`tools/make_tables.py --print reliability` makes one table of them all.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from figures import ROOT, commit, machine

PART = 2_000_000  # operations of one process
SEEDS_A_PART = 1_000_000
GTESTS = {  # what: (program, filter, what its tests find)
    "interleavings": ("alloc_interleavings_test", "*Interleavings*", "races"),
    "planted-races": ("alloc_interleavings_test", "*PlantedBugs*", "passes"),
    "faults": ("alloc_fault_sweep_test", "*EveryFailure*", "failures"),
    "fault-pairs": ("alloc_fault_sweep_test", "*PairsOfFailures*", "failures"),
    "host-memory": ("alloc_failing_new_test", "*", "failures"),
}
FUZZERS = ("capi", "csv", "options", "pickle", "program", "trace")
FUZZ_SECONDS = 600  # of one core
SLICE = 60
RANDOM = {"random-model": ("model", 100_000_000), "random-host": ("host", 1_000_000)}


def write(options, what, command, begin, counts, found, passed):
    record = {"what": what, "command": command, "commit": options.commit, "machine": machine(), "counts": counts,
              "found": found, "passed": passed, "seconds": round(time.monotonic() - begin, 1)}
    path = options.out / f"{what}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{what}: {counts}, found {found}, {'passed' if passed else 'FAILED'}")
    return passed


def run_gtest(options, what):
    program, which, finds = GTESTS[what]
    begin = time.monotonic()
    report = options.copies / f"{what}.json"
    subprocess.run([options.copies / program, f"--gtest_filter={which}", f"--gtest_output=json:{report}"],
                   stdout=subprocess.DEVNULL, check=False, env={**os.environ, "GMLAKE_TEST_FULL": "1"})
    if not report.exists():  # it did not come to its end
        return write(options, what, f"GMLAKE_TEST_FULL=1 {program} --gtest_filter={which}", begin, {}, 1, False)
    tests = [test for suite in json.loads(report.read_text())["testsuites"] for test in suite["testsuite"]]
    counts = {"tests": len(tests)}
    for test in tests:
        for key in ("interleavings", "operations", "kernels", "races", "calls", "points"):
            if key in test:
                counts[key] = counts.get(key, 0) + int(test[key])
    failed = sum("failures" in test for test in tests)
    found = {"failures": failed, "passes": len(tests) - failed, "races": counts.get("races", 0)}[finds]
    return write(options, what, f"GMLAKE_TEST_FULL=1 {program} --gtest_filter={which}", begin, counts, found, failed == 0 and len(tests) > 0)


def parts(options, backend, operations):
    """(conditions, first seed, operations) of each process, the kinds in turn."""
    listed = subprocess.run([options.copies / "random_programs_bench", "--list"], capture_output=True, text=True,
                            check=True).stdout.split("\n")
    queues = []
    for line in filter(None, listed):
        kind, name, share = line.split()
        left, number, queue = operations * int(share) // 1000, 0, []
        while kind == backend and left > 0:
            queue.append((name, 10_000_000 + number * SEEDS_A_PART, min(PART, left)))
            left, number = left - min(PART, left), number + 1
        queues.append(queue)
    longest = max(map(len, queues))
    return [queue[i] for i in range(longest) for queue in queues if i < len(queue)]


def run_random(options, what):
    backend, operations = RANDOM[what]
    if options.operations:
        operations = options.operations
    begin = time.monotonic()
    path = options.out / f"{what}.jsonl"
    lines = kept_lines(options, path)
    done = {}
    for line in lines:
        key = (line["conditions"], line["part"])
        done[key] = done.get(key, 0) + line["operations"]
    left = [part for part in parts(options, backend, operations) if done.get(part[:2], 0) < part[2]]

    def one(part):
        name, seed, count = part
        run = subprocess.run([options.copies / "random_programs_bench", name, str(seed), str(count)],
                             capture_output=True, text=True, check=False)
        rows = [json.loads(row) for row in run.stdout.splitlines()]
        if run.returncode != 0 and not any(row["failure"] for row in rows):
            rows.append({"conditions": name, "first_seed": seed, "operations": 0, "failure": run.stderr or "it ended"})
        return [{**row, "part": seed, "commit": options.commit} for row in rows]

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for rows in pool.map(one, left):
            with path.open("a") as log:
                for row in rows:
                    log.write(json.dumps(row) + "\n")
            lines += rows
            print(f"{what}: {sum(line['operations'] for line in lines):,} of {operations:,} operations", flush=True)
    counts = {key: sum(line.get(key, 0) for line in lines)
              for key in ("operations", "out_of_memory", "waits", "faults", "spared")}
    counts["seconds_of_one_core"] = round(sum(line.get("seconds", 0) for line in lines))
    found = sum(bool(line["failure"]) for line in lines)
    for line in lines:
        if line["failure"]:
            print(line["conditions"], line["failure"], file=sys.stderr)
    return write(options, what, f"bench/reliability.py {what} --operations {operations}", begin, counts, found,
                 found == 0 and counts["operations"] >= operations)


def run_processes(options, what):
    begin = time.monotonic()
    ran = subprocess.run(["ctest", "--test-dir", options.build, "-L", "process", "--no-tests=error"], capture_output=True,
                         text=True, check=False)
    says = re.search(r"(\d+) tests failed out of (\d+)", ran.stdout)
    failed, tests = map(int, says.groups()) if says else (1, 0)
    return write(options, what, "ctest -L process", begin, {"tests": tests}, failed, ran.returncode == 0)


def kept_lines(options, path):
    """What a run of the same commit left in the log, which is cut down to that."""
    lines = []
    if options.resume and path.exists():
        lines = [line for line in map(json.loads, path.read_text().splitlines()) if line["commit"] == options.commit]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return lines


def without_aslr():
    """AddressSanitizer of these compilers knows no address layout with 32 random bits."""
    bits = pathlib.Path("/proc/sys/vm/mmap_rnd_bits")
    wide = bits.exists() and int(bits.read_text()) > 28
    return ["setarch", os.uname().machine, "-R"] if wide and shutil.which("setarch") else []


def run_fuzzer(options, what):
    subject = what.removeprefix("fuzz-")
    seconds = options.fuzz_seconds
    begin = time.monotonic()
    path = options.out / f"{what}.jsonl"
    lines = kept_lines(options, path)
    found = options.fuzz_build / "found" / subject
    found.mkdir(parents=True, exist_ok=True)
    tests = ROOT / "tests" / "fuzz"
    words = tests / f"{subject}.dict"
    while sum(line["cpu_seconds"] for line in lines) < seconds and not any(line["crash"] for line in lines):
        left = seconds - sum(line["cpu_seconds"] for line in lines)
        command = [*without_aslr(), options.copies / f"{subject}_fuzzer", f"-max_total_time={int(min(SLICE, left)) + 1}",
                   f"-seed={len(lines) + 1}", "-max_len=4096", "-rss_limit_mb=2048", "-print_final_stats=1",
                   f"-artifact_prefix={found}-", *([f"-dict={words}"] if words.exists() else []), found,
                   tests / "corpus" / subject]
        with tempfile.TemporaryFile("w+") as says:
            ended = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=says)
            _, status, usage = os.wait4(ended.pid, 0)
            ended.returncode = os.waitstatus_to_exitcode(status)
            says.seek(0)
            text = says.read()
        runs = re.search(r"number_of_executed_units: (\d+)", text)
        edges = re.findall(r"cov: (\d+)", text)
        lines.append({"seed": len(lines) + 1, "runs": int(runs[1]) if runs else 0, "edges": int(edges[-1]) if edges else 0,
                      "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
                      "crash": text[-4000:] if ended.returncode != 0 else "", "commit": options.commit})
        with path.open("a") as log:
            log.write(json.dumps(lines[-1]) + "\n")
    crashes = sum(bool(line["crash"]) for line in lines)
    for line in lines:
        if line["crash"]:
            print(line["crash"], file=sys.stderr)
    counts = {"runs": sum(line["runs"] for line in lines), "edges": max(line["edges"] for line in lines),
              "cpu_seconds": round(sum(line["cpu_seconds"] for line in lines))}
    return write(options, what, f"bench/reliability.py {what} --fuzz-seconds {seconds}", begin, counts, crashes, crashes == 0)


def machine_of(what):
    if what in GTESTS:
        return run_gtest
    if what in RANDOM:
        return run_random
    return run_processes if what == "processes" else run_fuzzer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = [*RANDOM, *GTESTS, "processes", *(f"fuzz-{name}" for name in FUZZERS)]
    parser.add_argument("what", nargs="*", choices=[*everything, []], metavar="WHAT", help=", ".join(everything))
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench" / "results" / "reliability")
    parser.add_argument("--operations", type=int, help="of the random programs, in place of their figures")
    parser.add_argument("--fuzz-build", type=pathlib.Path, default=ROOT / "build-fuzz")
    parser.add_argument("--fuzz-seconds", type=int, default=FUZZ_SECONDS, help="of one core, for each fuzzer")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    options.commit = commit()
    chosen = options.what or everything
    with tempfile.TemporaryDirectory() as copies:
        options.copies = pathlib.Path(copies)
        for program in sorted({GTESTS[what][0] for what in chosen if what in GTESTS}):
            shutil.copy(options.build / "tests" / "alloc" / program, copies)
        if any(what in RANDOM for what in chosen):
            shutil.copy(options.build / "bench" / "random_programs_bench", copies)
        for what in chosen:
            if what.startswith("fuzz-"):
                shutil.copy(options.fuzz_build / "tests" / "fuzz" / f"{what.removeprefix('fuzz-')}_fuzzer", copies)
        passed = [machine_of(what)(options, what) for what in chosen]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
