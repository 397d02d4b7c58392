"""The adapter as Python sees it: a shared library, loaded once and never unloaded, called through its C interface
(csrc/gmlake_torch.h)."""

from __future__ import annotations

import ctypes
import json
import threading
from typing import Any

from . import build
from .errors import UnavailableError
from .options import OptionError

_lock = threading.Lock()
_loaded: ctypes.CDLL | None = None


def is_installed() -> bool:
    return _loaded is not None and bool(_loaded.gmlake_torch_is_installed())


def install(settings: str) -> None:
    """Loads the adapter, which is compiled first where there is none for this torch, and installs it.

    Raises UnavailableError where this torch cannot be served, OptionError where the settings were refused.
    """
    global _loaded
    with _lock:
        library = _loaded or _load()
        complaint = library.gmlake_torch_install(settings.encode())
        if complaint:
            message = complaint.decode()
            if message.startswith("option"):
                raise OptionError(message)
            raise UnavailableError(message)
        _loaded = library


def _load() -> ctypes.CDLL:
    import torch

    if torch.version.cuda is None:
        raise UnavailableError(f"torch {torch.__version__} is not built for CUDA")
    path = build.adapter(torch)
    try:
        library = ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL)
    except OSError as error:
        raise UnavailableError(f"the adapter cannot be loaded: {error}") from error
    for name in ("install", "stats_json", "snapshot", "trim", "end_recording", "torch_version"):
        getattr(library, f"gmlake_torch_{name}").restype = ctypes.c_char_p
    library.gmlake_torch_install.argtypes = [ctypes.c_char_p]
    library.gmlake_torch_is_installed.argtypes = []
    library.gmlake_torch_is_installed.restype = ctypes.c_int
    library.gmlake_torch_stats_json.argtypes = [ctypes.c_int]
    library.gmlake_torch_snapshot.argtypes = [ctypes.c_char_p]
    library.gmlake_torch_trim.argtypes = [ctypes.c_uint64]
    library.gmlake_torch_end_recording.argtypes = []
    library.gmlake_torch_torch_version.argtypes = []
    built_for = library.gmlake_torch_torch_version().decode()
    if built_for != build.release(torch.__version__):
        raise UnavailableError(f"{path} was built for torch {built_for}, and this is {torch.__version__}")
    return library


def _installed() -> ctypes.CDLL:
    if _loaded is None or not is_installed():
        raise RuntimeError(
            "gmlake is not enabled: call gmlake.torch.enable(), or set GMLAKE=1, before CUDA memory is used"
        )
    return _loaded


def stats(device: Any) -> dict[str, float]:
    library = _installed()
    import torch

    index = torch.device(device).index if isinstance(device, (str, torch.device)) else device
    if index is None:
        index = torch.cuda.current_device()
    text = library.gmlake_torch_stats_json(index)
    return json.loads(text)


def snapshot(path: str) -> None:
    complaint = _installed().gmlake_torch_snapshot(path.encode())
    if complaint:
        raise OSError(complaint.decode())


def end_recording() -> bool:
    """Ends what the setting `record` began; whether there is a file now."""
    return not _installed().gmlake_torch_end_recording()


def trim(to_bytes: int) -> None:
    complaint = _installed().gmlake_torch_trim(to_bytes)
    if complaint:
        raise RuntimeError(complaint.decode())
