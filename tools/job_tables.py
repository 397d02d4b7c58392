"""What real jobs took under PyTorch, from what bench/jobs/run.py wrote on GPUs into bench/results/."""
import json
import pathlib
import random
import statistics
import sys

from markdown_table import table

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench" / "jobs"))

import judge  # noqa: E402

RESULTS = ROOT / "bench" / "results"
KEPT = RESULTS / "jobs.json"
DISTRIBUTED = RESULTS / "jobs_distributed.json"
RESAMPLINGS = 2000
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


def jobs_table_of(kept, documents):
    runs = kept["runs"]
    everywhere = [r for document in documents for r in document["runs"]]
    rows = []
    for job in dict.fromkeys(r["job"] for r in runs):
        length = max((r["steps"] for r in judge.of(runs, job, "native") if not judge.failed(r)), default=None)
        native = [r for r in judge.of(everywhere, job, "native") if r["steps"] == length]
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
    made += " The loss is held against that of all runs of native that are kept."
    if any(r.get("limit") for r in runs):
        made += (" Within: with that share of peak allocated as the memory limit, which cudaMallocAsync does not hold what it "
                 "reserves to.")
    return table(header, rows) + made


def all_kept():
    """Every campaign of these jobs that is kept: those of the tables above, and what was run besides."""
    return [json.loads(path.read_text()) for path in [KEPT, DISTRIBUTED, *sorted(RESULTS.glob("steps/*.json"))]]


def pooled(documents, job, *kinds):
    """The runs of a job of each kind, an allocator or one with a limit, of all documents that have every kind: in each
    they took turns on one machine."""
    pool = [[] for _ in kinds]
    for document in documents:
        runs = [r for r in document["runs"] if not judge.failed(r)]
        apart = [judge.of(runs, job, *kind) for kind in kinds]
        if all(apart):
            for own, more in zip(pool, apart):
                own.extend(more)
    return pool


NATIVE, OWN, EXPANDABLE, LIMITED = ("native",), ("gmlake",), ("expandable",), ("gmlake", True)


def resampled(own, native):
    """Between what the ratio of medians lies in 95 of 100 resamplings of the runs (bootstrap)."""
    draw = random.Random(1)
    times = [[r["median_step"] for r in runs] for runs in (own, native)]
    ratios = sorted(statistics.median(draw.choices(times[0], k=len(times[0]))) /
                    statistics.median(draw.choices(times[1], k=len(times[1]))) for _ in range(RESAMPLINGS))
    return ratios[RESAMPLINGS // 40], ratios[-RESAMPLINGS // 40]


def compared_jobs():
    return [job for path in (KEPT, DISTRIBUTED) for job in dict.fromkeys(r["job"] for r in kept_runs(path)["runs"])]


def steps_table_of(documents, jobs):
    """All runs of native and gmlake, with how far the runs of each lie apart."""
    rows = []
    for job in jobs:
        native, own = pooled(documents, job, NATIVE, OWN)
        if not own:
            continue
        over = steps(own) / steps(native)
        low, high = resampled(own, native)
        rows.append([job, f"{len(native)} and {len(own)}", number(steps(native), 4), number(steps(own), 4),
                     number(over) + ("" if over <= judge.STEP_BOUND else f", above {judge.STEP_BOUND}"),
                     f"{number(low)} to {number(high)}",
                     number(judge.steady_seconds(own) / judge.steady_seconds(native)),
                     *(f"{100 * judge.spread(runs, 'median_step'):.0f} %" for runs in (native, own))])
    header = ["job", "runs", "native's median step, s", "gmlake's", "over it", "in 95 % of resamplings",
              "steps from the third on, over native's", "native's slowest run over its fastest", "gmlake's"]
    commits = dict.fromkeys(document["commit"][:7] for document in documents
                            if any(pooled([document], job, NATIVE, OWN)[0] for job in jobs))
    return table(header, rows) + f"\n\nFrom `bench/results/`, runs at the commits {', '.join(commits)}."


def beside_table_of(documents, jobs):
    """What gmlake's median step is over expandable segments', and with a memory limit over without."""
    rows = []
    for job in jobs:
        native = pooled(documents, job, NATIVE, OWN)[0]
        row = [job]
        for kinds, bound in (((OWN, EXPANDABLE), 1 + judge.spread(native, "median_step")),
                             ((LIMITED, OWN), judge.LIMITED_STEP_BOUND)):
            own, other = pooled(documents, job, *kinds)
            if own:
                low, high = resampled(own, other)
                row += [f"{len(own)} and {len(other)}", number(steps(own) / steps(other)), f"{number(low)} to {number(high)}",
                        number(bound, 2)]
            else:
                row += ["-"] * 4
        rows.append(row)
    header = ["job", "runs", "over expandable's", "in 95 % of resamplings", "at most",
              "runs", "with the limit, over without", "in 95 % of resamplings", "at most"]
    return table(header, rows)


def line_of(kept, documents):
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
    times = [steps(own) / steps(native) for own, native in (pooled(documents, job, OWN, NATIVE) for job in jobs)]
    return (f"On one {kept['machine']['gpu']} under PyTorch {kept['machine']['torch']}, {len(jobs)} jobs: peak reserved over peak "
            f"allocated {ratios['gmlake']}, PyTorch's own {ratios['native']};\nmedian step {between(times, 3)} of PyTorch's own "
            "([docs/pytorch.md](docs/pytorch.md) has the table).")


def jobs_table(_):
    kept = kept_runs()
    return jobs_table_of(kept, all_kept()) if kept else NONE_KEPT


def steps_table(_):
    return steps_table_of(all_kept(), compared_jobs()) if kept_runs() else NONE_KEPT


def beside_table(_):
    return beside_table_of(all_kept(), compared_jobs()) if kept_runs() else NONE_KEPT


def distributed_table(_):
    kept = kept_runs(DISTRIBUTED)
    return jobs_table_of(kept, all_kept()) if kept else NONE_KEPT


def jobs_line(_):
    kept = kept_runs()
    return line_of(kept, all_kept()) if kept else NONE_KEPT


TABLES = {"jobs": ("docs/pytorch.md", jobs_table), "jobs-steps": ("docs/pytorch.md", steps_table),
          "jobs-beside": ("docs/pytorch.md", beside_table),
          "jobs-distributed": ("docs/pytorch.md", distributed_table),
          "jobs-line": ("README.md", jobs_line)}
