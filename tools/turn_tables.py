"""What a step of a job takes beside native's where the two took turns, from bench/results/turns/. Called by make_tables.py."""
import math
import statistics

from job_tables import NONE_KEPT, RESULTS, judge, judged, kept_runs, number
from markdown_table import table


def with_error(ratios):
    """Their geometric mean, and its standard error where there are several."""
    error = ""
    if len(ratios) > 1:
        error = f" ± {number(statistics.stdev(map(math.log, ratios)) / math.sqrt(len(ratios)))}"
    return judged(statistics.geometric_mean(ratios), judge.STEP_BOUND, error)


def rows_of(document):
    for job in dict.fromkeys(run["job"] for run in document["runs"]):
        own, native = (judge.of(document["runs"], job, name) for name in ("gmlake", "native"))
        pairs = judge.in_turn(own, native)
        if not pairs:
            continue
        own, native = map(list, zip(*pairs))
        yield [job, str(len(pairs)), str(own[0]["steps"]),
               *(with_error(judge.each_over(own, native, seconds)) for seconds in (judge.median_seconds, judge.steady_seconds)),
               number(judge.held(native)), f"**{number(judge.held(own))}**", document["commit"][:7]]


def turns_table_of(documents):
    rows = [row for document in documents for row in rows_of(document)]
    header = ["job", "pairs", "steps", "median step over native's", "steps from the third on, over native's",
              "native: peak reserved over allocated", "**gmlake**", "at commit"]
    return table(header, rows) + "\n\nGeometric means over the pairs, ± their standard error." if rows else NONE_KEPT


def turns_table(_):
    return turns_table_of([kept_runs(path) for path in sorted(RESULTS.glob("turns/*.json"))])


TABLES = {"jobs-turns": ("docs/pytorch.md", turns_table)}
