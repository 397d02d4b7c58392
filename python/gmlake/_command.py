"""The command `gmlake`: the tool, which is a program of its own, and `gmlake run`, which needs Python."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from . import __version__

_TOOL = Path(__file__).resolve().parent / "_native" / "bin" / "gmlake"

_RUN = """
With PyTorch:
  gmlake run [OPTIONS] SCRIPT [ARGUMENTS]
                              run a script with PyTorch's CUDA memory under gmlake, and say at its end what that did;
                              `gmlake run --help` says more
"""


def tool() -> Path | None:
    """The replay tool that came with this package; None where it was built without."""
    return _TOOL if os.access(_TOOL, os.X_OK) else None


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[:1] == ["run"]:
        from ._run import main as run

        sys.exit(run(arguments[1:]))
    if tool() is None:
        if arguments == ["--version"]:
            print(f"gmlake {__version__}")
            sys.exit(0)
        print(
            "gmlake: this package was built without the replay tool, because CLI11, fmt, nlohmann_json or zlib was missing "
            "then; `gmlake run` is all there is",
            file=sys.stderr,
        )
        sys.exit(2)
    sys.stdout.flush()
    if arguments in (["--help"], ["-h"]):
        import subprocess

        status = subprocess.run([str(_TOOL), *arguments], check=False).returncode
        print(_RUN, end="")
        sys.exit(status)
    os.execv(_TOOL, ["gmlake", *arguments])
