"""Processes that take turns with every step, so that what else happens on a machine for longer than a step falls on all of
them alike.

A job joins the conductor whose address is in its environment (Turn), waits before each step until it is let, and says when
it is done. The ranks of one job have one name: they are let together, and the next job when all of them are done. run.py
conducts. Where there is no conductor nobody waits. What a job does between its turns, in threads of its own, is not timed.
"""

import itertools
import os
import secrets
import socket
import time

ADDRESS = "GMLAKE_BENCH_TURNS"
LOOK_SECONDS = 0.2  # between looks whether who has not joined yet still runs
NAME_SECONDS = 10.0  # from joining to having said a name
LONGEST_NAME = 100


def abstract(address):
    """Linux's names of sockets that are no files: these have no short limit, and nothing is left of them."""
    return f"\0{address}"


class Turn:
    """A job's side: take() before a step, give() after it. Leaves when the process ends."""

    def __init__(self, name):
        self.connection = None
        if ADDRESS in os.environ:
            self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.connection.connect(abstract(os.environ[ADDRESS]))
            self.connection.sendall(name.encode())

    def take(self):
        if self.connection is not None and not self.connection.recv(1):
            raise ConnectionError("the conductor is gone")

    def give(self):
        if self.connection is not None:
            self.connection.sendall(b".")


def timed(steps, ahead, wait, turn):
    """Runs the steps, `ahead` of them in a turn and then wait(); yields (the seconds of each, the last loss) after every turn."""
    steps = iter(steps)
    while True:
        turn.take()
        begin, count, loss = time.time(), 0, None
        for loss in itertools.islice(steps, ahead):
            count += 1
        if count:
            wait()
        seconds = time.time() - begin
        turn.give()
        if not count:
            return
        yield [seconds / count] * count, loss


class Late(Exception):
    """They did not end in time."""


class Conductor:
    """Lets jobs step in turn, each of `members` processes. The first of `names` goes first, then last, and so on.

    Errors: Late. With the end of `with` who still waits for a turn has waited in vain."""

    def __init__(self, names, members, seconds):
        self.address = f"gmlake-bench-{secrets.token_hex(8)}"  # for ADDRESS
        self.members = members
        self.deadline = time.monotonic() + seconds
        self.joined = {name: [] for name in names}
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(abstract(self.address))
        self.listener.listen()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()
        for name in self.joined:
            self.leave(name)

    def conduct(self, running):
        """Until all have left; running(name) says whether one that has not joined yet still may."""
        while any(len(had) < self.members and running(name) for name, had in self.joined.items()):
            self.let_join()
        left = list(self.joined)
        while left:
            for name in list(left):
                if not self.step(self.joined[name]):
                    self.leave(name)
                    left.remove(name)
            left.reverse()

    def let_join(self):
        """One more, where one comes. Who comes and does not say a name that is awaited is sent away."""
        self.listener.settimeout(min(LOOK_SECONDS, self.seconds_left()))
        try:
            connection, _ = self.listener.accept()
        except TimeoutError:
            return
        connection.settimeout(min(NAME_SECONDS, self.seconds_left()))
        try:
            name = connection.recv(LONGEST_NAME).decode(errors="replace")
        except OSError:
            name = ""
        if name in self.joined:
            self.joined[name].append(connection)
        else:
            connection.close()

    def leave(self, name):
        for connection in self.joined[name]:
            connection.close()

    def seconds_left(self):
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Late
        return left

    def step(self, connections):
        """Whether all of them took it; a job that has lost one never does again."""
        if len(connections) < self.members:
            return False
        try:
            for connection in connections:
                connection.settimeout(self.seconds_left())
                connection.sendall(b".")
            for connection in connections:
                connection.settimeout(self.seconds_left())
                if not connection.recv(1):
                    return False
        except TimeoutError:
            raise Late from None
        except OSError:
            return False
        return True
