"""The adapter beside PyTorch's own allocator on a machine with no GPU: gmlake on its host driver, PyTorch's libraries as they
are, and under them a CUDA runtime over ordinary memory (adapter/). Where torch for CUDA and gmlake are installed."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest
from gmlake._adapter import build
from gmlake._adapter.errors import UnavailableError

HERE = pathlib.Path(__file__).resolve().parent / "adapter"
SCENARIOS = ["trackers", "snapshots", "limit_in_bytes", "limit_as_a_fraction", "memory_of_before"]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    torch = pytest.importorskip("torch")
    if torch.version.cuda is None:
        pytest.skip("this torch is not built for CUDA")
    try:
        build.check_version(torch.__version__)
        archive, command, flags = build.archive(), build.compiler(), build.compile_flags(torch)
    except UnavailableError as why:
        pytest.skip(str(why))
    folder = tmp_path_factory.mktemp("adapter")
    sources = [
        HERE / "scenarios.cpp",
        *(source for source in build.SOURCES.glob("*.cpp") if source.stem != "interface"),
    ]
    flags += ["-O1", "-fvisibility=default", f"-I{build.SOURCES}"]
    runtime = folder / "runtime.so"
    running = [
        subprocess.Popen([*command, *flags, "-c", str(source), "-o", str(folder / f"{source.stem}.o")])
        for source in sources
    ]
    running.append(subprocess.Popen([*command, *flags, "-shared", str(HERE / "runtime.cpp"), "-o", str(runtime)]))
    assert [process.wait() for process in running] == [0] * len(running)
    made = folder / "scenarios"
    objects = [str(folder / f"{source.stem}.o") for source in sources]
    # The runtime comes first, so that PyTorch's libraries find it before the real one.
    libraries = [str(archive), str(runtime), "-Wl,--allow-shlib-undefined", *build.link_flags(torch)]
    subprocess.run([*command, *objects, *libraries, "-o", str(made)], check=True)
    return made


def run(program, *arguments):
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("GMLAKE", "PYTORCH_"))}
    return subprocess.run([program, *arguments], env=clean, capture_output=True, text=True)


def test_every_scenario_is_run(program):
    assert run(program).stdout.split() == SCENARIOS


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(program, name):
    ended = run(program, name)
    assert ended.returncode == 0, ended.stdout + ended.stderr
