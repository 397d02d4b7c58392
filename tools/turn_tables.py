"""What a step of a job takes beside native's own where the two took turns, from bench/results/turns/. Called by make_tables.py."""
from job_tables import RESULTS, judge, judged, kept_runs, number, ratio
from markdown_table import table


def turns_table_of(documents):
    rows = []
    for document in documents:
        for job in dict.fromkeys(run["job"] for run in document["runs"]):
            own, native = (judge.of(document["runs"], job, name) for name in ("gmlake", "native"))
            pairs = judge.in_turn(own, native)
            if not pairs:
                continue
            own, native = map(list, zip(*pairs))
            ratios = [judge.over([one], [beside], judge.steps) for one, beside in pairs]
            rows.append([job, str(len(pairs)), str(own[0]["steps"]),
                         judged(judge.over(own, native, judge.steps), judge.STEP_BOUND),
                         f"{number(min(ratios))} to {number(max(ratios))}",
                         number(judge.over(own, native, judge.steady_seconds)), number(ratio(native)),
                         f"**{number(ratio(own))}**"])
    header = ["job", "pairs", "steps", "median step over native's", "in each pair", "steps from the third on, over native's",
              "native: peak reserved over allocated", "**gmlake**"]
    commits = ", ".join(document["commit"][:12] for document in documents)
    return table(header, rows) + f"\n\nGeometric means of the pairs' ratios. At commit {commits}."


def turns_table(_):
    return turns_table_of([kept_runs(path) for path in sorted(RESULTS.glob("turns/*.json"))])


TABLES = {"jobs-turns": ("docs/pytorch.md", turns_table)}
