"""What real jobs took under PyTorch, from bench/results/jobs.json, which bench/jobs/run.py wrote on a GPU."""
import json
import pathlib
import sys

from markdown_table import table

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench" / "jobs"))

import judge  # noqa: E402

KEPT = ROOT / "bench" / "results" / "jobs.json"
STEPS = ROOT / "bench" / "results" / "jobs_steps.json"
DISTRIBUTED = ROOT / "bench" / "results" / "jobs_distributed.json"
NONE_KEPT = "No run of these jobs on a GPU is kept yet."
GIB = 1 << 30
ALLOCATORS = ["native", "expandable", "cudaMallocAsync", "gmlake"]


def kept_runs(path=None):
    path = path or KEPT
    return json.loads(path.read_text()) if path.is_file() else None


def ratio(runs):
    """The worst peak reserved over peak allocated of those that ended well."""
    ended = [r["peak_reserved"] / r["peak_allocated"] for r in runs if not judge.failed(r)]
    return max(ended) if ended else None


def steps(runs):
    return judge.median([r for r in runs if not judge.failed(r)], "median_step")


def how_it_ended(runs):
    """How often, where not each time."""
    bad = [r for r in runs if judge.failed(r)]
    if not bad:
        return ""
    words = " and ".join(sorted({"out of memory" if r.get("err") == "OOM" else "failed" for r in bad}))
    return words if len(bad) == len(runs) else f"{words}, {len(bad)} of {len(runs)}"


def number(value, digits=3):
    return "-" if value is None else f"{value:.{digits}f}"


def loss(runs, native):
    apart = judge.loss_away(runs, native)
    if apart is None:
        return "-"
    return "as native's" if apart[0] <= apart[1] else f"{apart[0]:.2g} away, native's spread is {apart[1]:.2g}"


def jobs_table_of(kept):
    runs = kept["runs"]
    rows = []
    for job in dict.fromkeys(r["job"] for r in runs):
        native = judge.of(runs, job, "native")
        for limited in (False, True):
            for name in ALLOCATORS:
                own = judge.of(runs, job, name, limited)
                if not own:
                    continue
                peaks = [r["peak_allocated"] / GIB for r in own if r.get("peak_allocated") and not judge.failed(r)]
                retries = [r["retries"] for r in own if r.get("retries") is not None]
                label = f"{name} within {own[0]['limit']:g} x peak" if limited else name
                worst = number(ratio(own))
                rows.append(["" if rows and any(row[0] == job for row in rows) else job,
                             f"**{label}**" if name == "gmlake" else label,
                             f"{max(peaks):.2f} GiB" if peaks else "-",
                             f"**{worst}**" if name == "gmlake" else worst,
                             number(steps(own), 4), str(max(retries)) if retries else "-",
                             how_it_ended(own) or loss(own, native), str(len(own))])
    header = ["job", "allocator", "peak allocated", "peak reserved over it", "median step, s", "retries",
              "loss of the last step", "runs"]
    machine = kept["machine"]
    ranks = max((len(r.get("ranks", [])) for r in runs), default=0)
    made = (f"\n\nMade by `{kept['command']}` at commit {kept['commit'][:12]} on "
            f"{ranks if ranks > 1 else 'one'} {machine['gpu']}, PyTorch {machine['torch']}. The worst of the peaks"
            f"{' of all ranks' if ranks > 1 else ''}, the median of the steps.")
    if any(r.get("limit") for r in runs):
        made += (" Within: with that share of peak allocated as the memory limit, which cudaMallocAsync does not hold what it "
                 "reserves to.")
    return table(header, rows) + made


def steps_table_of(kept):
    """More runs of native and gmlake alone, with how far the runs of each lie apart."""
    rows = []
    for job in dict.fromkeys(r["job"] for r in kept["runs"]):
        native, own = (judge.of(kept["runs"], job, name) for name in ("native", "gmlake"))
        over = steps(own) / steps(native)
        rows.append([job, f"{len(native)} and {len(own)}", number(steps(native), 4), number(steps(own), 4),
                     number(over) + ("" if over <= judge.STEP_BOUND else f", above {judge.STEP_BOUND}"),
                     number(judge.steady_seconds(own) / judge.steady_seconds(native)),
                     number(judge.all_seconds(own) / judge.all_seconds(native)),
                     *(f"{100 * judge.spread(runs, 'median_step'):.0f} %" for runs in (native, own))])
    header = ["job", "runs", "native's median step, s", "gmlake's", "over it", "steps from the third on, over native's",
              "all steps", "native's slowest run over its fastest", "gmlake's"]
    machine = kept["machine"]
    left = f" {kept['left_out']} of the runs asked for did not fit into the time." if kept.get("left_out") else ""
    return table(header, rows) + (f"\n\nMade by `{kept['command']}` at commit {kept['commit'][:12]} on one {machine['gpu']}, "
                                  f"PyTorch {machine['torch']}.{left}")


def line_of(kept):
    """Two lines for who has not decided yet."""
    runs = kept["runs"]
    jobs = [job for job in dict.fromkeys(r["job"] for r in runs)
            if all(ratio(judge.of(runs, job, name)) for name in ("native", "gmlake"))]
    if not jobs:
        return NONE_KEPT

    def between(values, digits):
        low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
        return low if low == high else f"{low} to {high}"

    ratios = {name: between([ratio(judge.of(runs, job, name)) for job in jobs], 3) for name in ("native", "gmlake")}
    times = [steps(judge.of(runs, job, "gmlake")) / steps(judge.of(runs, job, "native")) for job in jobs]
    return (f"On one {kept['machine']['gpu']} under PyTorch {kept['machine']['torch']}, {len(jobs)} jobs: peak reserved over peak "
            f"allocated {ratios['gmlake']}, PyTorch's own {ratios['native']};\nmedian step {between(times, 3)} of PyTorch's own "
            "([docs/pytorch.md](docs/pytorch.md) has the table).")


def jobs_table(_):
    kept = kept_runs()
    return jobs_table_of(kept) if kept else NONE_KEPT


def steps_table(_):
    kept = kept_runs(STEPS)
    return steps_table_of(kept) if kept else NONE_KEPT


def distributed_table(_):
    kept = kept_runs(DISTRIBUTED)
    return jobs_table_of(kept) if kept else NONE_KEPT


def jobs_line(_):
    kept = kept_runs()
    return line_of(kept) if kept else NONE_KEPT


TABLES = {"jobs": ("docs/pytorch.md", jobs_table), "jobs-steps": ("docs/pytorch.md", steps_table),
          "jobs-distributed": ("docs/pytorch.md", distributed_table),
          "jobs-line": ("README.md", jobs_line)}
