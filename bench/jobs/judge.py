"""What the runs of jobs have to show, from their results alone. Called by run.py."""

import statistics

RATIO_BOUND = 1.015  # peak reserved / peak allocated
STEP_BOUND = 1.01  # median step / native's
LIMITED_STEP_BOUND = 1.03  # median step with the limit / without
WRONG_LOSS = 0.05  # away from native's median, as a share of it: a wrong result, not another order of additions


def of(runs, job, allocator, limited=False):
    """The runs of a job under an allocator, with a memory limit or without."""
    return [r for r in runs if r["job"] == job and r["alloc"] == allocator and (r["fraction"] is not None) == limited]


def failed(run):
    return bool(run.get("err")) or run["exit"] != 0


def ended(runs):
    """Those that ended well."""
    return [run for run in runs if not failed(run)]


def held(runs):
    """The worst peak reserved over peak allocated of those that ended well; None where none did."""
    return max((run["peak_reserved"] / run["peak_allocated"] for run in ended(runs)), default=None)


def median(runs, field):
    values = [run[field] for run in runs if run.get(field) is not None]
    return statistics.median(values) if values else None


def spread(runs, field):
    """Largest / smallest, less 1."""
    values = [run[field] for run in runs if run.get(field)]
    return max(values) / min(values) - 1 if values else 0.0


def all_seconds(runs, first=0):
    """The steps from `first` on, each at its median over the repetitions: steps of one number do the same work."""
    steps = [r["step_seconds"] for r in ended(runs) if r.get("step_seconds")]
    return sum(statistics.median(same) for same in list(zip(*steps))[first:])


def steady_seconds(runs):
    """From the third step on: in the first two the allocators grow."""
    return all_seconds(runs, 2)


def median_seconds(runs):
    """Of the medians of the steps."""
    return median(ended(runs), "median_step")


def in_turn(own, other):
    """The runs that took turns, (one, the one beside it), where both ended well."""
    beside = {run["pair"]: run for run in ended(other) if "pair" in run}
    return [(run, beside[run["pair"]]) for run in ended(own) if run.get("pair") in beside]


def each_over(own, other, seconds):
    """seconds(runs) of `own` over those of `other`; of runs that took turns, of each over the one beside it. Empty where
    there is nothing to compare."""
    apart = [(own, other)]
    if any("pair" in run for run in own):
        apart = [([one], [beside]) for one, beside in in_turn(own, other)]
    both = [(seconds(runs), seconds(others)) for runs, others in apart]
    return [one / beside for one, beside in both if one and beside]


def over(own, other, seconds):
    """The geometric mean of these; None where there are none."""
    ratios = each_over(own, other, seconds)
    return statistics.geometric_mean(ratios) if ratios else None


def loss_away(runs, native):
    """(how far the median loss of `runs` is from native's, how wide the range of native's is); None: nothing to compare.

    Medians, since the range of a few runs seldom holds all of a few others, though all did the same.
    """
    known = [r["loss"] for r in ended(native) if r.get("loss") is not None]
    own = [r["loss"] for r in ended(runs) if r.get("loss") is not None]
    if not known or not own:
        return None
    return abs(statistics.median(own) - statistics.median(known)), max(known) - min(known)


def wrong_losses(runs, native):
    """How many runs ended with a loss that is none, or nowhere near native's."""
    about = median(ended(native), "loss")
    own = [r["loss"] for r in ended(runs) if r.get("loss") is not None]
    return sum(about is not None and not abs(loss - about) <= WRONG_LOSS * abs(about) for loss in own)


def figures(runs):
    """Yields (figure, job, value, bound, met)."""
    for job in dict.fromkeys(run["job"] for run in runs):
        own, native, expandable = (of(runs, job, name) for name in ("gmlake", "native", "expandable"))
        if not own or not native:
            continue
        bad = sum(map(failed, own))
        yield "runs that failed", job, bad, 0, bad == 0
        if bad:
            continue
        ratio = held(own)
        yield "peak reserved / peak allocated", job, ratio, RATIO_BOUND, ratio <= RATIO_BOUND
        for name, seconds in (("median step", median_seconds), ("steady steps", steady_seconds)):
            if (ratio := over(own, native, seconds)) is not None:
                yield f"{name} / native's", job, ratio, STEP_BOUND, ratio <= STEP_BOUND
        if (ratio := over(own, expandable, median_seconds)) is not None:
            bound = 1 + spread(native, "median_step")
            yield "median step / expandable's", job, ratio, bound, ratio <= bound
        wrong = wrong_losses(own + of(runs, job, "gmlake", limited=True), native)
        yield "runs with a wrong loss", job, wrong, 0, wrong == 0
        if (apart := loss_away(own, native)) is not None:
            yield "loss away from native's, and its spread", job, apart[0], apart[1], apart[0] <= apart[1]
        limited = of(runs, job, "gmlake", limited=True)
        if limited:
            whole = all(not failed(r) and r["steps"] == own[0]["steps"] for r in limited)
            yield "limited runs that did not complete", job, 0 if whole else 1, 0, whole
            if whole and (ratio := over(limited, own, median_seconds)) is not None:
                yield "limited: median step / unlimited", job, ratio, LIMITED_STEP_BOUND, ratio <= LIMITED_STEP_BOUND
