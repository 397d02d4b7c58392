"""The jobs of several processes, small and over gloo, where PyTorch is there: that they train, and what they print."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("torch.distributed")

JOB = pathlib.Path(__file__).resolve().parent.parent.parent / "bench" / "jobs" / "distributed.py"


def ranks_of(*command: str):
    ended = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    return sorted(lines, key=lambda line: line["rank"])


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_two_processes_train_one_model(name):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2")
    ranks = ranks_of(*torchrun, str(JOB), name, "--cpu", "--steps", "3")
    assert [rank["rank"] for rank in ranks] == [0, 1]
    assert all(rank["job"] == name and rank["steps"] == 3 and rank["err"] is None for rank in ranks)
    assert ranks[0]["loss"] == ranks[1]["loss"]


def test_one_process_needs_no_torchrun():
    (alone,) = ranks_of(str(JOB), "fsdp", "--cpu", "--steps", "3")
    assert alone["rank"] == 0 and alone["steps"] == 3 and alone["median_step"] > 0
