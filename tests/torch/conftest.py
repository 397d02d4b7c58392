"""PyTorch on gmlake on a GPU: python -m pytest tests/torch. One process, enabled before CUDA is used; what needs a process
of its own starts one."""

import gc
import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("there is no GPU", allow_module_level=True)

import gmlake.torch  # noqa: E402

MIB = 1 << 20


def pytest_configure(config):
    config.addinivalue_line("markers", "gpu: needs a GPU, and torch built for it")


def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.gpu)


@pytest.fixture(autouse=True)
def clean():
    """Each test begins with an empty cache and fresh peaks, which are then of one allocator alone unless it uses both."""
    gc.collect()  # graphs of tests before
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    yield
    torch.cuda.synchronize()


@pytest.fixture
def script(tmp_path):
    """Runs a script in a process of its own, with gmlake or without."""

    def run(text, lake=True, **environment):
        path = tmp_path / "script.py"
        path.write_text(text)
        clean = {key: value for key, value in os.environ.items() if key != "GMLAKE"}
        clean.update(environment)
        if lake:
            clean["GMLAKE"] = "1"
        return subprocess.run([sys.executable, str(path)], capture_output=True, text=True, env=clean, cwd=tmp_path)

    return run
