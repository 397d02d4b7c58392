"""Puts gmlake in the place of PyTorch's CUDA allocator, or says why not."""

from __future__ import annotations

import threading
import warnings

from . import library, options as _options
from .errors import UnavailableError

_lock = threading.Lock()
_failed: str | None = None  # why the last try did not work


def is_enabled() -> bool:
    """Whether PyTorch's CUDA memory comes from gmlake. Any thread."""
    return library.is_installed()


def enable(*, strict: bool = False, **options: object) -> bool:
    """Puts PyTorch's CUDA memory under gmlake from now on; returns whether it is.

    `options` are the settings of GMLAKE_CONF (``gmlake options`` lists them), such as ``limit="20GiB"`` or
    ``garbage_collection_threshold=0.8``. They win over GMLAKE_CONF, which wins over PYTORCH_CUDA_ALLOC_CONF. They hold from
    the first CUDA allocation on: to change them later is refused.

    Tensors that PyTorch's own allocator made before stay with it and are freed there.

    Where it cannot be done: warns and returns False; raises UnavailableError with `strict`. A setting that is unknown or
    out of range raises ValueError. Any thread.
    """
    settings = _options.text(options)
    with _lock:
        if library.is_installed() and not options:
            return True
        try:
            library.install(settings)
        except UnavailableError as error:
            if strict:
                raise
            _warn(str(error))
            return False
        _options.switch_registration_off()
        return True


def enable_or_warn() -> bool:
    """enable() for those who cannot pass options: it never raises for what the environment asked for."""
    try:
        return enable()
    except ValueError as error:
        _warn(str(error))
        return False


def _warn(why: str) -> None:
    global _failed
    if why == _failed:
        return  # said before
    _failed = why
    warnings.warn(f"gmlake is not enabled, PyTorch's own allocator is in use: {why}", RuntimeWarning, stacklevel=4)
