#!/usr/bin/env python3
"""Measures many threads on one allocator, with bench/threads_bench, against what is promised, and keeps the results.

  python3 bench/threads.py [--bench build/bench/threads_bench] [--out bench/results/threads.json]

Pairs of allocate and deallocate a second of 8 threads, each on its own stream, over those of one: at least 1. The 99.9th
percentile of a hit beside a thread that stitches over that of a hit alone: at most 3. Exits 1 if one misses. Both are
medians of ratios within one run; the machine should have little else to do.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys

from figures import ROOT, commit, machine

THROUGHPUT_BOUND = 1.0
LATENCY_BOUND = 3.0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=pathlib.Path, default=ROOT / "build" / "bench" / "threads_bench")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench" / "results" / "threads.json")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    process = subprocess.run([str(options.bench), "--json", "-"], stdout=subprocess.PIPE, text=True, check=True)
    measured = json.loads(process.stdout[process.stdout.index("{"):])
    print(process.stdout[:process.stdout.index("{")], end="")
    met = measured["throughput_ratio"] >= THROUGHPUT_BOUND and measured["latency_ratio"] <= LATENCY_BOUND
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(
        {"machine": machine(), "load_before": load, "commit": commit(), "command": "python3 bench/threads.py",
         "bounds": {"throughput_ratio": THROUGHPUT_BOUND, "latency_ratio": LATENCY_BOUND}, "met": met, **measured},
        indent=1) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
