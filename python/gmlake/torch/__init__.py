"""PyTorch on gmlake. Importing this module, before CUDA memory is first used, is all it takes:

    import gmlake.torch

Where that cannot be (no CUDA build of torch, a version that this gmlake does not know, no compiler for the adapter) it
warns, PyTorch's own allocator stays in place, and the script runs as it would have. `enable()` has options, and can be
asked to raise instead.
"""

from __future__ import annotations

from .._adapter.enabling import enable, enable_or_warn, is_enabled
from .._adapter.errors import UnavailableError

__all__ = ["UnavailableError", "enable", "is_enabled"]

enable_or_warn()
