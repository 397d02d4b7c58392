"""Processes that take turns with every step, so that what else happens on a machine falls on all of them alike.

A job joins the conductor whose address is in its environment (Turn), waits before each step until it is let, and says when
it is done. The ranks of one job have one name: they are let together, and the next job when all of them are done. run.py
conducts. Where there is no conductor nobody waits.
"""

import os
import socket
import time

ADDRESS = "GMLAKE_BENCH_TURNS"
LOOK_SECONDS = 0.2  # between looks whether who has not joined yet still runs


class Turn:
    """A job's side: take() before a step, give() after it. Leaves when the process ends."""

    def __init__(self, name):
        self.connection = None
        if ADDRESS in os.environ:
            self.connection = socket.socket(socket.AF_UNIX)
            self.connection.connect(os.environ[ADDRESS])
            self.connection.sendall(name.encode() + b"\n")

    def take(self):
        if self.connection is not None and not self.connection.recv(1):
            raise ConnectionError("the conductor is gone")

    def give(self):
        if self.connection is not None:
            self.connection.sendall(b".")


class Late(Exception):
    """They did not end in time."""


class Conductor:
    """Lets jobs step in turn, each of `members` processes, in another order with every round. Errors: Late."""

    def __init__(self, path, names, members, seconds):
        self.path = str(path)  # for ADDRESS
        self.names = names
        self.members = members
        self.deadline = time.monotonic() + seconds
        self.joined = {name: [] for name in names}
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(len(names) * members)

    def conduct(self, running):
        """Until all have left; running(name) says whether one that has not joined yet still may."""
        with self.listener:
            self.wait_for_all(running)
        left, first = list(self.names), 0
        while left:
            first %= len(left)
            for name in left[first:] + left[:first]:
                if not self.step(self.joined[name]):
                    left.remove(name)
                    for connection in self.joined[name]:
                        connection.close()
            first += 1

    def wait_for_all(self, running):
        def awaited(name):
            return len(self.joined[name]) < self.members and running(name)

        while any(awaited(name) for name in self.names):
            self.listener.settimeout(min(LOOK_SECONDS, self.seconds_left()))
            try:
                connection, _ = self.listener.accept()
            except TimeoutError:
                continue
            connection.settimeout(self.seconds_left())
            self.joined[connection.makefile().readline().strip()].append(connection)

    def seconds_left(self):
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Late
        return left

    def step(self, connections):
        """Whether all of them took it; those of a job that has lost one never do again."""
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
        except ConnectionError:
            return False
        return True
