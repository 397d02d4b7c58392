"""What is made of the results of jobs: how they are judged, and the tables of them."""

from __future__ import annotations

import json
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def made_up_run(job, allocator, reserved, step, loss, limit=None, error=None):
    return {
        "job": job,
        "alloc": allocator,
        "fraction": None if limit is None else 0.1,
        "limit": limit,
        "exit": 0,
        "err": error,
        "steps": 8,
        "loss": loss,
        "peak_allocated": 10 << 30,
        "peak_reserved": int(reserved * (10 << 30)),
        "median_step": step,
        "retries": 0,
    }


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import job_tables

    return job_tables


def test_the_table_shows_worst_peaks_median_steps_and_how_runs_ended(tables):
    kept = {
        "command": "made up",
        "commit": "0123456789abcdef",
        "machine": {"gpu": "made up", "torch": "2.11.0"},
        "runs": [
            made_up_run("gan", "native", 1.5, 0.5, 2.0),
            made_up_run("gan", "native", 1.4, 0.7, 2.5),
            made_up_run("gan", "gmlake", 1.001, 0.5, 2.25),
            made_up_run("gan", "gmlake", 1.002, 0.7, 2.25),
            made_up_run("gan", "gmlake", 1.003, 0.9, 2.75),
            made_up_run("gan", "gmlake", 1.01, 0.66, 2.5, limit=1.02),
            made_up_run("gan", "native", 1.01, None, None, limit=1.02, error="OOM"),
        ],
    }
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables.jobs_table_of(kept, [kept]).splitlines()]
    assert rows[2] == ["gan", "native", "10.00 GiB", "1.500", "0.6000", "0", "as native's", "2"]
    assert rows[3] == ["", "**gmlake**", "10.00 GiB", "**1.003**", "0.7000", "0", "as native's", "3"]
    assert rows[4] == ["", "native within 1.02 x peak", "-", "-", "-", "0", "out of memory", "1"]
    assert rows[5] == ["", "**gmlake within 1.02 x peak**", "10.00 GiB", "**1.010**", "0.6600", "0", "as native's", "1"]
    line = tables.line_of(kept, [kept])
    assert "1 jobs" in line and "allocated 1.003, PyTorch's own 1.500" in line and "Median step 1.167" in line and "differ by 40 %" in line


def test_the_loss_is_held_against_all_runs_of_native_of_that_length(tables):
    kept = {
        "command": "made up",
        "commit": "0123456789abcdef",
        "machine": {"gpu": "made up", "torch": "2.11.0"},
        "runs": [made_up_run("gan", "native", 1.5, 0.5, 2.0), made_up_run("gan", "gmlake", 1.0, 0.5, 2.25)],
    }
    besides = {"commit": "1123456789abcdef", "runs": [made_up_run("gan", "native", 1.5, 0.5, 2.5)]}
    longer = {"commit": "2123456789abcdef", "runs": [{**made_up_run("gan", "native", 1.5, 0.5, 2.5), "steps": 99}]}
    assert "0.25 away, native's spread is 0 |" in tables.jobs_table_of(kept, [kept, longer])
    assert "away" not in tables.jobs_table_of(kept, [kept, besides])


def campaign(commit, **steps):
    """Made-up runs of allocators, {name: median steps}, in which the middle step of three is the median."""
    return {
        "commit": commit,
        "runs": [
            {**made_up_run("gan", name, 1.0, step, 2.0), "step_seconds": [9.0, step, step]}
            for name, each in steps.items()
            for step in each
        ],
    }


def row_of(text, line=2):
    return [cell.strip() for cell in text.splitlines()[line].strip("|").split("|")]


def test_ratios_of_steps_are_made_within_campaigns(tables):
    # Each says 1.1; in one heap they would say 2.2 / 1, since the slow machine had more of gmlake's runs.
    fast = campaign("0123456789", native=[1.0] * 6, gmlake=[1.1] * 2)
    slow = campaign("1123456789", native=[2.0] * 2, gmlake=[2.2] * 6)
    alone = campaign("2123456789", native=[9.0])
    text = tables.steps_table_of([fast, slow, alone], ["gan"])
    assert row_of(text) == ["gan", "2", "8 and 8", "1.100, above 1.01", "1.100 to 1.100", "1.100, above 1.01", "0 %", "0 %"]
    assert "of the commits 0123456, 1123456." in text
    assert tables.steps_table_of([fast], ["another"]).count("gan") == 0


def test_campaigns_count_by_their_runs_and_few_runs_are_not_resampled(tables):
    many = campaign("0123456789", native=[1.0] * 2, gmlake=[1.0, 1.0])
    few = campaign("1123456789", native=[1.0], gmlake=[8.0])
    row = row_of(tables.steps_table_of([many, few], ["gan"]))
    assert row[2:5] == ["3 and 3", "2.000, above 1.01", "-"]  # 8 to the power of 1 / 3
    spread = campaign("2123456789", native=[1.0, 1.5, 1.25] * 2, gmlake=[1.0, 2.0, 1.0] * 2)
    row = row_of(tables.steps_table_of([spread], ["gan"]))
    low, high = map(float, row[4].split(" to "))
    assert low < 0.8 < high and row[6:] == ["50 %", "100 %"]


def in_turn(job, name, pair, seconds, **others):
    run = {**made_up_run(job, name, 1.5, seconds, 2.0, **others), "pair": pair}
    return {**run, "step_seconds": [9.0, 9.0, seconds, 2 * seconds]}


def test_of_runs_that_took_turns_each_is_compared_with_the_one_beside_it(tables):
    import turn_tables

    # The machine got slower by the minute: 1.1 and 1.21 in the pairs, and what is left of another pair says nothing.
    took = {"native": [1.0, 2.0, 9.0], "gmlake": [1.1, 2.42]}
    runs = [in_turn("gan", name, pair, seconds) for name, times in took.items() for pair, seconds in enumerate(times)]
    failed = in_turn("gan", "gmlake", 2, 1.0, error="OOM")
    document = {"commit": "0123456789abcdef", "runs": [*runs, failed, in_turn("alone", "native", 3, 1.0)]}
    text = turn_tables.turns_table_of([document])
    ratio = "1.154 ± 0.048, above 1.01"
    assert row_of(text) == ["gan", "2", "8", ratio, ratio, "1.500", "**1.500**", "0123456"] and "alone" not in text
    one = {"commit": "0123456789abcdef", "runs": [in_turn("gan", "native", 0, 1.0), in_turn("gan", "gmlake", 0, 1.0)]}
    assert row_of(turn_tables.turns_table_of([one]))[3] == "1.000"
    assert turn_tables.turns_table_of([]) == tables.NONE_KEPT
    told = {figure: value for figure, _, value, _, _ in tables.judge.figures(runs)}
    assert told["median step / native's"] == pytest.approx(1.1**1.5)
    assert told["steady steps / native's"] == pytest.approx(1.1**1.5)


def test_where_no_pair_ended_well_there_is_nothing_to_compare(tables):
    runs = [in_turn("gan", "gmlake", 0, 1.0), in_turn("gan", "native", 0, 0.1, error="OOM"), in_turn("gan", "native", 1, 1.0)]
    told = {figure for figure, *_ in tables.judge.figures(runs)}
    assert "median step / native's" not in told and "peak reserved / peak allocated" in told


def test_limits_and_expandable_segments_are_compared_where_both_ran(tables):
    first = campaign("0123456789", native=[1.0, 1.5], gmlake=[1.0, 2.0])
    first["runs"].append(made_up_run("gan", "gmlake", 1.0, 3.0, 2.0, limit=1.02))
    second = campaign("1123456789", expandable=[2.0], gmlake=[1.0])
    text = tables.beside_table_of([first, second], ["gan", "none"])
    assert row_of(text) == ["gan", "1 and 1", "0.500", "1.500", "1 and 2", "2.000, above 1.03", "1.030"]
    assert row_of(text, 3) == ["none"] + ["-"] * 6


def test_runs_that_have_no_length_and_files_that_are_missing_are_no_obstacle(tables, monkeypatch, tmp_path):
    died = {"job": "gan", "alloc": "native", "fraction": None, "exit": -1, "err": "did not end"}
    kept = {
        "command": "made up",
        "commit": "0123456789abcdef",
        "machine": {"gpu": "made up", "torch": "2.11.0"},
        "left_out": 3,
        "runs": [died, *campaign("", native=[0.5], gmlake=[0.5])["runs"]],
    }
    (tmp_path / "jobs.json").write_text(json.dumps(kept))
    monkeypatch.setattr(tables, "KEPT", tmp_path / "jobs.json")
    monkeypatch.setattr(tables, "DISTRIBUTED", tmp_path / "none.json")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert "as native's" in tables.jobs_table(None) and "3 of the runs asked for did not fit" in tables.jobs_table(None)
    assert row_of(tables.steps_table(None))[:3] == ["gan", "1", "1 and 1"]


def test_one_wrong_loss_among_many_is_seen(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench" / "jobs"))
    import judge

    native = [made_up_run("gan", "native", 1.5, 0.5, loss) for loss in (2.0, 2.001, 2.002)]
    for loss in (9.0, float("nan"), float("inf")):
        own = [made_up_run("gan", "gmlake", 1.001, 0.5, each) for each in (2.001, 2.001, loss)]
        told = {figure: (value, met) for figure, _, value, _, met in judge.figures(native + own)}
        assert told["runs with a wrong loss"] == (1, False)


def test_no_result_is_no_figure(tables, monkeypatch, tmp_path):
    monkeypatch.setattr(tables, "KEPT", tmp_path / "none.json")
    assert tables.jobs_table(None) == tables.jobs_line(None) == tables.NONE_KEPT
