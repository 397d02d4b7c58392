"""What real jobs took under PyTorch, from what bench/jobs/run.py wrote on GPUs into bench/results/."""
import json
import math
import operator
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
FEWEST_TO_RESAMPLE = 6  # runs of each kind
NONE_KEPT = "No run of these jobs on a GPU is kept yet."
GIB = 1 << 30
ALLOCATORS = ["native", "expandable", "cudaMallocAsync", "gmlake"]


def kept_runs(path=None):
    path = path or KEPT
    return json.loads(path.read_text()) if path.is_file() else None


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
        length = max((r["steps"] for r in judge.ended(judge.of(runs, job, "native"))), default=None)
        native = [r for r in judge.ended(judge.of(everywhere, job, "native")) if r["steps"] == length]
        for limited in (False, True):
            for name in ALLOCATORS:
                own = judge.of(runs, job, name, limited)
                if not own:
                    continue
                peaks = [r["peak_allocated"] / GIB for r in judge.ended(own) if r.get("peak_allocated")]
                retries = [r["retries"] for r in own if r.get("retries") is not None]
                label = f"{name} within {own[0]['limit']:g} x peak" if limited else name
                worst = number(judge.held(own))
                rows.append(["" if rows and any(row[0] == job for row in rows) else job,
                             f"**{label}**" if name == "gmlake" else label,
                             f"{max(peaks):.2f} GiB" if peaks else "-",
                             f"**{worst}**" if name == "gmlake" else worst,
                             number(judge.median_seconds(own), 4), str(max(retries)) if retries else "-",
                             how_it_ended(own) or loss(own, native), str(len(own))])
    header = ["job", "allocator", "peak allocated", "peak reserved over it", "median step, s", "retries",
              "loss of the last step", "runs"]
    machine = kept["machine"]
    ranks = max((len(r.get("ranks", [])) for r in runs), default=0)
    made = (f"\n\nMade by `{kept['command']}` at commit {kept['commit'][:12]} on "
            f"{ranks if ranks > 1 else 'one'} {machine['gpu']}, PyTorch {machine['torch']}. The worst of the peaks"
            f"{' of all ranks' if ranks > 1 else ''}, the median of the steps.")
    if kept.get("left_out"):
        made += f" {kept['left_out']} of the runs asked for did not fit into the time."
    made += " The loss is held against that of all runs of native that are kept."
    if any(r.get("limit") for r in runs):
        made += (" Within: with that share of peak allocated as the memory limit, which cudaMallocAsync does not hold what it "
                 "reserves to.")
    return table(header, rows) + made


def all_kept():
    """Every campaign of these jobs that is kept: those of the tables above, and what was run besides."""
    documents = map(kept_runs, [KEPT, DISTRIBUTED, *sorted(RESULTS.glob("steps/*.json"))])
    return [document for document in documents if document]


def compared_jobs():
    kept = [kept_runs(path) for path in (KEPT, DISTRIBUTED)]
    return [job for document in kept if document for job in dict.fromkeys(r["job"] for r in document["runs"])]


NATIVE, OWN, EXPANDABLE, LIMITED = ("native",), ("gmlake",), ("expandable",), ("gmlake", True)


def campaigns(documents, job, *kinds):
    """The runs of a job of each kind, an allocator or one with a limit, of each document that has them all.

    In a document they changed places on one machine, so that a ratio is made of runs of one document alone."""
    every = [[judge.ended(judge.of(document["runs"], job, *kind)) for kind in kinds] for document in documents]
    return [apart for apart in every if all(apart)]


def combined(pairs, value):
    """Of each campaign the ratio of value(runs) of one kind to the other's; their geometric mean, by the numbers of runs."""
    weights = [len(own) * len(other) / (len(own) + len(other)) for own, other in pairs]
    logarithms = [math.log(value(own) / value(other)) for own, other in pairs]
    return math.exp(sum(map(operator.mul, weights, logarithms)) / sum(weights))


def resampled(pairs):
    """What lies between the ends of 95 % of the ratios of steps that come out where each kind's runs of each campaign are
    drawn again (a bootstrap). "-" where there are too few to draw from."""
    if min(sum(map(len, kind)) for kind in zip(*pairs)) < FEWEST_TO_RESAMPLE:
        return "-"
    draw = random.Random(1)
    ratios = sorted(combined([[draw.choices(runs, k=len(runs)) for runs in pair] for pair in pairs], judge.median_seconds)
                    for _ in range(RESAMPLINGS))
    return f"{number(ratios[RESAMPLINGS // 40])} to {number(ratios[-RESAMPLINGS // 40 - 1])}"


def spread_within(pairs, kind):
    """By how much the slowest run of a campaign is slower than its fastest: the median of campaigns of two runs and more."""
    spreads = [judge.spread(pair[kind], "median_step") for pair in pairs if len(pair[kind]) > 1]
    return statistics.median(spreads) if spreads else 0.0


def how_many(pairs):
    return " and ".join(str(sum(map(len, kind))) for kind in zip(*pairs))


def judged(value, bound, error=""):
    return number(value) + error + ("" if value <= bound else f", above {bound:g}")


def steps_table_of(documents, jobs):
    """All runs of gmlake beside native, with how far the runs of each lie apart."""
    rows = []
    for job in jobs:
        pairs = campaigns(documents, job, OWN, NATIVE)
        if not pairs:
            continue
        median, steady = (judged(combined(pairs, seconds), judge.STEP_BOUND)
                          for seconds in (judge.median_seconds, judge.steady_seconds))
        rows.append([job, str(len(pairs)), how_many(pairs), median, resampled(pairs), steady,
                     *(f"{100 * spread_within(pairs, kind):.0f} %" for kind in (1, 0))])
    header = ["job", "campaigns", "runs", "median step over native's", "in 95 % of resamplings",
              "steps from the third on, over native's", "native's slowest run over its fastest", "gmlake's"]
    commits = dict.fromkeys(document["commit"][:7] for document in sorted(documents, key=lambda each: each.get("date", ""))
                            if any(campaigns([document], job, OWN, NATIVE) for job in jobs))
    return table(header, rows) + f"\n\nFrom `bench/results/`, of the commits {', '.join(commits)}."


def beside_table_of(documents, jobs):
    """What gmlake's median step is over expandable segments', and with a memory limit over without."""
    rows = []
    for job in jobs:
        native = spread_within(campaigns(documents, job, OWN, NATIVE), 1)
        row = [job]
        for kinds, bound in (((OWN, EXPANDABLE), 1 + native), ((LIMITED, OWN), judge.LIMITED_STEP_BOUND)):
            pairs = campaigns(documents, job, *kinds)
            row += [how_many(pairs), judged(combined(pairs, judge.median_seconds), bound), number(bound)] if pairs else ["-"] * 3
        rows.append(row)
    header = ["job", "runs", "median step over expandable's", "at most", "runs", "with the limit, over without", "at most"]
    return table(header, rows)


def line_of(kept, documents):
    """Two lines for who has not decided yet."""
    runs = kept["runs"]
    jobs = [job for job in dict.fromkeys(r["job"] for r in runs)
            if all(judge.held(judge.of(runs, job, name)) for name in ("native", "gmlake"))]
    if not jobs:
        return NONE_KEPT

    def between(values, digits):
        low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
        return low if low == high else f"{low} to {high}"

    ratios = {name: between([judge.held(judge.of(runs, job, name)) for job in jobs], 3) for name in ("native", "gmlake")}
    pairs = [campaigns(documents, job, OWN, NATIVE) for job in jobs]
    times, spreads = [combined(each, judge.median_seconds) for each in pairs], [100 * spread_within(each, 1) for each in pairs]
    return (f"On one {kept['machine']['gpu']} under PyTorch {kept['machine']['torch']}, {len(jobs)} jobs: peak reserved over peak "
            f"allocated {ratios['gmlake']}, PyTorch's own {ratios['native']}.\nMedian step {between(times, 3)} of PyTorch's own, "
            f"whose runs differ by {between(spreads, 0)} % themselves ([docs/pytorch.md](docs/pytorch.md) has the tables).")


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
