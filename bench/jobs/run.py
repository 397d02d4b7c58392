#!/usr/bin/env python3
"""Runs real jobs under PyTorch's allocators and gmlake, interleaved, and keeps what each took.

  python3 bench/jobs/run.py                                    all jobs, 3 times each, into bench/results/jobs.json
  python3 bench/jobs/run.py --jobs generate,detect --repeat 5 --steps 8
  python3 bench/jobs/run.py --limit 1.02                       also with that much memory, as a share of peak allocated
  python3 bench/jobs/run.py --deadline 500                     starts nothing after that many seconds; what ran is kept

Needs a GPU, PyTorch, transformers, peft and torchvision, and gmlake installed (pip install .). Each run is a process of its
own. The order is job, repetition, allocator, so that what else happens on the machine falls on all of them alike, and the
allocators change places with each repetition. Ratios are of medians; the spread of native against itself is kept.
Exits 1 where a figure misses its bound.
"""

import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RESULT = ROOT / "bench" / "results" / "jobs.json"

JOBS = {"gpt2_full": 8, "opt_recompute": 12, "llama7b_lr": 12, "opt_lro": 12, "generate": 6, "detect": 14}  # steps
ALLOCATORS = {
    "native": {},
    "expandable": {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"},
    "cudaMallocAsync": {"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"},
    "gmlake": {"GMLAKE": "1"},
}
RATIO_BOUND = 1.015  # peak reserved / peak allocated
STEP_BOUND = 1.01  # median step / native's
LIMITED_STEP_BOUND = 1.03  # median step with the limit / without


def run(job, steps, allocator, fraction=None):
    """One run's JSON line, with what went wrong where something did."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("GMLAKE", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
    }
    environment.update(ALLOCATORS[allocator])
    command = [sys.executable, str(HERE / "jobs.py"), job, "--steps", str(steps), "--label", allocator]
    if fraction is not None:
        command += ["--fraction", f"{fraction:.6f}"]
    begin = time.monotonic()
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
    result = {
        "job": job,
        "alloc": allocator,
        "fraction": fraction,
        "exit": ended.returncode,
        "wall_seconds": time.monotonic() - begin,
    }
    try:
        result.update(json.loads(ended.stdout.strip().splitlines()[-1]))
    except (IndexError, ValueError):
        result["err"] = "no result"
    if ended.returncode != 0 or result.get("err") == "no result" or "gmlake" in ended.stderr:
        result["stderr"] = ended.stderr[-2000:]
    return result


def show(result):
    if result.get("peak_allocated"):
        ratio = (result.get("peak_reserved") or 0) / result["peak_allocated"]
        step = f"{result['median_step']:.4f} s" if result.get("median_step") else "-"
        text = f"{ratio:.4f}  {step}  loss {result.get('loss')}  retries {result.get('retries')}  {result.get('err') or ''}"
    else:
        text = f"{result.get('err')} (exit {result['exit']})"
    limit = f" within {result['fraction']:.4f}" if result["fraction"] is not None else ""
    print(f"{result['job']:14} {result['alloc'] + limit:34} {text}", flush=True)
    return result


def median(runs, field):
    values = [run[field] for run in runs if run.get(field) is not None]
    return statistics.median(values) if values else None


def spread(runs, field):
    """Largest / smallest, less 1."""
    values = [run[field] for run in runs if run.get(field)]
    return max(values) / min(values) - 1 if values else 0.0


def judge(runs):
    """Yields (figure, job, value, bound, met)."""
    for job in dict.fromkeys(run["job"] for run in runs):
        free = {
            name: [r for r in runs if r["job"] == job and r["alloc"] == name and r["fraction"] is None]
            for name in ALLOCATORS
        }
        own, native, expandable = free["gmlake"], free["native"], free["expandable"]
        if not own or not native:
            continue
        failed = sum(bool(r.get("err")) or r["exit"] != 0 for r in own)
        yield "runs that failed", job, failed, 0, failed == 0
        if failed:
            continue
        ratio = max(r["peak_reserved"] / r["peak_allocated"] for r in own)
        yield "peak reserved / peak allocated", job, ratio, RATIO_BOUND, ratio <= RATIO_BOUND
        step = median(own, "median_step")
        noise = spread(native, "median_step")
        over = step / median(native, "median_step")
        yield "median step / native's", job, over, STEP_BOUND, over <= STEP_BOUND
        if expandable and median(expandable, "median_step"):
            over = step / median(expandable, "median_step")
            yield "median step / expandable's", job, over, 1 + noise, over <= 1 + noise
        losses = [r["loss"] for r in native if r.get("loss") is not None]
        if losses:
            apart = max(losses) - min(losses)
            away = max(max(r["loss"] - max(losses), min(losses) - r["loss"], 0.0) for r in own)
            yield "loss outside native's range", job, away, apart, away <= apart
        limited = [r for r in runs if r["job"] == job and r["alloc"] == "gmlake" and r["fraction"] is not None]
        if limited:
            whole = all(not r.get("err") and r["exit"] == 0 and r["steps"] == own[0]["steps"] for r in limited)
            yield "limited runs that did not complete", job, 0 if whole else 1, 0, whole
            if whole:
                over = median(limited, "median_step") / step
                yield "limited: median step / unlimited", job, over, LIMITED_STEP_BOUND, over <= LIMITED_STEP_BOUND


def machine():
    import torch

    return {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
    }


def commit():
    ended = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    return ended.stdout.strip() or os.environ.get("GMLAKE_COMMIT", "unknown")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", default=",".join(JOBS), help="which, separated by commas")
    parser.add_argument("--allocators", default=",".join(ALLOCATORS))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--steps", type=int, help="the same for every job; default: by job")
    parser.add_argument("--limit", type=float, help="run again with this share of peak allocated as the memory limit")
    parser.add_argument("--deadline", type=float, default=float("inf"), metavar="SECONDS")
    parser.add_argument("--out", type=pathlib.Path, default=RESULT)
    options = parser.parse_args()
    names = options.allocators.split(",")
    for job in options.jobs.split(","):
        if job not in JOBS:
            parser.error(f"there is no job {job}; there are {', '.join(JOBS)}")
    begin = time.monotonic()
    runs, left_out = [], 0
    total = None
    document = {
        "machine": machine(),
        "commit": commit(),
        "command": "python3 bench/jobs/run.py " + " ".join(sys.argv[1:]),
        "date": datetime.date.today().isoformat(),
        "runs": runs,
        "figures": [],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)

    def keep(result):  # at once: what ran is not lost where the next one is cut off
        runs.append(show(result))
        options.out.write_text(json.dumps(document, indent=1) + "\n")

    def late():
        return time.monotonic() - begin > options.deadline

    for job in options.jobs.split(","):
        steps = options.steps or JOBS[job]
        for repetition in range(options.repeat):
            turn = repetition % len(names)
            for name in names[turn:] + names[:turn]:
                if late():
                    left_out += 1
                    continue
                keep(run(job, steps, name))
        peaks = [
            r["peak_allocated"]
            for r in runs
            if r["job"] == job and r.get("peak_allocated") and r["alloc"] != "cudaMallocAsync"
        ]
        if options.limit and peaks:
            if total is None:
                import torch

                total = torch.cuda.get_device_properties(0).total_memory
            for name in [name for name in names if name != "cudaMallocAsync"]:  # which knows no such limit
                if late():
                    left_out += 1
                    continue
                keep(run(job, steps, name, options.limit * max(peaks) / total))
    missed = 0
    for figure, job, value, bound, met in judge(runs):
        document["figures"].append({"figure": figure, "job": job, "value": value, "bound": bound, "met": met})
        missed += not met
        print(f"{'ok  ' if met else 'MISS'}  {job:14} {figure:36} {value:.4f} <= {bound:.4f}")
    document["left_out"] = left_out
    options.out.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{missed} figures missed, {left_out} runs left out; raw results in {options.out}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
