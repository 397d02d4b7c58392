"""What jobs of several streams hold, from bench/results/lag.json and two_streams.json. Called by make_tables.py."""
import json
import math
import pathlib

from figure_tables import DOCUMENT
from markdown_table import table

RESULTS = pathlib.Path(__file__).resolve().parent.parent / "bench" / "results"
RESULT = RESULTS / "lag.json"
BOUND = 1.010


def mean(ratios):
    return f"{math.exp(sum(map(math.log, ratios)) / len(ratios)):.4f}"


def streams_table(_):
    kept = json.loads((RESULTS / "two_streams.json").read_text())
    rows = []
    for way in dict.fromkeys(run["way"] for run in kept["results"]):
        runs = [run for run in kept["results"] if run["way"] == way]
        ratios = [run["reserved_over_allocated"] for run in runs]
        missed = sum(not run["met"] for run in runs)
        seconds = sum(run["driver_seconds"] for run in runs) / len(runs)
        rows.append([way, mean(ratios), f"{max(ratios):.4f}", f"{missed} of {len(runs)}", f"{seconds:.2f}"])
    header = ["way", "mean", "worst", "above the bound", "driver seconds a job"]
    return table(header, rows) + ("\n\nPeak reserved / peak allocated, geometric means; the bound is "
                                  f"{BOUND:.3f}, generate's 1.015. At commit {kept['commit'][:12]}.")


def lag_table(_):
    kept = json.loads(RESULT.read_text())
    runs = [run for run in kept["runs"] if run["way"] == "recorded"]
    lags = sorted({run["lag"] for run in runs})
    rows = []
    for source in dict.fromkeys(run["source"] for run in runs):
        for setting in ("limit", "true"):
            own = {run["lag"]: run for run in runs
                   if run["source"] == source and run["stream_wait"] == setting}
            most = max(own.values(), key=lambda run: run["stream_waits"])
            rows.append([source if setting == "limit" else "", f"`{setting}`",
                         *(f"{own[lag]['reserved_over_allocated']:.4f}" for lag in lags), str(most["stream_waits"]),
                         f"{own[0]['driver_seconds']:.3f} to {max(run['driver_seconds'] for run in own.values()):.3f}"])
        (apart,) = (run for run in runs if run["source"] == source and run["stream_wait"] is None)
        rows.append(["", "expandable segments", f"{apart['reserved_over_allocated']:.4f}", *[""] * (len(lags) - 1), "",
                     f"{apart['driver_seconds']:.3f}"])
    header = ["job", "`stream_wait`", *(f"{lag:,} behind" for lag in lags), "waits, at most", "driver seconds"]
    return table(header, rows) + f"\n\nPeak reserved / peak allocated. At commit {kept['commit'][:12]}."


def ways_table(_):
    kept = json.loads(RESULT.read_text())
    runs = [run for run in kept["runs"] if run["way"] != "recorded"]
    rows = []
    for way in dict.fromkeys(run["way"] for run in runs):
        cells = [way]
        for setting in ("limit", "true"):
            ratios = [run["reserved_over_allocated"] for run in runs
                      if run["way"] == way and run["stream_wait"] == setting]
            cells += [mean(ratios), f"{max(ratios):.4f}",
                      f"{sum(ratio > BOUND for ratio in ratios)} of {len(ratios)}"]
        for field in ("stream_waits", "driver_seconds"):
            values = {setting: [run[field] for run in runs if run["way"] == way and run["stream_wait"] == setting]
                      for setting in ("limit", "true")}
            means = [sum(values[setting]) / len(values[setting]) for setting in ("limit", "true")]
            cells.append(f"{means[1]:.0f}" if field == "stream_waits" else f"{means[0]:.2f} and {means[1]:.2f}")
        rows.append(cells)
    header = ["way", "`limit`: mean", "worst", f"above {BOUND:.3f}", "`true`: mean", "worst", f"above {BOUND:.3f}",
              "waits a job", "driver seconds"]
    return table(header, rows) + "\n\nPeak reserved / peak allocated, geometric means; waits are those of `true`."


TABLES = {"two-streams": (DOCUMENT, streams_table), "lag": (DOCUMENT, lag_table), "lag-ways": (DOCUMENT, ways_table)}
