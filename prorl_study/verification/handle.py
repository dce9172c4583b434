"""The study's end of one worker and its runners: their command lines, their start and their end.

Nothing here knows of batches, and nothing parses what a model wrote.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any

import prorl_study
from prorl_study.domains import Problem, Verdict
from prorl_study.verification.channel import Frames
from prorl_study.verification.limits import Limits
from prorl_study.verification.processes import tasks_of_user
from prorl_study.verification.walls import SCRATCH, behind_walls, system_call_filter

CLOSE_SECONDS = 3.0
RUNNERS = 2
"""Per worker; see `prorl_study.judges.programs.RunnerClient`."""
FOLDER_PREFIX = "prorl-verification-"
"""How the name of the folder begins that a worker without walls has for itself."""
MARK = "PRORL_VERIFICATION_WORKER"
"""Variable in the environment of a worker and all that it starts, by which leftovers are found."""


def module_command(module: str, *arguments: str) -> list[str]:
    """Runs a module of this package: no user site, nothing imported from the working folder.

    Not `-I`: it would also ignore PYTHONHASHSEED, and the order of a set must not differ between workers.
    The runner goes without `site` and what .pth files import: each page that it has makes its forks dearer.
    """
    lean = ["-S"] if module == "runner" else []
    return [sys.executable, *lean, "-s", "-P", "-m", f"prorl_study.verification.{module}", *arguments]


def packages() -> str:
    """The folders of installed packages on this process's path, as JSON."""
    return json.dumps([p for p in sys.path if Path(p).name in ("site-packages", "dist-packages")])


def environment(folder: str, mark: str) -> dict[str, str]:
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
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(Path(prorl_study.__file__).resolve().parents[1]),  # a source tree works as well
        MARK: mark,
    }


@cache
def _starter(process: int) -> ThreadPoolExecutor:
    """The thread that starts workers in this process (and not in a fork of it). It lives as long as the
    process does: the kernel ends a worker when the *thread* that started it ends."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="verification-starter")


def start_process(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """Popen, from the thread that stays."""
    start: Callable[[], subprocess.Popen[bytes]] = lambda: subprocess.Popen(  # noqa: E731
        command,
        start_new_session=True,  # Ctrl-C is for the study, which then closes the pool
        **options,
    )
    return _starter(os.getpid()).submit(start).result()


@dataclass(eq=False)
class Job:
    """One distinct item of a batch."""

    problem: Problem
    text: str
    lenient: bool
    answers: bool
    number: int = -1
    """Another one each time that it is handed to a worker."""
    suspect: bool = False
    """Whether a worker ended with it in its hands."""
    verdict: Verdict | None = None

    @property
    def domain(self) -> str:
        return self.problem.domain

    def message(self) -> dict[str, Any]:
        """The inner part goes on to a fork as it is, unread by the worker."""
        body = {"problem": vars(self.problem), "text": self.text}
        body |= {"lenient": self.lenient, "answers": self.answers}
        body = json.dumps(body, separators=(",", ":"))
        return {"item": self.number, "domain": self.domain, "body": body}


@dataclass(eq=False)
class WorkerHandle:
    """The pool's end of one worker; its `runners` execute the programs that it judges."""

    process: subprocess.Popen[bytes]
    runners: list[subprocess.Popen[bytes]]
    errors: IO[bytes]
    folder: str | None
    """The only place to write, where there are no walls."""
    mark: str
    heard: float = field(default_factory=time.monotonic)
    began: float = 0.0
    """When the first of `jobs` came into its hands, or became the first."""
    ready: bool = False
    complaint: str = ""
    """Its last words once it is stopped."""
    jobs: deque[Job] = field(default_factory=deque)
    dropped: set[int] = field(default_factory=set)
    """Items that were given to another worker meanwhile."""
    outbox: bytearray = field(default_factory=bytearray)
    frames: Frames = field(default_factory=Frames)

    @classmethod
    def start(cls, limits: Limits, isolation: str) -> WorkerHandle:
        """Raises StudyError where `isolation` is `walls` and there is no bubblewrap."""
        walls, mark = isolation == "walls", secrets.token_hex(16)
        folder = None if walls else tempfile.mkdtemp(prefix=FOLDER_PREFIX)
        inside = folder or SCRATCH
        variables = environment(inside, mark)
        settings, tasks = json.dumps(asdict(limits)), str(tasks_of_user())
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(RUNNERS)]

        errors = tempfile.TemporaryFile()
        options = {"stderr": errors, "env": variables, "cwd": folder or "/"}

        def start(
            module: str, *arguments: str, passed: Sequence[int] = (), **streams: Any
        ) -> subprocess.Popen[bytes]:
            command = module_command(module, *arguments)
            with open(os.memfd_create("filter"), "w+b", buffering=0) as filter_file:
                filter_file.write(system_call_filter())
                filter_file.seek(0)
                if walls:
                    command = behind_walls(command, variables, filter_file.fileno())
                    passed = [*passed, filter_file.fileno()]
                return start_process(command, pass_fds=passed, **streams, **options)

        runners = []
        for number, (_, theirs) in enumerate(pairs):
            own = inside if walls else os.path.join(inside, str(number))
            os.makedirs(own, exist_ok=True)
            arguments = settings, tasks, own, packages()
            runners.append(start("runner", *arguments, stdin=theirs, stdout=subprocess.DEVNULL))
            theirs.close()
        descriptors = [ours.fileno() for ours, _ in pairs]
        process = start(
            "worker",
            settings,
            tasks,
            ",".join(map(str, descriptors)),
            passed=descriptors,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for ours, _ in pairs:
            ours.close()
        for stream in (process.stdin, process.stdout):
            os.set_blocking(stream.fileno(), False)
        return cls(process, runners, errors, folder, mark)

    def send(self) -> None:
        """Write what the pipe takes now."""
        with suppress(BlockingIOError, BrokenPipeError):  # a broken pipe also shows as end of stdout
            while self.outbox:
                del self.outbox[: os.write(self.process.stdin.fileno(), self.outbox)]

    def stop(self, patience: float) -> None:
        """Close the channel, wait `patience` seconds, then kill; afterwards nothing of it is left."""
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        clean, deadline = True, time.monotonic() + patience
        for process in (self.process, *self.runners):  # a runner ends when its worker is gone
            try:
                clean &= process.wait(max(0.0, deadline - time.monotonic())) == 0
            except subprocess.TimeoutExpired:
                clean = False
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if not clean and self.folder is not None:  # walls fall together with all that is behind them
            kill_marked(self.mark)
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        self.complaint = self.complaint or (lines or [f"exit code {self.process.returncode}, no message"])[-1]
        self.process.stdout.close()
        self.errors.close()
        if self.folder is not None:
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
