#!/usr/bin/env python3
"""Replays the validation traces through gmlake and the models of PyTorch's allocators, and prints one line a trace.

  python3 bench/validation.py --tool build/gmlake     raw results go to bench/results/validation.json

These jobs have no promised figures: they show how far the promised ones carry. The model driver keeps its own clock, so
all but the host's nanoseconds repeat exactly. Exits 1 if gmlake runs out of memory on any.
"""
import argparse
import json
import math
import pathlib
import subprocess
import sys

from figures import ROOT, keep

ALLOCATORS = ("gmlake", "torch-native", "torch-expandable")
APART = "stream_offload"  # see traces/README.md


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", type=pathlib.Path, default=ROOT / "build" / "gmlake")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench" / "results" / "validation.json")
    options = parser.parse_args()
    traces = sorted((ROOT / "bench" / "traces").glob("*.gmtrace"))
    command = [str(options.tool), "compare", *map(str, traces), "--allocators", ",".join(ALLOCATORS), "--json", "-"]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode not in (0, 1):
        sys.exit(process.stderr)
    results = json.loads(process.stdout)["results"]

    by_trace = {}
    for result in results:
        by_trace.setdefault(result["trace"], {})[result["allocator"]] = result
    print(f"{'trace':<16} {'allocated GiB':>13} {'native':>7} {'expand.':>7} {'gmlake':>7} {'driver s':>8} {'maps 2nd half':>13}")
    logarithms = []
    for trace, row in by_trace.items():
        ratios = [row[allocator]["reserved_over_allocated"] for allocator in ALLOCATORS]
        own = row["gmlake"]
        print(f"{trace:<16} {own['peak_allocated_bytes'] / 2**30:>13.3f} {ratios[1]:>7.4f} {ratios[2]:>7.4f} "
              f"{ratios[0]:>7.4f} {own['driver_seconds']:>8.3f} {own['handles_mapped_second_half']:>13}")
        if trace != APART:
            logarithms.append(math.log(ratios[0]))
    print(f"geometric mean of gmlake's ratios, {APART} apart: {math.exp(sum(logarithms) / len(logarithms)):.4f}")

    keep(options.out, "python3 bench/validation.py", results=results)
    return 1 if any(row["gmlake"]["ooms"] for row in by_trace.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
