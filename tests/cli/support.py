"""What the tests of the tool share: running it, and making small traces."""
import json
import os
import pathlib
import pickle
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TOOL = os.environ.get("GMLAKE_TOOL", str(ROOT / "build" / "gmlake"))
TRACES = ROOT / "examples" / "traces"
if not os.access(TOOL, os.X_OK):
    raise SystemExit(f"there is no tool at {TOOL}: build it, or set GMLAKE_TOOL")
SMALL_TRACE = TRACES / "opt_recompute.pickle.gz"
ALLOCATORS = ["gmlake", "torch-native", "torch-expandable", "direct"]
MIB = 1 << 20
GIB = 1 << 30

REPLAY_FIELDS = {
    "trace": str, "allocator": str, "driver": str, "device": int, "events": int, "peak_allocated_bytes": int,
    "peak_requested_bytes": int, "peak_reserved_bytes": int, "reserved_over_allocated": float, "driver_calls": dict,
    "handles_mapped_second_half": int, "driver_seconds": float,
    "background_driver_seconds": float, "host_ns_per_event": (float, int), "ooms": int,
    "verified_bytes": int, "wrong_bytes": int}
FIT_FIELDS = {
    "trace": str, "allocator": str, "driver": str, "device": int, "events": int, "peak_allocated_bytes": int,
    "min_capacity_bytes": int, "min_capacity_over_allocated": float, "replays": int}
CALLS = ["reserve", "address_free", "create", "release", "map", "unmap", "set_access", "event_record",
         "event_query", "event_synchronize", "stream_wait", "stream_query"]


def run(*arguments, **options):
    """Runs the tool with its output in pipes; bytes come back as text."""
    return subprocess.run([TOOL, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, encoding="utf-8", errors="replace", check=False, **options)


def snapshot(events, device_count=1):
    """A memory snapshot of PyTorch: events are ("alloc" | "free", address, bytes) of the last device."""
    recorded = []
    for action, address, size in events:
        for name in ("alloc",) if action == "alloc" else ("free_requested", "free_completed"):
            recorded.append({"action": name, "addr": address, "size": size, "stream": 0})
    return {"device_traces": [[]] * (device_count - 1) + [recorded], "segments": []}


class ToolTest(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="gmlake-cli-")
        self.addCleanup(scratch.cleanup)
        self.scratch = pathlib.Path(scratch.name)

    def write_snapshot(self, events, name="small.pickle", **options):
        path = self.scratch / name
        path.write_bytes(pickle.dumps(snapshot(events, **options)))
        return path

    def write_small(self):
        """Two blocks of 64 and 32 MiB, live together, then freed."""
        base = 1 << 40
        return self.write_snapshot([("alloc", base, 64 * MIB), ("alloc", base + GIB, 32 * MIB),
                                    ("free", base, 64 * MIB), ("free", base + GIB, 32 * MIB)])

    def write_two_halves(self, bytes_each):
        """Two blocks that are live together."""
        base = 1 << 40
        return self.write_snapshot([("alloc", base, bytes_each), ("alloc", base + (1 << 39), bytes_each)])

    def succeed(self, *arguments, **options):
        result = run(*arguments, **options)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result

    def results(self, *arguments, code=0):
        """The results of a command asked for JSON on standard output, which must hold nothing else."""
        result = run(*arguments, "--json", "-")
        self.assertEqual(result.returncode, code, result.stderr)
        document = json.loads(result.stdout)
        self.assertEqual(document["command"], arguments[0])
        self.assertRegex(document["version"], r"^\d+\.\d+\.\d+$")
        return document["results"]

    def refuse(self, *arguments, why, code=2, **options):
        """The tool must give up with this code, say why on standard error in its own name, and print no result."""
        result = run(*arguments, **options)
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertEqual(result.stdout, "")
        self.assertRegex(result.stderr, why)
        for line in result.stderr.splitlines()[:1]:
            self.assertTrue(line.startswith("gmlake: "), line)
        return result

    def check_fields(self, entry, fields):
        if fields is REPLAY_FIELDS and entry["allocator"] == "gmlake":
            fields = {**fields, "pinned_bytes_at_peak": int}
        self.assertEqual(list(entry), list(fields))
        for name, kind in fields.items():
            self.assertIsInstance(entry[name], kind, name)
