"""What torch.cuda says of memory, against what the test knows it took."""

import json
import pickle
import re
import subprocess
import sys

import gmlake
import gmlake.torch
import pytest
import torch

MIB = 1 << 20


def take(mib):
    return torch.empty(mib * MIB, dtype=torch.uint8, device="cuda")


def test_it_is_enabled():
    assert gmlake.torch.is_enabled()
    assert torch.cuda.get_allocator_backend() == "gmlake"


def test_allocated_and_its_peak():
    before = torch.cuda.memory_allocated()
    a = take(10)
    assert torch.cuda.memory_allocated() == before + 10 * MIB
    del a
    assert torch.cuda.memory_allocated() == before
    assert torch.cuda.max_memory_allocated() >= before + 10 * MIB


def test_reserved_and_empty_cache():
    a = take(100)
    assert torch.cuda.memory_reserved() >= torch.cuda.memory_allocated() >= 100 * MIB
    del a
    held = torch.cuda.memory_reserved()
    assert held >= 100 * MIB
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= held - 100 * MIB


def test_reset_peak_memory_stats():
    a = take(64)
    del a
    assert torch.cuda.max_memory_allocated() >= 64 * MIB
    torch.cuda.reset_peak_memory_stats()
    assert torch.cuda.max_memory_allocated() == torch.cuda.memory_allocated()
    torch.cuda.reset_accumulated_memory_stats()
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == 0


def test_memory_stats_have_natives_keys(script):
    text = (
        "import torch, json\nx = torch.empty(100, device='cuda')\nprint(json.dumps(sorted(torch.cuda.memory_stats())))"
    )
    native = script(text, lake=False)
    assert native.returncode == 0, native.stderr
    assert sorted(torch.cuda.memory_stats()) == json.loads(native.stdout.splitlines()[-1])


def test_stats_of_gmlake_itself():
    a = take(8)
    stats = gmlake.memory_stats()
    assert stats["allocated_bytes.all.current"] >= 8 * MIB
    assert "gmlake.stitches" in stats
    del a


def test_memory_summary_and_usage():
    assert "PyTorch CUDA memory summary" in torch.cuda.memory_summary()
    assert torch.cuda.mem_get_info()[1] > 0


def test_fragments_are_used():
    """Twenty pieces with every second one freed hold a block as long as all that are free."""
    pieces = [take(20) for _ in range(20)]
    del pieces[::2]
    held = torch.cuda.memory_reserved()
    whole = take(200)
    whole.fill_(7)
    assert torch.cuda.memory_reserved() <= held * 1.02
    assert bool((whole == 7).all())


def test_memory_snapshot_and_dump_open_in_pytorchs_tool(tmp_path):
    torch.cuda.memory._record_memory_history(max_entries=10000)
    try:
        a = take(30)
        b = take(3)
        del a
        snapshot = torch.cuda.memory_snapshot()
        blocks = [block for segment in snapshot for block in segment["blocks"]]
        assert any(block["state"] == "active_allocated" and block["size"] == 3 * MIB for block in blocks)
        path = tmp_path / "snapshot.pickle"
        torch.cuda.memory._dump_snapshot(str(path))
    finally:
        torch.cuda.memory._record_memory_history(enabled=None)
    data = pickle.loads(path.read_bytes())
    actions = [event["action"] for trace in data["device_traces"] for event in trace]
    assert "alloc" in actions and "free_completed" in actions
    assert any(event.get("frames") for trace in data["device_traces"] for event in trace if event["action"] == "alloc")
    from torch.cuda import _memory_viz as viz

    assert "allocated" in viz.segsum(data)
    assert viz.trace(data)
    assert "<html" in viz.trace_plot(data).lower() or "<!doctype" in viz.trace_plot(data).lower()
    assert viz.segment_plot(data)
    del b


def test_snapshots_of_gmlake_itself(tmp_path):
    a = take(30)
    gmlake.snapshot(tmp_path / "state.json")
    assert json.loads((tmp_path / "state.json").read_text())
    gmlake.snapshot(tmp_path / "state.pickle")
    assert pickle.loads((tmp_path / "state.pickle").read_bytes())["segments"]
    with pytest.raises(OSError):
        gmlake.snapshot("/nowhere/state.json")
    del a


def test_trim():
    a = take(100)
    del a
    gmlake.trim()
    assert torch.cuda.memory_reserved() < 100 * MIB
    with pytest.raises(ValueError):
        gmlake.trim(-1)


def test_settings_cannot_change_any_more():
    take(1)
    with pytest.raises(ValueError, match="can no longer change"):
        gmlake.torch.enable(slack=0.01)


def test_a_wrong_setting_is_named(script):
    ended = script(
        "import gmlake.torch\ntry: gmlake.torch.enable(limit='lots')\n" "except ValueError as error: print(error)",
        lake=False,
    )
    assert "limit" in ended.stdout, ended.stderr


def test_accelerator_has_the_same_view():
    a = take(5)
    assert torch.accelerator.memory_allocated() == torch.cuda.memory_allocated()
    assert torch.accelerator.memory_reserved() == torch.cuda.memory_reserved()
    assert torch.accelerator.memory_stats()["allocated_bytes.all.current"] == torch.cuda.memory_allocated()
    torch.accelerator.empty_cache()
    del a


def test_run_prints_a_summary(tmp_path):
    path = tmp_path / "job.py"
    path.write_text(
        "import torch, sys\nx = [torch.empty(50 << 20, dtype=torch.uint8, device='cuda') for _ in range(4)]\n"
        "print(sys.argv)\n"
    )
    ended = subprocess.run([sys.executable, "-m", "gmlake", "run", str(path), "--flag"], capture_output=True, text=True)
    assert ended.returncode == 0 and "--flag" in ended.stdout, ended.stderr
    assert "peak allocated 200.0 MiB" in ended.stderr and "PyTorch's own allocator would have reserved" in ended.stderr
    driver = re.search(r"([0-9.]+) s of driver calls", ended.stderr)
    assert driver is not None and float(driver.group(1)) > 0, "it created memory"
