"""Starts training as a subprocess, gives it its signals and its end.

A notebook never trains in its own process: a kernel that dies must not take half-written weights with
it, and a trainer must not outlive the run that wanted it. The child leads its own process group; the
group gets SIGTERM when the parent is interrupted, and the kernel kills the child when its parent dies.
Left out on purpose: scheduling and retries, which DVC and Slurm do.
"""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from prorl_study.errors import StudyError

PR_SET_PDEATHSIG = 1
GRACE_SECONDS = 30
"""How long a trainer may take to save its state after SIGTERM."""


def die_with_parent() -> None:
    """Have the kernel send this process SIGTERM when its parent dies. Linux only, like the study."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


PLAIN = (sys.executable, "-m")
"""Starts a module in one process."""


def starting(command: str) -> list[str]:
    """What stands before a module's name to start it by `command`, such as `accelerate launch --config_file
    conf/accelerate/ddp_cpu.yaml`; empty: in one process. `accelerate` is that of this Python."""
    words = shlex.split(command)
    if not words:
        return list(PLAIN)
    if words[0] == "accelerate":
        words[:1] = [sys.executable, "-m", "accelerate.commands.accelerate_cli"]
    return [*words, "-m"]


def run_module(
    module: str,
    arguments: Sequence[str],
    log: Path,
    tick: Callable[[], None] = lambda: None,
    launcher: Sequence[str] = PLAIN,
) -> None:
    """Run `python -m module arguments` to its end, calling `tick` twice a second; output goes to `log`.

    `launcher` is what stands before the module (see `starting`).
    Raises StudyError with the child's last words when it fails; KeyboardInterrupt passes through after
    the child's process group has been stopped.
    """
    run_modules(module, [(arguments, log)], 1, tick, launcher)


def run_modules(
    module: str,
    jobs: Sequence[tuple[Sequence[str], Path]],
    at_once: int,
    tick: Callable[[], None] = lambda: None,
    launcher: Sequence[str] = PLAIN,
) -> None:
    """`run_module` for several pairs of arguments and log, begun in order, `at_once` beside each other.

    The first that fails stops the others.
    """
    waiting, running = list(jobs), []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(_begin(module, *waiting.pop(0), launcher))
            try:
                running[0][0].wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                pass
            tick()
            ended = [job for job in running if job[0].poll() is not None]
            running = [job for job in running if job not in ended]
            for child, log, begin in ended:
                _stop_group(child)
                if child.returncode:
                    code, words = child.returncode, _last_words(log, begin)
                    raise StudyError(f"{module} ended with code {code}: {words}")
    finally:
        for child, *_ in running:
            _stop_group(child)


def _begin(
    module: str, arguments: Sequence[str], log: Path, launcher: Sequence[str]
) -> tuple[subprocess.Popen[bytes], Path, int]:
    """The child, its log, and where in it the child's own output begins."""
    log.parent.mkdir(parents=True, exist_ok=True)
    begin = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        child = subprocess.Popen(
            [*launcher, module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    return child, log, begin


def _last_words(log: Path, begin: int) -> str:
    with log.open("rb") as output:
        output.seek(begin)
        lines = output.read().decode(errors="replace").strip().splitlines()
    words = _first_failure(lines) or (lines[-1] if lines else "it printed nothing")
    return f"{words} (all of its output: {log})"


OWN_WORDS = re.compile(r"process \d+: ")
"""How a sentence begins with which one of several processes gives up."""


def _first_failure(lines: Sequence[str]) -> str:
    """Of several processes under torch's launcher, which ended first, or what one said of it; else empty."""
    roots = [i for i, line in enumerate(lines) if line.startswith("Root Cause")]
    if not roots:
        return ""
    about = {}
    for line in lines[roots[-1] :]:
        name, colon, value = line.partition(":")
        if colon:
            about.setdefault(name.strip(), value.strip())
    rank, code = about.get("rank", "?").split()[0], about.get("exitcode", "?").split()[0]
    if code.startswith("-"):
        return f"process {rank} was ended by signal {code[1:]}, and the others with it"
    said = [line for line in lines if OWN_WORDS.match(line)]
    return said[0] if said else f"process {rank} ended with code {code}"


def _stop_group(child: subprocess.Popen[bytes]) -> None:
    """Stop the child's process group if anything of it is left: SIGTERM, a grace time, SIGKILL."""
    try:
        os.killpg(child.pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    try:
        child.wait(timeout=GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()
