"""Jobs in forks of a process that has imported PyTorch and all else that they need: that takes as long as some jobs.

  python3 bench/jobs/warm.py    imports, then forks for each line of its input: {"arguments", "out", "err"}, and says
                                how it ended: {"exit"}. run.py starts one for each environment and talks to it through Warm.

Only a process in which nothing has touched CUDA may fork for work with it. Where an import did, a child ends with
BAD_FORK, and its job is to run in a process of its own.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import warnings

BAD_FORK = 75
HERE = pathlib.Path(__file__).resolve().parent


class BadFork(Exception):
    """CUDA cannot be used in a fork here."""


def run_alone(command, environment, timeout):
    """(exit status, stdout, stderr) of a process and all that it starts; status None where they took longer."""
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        kill_alone(process)
        process.communicate()
        return None, "", ""
    return process.returncode, out, err


def start_alone(command, environment, out, err):
    """A process that goes on beside this one, and what it prints into two files."""
    with open(out, "wb") as output, open(err, "wb") as errors:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=errors, start_new_session=True)


def kill_alone(process):
    """It and all of its session; torchrun's workers, which have sessions of their own, end with it (distributed.py)."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Warm:
    """One such process, seen from outside. Where it ends or hangs, the next call starts another."""

    def __init__(self, environment):
        self.environment = environment
        self.process = None

    def running(self):
        return self.process is not None and self.process.poll() is None

    def start(self):
        """Seconds that it took, 0 where it runs already."""
        if self.running():
            return 0.0
        begin = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "warm.py")],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        if "ready" not in self.process.stdout.readline():
            self.stop()
            raise BadFork("it did not start")
        return time.monotonic() - begin

    def run(self, arguments, timeout):
        """(exit status, stdout, stderr) of a job; status None where it took longer than `timeout` seconds."""
        with tempfile.TemporaryDirectory() as name:
            out, err = pathlib.Path(name, "out"), pathlib.Path(name, "err")
            request = {"arguments": arguments, "out": str(out), "err": str(err)}
            late = False

            def stop(*_):
                nonlocal late
                late = True
                self.stop()

            before = signal.signal(signal.SIGALRM, stop)
            signal.setitimer(signal.ITIMER_REAL, timeout)
            try:
                self.process.stdin.write(json.dumps(request) + "\n")
                self.process.stdin.flush()
                answer = self.process.stdout.readline()
            except BrokenPipeError:
                answer = ""
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, before)
            status = None if late else json.loads(answer)["exit"] if answer else -1
            if status == BAD_FORK:
                raise BadFork("an import touched CUDA")
            return (status, *(path.read_text(errors="replace") if path.exists() else "" for path in (out, err)))

    def stop(self):
        if self.process is not None:
            kill_alone(self.process)  # the fork too


def serve(jobs):
    jobs.import_libraries()
    # Threads of libraries that only sleep: none holds a lock that a child needs.
    warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            for stream, path in ((1, request["out"]), (2, request["err"])):
                file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                os.dup2(file, stream)
            return BAD_FORK if jobs.torch.cuda._is_in_bad_fork() else jobs.main(request["arguments"])
        _, status = os.waitpid(child, 0)
        print(json.dumps({"exit": os.waitstatus_to_exitcode(status)}), flush=True)
    return 0


if __name__ == "__main__":
    # A count of devices that asks the driver is a use of CUDA; this one does not.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    import jobs

    sys.exit(serve(jobs))
