"""What /proc and the kernel say about a worker's descendants, and how they are ended. Linux only."""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int) -> None:
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


def children(pid: int) -> list[int]:
    """Children of all threads of `pid`; none where it is gone."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(FileNotFoundError, ProcessLookupError):
                found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    return found


def tree(roots: list[int]) -> list[int]:
    """The given processes and all their descendants."""
    found = list(roots)
    for pid in found:  # grows while it is walked
        found += children(pid)
    return found


def usage(pid: int) -> tuple[float, int]:
    """CPU seconds of `pid` with the children it has reaped, and its number of threads."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0, 0
    return sum(map(int, fields[11:15])) / CLOCK_TICKS, int(fields[17])


def kill_orphans(spare: set[int]) -> None:
    """Kill and reap every child of this process but `spare`, and what they leave, until none is left."""
    while orphans := [pid for pid in children(os.getpid()) if pid not in spare]:
        for pid in orphans:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in orphans:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def tasks_of_user() -> int:
    """Threads of this process's user, which is what RLIMIT_NPROC counts."""
    count = 0
    for entry in os.scandir("/proc"):
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if entry.name.isdigit() and entry.stat().st_uid == os.getuid():
                count += usage(int(entry.name))[1]
    return count
