"""The jobs of several processes, small and over gloo, where PyTorch is there: that they train, and what they print."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("torch.distributed")

JOB = pathlib.Path(__file__).resolve().parent.parent.parent / "bench" / "jobs" / "distributed.py"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2")


def children_of(pid: int) -> list[str]:
    return pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def alive(pid: str) -> bool:
    try:
        return ") Z" not in pathlib.Path("/proc", pid, "stat").read_text()
    except OSError:
        return False


def ranks_of(*command: str):
    ended = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    return sorted(lines, key=lambda line: line["rank"])


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_two_processes_train_one_model(name):
    ranks = ranks_of(*TORCHRUN, str(JOB), name, "--cpu", "--steps", "3")
    assert [rank["rank"] for rank in ranks] == [0, 1]
    assert all(rank["job"] == name and rank["steps"] == 3 and rank["err"] is None for rank in ranks)
    assert ranks[0]["loss"] == ranks[1]["loss"]


def test_ranks_end_with_torchrun(monkeypatch):
    """It gives each a session of its own, so that whoever kills its session does not reach them."""
    monkeypatch.syspath_prepend(str(JOB.parent))
    import turns

    command = [sys.executable, *TORCHRUN, str(JOB), "ddp", "--cpu", "--label", "native"]
    with turns.Conductor(["native"], 2, 600) as conductor:
        monkeypatch.setenv(turns.ADDRESS, conductor.address)
        torchrun = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        while len(conductor.joined["native"]) < 2:  # and wait for a turn that never comes
            assert torchrun.poll() is None
            conductor.let_join()
        ranks = children_of(torchrun.pid)
        assert len(ranks) == 2 and all(map(alive, ranks))
        os.killpg(torchrun.pid, signal.SIGKILL)
        torchrun.wait()
        while any(map(alive, ranks)):
            time.sleep(0.2)


def test_two_jobs_of_two_processes_take_turns(monkeypatch):
    monkeypatch.syspath_prepend(str(JOB.parent))
    import run

    machine = run.Machine(cold=True, ranks=2, distributed=["--cpu"])
    one, other = machine.run_in_turn("fsdp", 4, ["native", "native#2"], 600)
    assert (one["alloc"], other["alloc"]) == ("native", "native#2") and one["loss"] == other["loss"]
    assert all(run["exit"] == 0 and run["steps"] == 4 and len(run["ranks"]) == 2 for run in (one, other))


def test_one_process_needs_no_torchrun():
    (alone,) = ranks_of(str(JOB), "fsdp", "--cpu", "--steps", "3")
    assert alone["rank"] == 0 and alone["steps"] == 3 and alone["median_step"] > 0
