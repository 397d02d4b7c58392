"""`gmlake run`: a script with PyTorch's CUDA memory under gmlake, and at its end a summary of what that did."""

from __future__ import annotations

import argparse
import atexit
import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

_DESCRIPTION = """\
Runs a script as `python SCRIPT ARGUMENTS` does, with PyTorch's CUDA memory under gmlake. At its end says, on standard error,
how much memory was used and reserved, and what PyTorch's own allocator would have reserved, by the model that `gmlake
compare` has. If gmlake cannot be enabled it says why and the script does not run; `GMLAKE=1 python SCRIPT` runs it anyway.
"""

_EPILOG = """\
examples:
  gmlake run train.py --epochs 3
  gmlake run --set per_process_memory_fraction=0.5 train.py
  gmlake run --trace job.gmtrace train.py     keep what was recorded, for gmlake compare, fit and replay
  gmlake run -m torch.distributed.run ...     starts other processes: use GMLAKE=1 torchrun ... for those

The exit code is the script's.
"""


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gmlake run",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="a setting of the allocator (`gmlake options` lists them); may come several times",
    )
    parser.add_argument("--trace", metavar="FILE", help="keep the recorded trace there")
    parser.add_argument("--device", metavar="N", type=int, default=0, help="the device that the summary is of (0)")
    parser.add_argument("--no-summary", action="store_true", help="record nothing and say nothing")
    parser.add_argument("-m", dest="module", action="store_true", help="SCRIPT is the name of a module")
    parser.add_argument("script", metavar="SCRIPT")
    parser.add_argument("arguments", metavar="ARGUMENTS", nargs=argparse.REMAINDER)
    return parser.parse_args(arguments)


def _settings(pairs: list[str]) -> dict[str, str]:
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ValueError(f"--set {pair}: should be KEY=VALUE")
        settings[key.strip()] = value.strip()
    return settings


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def summary(stats: dict[str, float], native_reserved: float | None) -> str:
    """The lines that are printed at the end, from one device's statistics."""
    allocated = stats["allocated_bytes.all.peak"]
    reserved = stats["reserved_bytes.all.peak"]
    if not allocated:
        return "gmlake: no CUDA memory was used"
    lines = [
        f"gmlake: peak allocated {_size(allocated)}, peak reserved {_size(reserved)}: {reserved / allocated:.3f} of it"
    ]
    if native_reserved is not None:
        saved = native_reserved - reserved
        lines.append(
            f"gmlake: PyTorch's own allocator would have reserved {_size(native_reserved)} "
            f"({native_reserved / allocated:.3f}), by the model: "
            + (f"{_size(saved)} saved" if saved > 0 else "nothing saved")
        )
    lines.append(
        f"gmlake: {stats['gmlake.stitches']:.0f} stitches moved {_size(stats['gmlake.moved_bytes'])}; "
        f"{stats['gmlake.driver_ns'] / 1e9:.3f} s of driver calls; out of memory {stats['num_ooms']:.0f} times"
    )
    return "\n".join(lines)


def _native_reserved(trace: Path, device: int) -> float | None:
    """What the model of PyTorch's allocator reserves at its peak for a recorded trace; None where that is not to be had."""
    from ._command import tool

    program = tool()
    if program is None or not trace.is_file():
        return None
    ended = subprocess.run(
        [str(program), "compare", str(trace), "--allocators", "torch-native", "--json", "-"],
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode != 0:
        return None
    try:
        return max(
            float(result["peak_reserved_bytes"])
            for result in json.loads(ended.stdout)["results"]
            if result["device"] == device
        )
    except (ValueError, KeyError):
        return None


def main(arguments: list[str]) -> int:
    options = _arguments(arguments)
    try:
        settings = _settings(options.set)
    except ValueError as error:
        print(f"gmlake run: {error}", file=sys.stderr)
        return 2
    if not options.module and not Path(options.script).is_file():
        print(f"gmlake run: {options.script}: no such file", file=sys.stderr)
        return 2
    try:
        import torch  # noqa: F401 - before gmlake.torch, whose warnings would name the wrong place
    except ImportError as error:
        print(f"gmlake run: torch cannot be imported: {error}", file=sys.stderr)
        return 2

    os.environ.pop("GMLAKE", None)
    from ._adapter import enabling

    folder = None
    trace = Path(options.trace).absolute() if options.trace else None
    if not options.no_summary and trace is None and "record" not in settings:
        folder = tempfile.TemporaryDirectory(prefix="gmlake-run-")
        trace = Path(folder.name) / "job.gmtrace"
    if trace is not None:
        settings["record"] = str(trace)
    try:
        enabling.enable(strict=True, **settings)
    except (ValueError, RuntimeError) as error:
        print(f"gmlake run: {error}", file=sys.stderr)
        return 2
    if not options.no_summary:
        atexit.register(_say, options.device, trace, folder)

    sys.argv = [options.script, *options.arguments]
    if options.module:
        sys.path.insert(0, os.getcwd())
        runpy.run_module(options.script, run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(options.script).resolve().parent))
        runpy.run_path(options.script, run_name="__main__")
    return 0


def _say(device: int, trace: Path | None, folder: tempfile.TemporaryDirectory[str] | None) -> None:
    from ._adapter import library

    stats = library.stats(device)
    native = None
    if trace is not None and library.end_recording():
        native = _native_reserved(trace, device)
    print(summary(stats, native), file=sys.stderr)
    if folder is not None:
        folder.cleanup()
