"""The study's end of one worker: its command line, its environment, its start and its end.

`worker_command` is the one place where walls around the workers go. Nothing here knows of batches.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import prorl_study
from prorl_study.domains import DOMAINS, Problem, Verdict
from prorl_study.verification.channel import Frames
from prorl_study.verification.limits import FOLDER_PREFIX, Limits

CLOSE_SECONDS = 3.0
MARK = "PRORL_VERIFICATION_WORKER"
"""Variable in the environment of a worker and all that it starts, by which leftovers are found."""


def worker_command(limits: Limits, folder: str) -> list[str]:
    """The command line that starts a worker, whose only place to write is meant to be `folder`: no user
    site, nothing imported from the working folder.

    Not `-I`: it would also ignore PYTHONHASHSEED, and the order of a set must not differ between workers.
    """
    return [sys.executable, "-s", "-P", "-m", "prorl_study.verification.worker", json.dumps(asdict(limits))]


def worker_environment(folder: str, mark: str) -> dict[str, str]:
    """All that a worker sees of the environment: nothing of the user's but the libraries' path."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {
        **kept,
        **dict.fromkeys(threads, "1"),
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": folder,
        "TMPDIR": folder,
        "MPLBACKEND": "Agg",
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": str(Path(prorl_study.__file__).resolve().parents[1]),  # a source tree works as well
        MARK: mark,
    }


@dataclass(eq=False)
class Job:
    """One distinct item of a batch."""

    problem: Problem
    text: str
    lenient: bool
    deaths: int = 0
    verdict: Verdict | None = None

    @property
    def runs_code(self) -> bool:
        return DOMAINS[self.problem.domain].runs_code

    def message(self) -> dict[str, Any]:
        return {"item": id(self), "problem": vars(self.problem), "text": self.text, "lenient": self.lenient}


@dataclass(eq=False)
class WorkerHandle:
    """The pool's end of one worker."""

    runs_code: bool
    """Which items it gets. Those of code domains have workers of their own, which never import a scorer:
    each such item is a fork, and a fork of a process with sympy in it costs twice as much."""
    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    folder: str
    mark: str
    heard: float = field(default_factory=time.monotonic)
    ready: bool = False
    complaint: str = ""
    """Its last words once it is stopped."""
    jobs: deque[Job] = field(default_factory=deque)
    outbox: bytearray = field(default_factory=bytearray)
    frames: Frames = field(default_factory=Frames)

    @classmethod
    def start(cls, limits: Limits, runs_code: bool) -> WorkerHandle:
        folder, mark = tempfile.mkdtemp(prefix=FOLDER_PREFIX), secrets.token_hex(16)
        errors = tempfile.TemporaryFile()
        process = subprocess.Popen(
            worker_command(limits, folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=worker_environment(folder, mark),
            cwd=folder,
            start_new_session=True,  # Ctrl-C is for the study, which then closes the pool
        )
        for stream in (process.stdin, process.stdout):
            os.set_blocking(stream.fileno(), False)
        return cls(runs_code, process, errors, folder, mark)

    def send(self) -> None:
        """Write what the pipe takes now."""
        with suppress(BlockingIOError, BrokenPipeError):  # a broken pipe also shows as end of stdout
            while self.outbox:
                del self.outbox[: os.write(self.process.stdin.fileno(), self.outbox)]

    def stop(self, patience: float) -> None:
        """Close the channel, wait `patience` seconds, then kill; afterwards nothing of it is left."""
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            clean = self.process.wait(patience) == 0
        except subprocess.TimeoutExpired:
            clean = False
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if not clean:
            kill_marked(self.mark)
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        self.complaint = self.complaint or (lines or [f"exit code {self.process.returncode}, no message"])[-1]
        self.process.stdout.close()
        self.errors.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def kill_marked(mark: str) -> None:
    """Kill all that a worker left behind when it died before it could clean up itself."""
    entry, quiet = f"{MARK}={mark}".encode(), False
    while not quiet:
        quiet = True
        for process in Path("/proc").iterdir():
            with suppress(OSError):
                if process.name.isdigit() and entry in (process / "environ").read_bytes().split(b"\0"):
                    os.kill(int(process.name), signal.SIGKILL)
                    quiet = False


def stop_all(workers: list[WorkerHandle], owner: int) -> None:
    """Stop every worker; in a forked copy of the pool's process do nothing, they are not its own."""
    if os.getpid() == owner:
        for worker in workers:
            with suppress(BrokenPipeError):
                worker.process.stdin.close()  # all at once, so that they clean up side by side
        deadline = time.monotonic() + CLOSE_SECONDS
        while workers:
            workers.pop().stop(max(0.0, deadline - time.monotonic()))
