"""gmlake generate and gmlake convert."""
import gzip
import pickle
import subprocess
import unittest

from support import GIB, MIB, SMALL_TRACE, TOOL, TRACES, ToolTest, run


def listed_patterns():
    return [line.split()[0] for line in run("generate", "--list").stdout.splitlines()]


class Generate(ToolTest):
    def generate(self, *arguments, name="out.gmtrace"):
        path = self.scratch / name
        self.assertEqual(self.succeed("generate", *arguments, "--out", path).stdout, "")
        return path

    def test_lists_patterns_with_what_they_hurt(self):
        lines = self.succeed("generate", "--list").stdout.splitlines()
        self.assertGreaterEqual(len(lines), 5)
        for line in lines:
            self.assertRegex(line, r"^[a-z-]+ +\w.{20,}$")
        for pattern in listed_patterns():
            self.assertIn(pattern, self.succeed("generate", "--help").stdout)

    def test_every_pattern_makes_a_trace_that_replays(self):
        for pattern in listed_patterns():
            with self.subTest(pattern):
                path = self.generate(pattern, "--events", 2000, "--peak", "256MiB")
                entry, = self.results("compare", path, "--allocators", "torch-native")
                self.assertEqual(entry["events"], 2000)
                self.assertLessEqual(entry["peak_requested_bytes"], 256 * MIB)

    def test_same_seed_same_bytes(self):
        first = self.generate("power-law", "--seed", 7, "--events", 1000).read_bytes()
        self.assertEqual(first, self.generate("power-law", "--seed", 7, "--events", 1000).read_bytes())
        self.assertNotEqual(first, self.generate("power-law", "--seed", 8, "--events", 1000).read_bytes())

    def test_writes_to_standard_output(self):
        path = self.generate("epochs", "--events", 500)
        result = subprocess.run([TOOL, "generate", "epochs", "--events", "500", "--out", "-"], stdout=subprocess.PIPE,
                                check=True)
        self.assertEqual(result.stdout, path.read_bytes())

    def test_refuses_what_it_cannot_make(self):
        out = self.scratch / "out.gmtrace"
        for arguments, why in [(["spiral", "--out", out], "unknown pattern.*spiral.*sawtooth"), (["pins"], "--out"),
                               ([], "PATTERN"), (["pins", "--out", self.scratch / "out.docx"], "out.docx.*ending"),
                               (["pins", "--out", out, "--events", 0], "events"),
                               (["pins", "--out", out, "--events", -5], "events"),
                               (["pins", "--out", out, "--seed", "x"], "seed"),
                               (["pins", "--out", out, "--peak", "1KiB"], "peak"),
                               (["pins", "--out", out, "--peak", "much"], "--peak"),
                               (["pins", "--out", out, "--streams", 100000], "streams"),
                               (["pins", "--out", self.scratch / "none" / "out.gmtrace"], "No such file")]:
            with self.subTest(arguments=arguments):
                self.refuse("generate", *arguments, why=why)
                self.assertFalse(out.exists())


class Convert(ToolTest):
    def replayed(self, path):
        entry, = self.results("compare", path, "--allocators", "torch-expandable")
        return {name: entry[name] for name in ("events", "peak_allocated_bytes", "peak_requested_bytes",
                                               "peak_reserved_bytes", "driver_calls")}

    def test_every_format_replays_the_same(self):
        expected = self.replayed(TRACES / "opt_recompute.pickle.gz")
        path = TRACES / "opt_recompute.pickle.gz"
        for name in ("a.gmtrace", "b.pickle", "c.pickle.gz", "d.csv", "e.gmtrace"):
            with self.subTest(name):
                self.succeed("convert", path, self.scratch / name)
                path = self.scratch / name
                self.assertEqual(self.replayed(path), expected)

    def test_own_format_is_smaller(self):
        self.succeed("convert", SMALL_TRACE, self.scratch / "small.gmtrace")
        self.assertLess((self.scratch / "small.gmtrace").stat().st_size, SMALL_TRACE.stat().st_size)

    def test_snapshots_can_be_read_by_python(self):
        self.succeed("convert", self.write_small(), self.scratch / "again.pickle.gz")
        with gzip.open(self.scratch / "again.pickle.gz") as file:
            events = pickle.load(file)["device_traces"][0]
        self.assertEqual([event["size"] for event in events if event["action"] == "alloc"], [64 * MIB, 32 * MIB])

    def test_reads_standard_input_and_writes_standard_output(self):
        with open(self.write_two_halves(GIB), "rb") as trace:
            converted = subprocess.run([TOOL, "convert", "-", "-"], stdin=trace, stdout=subprocess.PIPE, check=True)
        result = subprocess.run([TOOL, "compare", "-", "--allocators", "direct"], input=converted.stdout,
                                stdout=subprocess.PIPE, check=True)
        self.assertIn(b"2.00 GiB", result.stdout)

    def test_bad_input_leaves_no_output(self):
        bad, out = self.scratch / "bad.pickle", self.scratch / "out.gmtrace"
        bad.write_bytes(b"\x80\x04")
        self.refuse("convert", bad, out, why="bad.pickle")
        self.assertFalse(out.exists())
        self.refuse("convert", self.write_small(), self.scratch / "out.txt", why="out.txt.*ending")

    def test_reader_that_leaves_early_is_no_error(self):
        shell = f"'{TOOL}' convert '{TRACES / 'opt_lro.pickle.gz'}' - | head -c 1 >/dev/null"
        result = subprocess.run(["bash", "-c", "set -o pipefail; " + shell], stderr=subprocess.PIPE, check=False)
        self.assertEqual((result.returncode, result.stderr), (0, b""))


if __name__ == "__main__":
    unittest.main()
