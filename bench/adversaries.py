#!/usr/bin/env python3
"""Replays every generated pattern with 20 seeds through gmlake and the models of PyTorch's allocators, and prints each
bound with the worst of its seeds.

  python3 bench/adversaries.py --tool build/gmlake           raw results go to bench/results/adversaries.json
  python3 bench/adversaries.py --tool build/gmlake --smoke   one seed, shorter, nothing kept: for CI

The bounds: peak reserved / peak live at most 1.05, where no live bytes pin parts of granules. Where a pattern is made to
pin them, memory cannot be had back without moving what is live: there at most what the better of PyTorch's two reserves.
In every pattern what was held at the peak, less what was pinned then (docs/statistics.md), is at most 1.05 of the peak of
live memory. No request fails where memory is not limited. Epochs run under a limit of 1.05 of their peak too: what succeeded in the
first one never fails later. The model driver keeps its own clock, so all but the host's nanoseconds repeat exactly.
Exits 1 if a bound does not hold.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

from figures import ROOT, keep

RATIO_BOUND = 1.05
EPOCHS_LIMIT = 1.05
# Patterns whose live blocks pin parts of granules, and below which peak they do: two-phase begins with blocks of 1/8192
# of the peak and keeps every second one, so below 16 GiB several of them lie in a granule; what long-tail keeps is small.
PINNING = {"two-phase": 16 << 30, "long-tail": 1 << 60}
PATTERNS = ("sawtooth", "pins", "ramp-up", "ramp-down", "power-law", "long-tail", "two-phase", "epochs")
ALLOCATORS = ("gmlake", "torch-native", "torch-expandable")


def run(*command):
    process = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if process.returncode not in (0, 1):
        sys.exit(process.stderr)
    return process.stdout


def measure(tool, folder, pattern, seed, peak, events):
    trace = folder / "trace.gmtrace"
    run(tool, "generate", pattern, "--seed", seed, "--peak", peak, "--events", events, "--out", trace)
    rows = json.loads(run(tool, "compare", trace, "--allocators", ",".join(ALLOCATORS), "--json", "-"))["results"]
    result = {"pattern": pattern, "seed": seed, "peak": peak, "events": events,
              "allocators": {row["allocator"]: row for row in rows}}
    if pattern == "epochs":
        capacity = int(rows[0]["peak_allocated_bytes"] * EPOCHS_LIMIT)
        limited = json.loads(run(tool, "replay", trace, "--capacity", capacity, "--json", "-"))["results"][0]
        # The first epoch alone: 500 blocks, made and freed.
        run(tool, "generate", pattern, "--seed", seed, "--peak", peak, "--events", 1000, "--out", trace)
        first = json.loads(run(tool, "replay", trace, "--capacity", capacity, "--json", "-"))["results"][0]
        result["limited"] = {"capacity": capacity, "ooms": limited["ooms"], "first_epoch_ooms": first["ooms"]}
    return result


def judge(results):
    """Lines of (holds, what, worst, bound) for one pattern at one peak."""
    ratio = {a: [r["allocators"][a]["reserved_over_allocated"] for r in results] for a in ALLOCATORS}
    pattern, peak = results[0]["pattern"], results[0]["peak"]
    own = max(ratio["gmlake"])
    if peak < PINNING.get(pattern, 0):
        margin = max(g - min(n, e) for g, n, e in zip(*(ratio[a] for a in ALLOCATORS)))
        yield margin <= 0, "reserved / live, less the better of PyTorch's", margin, 0
    else:
        yield own <= RATIO_BOUND, "reserved / live", own, RATIO_BOUND
    movable = max((row["peak_reserved_bytes"] - row["pinned_bytes_at_peak"]) / row["peak_allocated_bytes"]
                  for row in (r["allocators"]["gmlake"] for r in results))
    yield movable <= RATIO_BOUND, "(reserved - pinned) / live", movable, RATIO_BOUND
    ooms = sum(r["allocators"]["gmlake"]["ooms"] for r in results)
    yield ooms == 0, "requests refused", ooms, 0
    if pattern == "epochs":
        late = sum(r["limited"]["ooms"] for r in results if r["limited"]["first_epoch_ooms"] == 0)
        judged = sum(r["limited"]["first_epoch_ooms"] == 0 for r in results)
        yield late == 0, f"refused under a limit after the first epoch ({judged} seeds)", late, 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", type=pathlib.Path, default=ROOT / "build" / "gmlake")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench" / "results" / "adversaries.json")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--pattern", choices=PATTERNS, help="this one alone; nothing is kept")
    options = parser.parse_args()
    seeds, events = (range(1, 2), 20_000) if options.smoke else (range(1, 21), 100_000)
    results, missed = [], 0
    print(f"{'':5} {'pattern':10} {'peak':>5}  {'bound on the worst seed':56} {'worst':>8} {'bound':>6}"
          f"   medians: ratio, native, expandable; pinned share, driver s")
    with tempfile.TemporaryDirectory() as name:
        for pattern in PATTERNS if options.pattern is None else (options.pattern,):
            for peak in (4 << 30, 16 << 30):
                some = [measure(options.tool, pathlib.Path(name), pattern, seed, peak, events) for seed in seeds]
                results += some
                rows = [r["allocators"] for r in some]
                medians = [sorted(row[a]["reserved_over_allocated"] for row in rows)[len(rows) // 2] for a in ALLOCATORS]
                seconds = sorted(row["gmlake"]["driver_seconds"] for row in rows)[len(rows) // 2]
                pinned = sorted(row["gmlake"]["pinned_bytes_at_peak"] / row["gmlake"]["peak_reserved_bytes"]
                                for row in rows)[len(rows) // 2]
                for holds, what, worst, bound in judge(some):
                    missed += not holds
                    print(f"{'ok' if holds else 'MISS':5} {pattern:10} {peak >> 30:>2}GiB  {what:56} {worst:>8.4f} {bound:>6}"
                          f"   {medians[0]:.3f} {medians[1]:.3f} {medians[2]:.3f}; {pinned:.3f}, {seconds:.2f}", flush=True)
    print(f"{missed} bounds missed")
    if not options.smoke and options.pattern is None:
        keep(options.out, "python3 bench/adversaries.py", results=results)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
