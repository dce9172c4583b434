"""Limits of judged processes, what /proc says about them, and how they are ended. Linux only."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from itertools import count
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from prorl_study.verification.limits import Limits

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 1, 4, 36
CLOCK_TICKS, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int) -> None:
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


def children(pid: int) -> list[int]:
    """Children of all threads of `pid`; none where it is gone."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += _children(f"/proc/{pid}/task/{thread}/children")
    return found


def own_children() -> list[int]:
    """Children of this process, which has one thread."""
    return _children(f"/proc/self/task/{os.getpid()}/children")


def _children(path: str) -> list[int]:
    with suppress(FileNotFoundError, ProcessLookupError), open(path, "rb", buffering=0) as file:
        return list(map(int, file.read().split()))
    return []


def tree(roots: list[int]) -> list[int]:
    """The given processes and all their descendants."""
    found = list(roots)
    for pid in found:  # grows while it is walked
        found += children(pid)
    return found


class Usage(NamedTuple):
    """What a process uses now."""

    cpu: float
    """CPU seconds, those of children that it has reaped included."""
    own_cpu: float
    tasks: int
    memory: int
    """Resident bytes, pages that it shares with others included."""


def usage(pid: int) -> Usage:
    """All zero where the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return Usage(0.0, 0.0, 0, 0)
    own, all_cpu = (sum(map(int, fields[11:end])) / CLOCK_TICKS for end in (13, 15))
    return Usage(all_cpu, own, int(fields[17]), int(fields[21]) * PAGE)


def total(usages: Iterable[Usage]) -> Usage:
    """Sums over several processes."""
    return Usage(*map(sum, zip((0.0, 0.0, 0, 0), *usages, strict=True)))


def end_children() -> float:
    """Kill and reap every child of this process, which has one thread, and what they leave, until none is
    left. Returns the CPU seconds that all of them used.
    """
    used = 0.0
    while doomed := own_children():
        if os.getpid() == 1:  # behind walls: one signal to all, which no fork bomb outruns
            with suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        else:
            for pid in doomed:
                for kill in (os.killpg, os.kill):  # whoever called setsid has a group of its own number
                    with suppress(ProcessLookupError):
                        kill(pid, signal.SIGKILL)
        for pid in doomed:
            with suppress(ChildProcessError):
                spent = os.wait4(pid, 0)[2]
                used += spent.ru_utime + spent.ru_stime
    return used


def mapped_bytes() -> int:
    """Address space of this process."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * PAGE


def limit_files(size: int) -> None:
    """Let no file of this process grow beyond `size` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def confine(limits: Limits, user_tasks: int, mapped: int) -> None:
    """Kernel limits of this process and all that it starts, for good. They stop what a watch over the
    process tree would see too late.

    `user_tasks` is `tasks_of_user()` outside of any walls, `mapped` is `mapped_bytes()` of the process that
    forked this one.
    """
    fixed = {
        resource.RLIMIT_AS: mapped + (limits.memory_mb << 20),
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


def tasks_of_user() -> int:
    """Threads of this process's user, which is what RLIMIT_NPROC counts."""
    count = 0
    for entry in os.scandir("/proc"):
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if entry.name.isdigit() and entry.stat().st_uid == os.getuid():
                count += usage(int(entry.name)).tasks
    return count


def empty(folder: str) -> None:
    """Remove what a judged program left in its folder, however deep or locked: inner folders are moved up,
    so that neither recursion nor the length of a path sets a limit."""
    with suppress(OSError):
        os.chmod(folder, 0o700)
    prefix, numbers = os.path.join(folder, os.urandom(8).hex()), count()
    while entries := _entries(folder):
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
                continue
            os.chmod(entry.path, 0o700)
            for inner in _entries(entry.path):
                if inner.is_dir(follow_symlinks=False):
                    os.chmod(inner.path, 0o700)
                    os.rename(inner.path, f"{prefix}{next(numbers)}")
                else:
                    os.unlink(inner.path)
            os.rmdir(entry.path)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)
