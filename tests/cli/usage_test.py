"""How the tool is asked: help, versions, names, sizes, and what it says to what it does not understand."""
import unittest

from support import MIB, ToolTest, run

COMMANDS = ["compare", "replay", "fit", "generate", "convert", "info", "options"]


class Usage(ToolTest):
    def test_help_leads_with_what_it_is_and_has_examples_and_exit_codes(self):
        out = self.succeed("--help").stdout
        self.assertTrue(out.startswith("gmlake: a GPU memory allocator"))
        for text in COMMANDS + ["Examples:", "Exit codes:", "GiB"]:
            self.assertIn(text, out)

    def test_every_command_has_help_with_an_example(self):
        for command in COMMANDS:
            with self.subTest(command):
                out = self.succeed(command, "--help").stdout
                self.assertIn(f"gmlake {command}", out)

    def test_lines_of_help_fit_a_wide_terminal(self):
        for command in COMMANDS:
            for line in self.succeed(command, "--help").stdout.splitlines():
                self.assertLessEqual(len(line), 200, line)

    def test_version(self):
        self.assertRegex(self.succeed("--version").stdout, r"^gmlake \d+\.\d+\.\d+\n$")

    def test_refuses_what_it_does_not_know(self):
        small = self.write_small()
        for arguments, why in [
                ([], "subcommand"), (["defragment"], "defragment"), (["compare"], "trace"),
                (["compare", small, "--frobnicate"], "frobnicate"),
                (["compare", small, "--allocators", "direct,jemalloc"], "jemalloc"),
                (["replay", small, "--allocator", "jemalloc"], "jemalloc"),
                (["compare", small, "--driver", "vulkan"], "vulkan"),
                (["compare", small, "--driver", "cuda"], "cuda driver: "),
                (["compare", small, "--set", "slack"], "KEY=VALUE"), (["compare", small, "--set", "=1"], "KEY=VALUE"),
                (["compare", small, "--set", "slack=0", "--set", "slack=1"], "twice"),
                (["compare", small, "--set", "colour=red"], "colour=red: unknown key"),
                (["compare", small, "--set", "slack=7"], "slack=7: must be a number from 0 to 1"),
                (["fit", small, "--set", "slack=-1"], "slack=-1: must be"),
                (["replay", small, "--set", "max_phy_block=3MiB"], "power of two"),
                (["replay", small, "--allocator", "direct", "--set", "colour=red"], "colour=red")]:
            with self.subTest(arguments=arguments):
                self.refuse(*arguments, why=why)

    def test_options_may_come_before_traces(self):
        small = self.write_small()
        results = self.results("compare", "--allocators", "direct,torch-native", "--set", "slack=0", small)
        self.assertEqual([entry["trace"] for entry in results], ["small", "small"])

    def test_reads_sizes_as_people_write_them(self):
        small = self.write_small()
        for size in ["64GiB", "64 GiB", "64g", "64G", "64GB", "68719476736", "0.0625TiB", "65536MiB"]:
            with self.subTest(size):
                self.results("compare", small, "--allocators", "direct", "--capacity", size)

    def test_refuses_what_is_no_size(self):
        small = self.write_small()
        for size in ["", "GiB", "-1", "1e9", "12 parsecs", "0", "0GiB", "nan", "99999999999TiB", "1.2.3G", "0x10"]:
            with self.subTest(size):
                self.refuse("compare", small, f"--capacity={size}", why="--capacity")

    def test_prints_sizes_as_people_write_them(self):
        out = self.succeed("compare", self.write_small(), "--allocators", "direct", "--capacity", 128 * MIB).stdout
        self.assertIn("at most 128.00 MiB reserved", out)
        self.assertIn("96.00 MiB", out)

    def test_refuses_an_empty_name_for_the_json_file(self):
        self.refuse("compare", self.write_small(), "--json", "", why="--json: needs the name of a file")

    def test_refuses_a_request_over_the_capacity(self):
        self.refuse("compare", self.write_small(), "--capacity", "48MiB",
                    why=r"small\.pickle: device 0, event 0: a request of 64\.00 MiB is over the capacity of 48\.00 MiB")


class Info(ToolTest):
    def test_lists_drivers_and_what_is_missing(self):
        out = self.succeed("info").stdout
        for text in ["model", "host", "granularity 2.00 MiB", "cuda   not usable: "]:
            self.assertIn(text, out)

    def test_gives_json(self):
        found = {entry["driver"]: entry for entry in self.results("info")}
        self.assertEqual(list(found), ["model", "host", "cuda"])
        self.assertTrue(found["model"]["usable"])
        self.assertFalse(found["cuda"]["usable"])
        device, = found["model"]["devices"]
        self.assertEqual(device["granularity_bytes"], 2 * MIB)
        self.assertTrue(device["vmm"])

    def test_options_lists_keys_defaults_ranges_and_meanings(self):
        out = self.succeed("options").stdout
        listed = self.results("options")
        self.assertIn("slack", [option["key"] for option in listed])
        for option in listed:
            self.assertEqual(list(option), ["key", "default", "range", "meaning"])
            self.assertIn(option["key"], out)
            # What the library calls its default, it also accepts.
            self.results("replay", self.write_small(), "--set", f"{option['key']}={option['default']}")


if __name__ == "__main__":
    unittest.main()
