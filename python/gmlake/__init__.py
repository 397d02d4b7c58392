"""gmlake: a GPU memory allocator that ends fragmentation.

``import gmlake.torch`` as the first line of a script, or ``GMLAKE=1`` in its environment, puts PyTorch's CUDA memory under
gmlake. This module has what one asks of it then; it imports no torch by itself, and needs no GPU to be imported.
"""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

__all__ = ["__version__", "memory_stats", "snapshot", "trim"]

try:
    __version__: str = version("gmlake")
except PackageNotFoundError:  # run from a checkout
    __version__ = "0+checkout"


def memory_stats(device: Any = None) -> dict[str, float]:
    """gmlake's counters for one device, the current one by default.

    The keys of ``torch.cuda.memory_stats()`` with their meaning there, and gmlake's own under ``gmlake.``: stitches,
    moved bytes, time in the driver and so on. docs/statistics.md says what each counts, and in which unit. Any thread.

    Raises RuntimeError where gmlake is not enabled.
    """
    from ._adapter import library

    return library.stats(device)


def snapshot(path: str | os.PathLike[str]) -> None:
    """Writes the state of all devices to `path`: as JSON where it ends in ``.json`` (docs/snapshots.md), else as
    PyTorch's snapshot pickle, which its memory_viz page opens.

    ``torch.cuda.memory._dump_snapshot`` works too, and has native's pools in it. Any thread. Raises RuntimeError where
    gmlake is not enabled, OSError where the file cannot be written.
    """
    from ._adapter import library

    library.snapshot(os.fspath(path))


def trim(to_bytes: int = 0) -> None:
    """Gives cached memory back to the driver until at most `to_bytes` are held on each device, or nothing more is free.

    ``torch.cuda.empty_cache()`` is ``trim(0)``. Waits for work that still uses freed memory. Any thread.
    Raises RuntimeError where gmlake is not enabled, ValueError for a negative number.
    """
    if to_bytes < 0:
        raise ValueError(f"gmlake.trim: to_bytes must not be negative, and is {to_bytes}")
    from ._adapter import library

    library.trim(to_bytes)
