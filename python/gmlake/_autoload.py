"""The entry point that `import torch` calls at its end (group torch.backends; PyTorch 2.5 on).

What is raised here would break `import torch` for every script on this machine, so nothing is.
"""

from __future__ import annotations

import os
import sys

_OFF = ("", "0", "false", "off", "no")


def autoload() -> None:
    """Enables gmlake where the environment has GMLAKE=1. Never raises."""
    try:
        if os.environ.get("GMLAKE", "").lower() in _OFF:
            return
        from ._adapter import enabling

        enabling.enable_or_warn()
    except BaseException as error:  # noqa: BLE001 - whatever it is, torch must load
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        print(f"gmlake: not enabled: {type(error).__name__}: {error}", file=sys.stderr)
