#!/usr/bin/env python3
"""Prints what driver calls cost inside jobs, from the kept log of them: the constants of src/driver/model_costs.hpp.

  python3 tools/fit_costs.py [--log bench/results/calls.csv.gz]

The log is what `python3 bench/gpu.py --parts calls` wrote on an H200: every driver call of the six recorded jobs, and of
situations that differ in one thing each (marked by lines with a #), with its time in three rounds. A call's time is
taken from the round in which it was shortest, for what disturbs a machine only ever adds. A cost is the time of all calls of its kind in
the six jobs, by the handles that they dealt with; the table shows what it makes of each job.
"""
import argparse
import collections
import gzip
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
VMM = ("create", "map", "map, first", "set_access", "unmap")


# (calls, nanoseconds) by kind and mark, and each round's sum in seconds. What a range holds follows from the maps before.
def read_job(lines):
    costs = collections.defaultdict(lambda: [0, 0])
    seconds = None
    mapped = {}  # address to (MiB, handle)
    mappings = collections.Counter()  # of a handle
    mark = ""
    for line in lines:
        if line.startswith("# "):
            mark = line[2:]
            continue
        kind, *numbers = line.split(",")
        *rounds, address, mib, handle = map(int, numbers)
        seconds = [total + ns / 1e9 for total, ns in zip(seconds or [0] * len(rounds), rounds)]
        handles = 1
        if kind == "map":
            if mappings[handle] == 0:
                kind = "map, first"
            mappings[handle] += 1
            mapped[address] = (mib, handle)
        elif kind in ("set_access", "unmap"):
            handles, at = 0, address
            while at < address + mib:
                size, mapped_handle = mapped[at]
                if kind == "unmap":
                    del mapped[at]
                    mappings[mapped_handle] -= 1
                at += size
                handles += 1
        cost = costs[mark, kind]
        cost[0] += handles
        cost[1] += min(rounds)
    return costs, seconds


def read_log(path):
    jobs = {}
    with gzip.open(path, "rt") as file:
        for line in file:
            if line.startswith("## "):
                lines = jobs.setdefault(line[3:].strip(), [])
            else:
                lines.append(line.rstrip("\n"))
    return {name: read_job(lines) for name, lines in jobs.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=pathlib.Path, default=ROOT / "bench" / "results" / "calls.csv.gz")
    jobs = read_log(parser.parse_args().log)
    situations, _ = jobs.pop("conditions", ({}, None))

    total = collections.defaultdict(lambda: [0, 0])
    for costs, _ in jobs.values():
        for (_, kind), (handles, ns) in costs.items():
            total[kind][0] += handles
            total[kind][1] += ns
    fitted = {kind: ns / handles for kind, (handles, ns) in total.items()}
    print("inside jobs, ns a handle or call:")
    for kind, (handles, ns) in sorted(total.items(), key=lambda item: -item[1][1]):
        print(f"  {kind:<14} {ns / handles:>8.0f}   {handles:>6} of them, {ns / 1e9:.4f} s")
    print(f"\n{'job':<14} {'fitted, s':>9} {'shortest, s':>11} {'off':>6}   rounds, s")
    for name, (costs, rounds) in jobs.items():
        model = sum(handles * fitted[kind] for (_, kind), (handles, _) in costs.items()) / 1e9
        shortest = sum(ns for _, ns in costs.values()) / 1e9
        print(f"{name:<14} {model:>9.4f} {shortest:>11.4f} {model / shortest - 1:>+6.1%}   "
              + " ".join(f"{seconds:.3f}" for seconds in rounds))
    if situations:
        print("\nside by side, us a handle:")
    by_mark = collections.defaultdict(dict)
    for (mark, kind), (handles, ns) in situations.items():
        if kind in VMM:
            by_mark[mark][kind] = ns / handles / 1000
    for mark, kinds in by_mark.items():
        print(f"  {mark}: " + ", ".join(f"{kind} {us:.1f}" for kind, us in kinds.items()))


if __name__ == "__main__":
    main()
