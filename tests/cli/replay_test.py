"""gmlake replay and gmlake fit."""
import unittest

from support import ALLOCATORS, FIT_FIELDS, GIB, MIB, REPLAY_FIELDS, SMALL_TRACE, TRACES, ToolTest, run


class Replay(ToolTest):
    def test_replays_through_gmlake_unless_told_otherwise(self):
        entry, = self.results("replay", SMALL_TRACE)
        self.check_fields(entry, REPLAY_FIELDS)
        self.assertEqual(entry["allocator"], "gmlake")
        self.assertEqual((entry["verified_bytes"], entry["wrong_bytes"]), (0, 0))

    def test_verifies_memory_contents_through_every_allocator(self):
        for allocator in ALLOCATORS:
            with self.subTest(allocator):
                entry, = self.results("replay", TRACES / "opt_lro.pickle.gz", "--allocator", allocator, "--driver",
                                      "host", "--verify")
                self.assertGreater(entry["verified_bytes"], 0)
                self.assertEqual(entry["wrong_bytes"], 0)
                self.assertEqual(entry["host_ns_per_event"], 0)

    def test_a_smaller_stride_checks_more(self):
        small = self.write_small()
        checked = [self.results("replay", small, "--driver", "host", "--verify", "--verify-stride", stride)[0]
                   ["verified_bytes"] for stride in ("4KiB", "1MiB")]
        self.assertGreater(checked[0], checked[1])

    def test_says_what_was_verified(self):
        out = self.succeed("replay", self.write_small(), "--driver", "host", "--verify").stdout
        self.assertRegex(out, r"checked, 0 wrong bytes\n$")

    def test_refuses_to_verify_where_there_is_no_memory(self):
        self.refuse("replay", self.write_small(), "--verify", why="model driver has none")

    def test_refuses_a_stride_without_verify(self):
        self.refuse("replay", self.write_small(), "--verify-stride", "4KiB", why="--verify-stride")

    def test_streams_that_lag_cost_memory_or_waits(self):
        """The trace has two streams: what one has freed serves the other only once the device has come there."""
        trace = TRACES.parent.parent / "bench" / "traces" / "fsdp.gmtrace"
        prompt, = self.results("replay", trace)
        late, = self.results("replay", trace, "--lag", "1000")
        self.assertEqual(prompt["driver_calls"]["stream_wait"], 0)
        self.assertGreater(prompt["background_driver_seconds"], 0)
        self.assertGreater(late["driver_calls"]["stream_wait"], 0)
        grown, = self.results("replay", trace, "--lag", "1000", "--set", "stream_wait=false")
        self.assertEqual(grown["driver_calls"]["stream_wait"], 0)
        self.assertGreater(grown["peak_reserved_bytes"], late["peak_reserved_bytes"])

    def test_real_streams_have_no_lag(self):
        self.refuse("replay", self.write_small(), "--driver", "cuda", "--lag", "5", why="--lag")

    def test_running_out_on_the_whole_device_fails_for_any_allocator(self):
        path = self.write_two_halves(100 * GIB)
        for allocator in ALLOCATORS:
            with self.subTest(allocator):
                entry, = self.results("replay", path, "--allocator", allocator, code=1)
                self.assertEqual(entry["ooms"], 1)
        self.assertRegex(run("replay", path).stderr, "1 requests? ran out of memory")

    def test_running_out_under_a_capacity_is_a_result(self):
        entry, = self.results("replay", self.write_two_halves(GIB), "--capacity", "1100MiB")
        self.assertEqual(entry["ooms"], 1)


class Fit(ToolTest):
    def test_finds_the_smallest_capacity_of_a_small_trace(self):
        results = self.results("fit", self.write_two_halves(512 * MIB))
        self.assertEqual([entry["allocator"] for entry in results], ALLOCATORS)
        for entry in results:
            self.check_fields(entry, FIT_FIELDS)
            self.assertEqual(entry["peak_allocated_bytes"], GIB)
            self.assertGreaterEqual(entry["min_capacity_bytes"], GIB)
            self.assertLessEqual(entry["min_capacity_over_allocated"], 1.02)

    def test_the_answer_suffices_and_much_less_does_not(self):
        for allocator in ALLOCATORS:
            with self.subTest(allocator):
                trace = TRACES / "opt_lro.pickle.gz"
                entry, = self.results("fit", trace, "--allocators", allocator)
                least = entry["min_capacity_bytes"]
                enough, = self.results("replay", trace, "--allocator", allocator, "--capacity", least)
                self.assertEqual(enough["ooms"], 0)
                short, = self.results("replay", trace, "--allocator", allocator, "--capacity", int(least * 0.997))
                self.assertGreater(short["ooms"], 0)

    def test_prints_a_table(self):
        out = self.succeed("fit", self.write_small(), "--allocators", "direct").stdout
        self.assertRegex(out.splitlines()[1], "allocator +peak allocated +min capacity +ratio +replays")
        self.assertRegex(out, r"direct +96\.00 MiB")


if __name__ == "__main__":
    unittest.main()
