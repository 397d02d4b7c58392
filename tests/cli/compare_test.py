"""gmlake compare."""
import unittest

from support import ALLOCATORS, CALLS, GIB, MIB, REPLAY_FIELDS, SMALL_TRACE, TRACES, ToolTest, run


class Compare(ToolTest):
    def test_prints_a_line_for_each_allocator(self):
        out = self.succeed("compare", SMALL_TRACE).stdout
        lines = out.splitlines()
        self.assertRegex(lines[0], r"^opt_recompute, device 0: [\d,]+ events, model driver$")
        self.assertEqual([line.split()[0] for line in lines[3:7]], ALLOCATORS)
        for column in ("peak allocated", "peak reserved", "ratio", "map", "driver s", "ns/event", "OOM"):
            self.assertIn(column, lines[1])

    def test_gives_an_entry_with_all_fields_for_each_allocator(self):
        results = self.results("compare", SMALL_TRACE)
        self.assertEqual([entry["allocator"] for entry in results], ALLOCATORS)
        for entry in results:
            self.check_fields(entry, REPLAY_FIELDS)
            self.assertEqual(list(entry["driver_calls"]), CALLS)
            self.assertEqual((entry["trace"], entry["driver"], entry["device"]), ("opt_recompute", "model", 0))
            self.assertGreaterEqual(entry["peak_reserved_bytes"], entry["peak_allocated_bytes"])
            self.assertGreaterEqual(entry["peak_allocated_bytes"], entry["peak_requested_bytes"])
            self.assertAlmostEqual(entry["reserved_over_allocated"],
                                   entry["peak_reserved_bytes"] / entry["peak_allocated_bytes"])
            self.assertEqual(entry["ooms"], 0)
        self.assertEqual(len({entry["peak_allocated_bytes"] for entry in results}), 1)

    def test_native_model_reserves_what_pytorch_did(self):
        entry, = self.results("compare", SMALL_TRACE, "--allocators", "torch-native")
        self.assertEqual(entry["peak_reserved_bytes"], 52120518656)

    def test_runs_the_allocators_asked_for_in_that_order(self):
        results = self.results("compare", self.write_small(), "--allocators", "direct,torch-native")
        self.assertEqual([entry["allocator"] for entry in results], ["direct", "torch-native"])

    def test_measures_a_small_trace_exactly(self):
        entry, = self.results("compare", self.write_small(), "--allocators", "direct")
        self.assertEqual(entry["events"], 4)
        self.assertEqual(entry["peak_allocated_bytes"], 96 * MIB)
        self.assertEqual(entry["peak_requested_bytes"], 96 * MIB)
        self.assertEqual(entry["peak_reserved_bytes"], 96 * MIB)
        self.assertEqual(entry["driver_calls"]["create"], 2)
        self.assertEqual(entry["driver_calls"]["release"], 2)

    def test_takes_several_traces(self):
        small = self.write_small()
        results = self.results("compare", small, TRACES / "opt_lro.pickle.gz", "--allocators", "direct")
        self.assertEqual([entry["trace"] for entry in results], ["small", "opt_lro"])

    def test_leaves_out_devices_without_events(self):
        base = 1 << 40
        path = self.write_snapshot([("alloc", base, MIB), ("free", base, MIB)], device_count=3)
        results = self.results("compare", path, "--allocators", "direct")
        self.assertEqual([entry["device"] for entry in results], [2])

    def test_works_on_the_host_driver(self):
        results = self.results("compare", self.write_small(), "--driver", "host")
        self.assertEqual({entry["driver"] for entry in results}, {"host"})

    def test_under_a_capacity_running_out_is_a_result(self):
        path = self.write_two_halves(GIB)
        for entry in self.results("compare", path, "--capacity", "1.5GiB"):
            self.assertEqual(entry["ooms"], 1, entry["allocator"])
            self.assertLessEqual(entry["peak_reserved_bytes"], 1.5 * GIB)

    def test_gmlake_must_not_run_out_on_the_whole_device(self):
        path = self.write_two_halves(100 * GIB)
        results = self.results("compare", path, code=1)
        self.assertEqual([entry["ooms"] for entry in results], [1] * len(results))
        self.assertIn("ran out of memory", run("compare", path).stderr)
        self.results("compare", path, "--allocators", "torch-native,direct", code=0)

    def test_a_capacity_above_the_device_makes_a_larger_device(self):
        path = self.write_two_halves(100 * GIB)
        for entry in self.results("compare", path, "--capacity", "202GiB"):
            self.assertEqual(entry["ooms"], 0, entry["allocator"])

    def test_settings_go_to_gmlake_alone(self):
        results = self.results("compare", self.write_small(), "--set", "slack=0.01", "--set", "stream_wait=false")
        self.assertEqual([entry["allocator"] for entry in results], ALLOCATORS)


if __name__ == "__main__":
    unittest.main()
