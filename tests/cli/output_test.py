"""Where results go: standard output alone, files written whole or not at all, closed pipes, full disks, terminals."""
import json
import os
import pty
import stat
import subprocess
import threading
import unittest

from support import SMALL_TRACE, TOOL, ToolTest, run


class Output(ToolTest):
    def compare_to(self, path, **options):
        return run("compare", self.write_small(), "--allocators", "direct", "--json", path, **options)

    def test_json_on_standard_output_is_alone_there(self):
        for name in ("-", "/dev/stdout", "/proc/self/fd/1"):
            with self.subTest(name):
                result = self.compare_to(name)
                self.assertEqual((result.returncode, result.stderr), (0, ""))
                self.assertEqual(len(json.loads(result.stdout)["results"]), 1)

    def test_json_on_standard_output_that_is_a_file(self):
        path = self.scratch / "out.json"
        with open(path, "w", encoding="utf-8") as out:
            code = subprocess.run([TOOL, "compare", self.write_small(), "--json", "/dev/stdout"], stdout=out,
                                  check=False).returncode
        self.assertEqual(code, 0)
        self.assertIn("results", json.loads(path.read_text()))

    def test_json_file_comes_with_the_table(self):
        path = self.scratch / "out.json"
        result = self.compare_to(path)
        self.assertIn("allocator", result.stdout)
        self.assertEqual(json.loads(path.read_text())["command"], "compare")
        self.assertEqual(os.listdir(self.scratch), sorted(["small.pickle", "out.json"], key=os.listdir(self.scratch).index))

    def test_file_gets_ordinary_permissions_and_keeps_those_it_has(self):
        path = self.scratch / "out.json"
        self.assertEqual(self.compare_to(path, umask=0o027).returncode, 0)
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o640)
        path.chmod(0o604)
        self.assertEqual(self.compare_to(path).returncode, 0)
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o604)

    def test_symlink_stays_and_its_target_is_replaced(self):
        target, link = self.scratch / "target.json", self.scratch / "link.json"
        target.write_text("old")
        link.symlink_to(target)
        self.assertEqual(self.compare_to(link).returncode, 0)
        self.assertTrue(link.is_symlink())
        self.assertIn("results", json.loads(target.read_text()))

    def test_fifo_is_written_to(self):
        path = self.scratch / "fifo"
        os.mkfifo(path)
        read = []
        reader = threading.Thread(target=lambda: read.append(path.read_text()))
        reader.start()
        self.assertEqual(self.compare_to(path).returncode, 0)
        reader.join()
        self.assertIn("results", json.loads(read[0]))
        self.assertTrue(stat.S_ISFIFO(path.stat().st_mode))

    def test_output_that_cannot_be_written_leaves_the_old_file(self):
        for path, why in [(self.scratch / "none" / "out.json", "No such file"), (self.scratch, "is a directory"),
                          ("/dev/full", "No space left")]:
            with self.subTest(str(path)):
                result = self.compare_to(path)
                self.assertEqual(result.returncode, 2)
                self.assertIn(why, result.stderr)
        old = self.scratch / "old.json"
        old.write_text("old")
        # A limit on file size stands for a full disk: SIGXFSZ is ignored, so that writes fail.
        shell = f"ulimit -f 0; trap '' XFSZ; exec '{TOOL}' compare '{self.write_small()}' --json '{old}'"
        result = subprocess.run(["sh", "-c", shell], stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertEqual(old.read_text(), "old")
        self.assertEqual(sorted(os.listdir(self.scratch)), ["old.json", "small.pickle"])

    def test_full_standard_output_is_an_error(self):
        with open("/dev/full", "w", encoding="utf-8") as full:
            result = subprocess.run([TOOL, "info"], stdout=full, stderr=subprocess.PIPE, check=False)
        self.assertEqual(result.returncode, 2)
        self.assertIn(b"standard output", result.stderr)

    def test_reader_that_leaves_early_is_no_error(self):
        for arguments in (["--help"], ["compare", str(SMALL_TRACE)], ["compare", str(SMALL_TRACE), "--json", "-"]):
            with self.subTest(arguments):
                reading, writing = os.pipe()
                os.close(reading)
                result = subprocess.run([TOOL, *arguments], stdout=writing, stderr=subprocess.PIPE, check=False)
                os.close(writing)
                self.assertEqual((result.returncode, result.stderr), (0, b""))

    def test_file_names_that_are_not_utf8_do_not_break_json(self):
        path = os.fsencode(self.scratch) + b"/tr\xffce.pickle"
        os.rename(self.write_small(), path)
        result = subprocess.run([TOOL, "compare", path, "--json", "-"], stdout=subprocess.PIPE, check=False)
        self.assertEqual(result.returncode, 0)
        self.assertEqual(json.loads(result.stdout)["results"][0]["trace"], "tr\ufffdce")


class Progress(ToolTest):
    def test_pipe_sees_no_progress(self):
        self.assertEqual(self.succeed("compare", SMALL_TRACE).stderr, "")

    def test_terminal_sees_a_bar_and_is_left_clean(self):
        ours, theirs = pty.openpty()
        process = subprocess.Popen([TOOL, "compare", str(SMALL_TRACE), "--json", "-"], stdout=subprocess.PIPE,
                                   stderr=theirs)
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # how Linux says that the other side is closed
                break
            if not part:
                break
            seen += part
        out = process.stdout.read()
        process.stdout.close()
        os.close(ours)
        self.assertEqual(process.wait(), 0)
        json.loads(out)
        self.assertIn(b"opt_recompute gmlake", seen)
        self.assertRegex(seen, rb"\[#* *\] +\d+ %")
        self.assertTrue(seen.endswith(b"\r\x1b[K"), seen[-80:])


if __name__ == "__main__":
    unittest.main()
