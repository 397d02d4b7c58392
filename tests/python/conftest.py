"""A torch that is none, for what must work, or fail well, without a GPU: it has a version and nothing else."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

FAKE = """
class version:
    cuda = {cuda!r}
    git_version = "0123456789abcdef"
__version__ = {version!r}
def compiled_with_cxx11_abi():
    return True
"""


@pytest.fixture
def python(tmp_path: pathlib.Path):
    """Runs Python code in a process that finds a made-up torch of the given version; None: no torch at all."""

    def run(code: str, *arguments: str, torch: str | None = None, cuda: str | None = "13.0", **environment: str):
        site = tmp_path / "site"
        package = site / "torch"
        package.mkdir(parents=True, exist_ok=True)
        body = FAKE.format(cuda=cuda, version=torch) if torch else "raise ImportError('no torch here')\n"
        (package / "__init__.py").write_text(body)
        clean = {
            key: value
            for key, value in os.environ.items()
            if key not in ("GMLAKE", "GMLAKE_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
        }
        clean["PYTHONPATH"] = os.pathsep.join([str(site), *filter(None, [clean.get("PYTHONPATH")])])
        clean["GMLAKE_CACHE_DIR"] = str(tmp_path / "cache")
        clean.update(environment)
        return subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=clean, cwd=tmp_path
        )

    return run
