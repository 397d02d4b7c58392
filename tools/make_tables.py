#!/usr/bin/env python3
"""Fills the tables of the documents from what the library and kept results say, so that none is ever written by hand.

  python3 tools/make_tables.py --tool build/gmlake           rewrites the documents
  python3 tools/make_tables.py --tool build/gmlake --check   changes nothing; exits 1 where a table is stale
  python3 tools/make_tables.py --print NAME                  prints one table

A table stands between <!-- table: NAME --> and <!-- end table -->. Results come from bench/results/: figures.json, which
`make figures` writes; those of a GPU from gpu.json, which bench/gpu.py writes, and from jobs.json, jobs_distributed.json,
steps/ and turns/, which bench/jobs/run.py writes; reliability from reliability/, which bench/reliability.py, tools/mutants.py
and tools/coverage.py write. Options come from `gmlake options --json -`.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys

import figure_tables
import gpu_tables
import job_tables
import lag_tables
import turn_tables
from markdown_table import table

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results" / "figures.json"
RELIABILITY = ROOT / "bench" / "results" / "reliability"
GIB = 1 << 30


def nothing(text):
    return f"| {text} |\n|---|"


def results_table(_):
    if not RESULTS.is_file():
        return nothing("no results are kept yet")
    kept = json.loads(RESULTS.read_text())
    compare = {(r["trace"], r["allocator"]): r for r in kept["compare"]}
    fit = {(r["trace"], r["allocator"]): r for r in kept["fit"]}
    allocators = ["torch-native", "torch-expandable", "gmlake"]

    def cell(table, trace, allocator, field):
        found = table.get((trace, allocator))
        text = f"{found[field]:.3f}" if found else "-"
        return f"**{text}**" if found and allocator == "gmlake" else text

    rows = []
    for trace in sorted({trace for trace, _ in compare}):
        peak = max(r["peak_allocated_bytes"] for (name, _), r in compare.items() if name == trace)
        own = compare.get((trace, "gmlake"))
        rows.append([trace, f"{peak / GIB:.2f} GiB"]
                    + [cell(compare, trace, allocator, "reserved_over_allocated") for allocator in allocators]
                    + [cell(fit, trace, allocator, "min_capacity_over_allocated") for allocator in allocators]
                    + [f"{own['driver_seconds']:.2f} s" if own else "-"])
    header = ["job", "peak allocated", "native: reserved", "expandable", "**gmlake**", "native: limit", "expandable",
              "**gmlake**", "gmlake's driver time"]
    note = (f"\nMade by `{kept['command']}` at commit {kept['commit'][:12]} on {kept['machine']['cores']} cores of "
            f"{kept['machine']['cpu']}; raw results in [bench/results/](bench/results/). Driver time is that of the "
            "whole job, by the costs measured on an H200.")
    return table(header, rows) + "\n" + note


def options_table(tool):
    listed = json.loads(subprocess.run([tool, "options", "--json", "-"], check=True, capture_output=True).stdout)
    if not listed["results"]:
        return nothing("no options yet")
    return table(["key", "default", "range", "meaning"],
                        [[f"`{o['key']}`", o["default"], o["range"], o["meaning"].replace("|", "\\|")]
                         for o in listed["results"]])


# What each record of bench/results/reliability/ is: the machine, how much it did, and what it was to find none or all of.
MACHINES = {
    "faults": ("driver calls that fail, one a run", "{points:,} runs", "{found} failures"),
    "fault-pairs": ("two driver calls that fail in one run", "{points:,} runs", "{found} failures"),
    "host-memory": ("`operator new` that fails, every one", "{points:,} runs", "{found} failures"),
    "random-model": ("random programs, model driver", "{operations:,} operations", "{found} mismatches"),
    "random-host": ("random programs, real mappings and contents", "{operations:,} operations", "{found} mismatches"),
    "interleavings": ("orders of operations and devices", "{interleavings:,} interleavings, {kernels:,} kernels",
                      "{found} races"),
    "planted-races": ("bugs planted under the allocator", "{tests} bugs", "{found} found"),
    "mutants": ("mutants of the sources", "{mutants} mutants", "{found} killed"),
    "coverage": ("sides of conditions in memory, stitch, alloc", "{sides:,} sides", "{found} not taken: {share:.1%} are"),
    "processes": ("programs that fork, exit, unload", "{tests} programs", "{found} failures"),
    **{f"fuzz-{name}": (f"fuzzer of {subject}", "{runs:,} runs, {cpu_seconds:,} s of one core", "{found} crashes")
       for name, subject in (("program", "programs of operations"), ("options", "settings"), ("capi", "the C interface"),
                             ("trace", "traces"), ("csv", "CSV files"), ("pickle", "snapshots"))},
}


def reliability_table(_):
    rows = []
    for name, (what, did, found) in MACHINES.items():
        path = RELIABILITY / f"{name}.json"
        if not path.is_file():
            rows.append([what, "not run yet", "", "", ""])
            continue
        kept = json.loads(path.read_text())
        values = {**kept["counts"], "found": f"{kept['found']:,}"}
        passed = "passed" if kept["passed"] else "**failed**" if kept.get("complete", True) else "**not finished**"
        rows.append([what, did.format(**values) if kept["counts"] else "did not end", found.format(**values), passed,
                     f"`{kept['commit'][:12]}`"])
    return table(["what", "how much", "found", "", "at commit"], rows)


TABLES = {"reliability": ("docs/reliability.md", reliability_table), "results": ("README.md", results_table), "options": ("docs/options.md", options_table)}
TABLES |= {name: (gpu_tables.DOCUMENT, make) for name, make in gpu_tables.TABLES.items()}
TABLES |= job_tables.TABLES | lag_tables.TABLES | turn_tables.TABLES
TABLES |= {name: (figure_tables.DOCUMENT, make) for name, make in figure_tables.TABLES.items()}


def filled(text, name, content):
    """The document with `content` as its table; None where it has no table of that name."""
    between = re.compile(rf"(<!-- table: {name} -->\n)(?:.*?\n)??(<!-- end table -->)", re.DOTALL)
    new, found = between.subn(lambda marks: f"{marks.group(1)}{content}\n{marks.group(2)}", text)
    return new if found else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", default=str(ROOT / "build" / "gmlake"))
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--print", choices=TABLES, metavar="NAME")
    options = parser.parse_args()
    if options.print:
        print(TABLES[options.print][1](options.tool))
        return
    stale = []
    for name, (document, make) in TABLES.items():
        path = ROOT / document
        old = path.read_text()
        new = filled(old, name, make(options.tool))
        if new is None:
            sys.exit(f"{document}: there is no table '{name}'")
        if new == old:
            continue
        stale.append(f"{document}: table '{name}'")
        if not options.check:
            path.write_text(new)
    if options.check and stale:
        sys.exit("stale, run `make tables`: " + ", ".join(stale))


if __name__ == "__main__":
    main()
