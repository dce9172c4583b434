"""The process that judges: reads items from stdin, has a fork judge them, watches it, writes verdicts.

Four kinds of processes. The *pool* (the study) never parses what a model wrote. The *worker* (this process,
behind walls) is single-threaded, has the scorers imported and never touches model output either. Its *forks*
judge: a standing fork serves many items, so that a hanging or crashing item costs one fork (milliseconds),
not a worker (a second of imports); where a scorer would evaluate the answer as code, the item gets a fork of
its own (`prorl_study.judges.fresh`). Model-written programs are run by neither, but by forks of two *runners*
(`runner`), which stand behind other walls and know no expected output; one program runs on each.

Covered: CPU time, wall time, memory, processes, open files and file size of a fork; no inherited
descriptors, standard streams on /dev/null, a scrubbed environment; leftovers are killed even where they left
the process group (the worker is their subreaper); an early exit or bytes written without the fork's nonce
give no score. Not covered: a scorer that executes an answer in its fork in spite of its guard could forge
that one verdict, though not leave the walls.
"""

from __future__ import annotations

import gc
import json
import os
import random
import secrets
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from typing import Any

from prorl_study.domains import DOMAINS, Domain, Problem, Verdict
from prorl_study.judges import fresh, programs
from prorl_study.verification.channel import LENGTH, READ_SIZE, Inbox, pack, write_all
from prorl_study.verification.limits import Limits
from prorl_study.verification.processes import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    PR_SET_PDEATHSIG,
    allow_cpu,
    confine,
    end_children,
    limit_files,
    mapped_bytes,
    own_children,
    prctl,
    total,
    tree,
    usage,
)

PIPE_BYTES = 60_000
"""Items that a fork has not answered yet are no longer than this together, but for the first: then they fit
into the pipe, and writing to it never waits."""
TICK_SECONDS = 0.02
"""How often a running item's CPU time and processes are counted; a cheap item ends before the first."""
RUNNER_GRACE_SECONDS = 10.0
"""Beyond the wall limit, until a runner that answers nothing is given up."""
ITEMS_PER_FORK = 1000
"""Then a fork is replaced, so that what scorers cache cannot grow for ever."""
REASON_CHARS = 300
ANSWER_CHARS = 4000
"""Of the extracted answer that a verdict carries for votes."""


class StudyEnded(BaseException):
    """The pool closed the channel or died: stop judging and clean up."""


def verdict(status: str, reason: str, **more: Any) -> dict[str, Any]:
    return {"score": 0.0, "solved": False, "status": status, "reason": reason[:REASON_CHARS], **more}


# --- in the fork ---------------------------------------------------------------------------------


def judge(item: dict[str, Any]) -> Generator[programs.Wait, None, dict[str, Any]]:
    """Run the domain's verifier, in a fork only; yields what it waits for and returns the reply. Whatever
    escapes from the verifier becomes `crashed`."""
    started = time.process_time()
    try:
        domain, question = DOMAINS[item["problem"]["domain"]], Problem(**item["problem"])
        if domain.steps is not None:
            found = yield from domain.steps(question, item["text"], item["lenient"])
            answer = domain.extract(item["text"], item["lenient"]) if item["answers"] else None
        else:
            found = domain.verify(question, item["text"], item["lenient"])
            answer = found.answer if item["answers"] else None
    except fresh.NeedsFreshFork:
        return {"again": "in a fork of its own"}
    except programs.RunnerGone:
        return {"gone": "the runner"}
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"
        return verdict("crashed", reason, cpu_seconds=time.process_time() - started, escaped=True)
    reply = {
        **vars(found),
        "score": float(found.score),
        "solved": bool(found.solved),
        "reason": found.reason[:REASON_CHARS],
        "answer": None if answer is None else answer[:ANSWER_CHARS],
    }
    reply["cpu_seconds"] = found.cpu_seconds or time.process_time() - started
    return reply


class Judgement:
    """One item on its way through `judge`."""

    def __init__(self, item: dict[str, Any]) -> None:
        self.steps = judge(item)
        self.waits_for: programs.Wait | None = None
        self.reply: dict[str, Any] | None = None
        self.go_on()

    def go_on(self) -> None:
        """Up to where it waits next, or to its reply."""
        try:
            self.waits_for = next(self.steps)
        except StopIteration as end:
            self.waits_for, self.reply = None, end.value


class Judgements:
    """Those that a fork has begun, in the order of their items. Programs run side by side, one on each
    runner; whichever has its answers goes on first, and replies are given in order."""

    def __init__(self, inbox: Inbox, runners: int, limits: Limits) -> None:
        self.inbox, self.runners, self.limits = inbox, runners, limits
        self.begun = deque[Judgement]()

    def replies(self) -> Iterator[dict[str, Any]]:
        """Until the worker closes the channel."""
        while self.advance():
            while self.begun and self.begun[0].reply is not None:
                yield self.begun.popleft().reply

    def advance(self) -> bool:
        """One step of one judgement; False at the end."""
        waiting = [(each, each.waits_for) for each in self.begun if each.waits_for is not None]
        free = sum(wait.runs for _, wait in waiting) < self.runners
        if free and (again := next((each for each, wait in waiting if wait.program is None), None)):
            again.go_on()
        elif free and (item := self.inbox.next(wait=not self.begun)) is not None:
            allow_cpu(self.limits)
            self.begun.append(Judgement(item))
        elif ready := next((each for each, wait in waiting if wait.is_over()), None):
            ready.go_on()
        elif self.begun and not self.inbox.closed:
            self.wait([wait for _, wait in waiting], free)
        else:
            return False
        return True

    def wait(self, waits: Sequence[programs.Wait], free: bool) -> None:
        """Until a program answers or its end is reported, or, where a runner is free, another item comes."""
        poll = select.poll()
        for wait in waits:
            if wait.runs:
                poll.register(wait.program.channel, select.POLLIN)
            if wait.program is not None:
                poll.register(wait.program.slot.control, select.POLLIN)
        if free:
            poll.register(self.inbox.descriptor, select.POLLIN)
        poll.poll()


def serve(
    requests: int,
    replies: int,
    runners: Sequence[int],
    nonce: bytes,
    limits: Limits,
    user_tasks: int,
    once: bool,
) -> None:
    """Life of a fork: its own session, nothing open but its channels, judge until the pipe closes."""
    os.setsid()
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    count = 2 + len(runners)
    for number, descriptor in enumerate((requests, replies, *runners), 100):
        os.dup2(descriptor, number)
    os.dup2(os.open(os.devnull, os.O_RDWR), 2)
    os.closerange(3, 100)
    os.closerange(100 + count, 1 << 20)
    requests, replies, *runners = (os.dup2(100 + n, 3 + n) for n in range(count))
    os.closerange(3 + count, 100 + count)
    try:
        confine(limits, user_tasks, mapped_bytes())
        limit_files(limits.output_bytes)
        programs.connect(runners)
    except (OSError, ValueError) as error:  # our failure, never the answer's
        write_all(replies, nonce + pack({"broken": f"cannot confine a fork: {error}"}))
        return
    except programs.RunnerGone:
        write_all(replies, nonce + pack({"gone": "the runner"}))
        return
    if once:
        fresh.enter_throwaway_fork()
    random.seed(0)
    gc.set_threshold(50_000)  # parsing an answer makes thousands of objects and hardly a cycle
    me = os.getpid()
    for reply in Judgements(Inbox(requests), len(runners), limits).replies():
        if os.getpid() != me:  # a copy that an evaluated answer made of its process
            return
        write_all(replies, nonce + pack(reply))


# --- in the worker -------------------------------------------------------------------------------


class Fork:
    """A child of the worker that judges items one after another."""

    def __init__(self, limits: Limits, user_tasks: int, runners: Sequence[int], once: bool) -> None:
        self.limits, self.served, self.spent = limits, 0, False
        self.handed, self.received = deque[int](), bytearray()
        self.nonce = secrets.token_bytes(16)
        requests, self.requests = os.pipe()
        self.replies, replies = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                serve(requests, replies, runners, self.nonce, limits, user_tasks, once)
            finally:  # never back into the worker's own stack
                os._exit(1)
        os.close(requests)
        os.close(replies)

    def hand(self, item: dict[str, Any]) -> None:
        """Send it an item, which it judges after those that it has."""
        body = item["body"].encode("ascii")
        self.handed.append(item["item"])
        with suppress(BrokenPipeError):
            write_all(self.requests, LENGTH.pack(len(body)) + body)

    def reply(self, wall_seconds: float, channel: int) -> dict[str, Any] | None:
        """What it says of the first item in its hands; None where it died by a signal that nobody here sent.

        Afterwards `spent` says that it cannot be asked again. Raises StudyEnded when `channel` hangs up.
        """
        self.served, self.spent = self.served + 1, True
        self.handed.popleft()
        started = checked = time.monotonic()
        cpu_before = usage(self.pid).cpu if self.served > 1 else 0.0
        poll = select.poll()
        poll.register(self.replies, select.POLLIN)
        poll.register(channel, 0)  # hang-up only
        while (reply := self.parse()) is None:
            for descriptor, _ in poll.poll(TICK_SECONDS * 1000):
                if descriptor == channel:
                    raise StudyEnded
                data = os.read(self.replies, READ_SIZE)
                if not data:
                    return self.obituary(cpu_before)
                self.received += data
            now = time.monotonic()
            if now - checked < TICK_SECONDS:
                continue
            checked = now
            if (reply := self.watch(cpu_before, now - started, wall_seconds)) is not None:
                return reply
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) and not poll.poll(0):
                return self.obituary(cpu_before)  # dead, but something that it started holds the pipe
        return reply

    def parse(self) -> dict[str, Any] | None:
        """The next reply once it is complete. Raises RuntimeError where the fork could not be confined."""
        start = len(self.nonce)
        if not self.nonce.startswith(self.received[:start]):
            return verdict("crashed", "wrote to the channel of the verdict")
        body = self.received[start:]
        if len(body) < LENGTH.size or len(body) < (end := LENGTH.size + LENGTH.unpack_from(body)[0]):
            return None
        del self.received[: start + end]
        try:
            reply = json.loads(body[LENGTH.size : end])
            if not {"broken", "gone", "again"} & set(reply):
                self.spent = bool(reply.pop("escaped", False))
                Verdict(**reply)
        except (ValueError, TypeError, AssertionError):
            return verdict("crashed", "wrote to the channel of the verdict")
        if "broken" in reply:
            raise RuntimeError(reply["broken"])
        return reply

    def watch(self, cpu_before: float, seconds: float, wall_seconds: float) -> dict[str, Any] | None:
        """A verdict if the item is over a limit by now."""
        used = total(map(usage, tree(own_children())))
        cpu = used.cpu - cpu_before
        if cpu > self.limits.cpu_seconds:
            return verdict("timeout", f"over {self.limits.cpu_seconds:g} s of CPU time", cpu_seconds=cpu)
        if used.tasks > self.limits.processes:
            return verdict("crashed", f"over {self.limits.processes} processes", cpu_seconds=cpu)
        if seconds > wall_seconds:
            return verdict("timeout", f"no verdict after {seconds:.0f} s", cpu_seconds=cpu, backstop=True)
        return None

    def obituary(self, cpu_before: float) -> dict[str, Any] | None:
        """What the fork's end without a verdict means. Leaves the fork unreaped."""
        end = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        used = usage(self.pid).cpu - cpu_before
        if end.si_code == os.CLD_EXITED:
            return verdict("crashed", "ended its process before the verdict", cpu_seconds=used)
        if end.si_status == signal.SIGXCPU or used > self.limits.cpu_seconds:
            return verdict("timeout", f"over {self.limits.cpu_seconds:g} s of CPU time", cpu_seconds=used)
        return None

    def retire(self) -> None:
        """Kill the fork and whatever it left; give back descriptors."""
        end_children()
        os.close(self.requests)
        os.close(self.replies)


class Worker:
    """Judges the items of one channel in order."""

    def __init__(
        self, limits: Limits, user_tasks: int, runners: Sequence[int], commands: int, replies: int
    ) -> None:
        self.limits, self.user_tasks, self.runners = limits, user_tasks, runners
        self.commands, self.replies = commands, replies
        self.inbox, self.waiting, self.forgotten = Inbox(commands), deque[dict[str, Any]](), set[int]()
        self.warm: set[str] = set()
        self.standing: Fork | None = None

    def run(self) -> None:
        """Until the pool closes the channel."""
        gc.freeze()  # keeps the collector of every fork from copying the shared pages
        write_all(self.replies, pack({"ready": True}))
        while item := self.next_item():
            self.warm_up(DOMAINS[item["domain"]])
            found = self.judge(item, self.followers(item))
            found = found or self.judge(item) or self.judge(item)  # a stray signal: once more
            found = found or verdict("crashed", "killed by a signal")
            write_all(self.replies, pack({"item": item["item"], **found}))

    def collect(self, wait: bool) -> bool:
        """Take in what the pool has sent; with `wait`, at least something. False where it has hung up."""
        going_on = self.inbox.collect(wait)
        for message in self.inbox.messages:
            if "forget" in message:
                self.forgotten.update(message["forget"])
            else:
                self.waiting.append(message)
        self.inbox.messages.clear()
        return going_on

    def next_item(self) -> dict[str, Any] | None:
        """The next item that the pool has not given to another worker meanwhile; None at the end."""
        while self.collect(wait=not self.waiting):
            while self.waiting:
                item = self.waiting.popleft()
                forgotten = item["item"] in self.forgotten
                self.forgotten.discard(item["item"])
                if not forgotten or self.has(item):
                    return item
        return None

    def has(self, item: dict[str, Any]) -> bool:
        """Whether the standing fork has begun with it: then it answers, though the pool drop the verdict."""
        return self.standing is not None and item["item"] in self.standing.handed

    def followers(self, item: dict[str, Any]) -> list[dict[str, Any]]:
        """The items behind this one whose programs can begin before its verdict is there."""
        if not DOMAINS[item["domain"]].runs_code:
            return []
        self.collect(wait=False)

        found, room = [], PIPE_BYTES - len(item["body"])
        for other in self.waiting:
            room -= len(other["body"])
            if room < 0 or not DOMAINS[other["domain"]].runs_code or other["item"] in self.forgotten:
                break
            found.append(other)
        return found

    def warm_up(self, domain: Domain) -> None:
        """Import the domain's scorers once, here, by judging an embedded problem's own solution.

        Domains that run code are left out: they have no scorers to import, and the runner is the forks'.
        """
        if domain.name in self.warm or domain.runs_code:
            return
        problem = domain.generate(0, "validation", 0)
        domain.verify(problem, domain.solve(problem), False)
        self.warm.add(domain.name)
        self.retire_standing()  # it was forked before the import
        gc.freeze()

    def judge(self, item: dict[str, Any], followers: Sequence[dict[str, Any]] = ()) -> dict[str, Any] | None:
        """One attempt at one item. None where its fork died by a stray signal, or where it had others in its
        hands as well, and it is not certain which of them ended it."""
        if self.standing is None:
            self.standing = Fork(self.limits, self.user_tasks, self.runners, once=False)
        for each in (item, *followers):
            if not self.has(each):
                self.standing.hand(each)
        found = self.ask(self.standing, item)
        if found is not None and "again" in found:
            self.retire_standing()  # two forks must not speak to the runners at once
            fork = Fork(self.limits, self.user_tasks, self.runners, once=True)
            try:
                fork.hand(item)
                return self.ask(fork, item)
            finally:
                fork.retire()
        if found is None or self.standing.spent or self.standing.served >= ITEMS_PER_FORK:
            uncertain = self.standing.spent and self.standing.handed
            self.retire_standing()
            return None if uncertain else found
        return found

    def ask(self, fork: Fork, item: dict[str, Any]) -> dict[str, Any] | None:
        """The fork's reply. Raises RunnerGone where the runner gives none any more."""
        runs_code = DOMAINS[item["domain"]].runs_code
        grace = RUNNER_GRACE_SECONDS if runs_code else 0.0
        found = fork.reply(self.limits.wall_seconds + grace, self.commands)
        stuck = found is not None and runs_code and fork.spent and found.get("backstop")
        if stuck or (found is not None and "gone" in found):
            raise programs.RunnerGone
        return found

    def retire_standing(self) -> None:
        if self.standing is not None:
            self.standing.retire()
            self.standing = None


def main() -> None:
    """`python -m prorl_study.verification.worker LIMITS_AS_JSON USER_TASKS RUNNERS`: the pool is on stdin and
    stdout, the runners' sockets on the descriptors RUNNERS, as in `5,6`.

    A failure of the worker itself (an import, a missing kernel feature) is reported as a message
    `{"broken": ...}`, so that the pool never mistakes it for an answer's fault.
    """

    def on_term(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # nothing may interrupt the cleaning up
        raise StudyEnded

    signal.signal(signal.SIGTERM, on_term)
    commands, replies = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # a copy of the study's process may hold the pipe open
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        prctl(PR_SET_DUMPABLE, 0)
        limits, user_tasks = Limits(**json.loads(sys.argv[1])), int(sys.argv[2])
        runners = [int(descriptor) for descriptor in sys.argv[3].split(",")]
        Worker(limits, user_tasks, runners, commands, replies).run()
    except (StudyEnded, BrokenPipeError):
        pass
    except programs.RunnerGone:
        sys.exit("the runner of programs is gone")
    except Exception as error:
        write_all(replies, pack({"broken": f"{type(error).__name__}: {error}"[:REASON_CHARS]}))
        raise
    finally:
        end_children()


if __name__ == "__main__":
    main()
