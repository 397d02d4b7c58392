#!/usr/bin/env python3
"""Replays jobs of several streams whose streams are behind the host, and shows what that costs in memory and waits.

  python3 bench/lag.py --tool build/gmlake             raw results go to bench/results/lag.json; two minutes
  python3 bench/lag.py --tool build/gmlake --smoke     one recorded job, nothing kept: for CI

A stream may have what another has freed once its fence has passed, or behind a wait on the device. While streams keep up,
as in all other replays, every fence has passed. Here what a stream was given completes a number of events later. Replayed
are the recorded jobs of several streams, and those that bench/two_streams.py makes out of the others; with stream_wait as
it is by default, at the limit alone, which none of these comes to, and PyTorch's expandable segments, which keep streams
apart. A trace does not say where its streams wait for one another, so a stream looks idle here that would not be.
These jobs have no promised figures. Exits 1 if one runs out of memory.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from figures import ROOT, keep, trace_name
from two_streams import made_traces

RECORDED = ("bench/traces/fsdp.gmtrace", "bench/traces/fsdp_two_gpus.gmtrace", "bench/traces/neox_ro.gmtrace",
            "bench/traces/resnet_prefetch.gmtrace", "examples/traces/opt_lro.pickle.gz")
LAGS = (0, 1, 10, 100, 1000, 10000)
LAG_OF_THE_OTHERS = 1000
SETTINGS = ("true", "limit")


def replay(tool, trace, allocator, lag, stream_wait=None):
    command = [str(tool), "replay", str(trace), "--allocator", allocator, "--lag", str(lag), "--json", "-"]
    if stream_wait:
        command += ["--set", f"stream_wait={stream_wait}"]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode not in (0, 1):
        raise RuntimeError(f"{trace}: {process.stderr}")
    result = json.loads(process.stdout)["results"][0]
    kept = ("allocator", "peak_allocated_bytes", "peak_reserved_bytes", "reserved_over_allocated", "driver_seconds", "ooms")
    return {"source": trace_name(trace), "lag": lag, "stream_wait": stream_wait,
            "stream_waits": result["driver_calls"]["stream_wait"], **{name: result[name] for name in kept}}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", type=pathlib.Path, default=ROOT / "build" / "gmlake")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench" / "results" / "lag.json")
    parser.add_argument("--smoke", action="store_true", help="one recorded job, nothing kept")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="replays at a time; default: one a core")
    options = parser.parse_args()
    runs = []

    def note(future, way):
        result = {"way": way, **future.result()}
        runs.append(result)
        print(f"{result['source']:<16} {way:<9} {result['allocator']:<16} stream_wait {result['stream_wait'] or '-':<6} "
              f"lag {result['lag']:>6}  {result['reserved_over_allocated']:.4f}  "
              f"{result['stream_waits']:>5} waits  driver {result['driver_seconds']:.3f} s", flush=True)

    with tempfile.TemporaryDirectory() as scratch, concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        todo = []
        for trace in RECORDED[:1] if options.smoke else RECORDED:
            for lag in LAGS:
                todo += [(pool.submit(replay, options.tool, ROOT / trace, "gmlake", lag, setting), "recorded")
                         for setting in SETTINGS]
            todo.append((pool.submit(replay, options.tool, ROOT / trace, "torch-expandable", 0), "recorded"))
        for trace, _, way in () if options.smoke else made_traces(options.tool, pathlib.Path(scratch)):
            todo += [(pool.submit(replay, options.tool, trace, "gmlake", LAG_OF_THE_OTHERS, setting), way)
                     for setting in SETTINGS]
        for future, way in todo:
            note(future, way)

    if not options.smoke:
        keep(options.out, "python3 bench/lag.py", runs=runs)
    return 1 if any(run["ooms"] for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
