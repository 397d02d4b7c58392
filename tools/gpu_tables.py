"""The tables of docs/benchmarks.md, made from bench/results/gpu.json, which `python3 bench/gpu.py` wrote on a GPU."""
import json
import pathlib

from markdown_table import table

RESULTS = pathlib.Path(__file__).resolve().parent.parent / "bench" / "results"
KEPT = RESULTS / "gpu.json"
MEMORY_OF_TWO = RESULTS / "two_gpus_memory.json"  # the part memory on a machine with two
MIB = 1 << 20
ALLOCATORS = ["gmlake", "torch-native", "torch-expandable", "cudaMallocAsync"]


def figures(kind, file=KEPT):
    return [figure for figure in json.loads(file.read_text())["figures"] if figure["kind"] == kind]


def made_by(file=KEPT):
    kept = json.loads(file.read_text())
    gpus = kept["machine"]["gpu"].splitlines()
    return (f"\n\nMade by `{kept['command']}` at commit {kept['commit'][:12]} on {f'{len(gpus)} ' if len(gpus) > 1 else ''}"
            f"{gpus[0]}, {kept['machine']['cores']} cores.")


def bytes_text(count):
    return f"{count / MIB:g} MiB" if count >= MIB else f"{count / 1024:g} KiB" if count >= 1024 else f"{count:g} B"


def driver_table(_):
    rows = [[bytes_text(row["handle_bytes"])] + [f"{row[call + '_us']:.1f}" for call in
                                                 ("create", "map", "set_access", "unmap", "release")]
            for row in figures("driver") if "handle_bytes" in row]
    events = next(row for row in figures("driver") if row["what"] == "events")
    clear = next(row for row in figures("driver") if row["what"] == "clear")
    return (table(["handle", "create", "map", "set_access", "unmap", "release"], rows)
            + f"\n\nMicroseconds a handle. Event record {events['record_us']:.2f}, query {events['query_us']:.2f}; to enqueue a clear of 2 MiB {clear['clear_us']:.1f}."
            + made_by())


def hit_table(_):
    ns = {(row["bytes"], row["allocator"]): row["ns"] for row in figures("pair")}
    sizes = sorted({size for size, _ in ns})
    rows = [[bytes_text(size)] + [f"{ns[size, name]:.0f}" if (size, name) in ns else "-" for name in ALLOCATORS]
            for size in sizes]
    return table(["size", *ALLOCATORS], rows) + "\n\nNanoseconds of an allocate and a deallocate." + made_by()


def stitch_table(_):
    busy = {row["what"]: row for row in figures("busy")}
    rows = []
    for row in figures("stitch"):
        under_load = busy.get(row["what"])
        rows.append([row["what"], f"{row['phy_blocks']:.0f}", f"{row['total_us'] / 1000:.2f}",
                     f"{row['driver_us'] / 1000:.2f}", f"{row['ratio']:.3f}",
                     f"{under_load['worst_total_us'] / 1000:.2f}" if under_load else "-"])
    waits = busy["cuMemFree of 64 MiB"]["total_us"] / 1000
    return (table(["block", "PhyBlocks", "total, ms", "of it in the driver", "ratio", "worst under a 300 ms kernel, ms"], rows)
            + f"\n\ncuMemFree of 64 MiB under the same kernel: {waits:.0f} ms." + made_by())


def peers_table(_):
    by = {(row["what"], row["allocator"]): row for row in figures("replay-peers")}
    rows = []
    for trace in sorted({trace for trace, _ in by}):
        for name in ALLOCATORS:
            row = by.get((trace, name))
            if row is None:
                continue
            limit = row["smallest_limit_ratio"]
            calls = str(row["driver_calls"]) if row["driver_calls"] else "-"
            rows.append([trace if name == ALLOCATORS[0] else "", name, f"{row['ratio']:.3f}",
                         f"{limit:.3f}" if limit else "-", f"{row['first_half_ns']:.0f}",
                         f"{row['second_half_ns']:.0f}", calls, f"{row['worst_call_us'] / 1000:.2f}"])
    return table(["job", "allocator", "peak reserved / allocated", "smallest limit / peak", "ns an event, first half",
                  "second half", "driver calls", "worst call, ms"], rows) + made_by()


def model_table(_):
    rows = []
    for row in figures("model"):
        expected = row["model_seconds"] * row["pace"]
        rows.append([row["what"], f"{row['model_seconds']:.3f}", f"{row['pace']:.2f}", f"{expected:.3f}",
                     f"{row['measured_seconds']:.3f}", f"{100 * (expected / row['measured_seconds'] - 1):+.1f} %",
                     f"{100 * row['least_off']:+.1f} to {100 * row['most_off']:+.1f} %"])
    return table(["job", "model, s", "pace", "model x pace", "measured, s", "difference", "of all rounds"], rows) + made_by()


def memory_table(_):
    rows = [[row["what"], f"{row['read_gb_s']:.0f}", f"{row['write_gb_s']:.0f}", f"{row['wrong_words']:.0f}"]
            for row in figures("peers-memory", MEMORY_OF_TWO)]
    return table(["4 GiB that lie", "read, GB/s", "write, GB/s", "wrong words"], rows) + made_by(MEMORY_OF_TWO)


DOCUMENT = "docs/benchmarks.md"
TABLES = {"gpu-driver": driver_table, "gpu-hit": hit_table, "gpu-stitch": stitch_table, "gpu-peers": peers_table,
          "gpu-model": model_table, "gpu-memory": memory_table}
