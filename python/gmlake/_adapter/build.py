"""The adapter's shared library for the torch that is there: one that came with this package where it matches, else one
that was compiled before, else compiled now, which takes some ten seconds, once.

  python -m gmlake._adapter.build [--into FOLDER]    compiles it ahead of need, into a folder of its own or the cache

PyTorch's allocator interface changes its layout with every minor version, so a library serves exactly the build of torch
that it was compiled against. The cache is $GMLAKE_CACHE_DIR, or gmlake/ in $XDG_CACHE_HOME or ~/.cache.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Iterator

from .errors import UnavailableError

OLDEST, NEWEST = (2, 9), (2, 12)  # the minor versions that the adapter is written for

_PACKAGE = Path(__file__).resolve().parent.parent
SOURCES = _PACKAGE / "torch" / "csrc"
_NATIVE = _PACKAGE / "_native"
_NAME = "gmlake_torch.so"


def release(version: str) -> str:
    """The part that csrc sees as TORCH_VERSION: 2.11.0 of 2.11.0+cu130."""
    return version.split("+")[0]


def check_version(version: str) -> None:
    """Raises UnavailableError for a version that this gmlake was not written for."""
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None or not OLDEST <= (int(match[1]), int(match[2])) <= NEWEST:
        known = " to ".join(".".join(map(str, known)) for known in (OLDEST, NEWEST))
        raise UnavailableError(f"this gmlake knows torch {known}, and this is {version}")


def adapter(torch: ModuleType) -> Path:
    """The library for this torch. Any number of processes may ask at the same time: one compiles, the others wait.

    Raises UnavailableError where there is none and none can be made.
    """
    check_version(torch.__version__)
    key = _key(torch)
    ahead = _NATIVE / "prebuilt" / key / _NAME
    if ahead.is_file():
        return ahead
    cache = _cache() / key
    made = cache / _NAME
    if made.is_file():
        return made
    with _turn(cache):
        if not made.is_file():  # another process may have made it meanwhile
            _compile(torch, made)
    return made


def _key(torch: ModuleType) -> str:
    """Names all that the library depends on: torch's build, our sources, and the library that is linked in."""
    digest = hashlib.sha256()
    for path in [*sorted(SOURCES.glob("*")), archive()]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    version = re.sub(r"[^A-Za-z0-9.+]", "_", torch.__version__)
    git = str(getattr(torch.version, "git_version", None) or "")[:8]
    return f"torch-{version}-{git}-{digest.hexdigest()[:16]}"


def archive() -> Path:
    path = _NATIVE / "lib" / "libgmlake.a"
    if not path.is_file():
        raise UnavailableError(f"{path} is missing: this gmlake was not installed as a package (pip install .)")
    return path


def _cache() -> Path:
    own = os.environ.get("GMLAKE_CACHE_DIR")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gmlake"


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / "lock", "w")
    except OSError as error:
        raise UnavailableError(
            f"the adapter cannot be kept in {folder}: {error.strerror}; GMLAKE_CACHE_DIR names another folder"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go of when the file is closed, or the process ends
        yield


def _cuda_headers(torch: ModuleType) -> Path:
    """A folder with cuda_runtime_api.h, of the same major version as torch's if there is a choice."""
    site = Path(torch.__file__).resolve().parent.parent
    major = torch.version.cuda.split(".")[0]
    candidates = [
        *(Path(os.environ[name]) / "include" for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)),
        site / "nvidia" / f"cu{major}" / "include",
        site / "nvidia" / "cuda_runtime" / "include",
        Path(f"/usr/local/cuda-{major}/include"),
        Path("/usr/local/cuda/include"),
    ]
    nvcc = shutil.which("nvcc")
    if nvcc:
        candidates.append(Path(nvcc).resolve().parent.parent / "include")
    for folder in candidates:
        if (folder / "cuda_runtime_api.h").is_file():
            return folder
    raise UnavailableError(
        "cuda_runtime_api.h is nowhere: set CUDA_HOME, or "
        f"pip install nvidia-cuda-runtime{'-cu12' if major == '12' else ''}"
    )


def compiler() -> list[str]:
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and shutil.which(shlex.split(name)[0]):
            return shlex.split(name)
    raise UnavailableError(
        "there is no C++ compiler to build the adapter with (CXX, c++, g++, clang++); "
        "on Debian and Ubuntu: apt install g++"
    )


def compile_flags(torch: ModuleType) -> list[str]:
    """For a source that includes this torch's headers and gmlake's."""
    root = Path(torch.__file__).resolve().parent
    system = [root / "include", root / "include" / "torch" / "csrc" / "api" / "include", _cuda_headers(torch)]
    return [
        "-std=c++20",
        "-O2",
        "-fPIC",
        "-fvisibility=hidden",
        "-w",
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
        f"-I{_NATIVE / 'include'}",
        *(f"-isystem{folder}" for folder in system),
    ]


def link_flags(torch: ModuleType) -> list[str]:
    """For what calls this torch's allocator."""
    folder = Path(torch.__file__).resolve().parent / "lib"
    return [f"-L{folder}", f"-Wl,-rpath,{folder}", "-lc10", "-lc10_cuda", "-lpthread", "-ldl"]


def _compile(torch: ModuleType, target: Path) -> None:
    flags = compile_flags(torch)
    command = compiler()
    sources = sorted(SOURCES.glob("*.cpp"))
    begin = time.monotonic()
    say = sys.stderr.write
    say(f"gmlake: compiling the adapter for torch {torch.__version__}, once; {len(sources)} files\n")
    with tempfile.TemporaryDirectory(prefix=".build-", dir=target.parent) as name:
        folder = Path(name)
        objects = [folder / f"{source.stem}.o" for source in sources]
        with ThreadPoolExecutor(max_workers=min(len(sources), os.cpu_count() or 1)) as pool:
            jobs = [
                pool.submit(_run, [*command, *flags, "-c", str(source), "-o", str(made)])
                for source, made in zip(sources, objects)
            ]
            for done, job in enumerate(jobs, 1):
                job.result()
                say(f"gmlake:   {done} of {len(sources)}, {time.monotonic() - begin:.0f} s\n")
        library = folder / _NAME
        _run(
            [
                *command,
                "-shared",
                *map(str, objects),
                str(archive()),
                *link_flags(torch),
                "-Wl,-z,nodelete",
                "-Wl,--exclude-libs,ALL",
                "-o",
                str(library),
            ]
        )
        os.replace(library, target)  # whole, or not there
    say(f"gmlake: kept in {target.parent}\n")


def _run(command: list[str]) -> None:
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if ended.returncode != 0:
        raise UnavailableError("the adapter does not compile:\n" + shlex.join(command) + "\n" + ended.stdout[-4000:])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m gmlake._adapter.build", description=__doc__.split("\n\n")[0])
    parser.add_argument("--into", type=Path, help="a folder for prebuilt adapters, instead of the cache")
    options = parser.parse_args()
    import torch

    try:
        check_version(torch.__version__)
        if options.into is None:
            print(adapter(torch))
            return
        made = options.into / _key(torch) / _NAME
        made.parent.mkdir(parents=True, exist_ok=True)
        _compile(torch, made)
        print(made)
    except UnavailableError as error:
        sys.exit(f"gmlake: {error}")


if __name__ == "__main__":
    main()
