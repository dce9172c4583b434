"""What the study calls: batches of (problem, completion) in, verdicts in the same order out.

Keeps worker processes busy, replaces those that die, remembers verdicts. What limits a single item is
enforced by the worker (see `worker`); the pool only notices a worker that dies or falls silent.
Workers are started by `subprocess`, never by fork, so that a process with torch's threads can use it.
Left out: any isolation beyond separate processes (see `handle.worker_command`).
"""

from __future__ import annotations

import hashlib
import os
import selectors
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from prorl_study.domains import DOMAINS, Problem, Verdict
from prorl_study.errors import StudyError
from prorl_study.verification.channel import READ_SIZE, pack
from prorl_study.verification.handle import CLOSE_SECONDS, Job, WorkerHandle, stop_all
from prorl_study.verification.limits import Limits

DEFAULT_LIMITS = Limits()
WINDOW = 4
"""Items in a worker's hands at once: enough to hide the round trip, few enough that those behind a slow
item do not wait long."""
START_SECONDS = 120.0
SILENCE_SECONDS = 60.0
"""Beyond the wall limit: a worker may be importing scorers on a busy machine."""


@dataclass
class Stats:
    """Counts since the pool was opened."""

    judged: int = 0
    """Items that a worker judged."""
    cached: int = 0
    """Items answered from memory, copies within a batch included."""
    restarted: int = 0
    """Workers replaced because they died, fell silent or could not start."""


class VerificationPool:
    """Worker processes that judge completions: `workers` for code, as many for all else, started when the
    first item of their kind comes.

    Verdicts are remembered by (problem id, text, lenient): copies within a batch are judged once, and
    the `remembered` most recent verdicts are kept across calls. Judging is deterministic (fixed hash
    seed and `random` seed, CPU time for limits), so a remembered verdict equals a fresh one; `crashed`
    is not remembered, since a crash can come from outside.

    Safe to call from several threads, one batch at a time. Closed by `with`, `close`, or the end of the
    interpreter.
    """

    def __init__(self, workers: int = 2, limits: Limits = DEFAULT_LIMITS, remembered: int = 50_000) -> None:
        if workers < 1:
            raise StudyError(f"verification_workers={workers} must be at least 1; correct it.")
        self.limits, self.size, self.remembered = limits, workers, remembered
        self.stats = Stats()
        self._memory: OrderedDict[tuple[str, bytes, bool], Verdict] = OrderedDict()
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._failed_starts = 0
        self._workers: list[WorkerHandle] = []
        self._finalizer = weakref.finalize(self, stop_all, self._workers, self._owner)

    def __enter__(self) -> VerificationPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers and all that they started. May be called again."""
        self._finalizer()

    def verify(self, items: Sequence[tuple[Problem, str]], lenient: bool = False) -> list[Verdict]:
        """Verdicts in the order of `items`, each within the limits.

        Raises StudyError where the pool is closed, a problem's domain is unknown, or workers cannot be
        started; such a failure is never scored.
        """
        with self._lock:
            if not self._finalizer.alive or os.getpid() != self._owner:
                raise StudyError("this verification pool is closed; open a new one with `VerificationPool`.")
            keys: list[tuple[str, bytes, bool] | None] = []
            known: dict[tuple[str, bytes, bool], Verdict] = {}
            jobs: dict[tuple[str, bytes, bool], Job] = {}
            for problem, text in items:
                if problem.domain not in DOMAINS:
                    raise StudyError(
                        f"problem {problem.id}: domain {problem.domain!r} is unknown; "
                        f"use one of {', '.join(DOMAINS)}."
                    )
                if len(text) > self.limits.answer_chars:
                    keys.append(None)
                    continue
                digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
                key = (problem.id, digest, lenient)
                keys.append(key)
                if key in self._memory:
                    self._memory.move_to_end(key)
                    known[key] = self._memory[key]
                elif key not in jobs:
                    jobs[key] = Job(problem, text, lenient)
            self._judge(list(jobs.values()))
            for key, job in jobs.items():
                known[key] = job.verdict
                if job.verdict.status != "crashed":
                    self._memory[key] = job.verdict
            while len(self._memory) > self.remembered:
                self._memory.popitem(last=False)
            self.stats.judged += len(jobs)
            self.stats.cached += len(keys) - keys.count(None) - len(jobs)
            return [self._refused() if key is None else known[key] for key in keys]

    def _refused(self) -> Verdict:
        return Verdict(0.0, False, "refused", f"longer than {self.limits.answer_chars} characters")

    def _judge(self, jobs: list[Job]) -> None:
        """Give every job its verdict."""
        waiting = {kind: deque(job for job in jobs if job.runs_code == kind) for kind in (True, False)}
        for kind in (True, False):
            if waiting[kind] and all(worker.runs_code != kind for worker in self._workers):
                self._workers += [WorkerHandle.start(self.limits, kind) for _ in range(self.size)]
        now = time.monotonic()
        for worker in self._workers:
            worker.heard = now if worker.ready else worker.heard
        try:
            while any(waiting.values()) or any(worker.jobs for worker in self._workers):
                self._hand_out(waiting)
                with selectors.DefaultSelector() as selector:
                    for worker in self._workers:
                        selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
                        if worker.outbox:
                            selector.register(worker.process.stdin, selectors.EVENT_WRITE, worker)
                    ready = selector.select(timeout=1.0)
                for key, event in ready:
                    if key.data not in self._workers:
                        continue  # replaced a moment ago, for another of its events
                    if event & selectors.EVENT_WRITE:
                        key.data.send()
                    elif not self._receive(key.data):
                        self._replace(key.data, waiting)
                for worker in list(self._workers):
                    if self._is_silent(worker):
                        self._replace(worker, waiting)
        except BaseException:  # also Ctrl-C: half-judged items must not answer a later batch
            for worker in [w for w in self._workers if w.jobs]:
                self._restart(worker)
                worker.stop(patience=CLOSE_SECONDS)
            raise

    def _restart(self, worker: WorkerHandle) -> None:
        """Put a fresh worker of the same kind in the place of `worker`."""
        self._workers[self._workers.index(worker)] = WorkerHandle.start(self.limits, worker.runs_code)

    def _hand_out(self, waiting: dict[bool, deque[Job]]) -> None:
        """Fill the workers' hands, one item each in turn, so that a small batch is spread."""
        for _ in range(WINDOW):
            for worker in self._workers:
                if waiting[worker.runs_code] and worker.ready and len(worker.jobs) < WINDOW:
                    job = waiting[worker.runs_code].popleft()
                    if not worker.jobs:
                        worker.heard = time.monotonic()
                    worker.jobs.append(job)
                    worker.outbox += pack(job.message())
        for worker in self._workers:
            worker.send()

    def _receive(self, worker: WorkerHandle) -> bool:
        """Take in what the worker wrote; False where it can no longer be used."""
        try:
            data = os.read(worker.process.stdout.fileno(), READ_SIZE)
            messages = worker.frames.feed(data)
        except BlockingIOError:
            return True
        except ValueError:
            return False
        worker.heard = time.monotonic()
        for message in messages:
            if "ready" in message:
                worker.ready = True
            elif "broken" in message:
                worker.complaint = message["broken"]
                return False
            else:
                if not worker.jobs or message.pop("item") != id(worker.jobs[0]):
                    return False
                worker.jobs.popleft().verdict = Verdict(**message)
                self._failed_starts = 0
        return bool(data)

    def _is_silent(self, worker: WorkerHandle) -> bool:
        if worker.ready and not worker.jobs:
            return False
        patience = self.limits.wall_seconds + SILENCE_SECONDS if worker.ready else START_SECONDS
        return time.monotonic() - worker.heard > patience

    def _replace(self, worker: WorkerHandle, waiting: dict[bool, deque[Job]]) -> None:
        """Stop a worker that is of no use any more, start another, and queue its items again.

        Items are judged in order, so the first without a verdict is the one that it died of: it gets one
        more attempt, then it is `crashed`. The others are innocent.
        """
        failed = bool(worker.complaint) or not worker.ready
        self._restart(worker)
        worker.stop(patience=1.0 if failed else 0.0)
        self.stats.restarted += 1
        self._failed_starts += failed
        if self._failed_starts > self.size:
            self._failed_starts = 0
            raise StudyError(
                f"verification workers cannot start: {worker.complaint}; repair the environment."
            )
        if worker.jobs and not failed:
            guilty = worker.jobs[0]
            guilty.deaths += 1
            if guilty.deaths > 1:
                guilty.verdict = Verdict(0.0, False, "crashed", "ended its worker twice")
                worker.jobs.popleft()
        waiting[worker.runs_code].extendleft(reversed(worker.jobs))
