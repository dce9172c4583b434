"""The process that judges: reads items from stdin, forks, watches the fork, writes verdicts to stdout.

Three generations. The *pool* (the study) never sees model output run. The *worker* (this process) is
single-threaded, has the scorers imported and never touches model output either. Its *forks* judge: one
fork serves many items of a domain that runs no code, and every item of a domain with `runs_code` gets a
fork of its own, which is killed afterwards with all that it started. So a hanging or crashing item costs
one fork (milliseconds), not a worker (a second of imports).

Covered: CPU time of the whole process tree, wall time, memory, processes, open files, file size; no
inherited descriptors, standard streams on /dev/null, a scrubbed environment, a working folder per code
item; leftovers are killed even where they left the process group (the worker is their subreaper); an
early exit or bytes forged without the fork's nonce give no score.

Not covered yet: no isolation of file system, network or user id (a program run as root can kill any
process of the machine); candidate code shares its process with the expected outputs, so a program that
searches its own interpreter's frames finds them, and the nonce. Memory is limited per process, not per
tree. The walls that change this stand around the command that starts this module.
"""

from __future__ import annotations

import gc
import json
import os
import random
import resource
import secrets
import select
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from math import ceil
from pathlib import Path
from types import FrameType
from typing import Any

from prorl_study.domains import DOMAINS, Domain, Problem, Verdict
from prorl_study.verification.channel import LENGTH, READ_SIZE, messages_from, pack, write_all
from prorl_study.verification.limits import FOLDER_PREFIX, Limits
from prorl_study.verification.processes import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_PDEATHSIG,
    children,
    kill_orphans,
    prctl,
    tasks_of_user,
    tree,
    usage,
)

TICK_SECONDS = 0.02
"""How often a running item's CPU time and processes are counted; a cheap item ends before the first."""
ITEMS_PER_FORK = 1000
"""Then a fork is replaced, so that what scorers cache cannot grow for ever."""
REASON_CHARS = 300


class StudyEnded(BaseException):
    """The pool closed the channel or died: stop judging and clean up."""


def verdict(status: str, reason: str) -> dict[str, Any]:
    return {"score": 0.0, "solved": False, "status": status, "reason": reason[:REASON_CHARS]}


# --- in the fork ---------------------------------------------------------------------------------


def confine(limits: Limits, user_tasks: int) -> None:
    """Kernel limits of a fork. They stop what the worker's own watch would see too late."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    fixed = {
        resource.RLIMIT_AS: mapped + (limits.memory_mb << 20),
        resource.RLIMIT_FSIZE: limits.output_bytes,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_CORE: 0,
    }
    if os.geteuid() != 0:  # the kernel does not limit root, and counts what a user runs anywhere
        fixed[resource.RLIMIT_NPROC] = user_tasks + limits.processes + 256
    for kind, value in fixed.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def allow_cpu(limits: Limits) -> None:
    """Move the kernel's CPU limit to one second behind the watch's, counted from now."""
    end = ceil(time.process_time() + limits.cpu_seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (end, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def judge(item: dict[str, Any]) -> dict[str, Any]:
    """Run the domain's verifier, in a fork only. Whatever escapes from it becomes `crashed`."""
    started = time.process_time()
    try:
        found = DOMAINS[item["problem"]["domain"]].verify(
            Problem(**item["problem"]), item["text"], item["lenient"]
        )
        reply = {
            "score": float(found.score),
            "solved": bool(found.solved),
            "status": found.status,
            "reason": found.reason[:REASON_CHARS],
        }
    except BaseException as error:  # SystemExit and the like come from judged programs
        reply = verdict("crashed", f"{type(error).__name__}: {error}")
    return {**reply, "cpu_seconds": time.process_time() - started}


def serve(requests: int, replies: int, nonce: bytes, folder: str, limits: Limits, user_tasks: int) -> None:
    """Life of a fork: its own session, nothing open but its two pipes, judge until the pipe closes."""
    os.setsid()
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    requests, replies = os.dup2(requests, 100), os.dup2(replies, 101)
    os.dup2(os.open(os.devnull, os.O_RDWR), 2)
    os.closerange(3, 100)
    os.closerange(102, 1 << 20)
    requests, replies = os.dup2(requests, 3), os.dup2(replies, 4)
    os.closerange(5, 102)
    try:
        os.chdir(folder)
        confine(limits, user_tasks)
    except (OSError, ValueError) as error:  # our failure, never the answer's
        write_all(replies, nonce + pack({"broken": f"cannot confine a fork: {error}"}))
        return
    random.seed(0)  # programs that draw numbers get the same verdict in every run
    me = os.getpid()
    for item in messages_from(requests):
        allow_cpu(limits)
        reply = judge(item)
        if os.getpid() != me:  # a copy that the judged program made of its process
            return
        write_all(replies, nonce + pack(reply))


# --- in the worker -------------------------------------------------------------------------------


class Fork:
    """A child of the worker that judges items one after another."""

    def __init__(self, limits: Limits, user_tasks: int, folder: str, once: bool) -> None:
        self.limits, self.once, self.served = limits, once, 0
        self.nonce = secrets.token_bytes(16)
        requests, self.requests = os.pipe()
        self.replies, replies = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                serve(requests, replies, self.nonce, folder, limits, user_tasks)
            finally:  # never back into the worker's own stack
                os._exit(1)
        os.close(requests)
        os.close(replies)

    def judge(self, item: dict[str, Any], channel: int, others: set[int]) -> dict[str, Any] | None:
        """The verdict, or None where the fork died by a signal that nobody here sent.

        `others` are children of the worker that have no part in this item. Raises StudyEnded when
        `channel` hangs up.
        """
        self.served += 1
        started = checked = time.monotonic()
        cpu_before = usage(self.pid)[0] if self.served > 1 else 0.0
        received = bytearray()
        poll = select.poll()
        poll.register(self.replies, select.POLLIN)
        poll.register(channel, 0)  # hang-up only
        with suppress(BrokenPipeError):
            write_all(self.requests, pack(item))
        while True:
            for descriptor, _ in poll.poll(TICK_SECONDS * 1000):
                if descriptor == channel:
                    raise StudyEnded
                data = os.read(self.replies, READ_SIZE)
                if not data:
                    return self.obituary(cpu_before)
                received += data
                if not self.nonce.startswith(received[: len(self.nonce)]):
                    return verdict("crashed", "wrote to the channel of the verdict")
                if (reply := self.parse(received)) is not None:
                    return reply
            now = time.monotonic()
            if now - checked < TICK_SECONDS:
                continue
            checked = now
            if (reply := self.watch(cpu_before, now - started, others)) is not None:
                return reply
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) and not poll.poll(0):
                return self.obituary(cpu_before)  # dead, but something that it started holds the pipe

    def parse(self, received: bytearray) -> dict[str, Any] | None:
        """The reply once it is complete. Raises RuntimeError where the fork could not be confined."""
        body = received[len(self.nonce) :]
        if len(body) < LENGTH.size or len(body) < (end := LENGTH.size + LENGTH.unpack_from(body)[0]):
            return None
        try:
            reply = json.loads(body[LENGTH.size : end])
            if "broken" not in reply:
                Verdict(**reply)
        except (ValueError, TypeError, AssertionError):  # a program that found the nonce
            return verdict("crashed", "wrote to the channel of the verdict")
        if "broken" in reply:
            raise RuntimeError(reply["broken"])
        return reply

    def watch(self, cpu_before: float, seconds: float, others: set[int]) -> dict[str, Any] | None:
        """A verdict if the item is over a limit by now."""
        roots = [pid for pid in children(os.getpid()) if pid not in others]
        used, tasks = 0.0, 0
        for pid in tree(roots):
            cpu, threads = usage(pid)
            used, tasks = used + cpu, tasks + threads
        used -= cpu_before
        if used > self.limits.cpu_seconds:
            reply = verdict("timeout", f"over {self.limits.cpu_seconds:g} s of CPU time")
        elif tasks > self.limits.processes:
            reply = verdict("crashed", f"over {self.limits.processes} processes")
        elif seconds > self.limits.wall_seconds:
            reply = verdict("timeout", f"no verdict after {self.limits.wall_seconds:g} s")
        else:
            return None
        return {**reply, "cpu_seconds": used}

    def obituary(self, cpu_before: float) -> dict[str, Any] | None:
        """What the fork's end without a verdict means. Leaves the fork unreaped."""
        end = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        used = usage(self.pid)[0] - cpu_before
        if end.si_code == os.CLD_EXITED:
            return {**verdict("crashed", "ended its process before the verdict"), "cpu_seconds": used}
        if end.si_status == signal.SIGXCPU or used > self.limits.cpu_seconds:
            return {
                **verdict("timeout", f"over {self.limits.cpu_seconds:g} s of CPU time"),
                "cpu_seconds": used,
            }
        return None

    def retire(self, others: set[int]) -> None:
        """Kill the fork, its group, and whatever it left; give back descriptors."""
        for kill, target in ((os.killpg, self.pid), (os.kill, self.pid)):  # the group exists after setsid
            with suppress(ProcessLookupError):
                kill(target, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        kill_orphans(others)
        os.close(self.requests)
        os.close(self.replies)


class Worker:
    """Judges the items of one channel in order."""

    def __init__(self, limits: Limits, commands: int, replies: int) -> None:
        self.limits, self.commands, self.replies = limits, commands, replies
        self.user_tasks = tasks_of_user()
        self.folder = tempfile.mkdtemp()
        self.warm: set[str] = set()
        self.standing: Fork | None = None

    def run(self) -> None:
        """Until the pool closes the channel."""
        gc.freeze()  # keeps the collector of every fork from copying the shared pages
        write_all(self.replies, pack({"ready": True}))
        for item in messages_from(self.commands):
            domain = DOMAINS[item["problem"]["domain"]]
            self.warm_up(domain)
            found = self.judge(domain, item) or self.judge(domain, item)  # a stray signal: once more
            found = found or verdict("crashed", "killed by a signal")
            write_all(self.replies, pack({"item": item["item"], **found}))

    def warm_up(self, domain: Domain) -> None:
        """Import the domain's scorers once, here, by judging an embedded problem's own solution.

        Domains that run code are left out: their verifiers may change the process they run in.
        """
        if domain.name in self.warm or domain.runs_code:
            return
        problem = domain.generate(0, "validation", 0)
        domain.verify(problem, domain.solve(problem), False)
        self.warm.add(domain.name)
        self.retire_standing()  # it was forked before the import
        gc.freeze()

    def judge(self, domain: Domain, item: dict[str, Any]) -> dict[str, Any] | None:
        """One attempt at one item."""
        fork = None if domain.runs_code else self.standing
        if fork is None:
            fork = Fork(self.limits, self.user_tasks, self.folder, once=domain.runs_code)
            if not domain.runs_code:
                self.standing = fork
        others = {self.standing.pid} if self.standing and fork.once else set()
        found = None
        try:
            found = fork.judge(item, self.commands, others)
        finally:
            if fork.once:
                fork.retire(others)
                self.empty_folder()
            elif found is None or found["status"] in ("crashed", "timeout") or fork.served >= ITEMS_PER_FORK:
                self.retire_standing()
        return found

    def empty_folder(self) -> None:
        """No item finds the files of another. A new folder per item would cost more than the fork."""
        try:
            with os.scandir(self.folder) as entries:
                if next(entries, None) is None:
                    return
        except OSError:  # removed or locked by the judged program
            pass
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder = tempfile.mkdtemp()

    def retire_standing(self) -> None:
        if self.standing is not None:
            self.standing.retire(set())
            self.standing = None


def main() -> None:
    """Started as `python -m prorl_study.verification.worker LIMITS_AS_JSON` with the pool on stdin, stdout.

    A failure of the worker itself (an import, a missing kernel feature) is reported as a message
    `{"broken": ...}`, so that the pool never mistakes it for an answer's fault.
    """
    parent = os.getppid()

    def on_term(_signal: int, _frame: FrameType | None) -> None:
        # The kernel also sends this when the *thread* that started the worker ends; that is no reason.
        if os.getppid() != parent:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # nothing may interrupt the cleaning up
            raise StudyEnded

    signal.signal(signal.SIGTERM, on_term)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    commands, replies = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    try:
        try:
            prctl(PR_SET_CHILD_SUBREAPER, 1)
            if not Path("/proc/self/task", str(os.getpid()), "children").exists():
                raise OSError("this kernel has no /proc/PID/task/TID/children")
            Worker(Limits(**json.loads(sys.argv[1])), commands, replies).run()
        finally:
            # A study that dies closes the channel first and sends the signal after it. Whether the signal
            # comes before this line, in it or later: it is ignored from here on.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except (StudyEnded, BrokenPipeError):
        pass
    except Exception as error:
        write_all(replies, pack({"broken": f"{type(error).__name__}: {error}"[:REASON_CHARS]}))
        raise
    finally:
        kill_orphans(set())
        if Path(tempfile.gettempdir()).name.startswith(FOLDER_PREFIX):
            shutil.rmtree(tempfile.gettempdir(), ignore_errors=True)  # a study that was killed cannot


if __name__ == "__main__":
    main()
