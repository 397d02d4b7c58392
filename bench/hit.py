#!/usr/bin/env python3
"""Counts the instructions of a hit, and of an event of the bundled traces, under callgrind: counts repeat exactly.

  python3 bench/hit.py --bench build/bench/hit_bench            raw results go to bench/results/hit.json
  python3 bench/hit.py --bench build/bench/hit_bench --smoke    two sizes, few live blocks, nothing kept: for CI

A pair is an allocate and a deallocate of a cached size on one thread, lock, statistics and the loop around it included.
An event is one of the second half of a trace, slow path, model driver and the loop around it included; reading the
trace and its first half are not counted. A recorded pair has a recorder running, whose own thread is not counted. Exits 1
if a bound is missed. Wants valgrind, and a Release build.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

from figures import ROOT, commit, machine

PAIR_BOUND = 350  # instructions
RECORDED_BOUND = 650  # of a pair while a recorder runs
GROWTH_BOUND = 1.5  # from 1,000 to 1,000,000 live blocks
EVENT_BOUND = 400
SIZES = {"512 B": 512, "64 KiB": 64 << 10, "2 MiB": 2 << 20, "64 MiB": 64 << 20}
PAIRS = 1000


def instructions(bench, function, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.run(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", "--collect-atstart=no",
             f"--toggle-collect=*{function}*", str(bench), *arguments], capture_output=True, text=True)
    if process.returncode != 0:
        sys.exit(process.stderr)
    counted = int(re.search(r"Collected : (\d+)", process.stderr).group(1))
    return counted, process.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=pathlib.Path, default=ROOT / "build" / "bench" / "hit_bench")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench" / "results" / "hit.json")
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    rows = []

    def add(figure, what, value, bound):
        rows.append({"figure": figure, "what": what, "value": value, "bound": bound, "met": value <= bound})
        print(f"{'ok  ' if value <= bound else 'MISS'}  {figure:<28} {what:<24} {value:>8.2f}  <= {bound}", flush=True)

    sizes = dict(list(SIZES.items())[:2]) if options.smoke else SIZES
    for name, size in sizes.items():
        by_live = {}
        for live in (0, 1000) if options.smoke else (0, 1000, 1_000_000):
            counted, _ = instructions(options.bench, "measured_pairs", "pairs", str(size), str(live), str(PAIRS))
            by_live[live] = counted / PAIRS
            add("instructions a pair", f"{name}, {live:,} live", by_live[live], PAIR_BOUND)
        counted, _ = instructions(options.bench, "measured_pairs", "recorded", str(size), "1000", str(PAIRS))
        add("instructions a recorded pair", f"{name}, 1,000 live", counted / PAIRS, RECORDED_BOUND)
        if 1_000_000 in by_live:
            add("growth to a million live", name, by_live[1_000_000] / by_live[1000], GROWTH_BOUND)
    streams = 100 if options.smoke else 1000
    counted, _ = instructions(options.bench, "measured_turns", "turns", "512", str(streams), str(PAIRS))
    add("instructions a pair", f"512 B, {streams:,} streams in turn", counted / PAIRS, PAIR_BOUND)
    if not options.smoke:
        for trace in sorted((ROOT / "examples" / "traces").glob("*.pickle.gz")):
            counted, output = instructions(options.bench, "measured_events", "replay", str(trace))
            events = int(re.search(r": (\d+) events", output).group(1))
            add("instructions an event", trace.name.split(".")[0], counted / events, EVENT_BOUND)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"machine": machine(), "commit": commit(),
                                           "command": "python3 bench/hit.py", "figures": rows}, indent=1) + "\n")
    sys.exit(0 if all(row["met"] for row in rows) else 1)


if __name__ == "__main__":
    main()
