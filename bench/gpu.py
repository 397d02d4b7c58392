#!/usr/bin/env python3
"""Runs the GPU suite and the GPU benches on the machine it is started on, and keeps what they say.

  python3 bench/gpu.py --bin FOLDER --out FOLDER [--parts tests,handovers,sanitizer,driver,hit,stitch,memory,model,calls,peers]

FOLDER of --bin is what `tools/gpu_bundle.sh` made: the programs, built elsewhere, so that this machine needs neither a
compiler nor a toolkit. The part `peers` compares with PyTorch's own allocators where this python has PyTorch, and
compiles one small file for that. Writes gpu.json, all figures with the machine they are from, and gpu.log, what was printed.
Exits 1 if a test failed.
"""
import argparse
import ctypes
import gzip
import json
import os
import pathlib
import subprocess
import sys
import sysconfig
import time

HERE = pathlib.Path(__file__).resolve().parent
PEERS = {"torch-native": "", "torch-expandable": "expandable_segments:True", "cudaMallocAsync": "backend:cudaMallocAsync"}
PAIR_SIZES = [512, 64 << 10, 2 << 20, 64 << 20]


class Runner:
    def __init__(self, options):
        self.bin = options.bin
        self.out = options.out
        self.figures = []
        self.failed = []
        self.seconds = {}
        self.environment = {**os.environ, "LD_LIBRARY_PATH": f"{self.bin}:{os.environ.get('LD_LIBRARY_PATH', '')}"}

    # Runs a command; its output, or with keep=False the end of it, goes to a log, and every line of JSON in it to the
    # figures.
    def run(self, log, *command, figures=True, keep=True, timeout=400, **environment):
        begin = time.time()
        try:
            process = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=timeout,
                                     env={**self.environment, **environment})
            output, status = process.stdout + process.stderr, process.returncode
        except subprocess.TimeoutExpired as expired:
            output = "".join(part.decode() if isinstance(part, bytes) else part or ""
                             for part in (expired.stdout, expired.stderr))
            status = 124
        with open(self.out / "gpu.log", "a") as file:
            kept = output if keep else output[-400:]
            file.write(f"=== {log}\n$ {' '.join(str(part) for part in command)}\n{kept}\nexit {status}\n")
        for line in output.splitlines() if figures else []:
            if line.startswith("{"):
                self.figures.append(json.loads(line))
        self.seconds[log] = round(self.seconds.get(log, 0) + time.time() - begin, 1)
        if status != 0:
            self.failed.append(f"{log}: exit {status}")
        last = [line for line in output.splitlines() if line.strip()][-1:]
        print(f"{log}: exit {status}, {time.time() - begin:.1f} s: {last}", flush=True)
        return output

    def tests(self):
        self.run("driver_cuda_test", self.bin / "driver_cuda_test")
        self.run("gpu_test", self.bin / "gpu_test", GMLAKE_CUBLAS=find_library("libcublas.so"),
                 GMLAKE_NCCL=find_library("libnccl.so"))
        for test in ("Recovers", "Shares"):  # a process each: it forks before it knows of a driver
            self.run("gpu_neighbour_test", self.bin / "gpu_neighbour_test", f"--gtest_filter=*{test}*")

    def handovers(self):
        self.run("handovers", self.bin / "gpu_test", "--gtest_filter=*HandsMemoryOver*", GMLAKE_GPU_ROUNDS="1000000")

    # Refused driver calls are no errors here: the library asks for what a device may not have, and goes on without it.
    def sanitizer(self):
        self.run("sanitizer", "compute-sanitizer", "--tool", "memcheck", "--report-api-errors", "no",
                 "--error-exitcode", "9", self.bin / "gpu_test",
                 "--gtest_filter=-*Multiplies*:*SummedUp*", GMLAKE_GPU_ROUNDS="400", timeout=120)

    def driver(self):
        self.run("driver", self.bin / "gpu_bench", "driver")

    def hit(self):
        self.run("hit", self.bin / "gpu_bench", "hit")
        self.run("hit", self.bin / "peers_bench", "pair")
        for name in PEERS:
            self.peer(name, "hit", [])

    def stitch(self):
        self.run("stitch", self.bin / "gpu_bench", "stitch")
        self.run("stitch", self.bin / "gpu_bench", "busy")

    def memory(self):
        self.run("peers-memory", self.bin / "gpu_bench", "peers-memory")

    # The same replays on the GPU and on the model of its driver: what the driver took, and what the model says.
    def model(self):
        self.run("model", self.bin / "clock_bench", *self.traces())

    # Every driver call of every job, and of situations that differ in one thing, with its time in three rounds, in
    # processes of their own: calls.csv.gz, for tools/fit_costs.py.
    def calls(self):
        jobs = [("conditions", ["conditions"])]
        jobs += [(trace.name.split(".")[0], ["replay", trace]) for trace in self.traces()]
        outputs = {name: [] for name, _ in jobs}
        for _ in range(ROUNDS):
            for name, arguments in jobs:
                outputs[name].append(self.run("calls", self.bin / "calls_bench", *arguments, figures=False, keep=False))
        with gzip.open(self.out / "calls.csv.gz", "wt") as file:
            for name, rounds in outputs.items():
                file.writelines(line + "\n" for line in [f"## {name}", *joined(rounds)])

    def traces(self):
        return sorted((HERE.parent / "examples" / "traces").glob("*.pickle.gz"))

    def peers(self):
        flats = []
        for trace in self.traces():
            name = trace.name.split(".")[0]
            flats.append((name, f"/tmp/{name}.flat"))
            self.run("flatten", self.bin / "peers_bench", "flatten", trace, flats[-1][1])
        for name, flat in flats:
            self.run("peers", self.bin / "peers_bench", "replay", name, flat, FIT_SECONDS)
        for name in PEERS:
            self.peer(name, "peers", flats)

    # One of PyTorch's allocators in a process of its own, since it is chosen before PyTorch starts.
    def peer(self, name, log, flats):
        arguments = [f"{trace}={flat}" for trace, flat in flats]
        self.run(log, sys.executable, __file__, "--peer", name, *arguments, PYTORCH_CUDA_ALLOC_CONF=PEERS[name],
                 PYTHONUNBUFFERED="1")


FIT_SECONDS = "4"
ROUNDS = 3


# The rounds of one job in one table: kind of call, nanoseconds in each round, address and size in MiB, handle.
def joined(rounds):
    tables = [[line.split(",") for line in output.splitlines() if line.startswith("# ") or line.count(",") == 5]
              for output in rounds]
    for calls in zip(*tables, strict=True):
        kind, *rest = calls[0]
        if kind.startswith("# "):
            yield ",".join(calls[0])
        else:
            if any(call[0] != kind or call[4:] != calls[0][4:] for call in calls):
                raise ValueError(f"the rounds differ: {calls}")
            yield ",".join([kind, *(call[2] for call in calls), *rest[2:]])


# As it comes with this python's PyTorch, or where the loader finds it.
def find_library(name):
    for folder in {sysconfig.get_paths()["purelib"], *sys.path}:
        found = sorted(pathlib.Path(folder or ".").glob(f"nvidia/*/lib/{name}.*"))
        if found:
            return str(found[0])
    return name


def build_peer():
    import torch
    built = pathlib.Path("/tmp/gmlake_torch_peers.so")
    if built.exists():
        return built
    root = pathlib.Path(torch.__file__).parent
    cuda = next(path for path in (os.environ.get("CUDA_HOME", ""), "/usr/local/cuda", "/opt/cuda",
                                  *map(str, root.parent.glob("nvidia/cu1?"))) if
                path and (pathlib.Path(path) / "include" / "cuda_runtime_api.h").exists())
    subprocess.run(["g++", "-std=c++17", "-O2", "-shared", "-fPIC", f"-I{root}/include", f"-I{cuda}/include",
                    f"-I{HERE}/peers", f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}",
                    str(HERE / "peers" / "torch_peers.cpp"), "-o", str(built), f"-L{root}/lib", "-lc10", "-lc10_cuda",
                    *map(str, sorted(pathlib.Path(cuda).glob("lib*/libcudart.so*"))[:1])], check=True)
    return built


def be_a_peer(name, flats):
    import torch
    library = ctypes.CDLL(str(build_peer()))
    torch.cuda.init()
    torch.empty(1, device="cuda")
    library.pair.restype = ctypes.c_double
    library.pair.argtypes = [ctypes.c_uint64, ctypes.c_int]
    library.measure.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_double]
    if not flats:
        for size in PAIR_SIZES:
            print(json.dumps({"kind": "pair", "allocator": name, "bytes": size, "ns": library.pair(size, 50000)}))
    for flat in flats:
        trace, path = flat.split("=")
        if library.measure(name.encode(), trace.encode(), path.encode(), float(FIT_SECONDS)) != 0:
            sys.exit(f"{path} cannot be read")
    print(f"{torch.__version__} {torch.cuda.get_allocator_backend()}", file=sys.stderr)


def machine():
    query = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"],
                           capture_output=True, text=True)
    return {"gpu": query.stdout.strip(), "cores": os.cpu_count()}


def main():
    if sys.argv[1:2] == ["--peer"]:
        return be_a_peer(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=lambda path: pathlib.Path(path).resolve(), required=True)
    parser.add_argument("--out", type=lambda path: pathlib.Path(path).resolve(), required=True)
    parser.add_argument("--parts", default="tests,driver,hit,stitch,memory,model,calls,peers,handovers,sanitizer")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    runner = Runner(options)
    commit = (options.bin / "commit").read_text().strip() if (options.bin / "commit").exists() else ""
    for part in options.parts.split(","):
        begin = time.time()
        try:
            getattr(runner, part)()
        except Exception as error:  # one part's trouble is not another's: the figures so far are kept
            runner.failed.append(f"{part}: {error!r}")
        print(f"== {part}: {time.time() - begin:.1f} s", flush=True)
        (options.out / "gpu.json").write_text(json.dumps(
            {"machine": machine(), "commit": commit, "command": " ".join(["python3 bench/gpu.py", "--parts", options.parts]), "seconds": runner.seconds,
             "failed": runner.failed, "figures": runner.figures}, indent=1) + "\n")
    print("failed:", runner.failed)
    sys.exit(1 if runner.failed else 0)


if __name__ == "__main__":
    main()
