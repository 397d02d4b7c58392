"""The runner of the jobs, on made-up jobs: what it runs, in which order, within which time, and what it keeps."""

from __future__ import annotations

import concurrent.futures
import importlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
JOBS = ROOT / "bench" / "jobs"

# As jobs.py to the runner: a peak, and a result that depends on the allocator, the limit and the job.
MADE_UP = """
import argparse, json, os, sys, time, turns
imported = os.getpid()
class torch:
    class cuda:
        _is_in_bad_fork = staticmethod(lambda: "BAD_FORK" in os.environ)
def import_libraries():
    with open(os.environ["LOG"], "a") as log: log.write("import\\n")
def main(arguments):
    ap = argparse.ArgumentParser()
    ap.add_argument("name"); ap.add_argument("--steps", type=int); ap.add_argument("--label")
    ap.add_argument("--fraction", type=float)
    a = ap.parse_args(arguments)
    with open(os.environ["LOG"], "a") as log:
        log.write(f"{a.name} {a.label} {a.fraction} {os.getpid() != imported} {os.environ.get('GMLAKE', 0)} {os.getpid()}\\n")
    if os.environ.get("SLOW") == a.name: time.sleep(60)
    if os.environ.get("DIE") == a.name: sys.exit("gone")
    turn = turns.Turn(a.label)
    for step in range(a.steps if turns.ADDRESS in os.environ else 0):
        turn.take()
        if os.environ.get("SLOW_STEP") == a.name: time.sleep(60)
        with open(os.environ["LOG"], "a") as log: log.write(f"step {a.label} {step}\\n")
        turn.give()
        if os.environ.get("DIE_AFTER_A_STEP") == a.label: sys.exit("gone")
    backend = {} if "BACKEND" not in os.environ else {"backend": os.environ["BACKEND"]}
    native = a.label != "gmlake"
    oom = native and a.fraction is not None
    print(json.dumps(dict(job=a.name, alloc=a.label, steps=1 if oom else a.steps, err="OOM" if oom else None, loss=2.5,
        peak_allocated=1000, peak_reserved=1200 if native else 1001, device_total=100000,
        median_step=None if oom else 0.1, retries=0, **backend, machine={"gpu": os.environ.get("GPU", "made up"), "torch": "2"})))
if __name__ == "__main__":
    main(sys.argv[1:])
"""


@pytest.fixture
def runner(tmp_path: pathlib.Path):
    """Runs the runner on two of the jobs; returns its outcome, its file, and what the jobs were asked for."""
    bench = tmp_path / "bench" / "jobs"
    bench.mkdir(parents=True)
    for name in ("run.py", "warm.py", "judge.py", "turns.py"):
        shutil.copy(JOBS / name, bench)
    (bench / "jobs.py").write_text(MADE_UP)
    log = tmp_path / "log"

    def run(*arguments: str, **environment: str):
        log.write_text("")
        ended = subprocess.run(
            [sys.executable, str(bench / "run.py"), "--jobs", "generate,detect", *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "LOG": str(log), "GMLAKE_COMMIT": "abc", **environment},
        )
        path = tmp_path / "r.json"
        kept = json.loads(path.read_text()) if path.exists() else None
        return ended, kept, [line.split() for line in log.read_text().splitlines()]

    run.file = tmp_path / "r.json"
    return run


def keys(kept):
    return [(r["job"], r["alloc"], r["fraction"] is not None) for r in kept["runs"]]


def test_everything_once_comes_first_and_each_environment_imports_once(runner):
    ended, kept, log = runner("--repeat", "2", "--limit", "1.02", "--resume", str(runner.file))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    free = [("generate", n, False) for n in ("native", "expandable", "cudaMallocAsync", "gmlake")]
    assert keys(kept)[:4] == free
    assert {key[0] for key in keys(kept)[4:8]} == {"detect"}
    assert keys(kept)[8:10] == [("generate", "gmlake", True), ("detect", "gmlake", True)]
    assert keys(kept)[14:18] == [("generate", n, False) for n in ("expandable", "cudaMallocAsync", "gmlake", "native")]
    assert len(kept["runs"]) == 8 + 6 + 8 + 2 and kept["left_out"] == 0
    assert sum(line == ["import"] for line in log) == 4
    runs = [line for line in log if line != ["import"]]
    assert all(line[3] == "True" for line in runs)  # forks
    assert all((line[4] == "1") == (line[1] == "gmlake") for line in runs)
    assert {line[2] for line in runs} == {"None", "0.0102"}
    assert kept["machine"]["gpu"] == "made up" and all("machine" not in r for r in kept["runs"])
    assert all(figure["met"] for figure in kept["figures"])


def test_limited_runs_of_gmlake_are_among_its_others(runner):
    chosen = ["--jobs", "detect", "--allocators", "native,gmlake"]
    _, kept, _ = runner("--repeat", "3", "--limit", "1.02", *chosen, "--resume", str(runner.file))
    native, own = ("detect", "native", False), ("detect", "gmlake", False)
    limited = ("detect", "gmlake", True)
    first = [native, own, limited, ("detect", "native", True)]
    assert keys(kept) == [*first, own, native, limited, native, own, limited]


def test_a_result_is_added_to(runner):
    _, first, _ = runner("--repeat", "1", "--limit", "1.02", "--resume", str(runner.file))
    ended, second, log = runner("--repeat", "2", "--limit", "1.02", "--resume", str(runner.file))
    assert ended.returncode == 0, ended.stderr
    assert second["runs"][: len(first["runs"])] == first["runs"]
    assert len(second["runs"]) == 24 and len([line for line in log if line != ["import"]]) == 10


def test_results_of_another_commit_or_machine_are_not_mixed(runner):
    runner("--repeat", "1", "--resume", str(runner.file))
    before = runner.file.read_text()
    ended, _, _ = runner("--repeat", "2", "--resume", str(runner.file), GMLAKE_COMMIT="def")
    assert ended.returncode != 0 and "of commit abc" in ended.stderr
    ended, _, _ = runner("--repeat", "2", "--resume", str(runner.file), GPU="another")
    assert ended.returncode != 0 and "another file" in ended.stderr
    assert runner.file.read_text() == before


def test_runs_made_in_another_way_are_not_added_to(runner):
    _, kept, _ = runner("--repeat", "1", "--resume", str(runner.file))
    kept["runs"][0].update(ahead=1, one_gpu=False)
    runner.file.write_text(json.dumps(kept))
    ended, _, log = runner("--repeat", "2", "--ahead", "4", "--resume", str(runner.file))
    assert ended.returncode == 2 and "--ahead 1" in ended.stderr and not log
    ended, _, _ = runner("--repeat", "1", "--resume", str(runner.file))
    assert ended.returncode == 0, ended.stderr


IN_TURN = ["--in-turn", "--allocators", "native,gmlake", "--jobs", "detect", "--steps", "3"]


def steps_in(log):
    return [(line[1], int(line[2])) for line in log if line[0] == "step"]


def test_allocators_in_turn_take_a_step_each(runner):
    ended, kept, log = runner(*IN_TURN, "--repeat", "1", "--resume", str(runner.file))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [(r["job"], r["alloc"], r["pair"], r["err"]) for r in kept["runs"]] == [
        ("detect", "native", 0, None),
        ("detect", "gmlake", 0, None),
    ]
    native, own = ([(name, step) for step in range(3)] for name in ("native", "gmlake"))
    assert steps_in(log) == [native[0], own[0], own[1], native[1], native[2], own[2]]  # and the other way round below
    assert ["import"] not in log and all(line[4] == "1" for line in log if line[1] == "gmlake" and line[0] == "detect")
    assert all("machine" not in r and r["wall_seconds"] > 0 for r in kept["runs"]) and kept["left_out"] == 0

    ended, kept, log = runner(*IN_TURN, "--repeat", "3", "--resume", str(runner.file))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [r["pair"] for r in kept["runs"]] == [0, 0, 1, 1, 2, 2] and len(steps_in(log)) == 12
    assert steps_in(log)[:6] == [own[0], native[0], native[1], own[1], own[2], native[2]]


def test_who_dies_loses_its_turns_and_the_others_go_on(runner):
    ended, kept, log = runner(*IN_TURN, "--repeat", "1", "--resume", str(runner.file), DIE_AFTER_A_STEP="gmlake")
    assert ended.returncode == 1
    assert [(r["alloc"], r["exit"]) for r in kept["runs"]] == [("native", 0), ("gmlake", 1)]
    assert steps_in(log) == [("native", 0), ("gmlake", 0), ("native", 1), ("native", 2)]


def test_who_dies_before_the_first_turn_keeps_nobody_waiting(runner):
    ended, kept, log = runner(*IN_TURN, "--repeat", "1", "--resume", str(runner.file), DIE="detect")
    assert ended.returncode == 1 and steps_in(log) == []
    assert [r["err"] for r in kept["runs"]] == ["no result", "no result"]


@pytest.fixture
def turns(monkeypatch):
    monkeypatch.syspath_prepend(str(JOBS))
    return importlib.import_module("turns")


@pytest.mark.parametrize(("ahead", "groups"), [(1, [1, 1, 1, 1, 1]), (2, [2, 2, 1]), (9, [5])])
def test_steps_are_timed_in_their_turn_and_no_wait_for_it_is(turns, monkeypatch, ahead, groups):
    clock, said = [100.0], []
    monkeypatch.setattr(turns.time, "time", lambda: clock[0])

    class Turn:
        def take(self):
            clock[0] += 1000.0  # another's step
            said.append("take")

        def give(self):
            said.append("give")

    def steps():
        for loss in range(5):
            clock[0] += 3.0
            said.append("step")
            yield loss

    def wait():
        clock[0] += 0.5
        said.append("wait")

    told = list(turns.timed(steps(), ahead, wait, Turn()))
    assert [len(seconds) for seconds, _ in told] == groups and [loss for _, loss in told][-1] == 4
    assert [seconds for seconds, _ in told] == [[3.0 + 0.5 / count] * count for count in groups]
    turn_of = [["take", *["step"] * count, "wait", "give"] for count in groups]
    assert said == sum(turn_of, []) + ["take", "give"]


def test_ranks_of_a_job_have_their_turn_together(turns, monkeypatch):
    meet = {name: threading.Barrier(2, timeout=20) for name in ("native", "gmlake")}
    taken = []

    def rank(name):
        turn = turns.Turn(name)
        with turn.connection:
            turn.connection.settimeout(20)
            for _ in range(2):
                turn.take()
                meet[name].wait()  # as a collective does
                taken.append(name)
                turn.give()

    with turns.Conductor(["native", "gmlake"], 2, 20) as conductor, concurrent.futures.ThreadPoolExecutor(4) as pool:
        monkeypatch.setenv(turns.ADDRESS, conductor.address)
        ranks = [pool.submit(rank, name) for name in conductor.joined for _ in range(2)]
        conductor.conduct(lambda _: True)
        assert [each.result() for each in ranks] == [None] * 4
    assert taken == ["native", "native", "gmlake", "gmlake", "gmlake", "gmlake", "native", "native"]


def test_strangers_are_sent_away_and_silence_ends_with_the_time(turns, monkeypatch):
    with turns.Conductor(["native"], 1, 2) as conductor:
        monkeypatch.setenv(turns.ADDRESS, conductor.address)
        stranger, silent, native = turns.Turn("nobody"), turns.Turn(""), turns.Turn("native")
        with pytest.raises(turns.Late):
            conductor.conduct(lambda _: True)  # native takes its turn and never gives it
        native.take()
        for turn in (stranger, silent):
            with pytest.raises(ConnectionError):
                turn.take()
    with pytest.raises(ConnectionError):
        native.take()  # nobody waits for a conductor that is gone
    for turn in (stranger, silent, native):
        turn.connection.close()


def test_turns_that_time_cuts_off_are_no_result_and_leave_no_process(runner):
    runner(*IN_TURN, "--repeat", "1", "--resume", str(runner.file))
    arguments = (*IN_TURN, "--repeat", "2", "--seconds", "4", "--resume", str(runner.file))
    for slow in ("SLOW", "SLOW_STEP"):
        ended, kept, log = runner(*arguments, **{slow: "detect"})
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert [r["pair"] for r in kept["runs"]] == [0, 0] and kept["left_out"] == 2
        pids = {int(line[5]) for line in log if line[0] == "detect"}
        assert len(pids) == 2 and not any(pathlib.Path("/proc", str(pid)).exists() for pid in pids)


def test_turns_that_would_not_end_in_time_are_left_out(runner):
    ended, kept, log = runner(*IN_TURN, "--repeat", "1", "--seconds", "1", "--resume", str(runner.file))
    assert ended.returncode == 0 and kept["runs"] == [] and kept["left_out"] == 2 and log == []


def test_turns_that_hang_are_failures(turns, monkeypatch):
    run = importlib.import_module("run")
    monkeypatch.setattr(run.Machine, "run_in_turn", lambda *_: None)
    document = {"runs": []}
    names = ["native", "gmlake"]
    left_out = run.campaign_in_turn(document, ["gan"], names, 1, lambda _: 3, run.Machine(), float("inf"), lambda: None)
    assert left_out == 0 and [r["err"] for r in document["runs"]] == ["did not end"] * 2
    assert ("runs that failed", "gan", 1, 0, False) in run.judge.figures(document["runs"])


def test_an_allocator_may_stand_beside_itself_in_turn_alone(runner):
    twice = ["--jobs", "detect", "--allocators", "native,native", "--repeat", "1", "--resume", str(runner.file)]
    ended, _, _ = runner(*twice)
    assert ended.returncode == 2 and "--in-turn" in ended.stderr
    ended, kept, log = runner("--in-turn", "--steps", "2", *twice)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [r["alloc"] for r in kept["runs"]] == ["native", "native#2"] and len(steps_in(log)) == 4


def test_pairs_of_files_that_are_joined_stay_apart(runner, tmp_path):
    other = tmp_path / "other.json"
    for path in (runner.file, other):
        runner(*IN_TURN, "--repeat", "2", "--resume", str(path))
    joined = tmp_path / "joined.json"
    arguments = ("--resume", str(runner.file), str(other), "--repeat", "0", "--out", str(joined))
    ended, _, _ = runner(*IN_TURN, *arguments)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [r["pair"] for r in json.loads(joined.read_text())["runs"]] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_turns_and_runs_of_their_own_are_not_mixed(runner):
    runner(*IN_TURN, "--repeat", "1", "--resume", str(runner.file))
    ended, _, _ = runner("--repeat", "2", "--resume", str(runner.file))
    assert ended.returncode == 2 and "made with --in-turn" in ended.stderr
    ended, _, _ = runner(*IN_TURN, "--limit", "1.02")
    assert ended.returncode == 2 and "no --limit" in ended.stderr
    ended, _, _ = runner(*IN_TURN)
    assert ended.returncode == 2 and "wants --out" in ended.stderr


def test_results_of_two_gpus_of_a_machine_are_joined(runner, tmp_path):
    parts = [tmp_path / f"{job}.json" for job in ("generate", "detect")]
    for part in parts:
        runner("--repeat", "1", "--jobs", part.stem, "--resume", str(part))
        part.write_text(json.dumps({**json.loads(part.read_text()), "left_out": 3}))
    together = ["--repeat", "0", "--resume", *map(str, parts), "--out", str(runner.file)]
    ended, kept, log = runner(*together)
    assert ended.returncode == 0 and log == []
    assert [key[0] for key in keys(kept)] == 4 * ["generate"] + 4 * ["detect"]
    assert all(f"--jobs {part.stem}" in kept["command"] for part in parts) and kept["left_out"] == 6
    assert {figure["job"] for figure in kept["figures"]} == {"generate", "detect"}
    ended, _, _ = runner(*together[:-2])
    assert ended.returncode == 2 and "--out" in ended.stderr
    ended, _, _ = runner("--resume", str(parts[0]), str(tmp_path / "none.json"), "--out", str(runner.file))
    assert ended.returncode == 2 and "none.json" in ended.stderr
    parts[1].write_text(parts[1].read_text().replace("made up", "another"))
    ended, _, _ = runner(*together)
    assert ended.returncode != 0 and "another machine" in ended.stderr


def test_what_would_not_end_in_time_is_left_out(runner):
    ended, kept, log = runner("--repeat", "1", "--seconds", "1", "--resume", str(runner.file))
    assert kept["runs"] == [] and kept["left_out"] == 8 and log == []


def test_a_run_that_time_cuts_off_is_no_result(runner):
    runner("--repeat", "1", "--jobs", "generate", "--allocators", "native", "--resume", str(runner.file))
    arguments = ("--cold", "--repeat", "1", "--seconds", "4", "--allocators", "native", "--resume", str(runner.file))
    _, kept, log = runner(*arguments, SLOW="detect")
    assert log[0][:2] == ["detect", "native"]
    assert {r["job"] for r in kept["runs"]} == {"generate"} and kept["left_out"] == 1


def test_out_of_memory_is_a_result_and_a_death_too(runner):
    ended, kept, _ = runner("--repeat", "1", "--limit", "1.02", "--resume", str(runner.file), DIE="detect")
    assert ended.returncode == 1
    limited = [r for r in kept["runs"] if r["fraction"] is not None]
    assert {(r["alloc"], r["err"]) for r in limited} == {("gmlake", None), ("native", "OOM"), ("expandable", "OOM")}
    died = [r for r in kept["runs"] if r["job"] == "detect"]
    assert len(died) == 4 and all(r["exit"] == 1 and "gone" in r["stderr"] for r in died)
    assert [f["value"] for f in kept["figures"] if f["figure"] == "runs that failed"] == [0, 1]


def test_a_run_that_gmlake_had_no_part_in_is_no_result_of_gmlake(runner):
    ended, kept, _ = runner("--repeat", "1", "--resume", str(runner.file), BACKEND="native")
    assert ended.returncode == 1
    wrong = [r for r in kept["runs"] if r["err"]]
    assert {r["alloc"] for r in wrong} == {"gmlake"} and all("native was in its place" in r["err"] for r in wrong)


def test_where_forks_cannot_have_cuda_each_run_is_a_process_of_its_own(runner):
    ended, kept, log = runner("--repeat", "1", "--resume", str(runner.file), BAD_FORK="1")
    assert ended.returncode == 0, ended.stderr
    assert "for itself" in ended.stdout and len(kept["runs"]) == 8
    assert all(line[3] == "False" for line in log if line != ["import"])


def test_of_several_ranks_the_worst_counts(monkeypatch):
    monkeypatch.syspath_prepend(str(JOBS))
    import run

    good = {"job": "ddp", "err": None, "peak_reserved": 101, "peak_allocated": 100, "median_step": 0.2}
    worse = {**good, "peak_reserved": 110, "median_step": 0.1}
    dead = {**good, "err": "OOM", "median_step": None}

    def printed(*results):
        return "noise\n" + "".join(json.dumps({"rank": rank, **r}) + "\n" for rank, r in enumerate(results))

    result = run.told(printed(good, worse))
    assert (result["peak_reserved"], result["median_step"]) == (110, 0.2) and "rank" not in result
    assert [r["rank"] for r in result["ranks"]] == [0, 1]
    assert run.told(printed(worse, dead))["err"] == "OOM"
    assert run.told(json.dumps(good) + "\n") == good
