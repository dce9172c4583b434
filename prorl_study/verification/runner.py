"""The process that forks for model-written programs, one fork each, watches it, and clears up after it.

It stands behind walls of its own, apart from the judge, and never reads a message of the program or to it:
the judge makes a pair of sockets and passes one end, and only the fork reads from that. So nothing of one
program is in the memory from which the next is forked, and expected outputs are in neither. What reaches
this process are commands (`begin`, `end`, `gone`, `reset`; all but the first bring the channel of the next
fork) on a socket that no fork keeps; forks cannot take it from here either, since this process is not
dumpable (no ptrace, no /proc/PID/fd or mem).

Limits are those of `limits`: CPU time over the whole process tree decides, the wall clock is a backstop.
It imports little, since the cost of a fork grows with it: no data classes, so `limits` is a plain name space.
Left out: what to run and what to make of it (`candidate`, `prorl_study.judges.programs`), walls (`walls`).
Without walls a program may kill this process, which runs under the same user: the pool then starts another.
Not covered: CPU time of children that live for less than a tick under a parent that ignores SIGCHLD; only the
wall clock ends those.
"""

from __future__ import annotations

import bisect  # noqa: F401  what contest programs import is imported once, here
import collections  # noqa: F401
import copy  # noqa: F401
import functools  # noqa: F401
import gc
import heapq  # noqa: F401
import itertools  # noqa: F401
import json
import math  # noqa: F401
import os
import re  # noqa: F401
import resource
import select
import signal
import site
import socket
import string  # noqa: F401
import sys
import time
import typing  # noqa: F401
import warnings
from contextlib import suppress
from math import ceil
from types import SimpleNamespace

from prorl_study.verification.candidate import rehearse, serve
from prorl_study.verification.processes import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    PR_SET_PDEATHSIG,
    confine,
    empty,
    end_children,
    mapped_bytes,
    own_children,
    prctl,
    total,
    tree,
    usage,
)

TICK_SECONDS = 0.02
"""How often a running program's CPU time and processes are counted; a cheap one ends before the first."""
GONE_SECONDS = 0.2
"""How long a program that hung up may take to end by itself."""
MESSAGE_BYTES = 4096


class Runner:
    """Serves one judge; at most one fork at a time."""

    def __init__(self, control: socket.socket, limits: SimpleNamespace, user_tasks: int, folder: str) -> None:
        self.control, self.limits, self.user_tasks, self.folder = control, limits, user_tasks, folder
        self.poll = select.poll()
        self.fork_id: str | None = None
        self.pid, self.pidfd = 0, -1
        self.began: float | None = None
        self.seen: dict[int, float] = {}

    def run(self) -> None:
        """Until the judge hangs up."""
        # What all forks need is done here, once: each page that a fork writes to costs it microseconds.
        confine(self.limits, self.user_tasks, mapped_bytes())
        self.cpu_limit = ceil(self.limits.cpu_seconds) + 1, resource.getrlimit(resource.RLIMIT_CPU)[1]
        os.chdir(self.folder)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        warnings.simplefilter("ignore")
        rehearse(self.limits)
        gc.freeze()  # keeps the collector of every fork from copying the shared pages
        self.own_memory = usage(os.getpid()).memory
        self.poll.register(self.control, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in self.poll.poll(self.patience())]
            if self.control.fileno() in ready:
                try:
                    data, descriptors, _, _ = socket.recv_fds(self.control, MESSAGE_BYTES, 1)
                except ConnectionResetError:  # the judge left a report unread
                    return
                if not data:
                    return
                self.obey(json.loads(data), descriptors)
            elif self.pidfd in ready:
                self.finish(None)
            elif self.began is not None and (why := self.over_limit()):
                self.finish(why)

    def patience(self) -> float | None:
        """Milliseconds until the next look at a running program."""
        return None if self.began is None else TICK_SECONDS * 1000

    def obey(self, command: dict[str, typing.Any], descriptors: list[int]) -> None:
        match command["do"]:
            case "begin" if command["id"] == self.fork_id:
                self.began = time.monotonic()
            case "end" if command["id"] == self.fork_id:
                self.finish("done")
            case "gone" if command["id"] == self.fork_id:  # the judge saw it before this process
                ended = select.select([self.pidfd], [], [], GONE_SECONDS)[0]
                self.finish(None if ended else "exit")
            case "reset":  # an earlier judge may have left a program
                self.say(command["id"], "reset", self.clear())
        if descriptors:
            self.fork(command["next"], descriptors[0])

    def fork(self, number: str, channel: int) -> None:
        """Make the fork that will run the program of this number; it waits for its task on the channel."""
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.become_candidate(channel)
            finally:  # never back into this stack
                os._exit(1)
        os.close(channel)
        self.fork_id, self.pidfd = number, os.pidfd_open(self.pid)
        self.poll.register(self.pidfd, select.POLLIN)
        self.seen = {}

    def become_candidate(self, channel: int) -> None:
        """Own session, nothing open but the channel, dies with the runner."""
        os.setsid()
        if os.getppid() != 1:  # behind walls it ends with process 1 anyway
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.dup2(channel, 3)
        os.closerange(4, 1 << 20)
        os.dup2(1, 2)
        resource.setrlimit(resource.RLIMIT_CPU, self.cpu_limit)
        serve(3, self.limits)

    def over_limit(self) -> str | None:
        found = {pid: usage(pid) for pid in tree(own_children())}
        # A program that ignores SIGCHLD has its children's time counted nowhere, but here, while they live.
        self.seen |= {pid: used.own_cpu for pid, used in found.items() if used.tasks}
        used = total(found.values())
        if max(used.cpu, self.seen_cpu()) > self.limits.cpu_seconds:
            return "cpu"
        if used.tasks > self.limits.processes:
            return "processes"
        if used.memory - len(found) * self.own_memory > self.limits.memory_mb << 20:
            return "memory"
        if time.monotonic() - self.began > self.limits.wall_seconds:
            return "wall"
        return None

    def seen_cpu(self) -> float:
        """CPU seconds of all processes of the program that were seen alive."""
        return sum(self.seen.values())

    def finish(self, why: str | None) -> None:
        """End the fork and all that it started, then report. Why is None where it ended by itself."""
        if why is None:
            end = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            exited = end.si_code == os.CLD_EXITED
            why = "cpu" if end.si_status == signal.SIGXCPU and not exited else "exit" if exited else "signal"
        number, seconds = self.fork_id, max(self.clear(), self.seen_cpu())
        self.say(number, "cpu" if seconds > self.limits.cpu_seconds else why, seconds)

    def say(self, number: str, why: str, seconds: float) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            self.control.send(json.dumps({"id": number, "why": why, "cpu": seconds}).encode())

    def clear(self) -> float:
        """Leave nothing of the current fork; returns its CPU seconds."""
        if self.fork_id is None:
            return 0.0
        seconds = end_children()
        self.poll.unregister(self.pidfd)
        os.close(self.pidfd)
        self.fork_id, self.pidfd, self.began = None, -1, None
        empty(self.folder)
        return seconds


def main() -> None:
    """`python -S -m prorl_study.verification.runner LIMITS USER_TASKS FOLDER PACKAGES`, the judge on stdin;
    PACKAGES are the folders of installed packages, which programs may import."""
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(null, descriptor)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_DUMPABLE, 0)
    try:
        if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
            raise OSError("this kernel has no /proc/PID/task/TID/children")
        settings, user_tasks, folder, packages = sys.argv[1:]
        sys.path += [path for path in json.loads(packages) if path not in sys.path]
        site.setquit()  # `exit()` and `quit()`
        limits = SimpleNamespace(**json.loads(settings))
        Runner(control, limits, int(user_tasks), folder).run()
    finally:
        end_children()
        if os.getpid() != 1:  # no walls
            empty(sys.argv[3])  # a study that was killed cannot
            os.rmdir(sys.argv[3])
            with suppress(OSError):  # the last of the worker's runners finds it empty
                os.rmdir(os.path.dirname(sys.argv[3]))


if __name__ == "__main__":
    main()
