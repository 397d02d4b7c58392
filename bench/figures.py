#!/usr/bin/env python3
"""Checks every figure that gmlake promises, on all bundled traces, and prints each against its bound.

  python3 bench/figures.py --tool build/gmlake           all figures; raw results go to bench/results/figures.json
  python3 bench/figures.py --tool build/gmlake --smoke   one trace, counted figures only, nothing kept: for CI

Exits 1 if a figure misses its bound. Times are taken --repeat times; the median counts, the spread is kept.
"""
import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TRACES = ROOT / "examples" / "traces"
GIB = 1 << 30

# Peak reserved / peak allocated with all of the device, and the smallest capacity / peak allocated.
RATIO_BOUND = {"generate": 1.015}
RATIO_BOUND_ELSE = 1.010
FIT_BOUND = {"generate": 1.010}
FIT_BOUND_ELSE = 1.005
DRIVER_SECONDS_BOUND = 0.20
SECOND_HALF_BOUND = 600
VERIFY_RSS_BOUND = 6 * GIB
COMPARE_OVER_PICKLE_BOUND = 3.0
# What PyTorch reserved at most when each trace was recorded: the model of it must say the same, to the byte.
TORCH_NATIVE_RESERVED = {"gpt2_full": 54087647232, "opt_recompute": 52120518656, "llama7b_lr": 36974886912,
                         "opt_lro": 22020096000, "detect": 29731323904, "generate": 12377391104}
TORCH_NATIVE_BOUND = 0

# What expandable_segments did on an H200 (PyTorch 2.11.0): peak reserved / peak allocated of the trace
# replayed, and the smallest limit it finished in over the same; and how far the model of it may be off.
EXPANDABLE_RATIO = {"gpt2_full": 1.019, "opt_recompute": 1.135, "llama7b_lr": 1.074, "opt_lro": 1.136, "detect": 1.081,
                    "generate": 1.039}
EXPANDABLE_FIT = {"gpt2_full": 1.0038, "opt_recompute": 1.0085, "llama7b_lr": 1.0048, "opt_lro": 1.0079,
                  "detect": 1.0084, "generate": 1.0358}
EXPANDABLE_BOUND = 0.015


class Figures:
    def __init__(self):
        self.rows = []

    def add(self, name, trace, value, bound, shown="{:.4f}"):
        met = value <= bound
        self.rows.append({"figure": name, "trace": trace, "value": value, "bound": bound, "met": met})
        print(f"{'ok  ' if met else 'MISS'}  {name:<34} {trace:<14} {shown.format(value):>10}  <= {shown.format(bound)}",
              flush=True)

    def all_met(self):
        return all(row["met"] for row in self.rows)


def trace_name(path):
    return path.name.split(".")[0]


def run_tool(options, *arguments):
    """The tool's JSON, its seconds of wall time, and the most resident bytes it had."""
    command = [str(options.tool), *map(str, arguments), "--json", "-"]
    with tempfile.TemporaryFile() as out:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    # 1 is a missed check: what it missed is in the results, and will show.
    if process.returncode not in (0, 1) or not text:
        sys.exit(f"{' '.join(command)}: exit status {process.returncode}")
    return json.loads(text)["results"], seconds, usage.ru_maxrss * 1024


def check_compare(options, figures, path, kept):
    results, _, _ = run_tool(options, "compare", path)
    kept += results
    trace = trace_name(path)
    if "gmlake" not in {result["allocator"] for result in results}:
        sys.exit(f"{trace}: nothing was measured for gmlake")
    for result in results:
        if result["allocator"] == "gmlake":
            figures.add("reserved / allocated", trace, result["reserved_over_allocated"],
                        RATIO_BOUND.get(trace, RATIO_BOUND_ELSE))
            figures.add("driver seconds", trace, result["driver_seconds"], DRIVER_SECONDS_BOUND)
            figures.add("handles mapped in the second half", trace, result["handles_mapped_second_half"],
                        SECOND_HALF_BOUND, "{}")
            figures.add("out of memory", trace, result["ooms"], 0, "{}")
        elif result["allocator"] == "torch-native" and trace in TORCH_NATIVE_RESERVED:
            recorded = TORCH_NATIVE_RESERVED[trace]
            figures.add("torch-native model, relative error", trace,
                        abs(result["peak_reserved_bytes"] / recorded - 1), TORCH_NATIVE_BOUND)
        elif result["allocator"] == "torch-expandable" and trace in EXPANDABLE_RATIO:
            figures.add("torch-expandable model, off by", trace,
                        abs(result["reserved_over_allocated"] / EXPANDABLE_RATIO[trace] - 1), EXPANDABLE_BOUND)


def check_fit(options, figures, path, kept):
    results, _, _ = run_tool(options, "fit", path)
    kept += results
    trace = trace_name(path)
    for result in results:
        if result["allocator"] == "gmlake":
            figures.add("min capacity / allocated", trace, result["min_capacity_over_allocated"],
                        FIT_BOUND.get(trace, FIT_BOUND_ELSE))
        elif result["allocator"] == "torch-expandable" and trace in EXPANDABLE_FIT:
            figures.add("torch-expandable capacity, off by", trace,
                        abs(result["min_capacity_over_allocated"] / EXPANDABLE_FIT[trace] - 1), EXPANDABLE_BOUND)


def check_verify(options, figures, path, kept):
    results, seconds, resident = run_tool(options, "replay", path, "--verify", "--driver", "host")
    trace = trace_name(path)
    for result in results:
        kept.append({**result, "wall_seconds": seconds, "max_resident_bytes": resident})
        figures.add("wrong bytes", trace, result["wrong_bytes"], 0, "{}")
        # A check that looked at nothing is no check.
        figures.add("unchecked (1: nothing was verified)", trace, int(result["verified_bytes"] == 0), 0, "{}")
    figures.add("resident GiB while verifying", trace, resident / GIB, VERIFY_RSS_BOUND / GIB, "{:.2f}")


def load_seconds(path):
    """Wall time of a fresh Python that does nothing but load the trace, as a user's script would."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import gzip, pickle, sys; pickle.load(gzip.open(sys.argv[1]))", str(path)],
                   check=True)
    return time.perf_counter() - begin


def check_speed(options, figures, path, kept):
    loads, compares = [], []
    for _ in range(options.repeat):
        loads.append(load_seconds(path))
        compares.append(run_tool(options, "compare", path)[1])
    kept.append({"trace": trace_name(path), "pickle_load_seconds": loads, "compare_seconds": compares})
    figures.add("compare / pickle.load, wall time", trace_name(path),
                statistics.median(compares) / statistics.median(loads), COMPARE_OVER_PICKLE_BOUND, "{:.2f}")


def machine():
    cpu = "unknown"
    memory = 0
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            memory = int(line.split()[1]) * 1024
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_bytes": memory, "python": sys.version.split()[0]}


def commit():
    def git(*arguments):
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True).stdout.strip()
    return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")


def keep(path, command, **found):
    """Writes a result file, whole or not at all: what was found, and where, when and how."""
    document = {"machine": machine(), "commit": commit(),
                "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(), "command": command, **found}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(document, indent=1) + "\n")
    temporary.replace(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", type=pathlib.Path, default=ROOT / "build" / "gmlake")
    parser.add_argument("--smoke", action="store_true", help="one trace, no times, nothing kept")
    parser.add_argument("--only", metavar="TRACE", help="the name of one trace")
    parser.add_argument("--repeat", type=int, default=5, help="how often times are taken (default: 5)")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench" / "results" / "figures.json")
    options = parser.parse_args()
    traces = [path for path in sorted(TRACES.glob("*.pickle.gz"))
              if (trace_name(path) == options.only if options.only else not options.smoke or "opt_lro" in path.name)]
    if not traces:
        sys.exit(f"no traces in {TRACES}")

    figures = Figures()
    kept = {"compare": [], "fit": [], "verify": [], "speed": []}
    for path in traces:
        check_compare(options, figures, path, kept["compare"])
        if options.smoke:
            continue
        check_fit(options, figures, path, kept["fit"])
        check_verify(options, figures, path, kept["verify"])
        if trace_name(path) == "llama7b_lr":
            check_speed(options, figures, path, kept["speed"])
    if not options.smoke and not options.only:
        keep(options.out, "make figures", figures=figures.rows, **kept)
    missed = sum(not row["met"] for row in figures.rows)
    print(f"{len(figures.rows)} figures, {missed} missed")
    return 0 if figures.all_met() else 1


if __name__ == "__main__":
    sys.exit(main())
