import json
import pathlib

import pytest
from gmlake import _command, _run

GMLAKE = "import sys; from gmlake._command import main; sys.argv[0] = 'gmlake'; main()"
needs_tool = pytest.mark.skipif(_command.tool() is None, reason="built without the replay tool")


@needs_tool
def test_the_tool_is_there(python):
    ended = python(GMLAKE, "options", "--json", "-")
    assert ended.returncode == 0 and len(json.loads(ended.stdout)["results"]) > 5, ended.stderr


@needs_tool
def test_help_names_run_too(python):
    ended = python(GMLAKE, "--help")
    assert ended.returncode == 0 and "gmlake compare" in ended.stdout and "gmlake run" in ended.stdout


@needs_tool
def test_the_tools_exit_code_is_the_commands(python):
    assert python(GMLAKE, "replay", "nowhere.pickle").returncode == 2


def test_run_help(python):
    ended = python(GMLAKE, "run", "--help")
    assert ended.returncode == 0 and "--trace" in ended.stdout


def test_run_without_torch_says_so(python, tmp_path):
    (tmp_path / "job.py").write_text("print('ran')")
    ended = python(GMLAKE, "run", "job.py")
    assert ended.returncode == 2 and ended.stdout == "" and "torch cannot be imported" in ended.stderr


def test_run_of_a_script_that_is_not_there(python):
    ended = python(GMLAKE, "run", "nowhere.py", torch="2.11.0")
    assert ended.returncode == 2 and "nowhere.py: no such file" in ended.stderr


def test_run_of_a_torch_that_is_not_known_runs_nothing(python, tmp_path):
    (tmp_path / "job.py").write_text("print('ran')")
    ended = python(GMLAKE, "run", "job.py", torch="2.4.0")
    assert ended.returncode == 2 and ended.stdout == "" and "2.4.0" in ended.stderr


def test_a_setting_without_a_value_is_refused(python, tmp_path):
    (tmp_path / "job.py").write_text("print('ran')")
    ended = python(GMLAKE, "run", "--set", "slack", "job.py", torch="2.11.0")
    assert ended.returncode == 2 and "KEY=VALUE" in ended.stderr


def test_the_summary():
    stats = {
        "allocated_bytes.all.peak": 10 << 30,
        "reserved_bytes.all.peak": (10 << 30) + (64 << 20),
        "gmlake.stitches": 3,
        "gmlake.moved_bytes": 5 << 20,
        "gmlake.driver_ns": 250_000_000,
        "num_ooms": 0,
    }
    documented = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "statistics.md").read_text()
    for name in stats:
        assert f"`{name.removesuffix('.all.peak')}`" in documented, "no counter has this name"
    text = _run.summary(stats, 15 << 30)
    assert "peak allocated 10.00 GiB, peak reserved 10.06 GiB: 1.006 of it" in text
    assert "would have reserved 15.00 GiB (1.500), by the model: 4.94 GiB saved" in text
    assert "3 stitches moved 5.0 MiB; 0.250 s of driver calls" in text


def test_the_summary_of_a_job_without_cuda():
    assert "no CUDA memory" in _run.summary({"allocated_bytes.all.peak": 0, "reserved_bytes.all.peak": 0}, None)


@needs_tool
def test_native_is_replayed_by_the_model():
    traces = pathlib.Path(__file__).resolve().parents[2] / "examples" / "traces"
    assert _run._native_reserved(traces / "generate.pickle.gz", 0) == 12377391104
    assert _run._native_reserved(traces / "nowhere.pickle.gz", 0) is None
