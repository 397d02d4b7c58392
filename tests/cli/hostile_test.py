"""Input that is damaged or meant to harm: exit 2, one line that says which file, where and why; never a crash."""
import gzip
import os
import pickle
import random
import unittest

from support import GIB, MIB, SMALL_TRACE, ToolTest, run, snapshot

BASE = 1 << 40


class Calls:
    """A pickle that would run a command when it is read by Python."""

    def __reduce__(self):
        return (os.system, ("touch /tmp/gmlake-was-here",))


class Hostile(ToolTest):
    def refuse_bytes(self, data, why, name="bad.pickle"):
        path = self.scratch / name
        path.write_bytes(data)
        for command in (["compare"], ["replay"], ["fit"]):
            self.refuse(*command, path, why=f"{name}.*{why}")

    def test_files_that_are_none(self):
        for path, why in [(self.scratch / "absent.pickle", "absent.pickle.*No such file"),
                          (self.scratch, "directory"), ("/dev/zero", "/dev/zero"), ("", ".")]:
            with self.subTest(str(path)):
                self.refuse("compare", path, why=why)

    def test_empty_and_foreign_files(self):
        self.refuse_bytes(b"", "empty")
        self.refuse_bytes(gzip.compress(b""), "empty", "empty.pickle.gz")
        self.refuse_bytes(b"\x7fELF\x02\x01\x01" + bytes(64), "no trace|not")
        self.refuse_bytes(b"hello, world\n", "")
        self.refuse_bytes(bytes(4096), "")

    def test_truncated_files(self):
        whole = SMALL_TRACE.read_bytes()
        for length in (1, 2, 10, 100, len(whole) // 2, len(whole) - 1):
            with self.subTest(length):
                self.refuse_bytes(whole[:length], "", "cut.pickle.gz")
        plain = gzip.decompress(whole)
        for length in (1, 2, 100, len(plain) // 3, len(plain) - 1):
            with self.subTest(length):
                self.refuse_bytes(plain[:length], r"(at byte \d+|is no trace)", "cut.pickle")

    def test_pickles_that_call_code_are_refused_and_not_run(self):
        for protocol in range(6):
            with self.subTest(protocol):
                self.refuse_bytes(pickle.dumps({"device_traces": Calls()}, protocol), r"byte \d+")
        self.assertFalse(os.path.exists("/tmp/gmlake-was-here"))

    def test_unknown_opcodes_say_where(self):
        self.refuse_bytes(b"\x80\x04\xffgarbage.", r"at byte 2")

    def test_pickles_of_the_wrong_shape(self):
        for value in (None, 17, [], {}, {"device_traces": 3}, {"device_traces": [3]}, {"device_traces": [[3]]},
                      {"device_traces": [[{"action": "alloc"}]]},
                      {"device_traces": [[{"action": "alloc", "addr": "x", "size": 1, "stream": 0}]], "segments": []}):
            with self.subTest(str(value)):
                self.refuse_bytes(pickle.dumps(value), "")

    def test_traces_without_events(self):
        self.refuse_bytes(pickle.dumps(snapshot([])), "no recorded events")

    def test_claims_of_a_billion_rows(self):
        self.refuse_bytes(b"\x80\x04\x8d" + (1 << 62).to_bytes(8, "little") + b"x", r"byte \d+")
        self.refuse_bytes(b"\x80\x04B" + (0xFFFFFFF0).to_bytes(4, "little"), r"byte \d+")

    def test_sizes_over_all_bounds(self):
        for size in (-1, 1 << 50, 1 << 63, (1 << 64) - 1, 1 << 70):
            with self.subTest(size):
                self.refuse_bytes(pickle.dumps(snapshot([("alloc", BASE, size)])), "")

    def test_sizes_over_the_device(self):
        path = self.write_snapshot([("alloc", BASE, 200 * GIB)])
        self.refuse("compare", path, why="event 0: a request of 200.00 GiB is over the capacity of 140")

    def test_contradictions(self):
        for events in ([("alloc", BASE, MIB), ("alloc", BASE, MIB)],
                       [("alloc", BASE, MIB), ("free", BASE, MIB), ("free", BASE, MIB)]):
            with self.subTest(str(events)):
                self.refuse_bytes(pickle.dumps(snapshot(events)), "")

    def test_flipped_bits_never_crash(self):
        chance = random.Random(20240427)
        plain = pickle.dumps(snapshot([("alloc", BASE + i * MIB, 4096 + i) for i in range(20)]
                                      + [("free", BASE + i * MIB, 4096 + i) for i in range(20)]))
        path = self.scratch / "flipped.pickle"
        for attempt in range(150):
            data = bytearray(plain)
            for _ in range(chance.randint(1, 4)):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            path.write_bytes(data)
            result = run("compare", path, "--allocators", "direct")
            # Some flips make another good trace; whatever is not good is refused in one line.
            self.assertIn(result.returncode, (0, 2), f"attempt {attempt}: {result.stderr}")
            if result.returncode == 2:
                self.assertEqual(result.stdout, "")
                self.assertEqual(result.stderr.count("\n"), 1, result.stderr)

    def test_names_that_could_move_a_cursor_are_made_harmless(self):
        result = self.refuse("compare", self.scratch / "a\x1b[2Jb\nc.pickle", why="No such file")
        self.assertNotIn("\x1b", result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1)

    def test_bad_second_trace_fails_the_whole_run_and_leaves_no_json(self):
        (self.scratch / "bad.pickle").write_bytes(b"")
        out = self.scratch / "out.json"
        result = run("compare", self.write_small(), self.scratch / "bad.pickle", "--json", out)
        self.assertEqual(result.returncode, 2)
        self.assertFalse(out.exists())


if __name__ == "__main__":
    unittest.main()
