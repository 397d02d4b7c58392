#!/usr/bin/env python3
"""Runs real jobs under PyTorch's allocators and gmlake, interleaved, and keeps what each took.

  python3 bench/jobs/run.py                                    all jobs, 3 times each, into bench/results/jobs.json
  python3 bench/jobs/run.py --limit 1.02                       also with that much memory, as a share of peak allocated
  python3 bench/jobs/run.py --seconds 560 --resume r.json      what fits into that time, added to what r.json has
  python3 bench/jobs/run.py --resume a.json b.json --repeat 0 --out r.json    joins what ran on two GPUs of a machine
  python3 bench/jobs/run.py --jobs generate,detect --repeat 5 --steps 8
  python3 bench/jobs/run.py --jobs ddp,fsdp --ranks 2 --out bench/results/jobs_distributed.json    on as many GPUs
  python3 bench/jobs/run.py --jobs ddp,fsdp --ranks 2 --one-gpu --ahead 4 --out r.json    on one; the host runs ahead
  python3 bench/jobs/run.py --jobs opt_recompute --allocators native,gmlake --in-turn --steps 24 --out r.json    together
  python3 bench/jobs/run.py --jobs prefetch,concurrent --out bench/results/jobs_streams.json    two streams side by side

Needs a GPU, PyTorch, transformers, peft and torchvision, and gmlake installed (pip install .). Each run is a process of its
own, forked from one that has imported PyTorch with the environment of that allocator (warm.py; --cold starts each anew).
Jobs of several processes (distributed.py) are started by torchrun; what counts is the rank that fared worst. Those of
several streams are in streams.py. With --in-turn the allocators of a job run at the same time and take turns with every step
(turns.py), which says more where a host is noisy. They share the device then, which has to hold them all; and one allocator
may stand beside itself (--allocators native,native), to see what the machine does.

What says most comes first: everything once, with the limits; the other repetitions have the limit for gmlake alone. Within a
job the allocators change places with each repetition, so that what else happens on the machine falls on all of them alike. A
job that runs out of memory is a result. The steps of a job are those of the recorded traces: every length that makes its peak
comes in them. Ratios are of medians; the spread of native against itself is kept. The file is written after every run. Exits
1 where a figure misses its bound.
"""

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import judge
import turns
from warm import BadFork, Warm, kill_alone, run_alone, start_alone

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RESULT = ROOT / "bench" / "results" / "jobs.json"

JOBS = {"gpt2_full": 8, "opt_recompute": 12, "llama7b_lr": 12, "opt_lro": 12, "generate": 6, "detect": 14}  # steps
DISTRIBUTED = {"ddp": 12, "fsdp": 12}
STREAMS = {"prefetch": 8, "concurrent": 8}
ALLOCATORS = {
    "native": {},
    "expandable": {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"},
    "cudaMallocAsync": {"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"},
    "gmlake": {"GMLAKE": "1"},
}
LIMITED = ["gmlake", "native", "expandable"]  # cudaMallocAsync limits what is allocated, not what is reserved
FIRST_RUN = 60.0  # seconds that a run may take of which nothing is known yet
FIRST_START = 30.0  # and the imports before it
LONGEST = 600.0


def environment(allocator):
    """That of a process under it."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in ("GMLAKE", "GMLAKE_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
    }
    return {**kept, **ALLOCATORS[unnumbered(allocator)]}


def numbered(names):
    """Each with a name of its own: the second "native" is "native#2"."""
    return [name + (f"#{names[:i].count(name) + 1}" if name in names[:i] else "") for i, name in enumerate(names)]


def unnumbered(name):
    return name.partition("#")[0]


def rotated(names, repetition):
    """Another of them is first each time."""
    first = repetition % len(names)
    return names[first:] + names[:first]


def others_way(runs, options):
    """A run that was made in another way than these are to be, or None: it is not one of theirs."""
    asked = (options.ahead, options.one_gpu)

    def other(run):
        return ("pair" in run) != options.in_turn or ("ahead" in run and (run["ahead"], run["one_gpu"]) != asked)

    return next(filter(other, runs), None)


def plan(jobs, allocators, repeat, limited):
    """All that is to run, (job, allocator, with the limit, repetition), in the order of how much it says."""
    for repetition in range(repeat):
        for job in jobs:
            for name in rotated(allocators, repetition):
                yield job, name, False, repetition
        if limited:
            for name in [name for name in LIMITED if name in allocators and (repetition == 0 or name == "gmlake")]:
                for job in jobs:
                    yield job, name, True, repetition


def fraction_of(runs, job, limit):
    """The limit of a job as a share of the device; None where no run has told its peak yet."""
    free = [r for r in runs if r["job"] == job and r["fraction"] is None and r["alloc"] != "cudaMallocAsync"]
    ended = [r for r in judge.ended(free) if r.get("peak_allocated")]
    if not ended:
        return None
    return limit * max(r["peak_allocated"] for r in ended) / ended[0]["device_total"]


def expected_seconds(runs, job):
    """How long a run of `job` may take, by those before."""
    walls = [r["wall_seconds"] for r in runs if r["job"] == job]
    if walls:
        return 1.1 * max(walls)
    return 1.5 * max((r["wall_seconds"] for r in runs), default=FIRST_RUN / 1.5)


def told(out):
    """The result that a job printed, the last line that is one; of several ranks the worst of each, and all of them."""
    lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    ranks = sorted((line for line in lines if "rank" in line), key=lambda line: line["rank"])
    if not ranks:
        return lines[-1]
    result = dict(
        max(ranks, key=lambda r: (r["err"] is not None, r.get("peak_reserved", 0) / r.get("peak_allocated", 1)))
    )
    del result["rank"]
    known = [r["median_step"] for r in ranks if r["median_step"] is not None]
    return {**result, "median_step": max(known, default=None), "ranks": ranks}


def arguments_of(job, steps, allocator, fraction):
    arguments = [job, "--steps", str(steps), "--label", allocator]
    return arguments if fraction is None else [*arguments, "--fraction", f"{fraction:.6f}"]


def result_of(job, allocator, fraction, status, out, err, seconds):
    result = {"job": job, "alloc": allocator, "fraction": fraction, "exit": status}
    try:
        result.update(told(out))
    except (IndexError, ValueError):
        result["err"] = "no result"
    if unnumbered(allocator) == "gmlake" and result.get("backend", "gmlake") != "gmlake":  # not installed, or it gave up
        result["err"] = f"{result['backend']} was in its place"
    result["wall_seconds"] = seconds
    if status != 0 or result.get("err") == "no result" or "gmlake" in err:
        result["stderr"] = err[-2000:]
    return result


class Machine:
    """Runs one job at a time, in a fork of a process that is ready or, where forks do not work, in one of its own."""

    def __init__(self, cold=False, ranks=1, distributed=()):
        self.cold = cold
        self.ranks = ranks
        self.distributed = distributed  # further arguments of these jobs
        self.warm = {}
        self.start_seconds = FIRST_START

    def expected_start(self, job, allocator):
        known = self.warm.get(allocator)
        return 0.0 if self.cold or job not in JOBS or known is not None and known.running() else self.start_seconds

    def start(self, allocator):
        """Gets ready what the next run is forked from."""
        if self.cold:
            return
        known = self.warm.setdefault(allocator, Warm(environment(allocator)))
        try:
            self.start_seconds = known.start() or self.start_seconds
        except BadFork as error:
            self.give_up(error)

    def give_up(self, why):
        print(f"each run imports PyTorch for itself: {why}", flush=True)
        self.stop()
        self.cold = True

    def run(self, job, steps, allocator, fraction, timeout):
        """One run's result, with what went wrong where something did; None where it was cut off by `timeout`."""
        begin = time.monotonic()
        if job in JOBS:
            self.start(allocator)
        timeout = max(1.0, timeout - (time.monotonic() - begin))
        begin = time.monotonic()
        status, out, err = self.process(allocator, arguments_of(job, steps, allocator, fraction), timeout)
        if status is None:
            return None
        return result_of(job, allocator, fraction, status, out, err, time.monotonic() - begin)

    def run_in_turn(self, job, steps, allocators, timeout):
        """The results of a job under each of these, a step in turn; None where they were cut off by `timeout`."""
        begin = time.monotonic()
        members = self.ranks if job in DISTRIBUTED else 1
        with tempfile.TemporaryDirectory() as name, turns.Conductor(allocators, members, timeout) as conductor:
            folder = pathlib.Path(name)

            def file_of(allocator, stream):
                return folder / f"{allocator}.{stream}"

            started = {}
            try:
                for each in allocators:
                    command = self.command(arguments_of(job, steps, each, None))
                    files = file_of(each, "out"), file_of(each, "err")
                    started[each] = start_alone(command, environment(each) | {turns.ADDRESS: conductor.address}, *files)
                conductor.conduct(lambda allocator: started[allocator].poll() is None)
                for process in started.values():
                    process.wait(conductor.seconds_left())
            except (turns.Late, subprocess.TimeoutExpired):
                return None
            finally:
                for process in started.values():
                    kill_alone(process)
            seconds = time.monotonic() - begin
            said = {each: [file_of(each, stream).read_text(errors="replace") for stream in ("out", "err")] for each in started}
        return [result_of(job, each, None, process.returncode, *said[each], seconds) for each, process in started.items()]

    def process(self, allocator, arguments, timeout):
        if arguments[0] in JOBS and not self.cold:
            try:
                return self.warm[allocator].run(arguments, timeout)
            except BadFork as error:
                self.give_up(error)
        return run_alone(self.command(arguments), environment(allocator), timeout)

    def command(self, arguments):
        """That of a process of its own."""
        if arguments[0] in DISTRIBUTED:
            torchrun = "-m torch.distributed.run --standalone --local-addr 127.0.0.1 --nproc-per-node".split()
            command = [sys.executable, *torchrun, str(self.ranks), str(HERE / "distributed.py")]
            return [*command, *arguments, *self.distributed]
        script = "streams.py" if arguments[0] in STREAMS else "jobs.py"
        return [sys.executable, str(HERE / script), *arguments]

    def stop(self):
        for known in self.warm.values():
            known.stop()


def show(result):
    if result.get("peak_allocated"):
        ratio = (result.get("peak_reserved") or 0) / result["peak_allocated"]
        step = f"{result['median_step']:.4f} s" if result.get("median_step") else "-"
        text = f"{ratio:.4f}  {step}  loss {result.get('loss')}  retries {result.get('retries')}  {result.get('err') or ''}"
    else:
        text = f"{result.get('err')} (exit {result['exit']})"
    limit = f" within {result['fraction']:.4f}" if result["fraction"] is not None else ""
    print(f"{result['job']:14} {result['alloc'] + limit:34} {result['wall_seconds']:5.1f} s  {text}", flush=True)


def did_not_end(job, allocator, fraction):
    return {
        "job": job,
        "alloc": allocator,
        "fraction": fraction,
        "exit": -1,
        "err": "did not end",
        "wall_seconds": LONGEST,
    }


def campaign(document, todo, steps_of, limit, machine, seconds, keep):
    """Runs what of `todo` is not in the document yet and fits into `seconds`. Returns how much was left out."""
    begin = time.monotonic()
    runs = document["runs"]
    had = {}
    for r in runs:
        key = (r["job"], r["alloc"], r["fraction"] is not None)
        had[key] = had.get(key, 0) + 1
    left_out = 0
    for job, name, limited, repetition in todo:
        if repetition < had.get((job, name, limited), 0):
            continue
        fraction = fraction_of(runs, job, limit) if limited else None
        left = seconds - (time.monotonic() - begin)
        late = expected_seconds(runs, job) + machine.expected_start(job, name) > left
        result = None
        if not late and not (limited and fraction is None):
            result = machine.run(job, steps_of(job), name, fraction, min(left, LONGEST))
            if result is None and left > LONGEST:
                result = did_not_end(job, name, fraction)
        if result is None:
            left_out += 1
            continue
        if limited:
            result["limit"] = limit
        add(document, result)
        keep()
    return left_out


def campaign_in_turn(document, jobs, allocators, repeat, steps_of, machine, seconds, keep):
    """The same of `jobs`, each under all allocators at once; `pair` in a result says with which others it ran.

    Who goes first changes with each repetition."""
    begin = time.monotonic()
    runs = document["runs"]
    left_out = 0
    for repetition in range(repeat):
        order = rotated(allocators, repetition)
        for job in jobs:
            if repetition < len({r["pair"] for r in runs if r["job"] == job}):
                continue
            left = seconds - (time.monotonic() - begin)
            if expected_seconds(runs, job) > left:
                left_out += len(allocators)
                continue
            results = machine.run_in_turn(job, steps_of(job), order, min(left, LONGEST))
            if results is None and left > LONGEST:
                results = [did_not_end(job, name, None) for name in order]
            if results is None:
                left_out += len(allocators)
                continue
            pair = next_pair(runs)
            for result in results:
                add(document, {**result, "pair": pair})
            keep()
    return left_out


def next_pair(runs):
    return 1 + max((r["pair"] for r in runs if "pair" in r), default=-1)


def add(document, result):
    """As one more of its runs; exits where it is of another machine."""
    here = result.pop("machine", None)
    if here is not None and document.setdefault("machine", here) != here:
        sys.exit(f"this machine is {here}, and the results are of {document['machine']}: give --out another file")
    show(result)
    document["runs"].append(result)


def commit():
    ended = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    return os.environ.get("GMLAKE_COMMIT") or ended.stdout.strip() or "unknown"


def document_to_begin(paths, command):
    """An empty one, or with --resume what `paths` have; exits where one is of another commit or another machine."""
    begun = {"commit": commit(), "command": command, "date": datetime.date.today().isoformat(), "runs": []}
    kept = [(path, json.loads(path.read_text())) for path in paths if path.exists()]
    for path, document in kept:
        if document["commit"] != begun["commit"]:
            sys.exit(f"{path} is of commit {document['commit']}, and this is {begun['commit']}")
        if document.get("machine") != kept[0][1].get("machine"):
            sys.exit(f"{path} is of another machine than {kept[0][0]}")
    if not kept:
        return begun
    commands = " and ".join(dict.fromkeys(document["command"] for _, document in kept))
    begun = {**kept[0][1], "command": commands, "runs": []}
    for _, document in kept:
        first = next_pair(begun["runs"])
        begun["runs"] += [{**run, "pair": first + run["pair"]} if "pair" in run else run for run in document["runs"]]
    begun["left_out"] = sum(document.get("left_out", 0) for _, document in kept)
    return begun


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", default=",".join(JOBS), help="which, separated by commas")
    parser.add_argument("--allocators", default=",".join(ALLOCATORS))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--steps", type=int, help="the same for every job; default: by job")
    parser.add_argument("--limit", type=float, help="run again with this share of peak allocated as the memory limit")
    parser.add_argument("--ranks", type=int, default=2, help="processes of a distributed job, a GPU each; default: 2")
    parser.add_argument("--one-gpu", action="store_true", help="all of them on the first GPU, over sockets")
    parser.add_argument("--ahead", type=int, default=1, help="steps of theirs before the host waits; default: 1")
    parser.add_argument("--in-turn", action="store_true", help="all allocators at once, a step each in turn")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start nothing that would not end in time")
    parser.add_argument(
        "--resume", type=pathlib.Path, nargs="+", default=[], metavar="FILE", help="add to what they have, of one commit"
    )
    parser.add_argument("--cold", action="store_true", help="every run imports PyTorch for itself")
    parser.add_argument("--out", type=pathlib.Path, help="default: the first of --resume, else bench/results/jobs.json")
    options = parser.parse_args()
    steps_of = {**JOBS, **DISTRIBUTED, **STREAMS}
    jobs, allocators = options.jobs.split(","), options.allocators.split(",")
    for name, known in [(job, steps_of) for job in jobs] + [(name, ALLOCATORS) for name in allocators]:
        if name not in known:
            parser.error(f"there is no {name}; there are {', '.join(known)}")
    if len(options.resume) > 1:
        missing = [str(path) for path in options.resume if not path.exists()]
        if missing or options.out is None:
            parser.error(f"there is no {missing[0]}" if missing else "to join several results give --out another file")
    out = options.out or next(iter(options.resume), RESULT)
    out.parent.mkdir(parents=True, exist_ok=True)
    document = document_to_begin(options.resume, "python3 bench/jobs/run.py " + " ".join(sys.argv[1:]))

    if options.in_turn:
        if options.limit is not None:
            parser.error("--in-turn has no --limit: it is a share of the device, which they share")
        if options.out is None and not options.resume:
            parser.error("--in-turn wants --out: the usual file is of runs one after another")
        allocators = numbered(allocators)
    elif len(set(allocators)) < len(allocators):
        parser.error("an allocator twice, beside itself, goes with --in-turn alone")
    if (other := others_way(document["runs"], options)) is not None:
        ahead = f" --ahead {other['ahead']}{' --one-gpu' * other['one_gpu']}" if "ahead" in other else ""
        parser.error(f"what is to be added to was made with{' --in-turn' if 'pair' in other else 'out --in-turn'}{ahead}")

    def keep():
        document["figures"] = [
            dict(zip(("figure", "job", "value", "bound", "met"), figure)) for figure in judge.figures(document["runs"])
        ]
        out.write_text(json.dumps(document, indent=1) + "\n")

    joined = document["left_out"] if len(options.resume) > 1 else 0  # of one file the plan is gone through again
    distributed = ["--ahead", str(options.ahead), *(["--one-gpu"] if options.one_gpu else [])]
    machine = Machine(options.cold, options.ranks, distributed)

    def asked(job):
        return options.steps or steps_of[job]

    try:
        if options.in_turn:
            left_out = campaign_in_turn(document, jobs, allocators, options.repeat, asked, machine, options.seconds, keep)
        else:
            todo = plan(jobs, allocators, options.repeat, options.limit is not None)
            left_out = campaign(document, todo, asked, options.limit, machine, options.seconds, keep)
    finally:
        machine.stop()
    left_out += joined
    document["left_out"] = left_out
    keep()
    missed = [figure for figure in document["figures"] if not figure["met"]]
    for figure in document["figures"]:
        met = "ok  " if figure["met"] else "MISS"
        print(f"{met}  {figure['job']:14} {figure['figure']:36} {figure['value']:.4f} <= {figure['bound']:.4f}")
    print(f"{len(missed)} figures missed, {left_out} runs left out; raw results in {out}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
