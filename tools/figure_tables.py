"""The tables of docs/figures.md, from the raw results in bench/results/. Called by make_tables.py."""
import json
import pathlib

from markdown_table import table

RESULTS = pathlib.Path(__file__).resolve().parent.parent / "bench" / "results"
DOCUMENT = "docs/figures.md"
GIB = 1 << 30


def hits_table(_):
    kept = json.loads((RESULTS / "hit.json").read_text())
    rows = [[row["figure"], row["what"], f"{row['value']:,.2f}", f"{row['bound']:,}"] for row in kept["figures"]]
    return table(["figure", "of", "measured", "at most"], rows) + f"\n\nAt commit {kept['commit'][:12]}."


def adversaries_table(_):
    kept = json.loads((RESULTS / "adversaries.json").read_text())
    groups = {}
    for result in kept["results"]:
        groups.setdefault((result["pattern"], result["peak"]), []).append(result["allocators"])
    rows = []
    for (pattern, peak), runs in groups.items():
        worst = max((run["gmlake"] for run in runs), key=lambda own: own["reserved_over_allocated"])
        native, expandable = (max(run[name]["reserved_over_allocated"] for run in runs)
                              for name in ("torch-native", "torch-expandable"))
        rows.append([pattern, f"{peak / GIB:.0f} GiB", f"**{worst['reserved_over_allocated']:.3f}**",
                     f"{worst['pinned_bytes_at_peak'] / worst['peak_reserved_bytes']:.3f}", f"{native:.3f}",
                     f"{expandable:.3f}"])
    header = ["pattern", "peak live", "**gmlake**", "of it pinned", "native", "expandable"]
    return table(header, rows) + f"\n\nAt commit {kept['commit'][:12]}."


def metadata_table(_):
    kept = json.loads((RESULTS / "metadata.json").read_text())
    rows = []
    for row in kept["rows"]:
        if row["bound"] == 0:
            rows.append([row["shape"], row["quantity"], f"{row['growth']:.3f} x", f"{row['growth_bound']:.2f} x"])
        else:
            rows.append([row["shape"], row["quantity"], f"{max(row['quarters'][1:]):.2f}", f"{row['bound']:.0f}"])
    return table(["requests", "quantity", "measured", "at most"], rows) + f"\n\nAt commit {kept['commit'][:12]}."


TABLES = {"hits": hits_table, "adversaries": adversaries_table, "metadata": metadata_table}
