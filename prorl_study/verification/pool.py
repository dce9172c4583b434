"""What the study calls: batches of (problem, completion) in, verdicts in the same order out.

Keeps worker processes busy, replaces those that die, remembers verdicts. What limits a single item is
enforced by the worker and its runner (see `worker`, `runner`); the pool notices a worker that dies or falls
silent, and judges again what only the wall clock ended. Workers are started by `subprocess`, never by fork,
so that a process with torch's threads can use it. Left out: anything that parses a completion.
"""

from __future__ import annotations

import hashlib
import json
import os
import selectors
import threading
import time
import warnings
import weakref
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from prorl_study.domains import DOMAINS, Problem, Verdict
from prorl_study.errors import StudyError
from prorl_study.verification.channel import READ_SIZE, pack
from prorl_study.verification.handle import CLOSE_SECONDS, Job, WorkerHandle, stop_all
from prorl_study.verification.limits import Limits
from prorl_study.verification.walls import ISOLATIONS, REMEDY, find_bwrap

DEFAULT_LIMITS = Limits()
WINDOW = 16
"""Items in a worker's hands at once: enough to hide the round trip, and to go on behind a slow program. Those
behind a slow item are given to idle workers."""
SLOW_SECONDS = 0.1
"""So long must a worker have been at one item until the others in its hands are given away."""
START_SECONDS = 120.0
SILENCE_SECONDS = 60.0
"""Beyond the wall limit: a worker may be importing scorers on a busy machine."""
Key = tuple[bytes, bytes, bool, bool]


@dataclass
class Stats:
    """Counts since the pool was opened."""

    judged: int = 0
    """Items that a worker judged."""
    cached: int = 0
    """Items answered from memory, copies within a batch included."""
    restarted: int = 0
    """Workers replaced because they died, fell silent or could not start."""
    alone: int = 0
    """Items judged a second time, alone, since the wall clock or the end of their worker had ended them."""


class VerificationPool:
    """`workers` pairs of processes that judge completions, started when the first item comes.

    `isolation` is `walls` (bubblewrap; StudyError with the remedy where that cannot be had) or `process`
    (separate processes under limits, with the user's own rights to files and network; warned about).

    Verdicts are remembered by (what the problem is judged by, text, lenient, answers): copies within a batch
    are judged once, and the `remembered` most recent verdicts are kept across calls. Judging is deterministic
    (fixed hash seed and `random` seed, CPU time for limits), so a remembered verdict equals a fresh one;
    `crashed` is not remembered, since a crash can come from outside.

    Safe to call from several threads, one batch at a time. Closed by `with`, `close`, or the end of the
    interpreter.
    """

    def __init__(
        self,
        workers: int = 2,
        limits: Limits = DEFAULT_LIMITS,
        remembered: int = 50_000,
        isolation: str = "walls",
    ) -> None:
        if workers < 1:
            raise StudyError(f"verification.workers={workers} must be at least 1; correct it.")
        if isolation not in ISOLATIONS:
            raise StudyError(f"verification.isolation={isolation!r} must be one of {', '.join(ISOLATIONS)}.")
        if isolation == "walls":
            find_bwrap()  # says at once what is missing
        else:
            warnings.warn(
                "verification.isolation is 'process': model-written programs run with your rights to files "
                "and network. Use 'walls' for models that you do not trust.",
                stacklevel=2,
            )
        self.limits, self.size, self.remembered = limits, workers, remembered
        self.isolation = isolation
        self.stats = Stats()
        self._memory: OrderedDict[Key, Verdict] = OrderedDict()
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._failed_starts = 0
        self._numbers = count()
        self._workers: list[WorkerHandle] = []
        self._finalizer = weakref.finalize(self, stop_all, self._workers, self._owner)

    def __enter__(self) -> VerificationPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers and all that they started. May be called again."""
        self._finalizer()

    def verify(
        self, items: Sequence[tuple[Problem, str]], lenient: bool = False, answers: bool = True
    ) -> list[Verdict]:
        """Verdicts in the order of `items`, each within the limits. Without `answers` they carry none, which
        saves parsing code a second time, only to spell it for a vote.

        Raises StudyError where the pool is closed, a problem's domain is unknown, or workers cannot be
        started; such a failure is never scored.
        """
        with self._lock:
            if not self._finalizer.alive or os.getpid() != self._owner:
                raise StudyError("this verification pool is closed; open a new one with `VerificationPool`.")
            keys: list[Key | None] = []
            known: dict[Key, Verdict] = {}
            jobs: dict[Key, Job] = {}
            digests: dict[int, bytes] = {}
            for problem, text in items:
                if problem.domain not in DOMAINS:
                    raise StudyError(
                        f"problem {problem.id}: domain {problem.domain!r} is unknown; "
                        f"use one of {', '.join(DOMAINS)}."
                    )
                if len(text) > self.limits.answer_chars:
                    keys.append(None)
                    continue
                if id(problem) not in digests:
                    digests[id(problem)] = self._digest(problem)
                digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
                key = (digests[id(problem)], digest, lenient, answers)
                keys.append(key)
                if key in self._memory:
                    self._memory.move_to_end(key)
                    known[key] = self._memory[key]
                elif key not in jobs:
                    jobs[key] = Job(problem, text, lenient, answers)
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

    @staticmethod
    def _digest(problem: Problem) -> bytes:
        """Of all that a verdict depends on. Raises StudyError where the problem is not plain data."""
        judged_by = [problem.domain, problem.task, problem.prompt, problem.answer, problem.checks]
        try:
            return hashlib.sha256(json.dumps(judged_by).encode()).digest()
        except (TypeError, ValueError) as error:
            raise StudyError(
                f"problem {problem.id!r}: prompt, answer and checks must be plain JSON data: {error}."
            ) from error

    def _refused(self) -> Verdict:
        return Verdict(0.0, False, "refused", f"longer than {self.limits.answer_chars} characters")

    def _judge(self, jobs: list[Job]) -> None:
        """Give every job its verdict."""
        while jobs and len(self._workers) < self.size:
            self._workers.append(WorkerHandle.start(self.limits, self.isolation))
        now = time.monotonic()
        for worker in self._workers:
            worker.heard = now if worker.ready else worker.heard
        try:
            self._run(deque(jobs))
            for job in jobs:
                if job.verdict is None or job.verdict.backstop:
                    # Another item, or a busy machine, may have been the cause: again, with nothing beside it.
                    self.stats.alone += 1
                    self._run(deque([job]))
        except BaseException:  # also Ctrl-C: half-judged items must not answer a later batch
            for worker in [w for w in self._workers if w.jobs]:
                self._restart(worker)
                worker.stop(patience=CLOSE_SECONDS)
            raise

    def _run(self, waiting: deque[Job]) -> None:
        """Until every waiting job has a verdict, or has lost its worker."""
        while waiting or any(worker.jobs for worker in self._workers):
            self._hand_out(waiting)
            with selectors.DefaultSelector() as selector:
                for worker in self._workers:
                    selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
                    if worker.outbox:
                        selector.register(worker.process.stdin, selectors.EVENT_WRITE, worker)
                ready = selector.select(timeout=self._patience())
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

    def _patience(self) -> float:
        """Seconds: short while an idle worker might take over items from one that is slow."""
        idle = any(not worker.jobs for worker in self._workers)
        return SLOW_SECONDS if idle and any(len(worker.jobs) > 1 for worker in self._workers) else 1.0

    def _restart(self, worker: WorkerHandle) -> None:
        """Put a fresh worker in the place of `worker`."""
        self._workers[self._workers.index(worker)] = WorkerHandle.start(self.limits, self.isolation)

    def _hand_out(self, waiting: deque[Job]) -> None:
        """Fill the workers' hands, one item each in turn, so that a small batch is spread."""
        now = time.monotonic()
        for worker in self._workers:
            if not waiting and any(other.ready and not other.jobs for other in self._workers):
                self._take_back(worker, now, waiting)
        for _ in range(WINDOW):
            for worker in self._workers:
                slow = worker.jobs and now - worker.began > SLOW_SECONDS
                if waiting and worker.ready and not slow and len(worker.jobs) < WINDOW:
                    job = waiting.popleft()
                    if not worker.jobs:
                        worker.heard = worker.began = now
                    job.number = next(self._numbers)
                    worker.jobs.append(job)
                    worker.outbox += pack(job.message())
        for worker in self._workers:
            worker.send()

    @staticmethod
    def _take_back(worker: WorkerHandle, now: float, waiting: deque[Job]) -> None:
        """Put what a slow worker has in its hands, but for the first, back in the queue."""
        if len(worker.jobs) < 2 or now - worker.began < SLOW_SECONDS:
            return
        taken = list(worker.jobs)[1:]
        worker.dropped.update(job.number for job in taken)
        worker.outbox += pack({"forget": [job.number for job in taken]})
        worker.jobs = deque([worker.jobs[0]])
        waiting.extend(taken)

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
                number = message.pop("item")
                if number in worker.dropped:
                    worker.dropped.remove(number)
                    continue
                if not worker.jobs or number != worker.jobs[0].number:
                    return False
                worker.jobs.popleft().verdict = Verdict(**message)
                worker.began = worker.heard
                self._failed_starts = 0
        return bool(data)

    def _is_silent(self, worker: WorkerHandle) -> bool:
        if worker.ready and not worker.jobs:
            return False
        patience = self.limits.wall_seconds + SILENCE_SECONDS if worker.ready else START_SECONDS
        return time.monotonic() - worker.heard > patience

    def _replace(self, worker: WorkerHandle, waiting: deque[Job]) -> None:
        """Stop a worker that is of no use any more and start another. Any item in its hands may have been the
        cause: each is judged again, alone and after all others, and is `crashed` if that ends a worker too.
        """
        failed = bool(worker.complaint) or not worker.ready
        self._restart(worker)
        worker.stop(patience=1.0 if failed else 0.0)
        self.stats.restarted += 1
        self._failed_starts += failed
        if self._failed_starts > self.size:
            self._failed_starts = 0
            remedy = f"repair the environment; if its walls cannot be built, {REMEDY}"
            raise StudyError(f"verification workers cannot start: {worker.complaint}; {remedy}.")
        if failed:
            waiting.extendleft(reversed(worker.jobs))
            return
        for job in worker.jobs:
            if job.suspect:
                job.verdict = Verdict(0.0, False, "crashed", "ended its worker twice")
            job.suspect = True
