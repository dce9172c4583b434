"""The judge's end of a running program: start it, send it calls or inputs, take plain values back.

The program itself runs elsewhere, forked by a runner behind walls of its own
(`prorl_study.verification.runner`). Its fork reads from one end of a pair of sockets that is made here for it
alone, so neither a daemon of an earlier program nor the program's own output can answer in its place.
Left out: what the answers are compared with (`code`).
"""

from __future__ import annotations

import json
import os
import select
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

from prorl_study.verification.channel import READ_SIZE, Frames, pack

REPLY_BYTES = 1 << 22
"""A longer reply is no reply; the runner's limit on output is far below."""
REPORT_BYTES = 4096


class RunnerGone(Exception):
    """The runner died: its worker must be replaced."""


@dataclass(frozen=True)
class Wait:
    """What a judgement waits for: its program's answers; the report of how the program ended; or, without a
    program, a runner that is free."""

    program: Program | None = None
    ended: bool = False

    @property
    def runs(self) -> bool:
        """Whether the program occupies a runner."""
        return self.program is not None and not self.ended

    def is_over(self) -> bool:
        """Whether the program has answered, or has been reported. A free runner is for others to see."""
        if self.program is None:
            return False
        if self.ended:
            return self.program.slot.has_report(self.program.number)
        return self.program.has_answered()


class ProgramGone(BaseException):
    """The program ended, or was ended, before it answered. Not an Exception, so that no `except` of a
    test's own code takes it for the program's error."""


@dataclass(frozen=True)
class Report:
    """How a program ended, as the runner saw it."""

    why: str
    """`done` where the judge ended it; else `cpu`, `wall`, `processes`, `memory`, `exit` or `signal`."""
    cpu: float
    """CPU seconds of the program and all that it started."""


class Program:
    """One program under judgement, from `RunnerClient.start` to the end of a `with` block, which ends it too;
    `report` then says how. A program that ends before leaves the block by `ProgramGone`, which goes no
    further."""

    def __init__(self, number: str, channel: socket.socket, slot: Slot) -> None:
        self.number, self.channel, self.slot = number, channel, slot
        self.poll = select.poll()
        for descriptor in (channel, slot.control):
            self.poll.register(descriptor, select.POLLIN)
        self.frames, self.received = Frames(REPLY_BYTES), deque[dict[str, Any]]()
        self.asked, self.heard = 1, False  # its first reply says whether it could be loaded
        self.gone = False

    def __enter__(self) -> Program:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self.slot.end(self)
        return kind is ProgramGone

    def report(self) -> Report:
        """Wait for what the runner says about its end."""
        return self.slot.report(self.number)

    def send(self, message: dict[str, Any]) -> None:
        """Raises ProgramGone where nobody reads."""
        try:
            self.channel.sendall(pack(message))
        except OSError as error:
            self.gone = True
            raise ProgramGone from error

    def ask(self, requests: Sequence[Any]) -> None:
        """Send calls, or inputs; each has a reply. Raises ProgramGone."""
        self.send({"each": requests})
        self.asked += len(requests)

    def collect(self, milliseconds: int | None) -> bool:
        """Take in what has come within that time; False where nothing has."""
        over = self.number in self.slot.reports
        ready = {descriptor for descriptor, _ in self.poll.poll(0 if over else milliseconds)}
        try:
            if self.channel.fileno() in ready:
                if not (data := self.channel.recv(READ_SIZE)):
                    raise EOFError
                self.received.extend(self.frames.feed(data))
            elif over:  # a word from the runner is the program's end, though a daemon hold the channel
                raise EOFError
            elif ready:
                self.slot.take_in()
            if self.received and not self.heard:
                self.heard = True
                if "raised" in self.received[0]:
                    self.asked = 1  # what cannot be loaded answers nothing else
        except (OSError, EOFError, ValueError, RecursionError, RunnerGone):
            self.gone = True
        return bool(ready)

    def has_answered(self) -> bool:
        """Whether every reply is there that can come."""
        while not self.gone and len(self.received) < self.asked and self.collect(0):
            pass
        return self.gone or len(self.received) >= self.asked

    def receive(self) -> dict[str, Any]:
        """The next reply. Raises ProgramGone where there is none, or something that is no reply."""
        while not self.received:
            if self.gone:
                raise ProgramGone
            self.collect(None)
        self.asked -= 1
        return self.received.popleft()


class Slot:
    """One runner, with a fork that waits for its task whenever no program runs (`free`)."""

    def __init__(self, descriptor: int) -> None:
        self.control = socket.socket(fileno=descriptor)
        self.reports: dict[str, Report] = {}
        self.spare, self.free = self.prepare("reset", "reset"), True
        self.report("reset")
        self.reports.clear()  # what came before it was said to an earlier judge

    def command(self, descriptors: Sequence[int] = (), **message: str) -> None:
        try:
            socket.send_fds(self.control, [json.dumps(message).encode()], descriptors)
        except OSError as error:
            raise RunnerGone from error

    def take_in(self) -> None:
        """Wait for a report and keep it."""
        try:
            data = self.control.recv(REPORT_BYTES)
        except OSError as error:
            raise RunnerGone from error
        if not data:
            raise RunnerGone
        report = json.loads(data)
        self.reports[report["id"]] = Report(report["why"], report["cpu"])

    def has_report(self, number: str) -> bool:
        """Whether `report` would not wait."""
        try:
            while number not in self.reports and select.select([self.control], [], [], 0)[0]:
                self.take_in()
        except RunnerGone:
            return True  # `report` raises it where the judgement can deal with it
        return number in self.reports

    def report(self, number: str) -> Report:
        """Wait for what the runner says about this program."""
        while number not in self.reports:
            self.take_in()
        return self.reports.pop(number)

    def prepare(self, do: str, number: str) -> Program:
        """Send the command that ends the program `number`, and have a fork made that waits for its task."""
        following = f"{os.getpid()}.{next(_numbers)}"
        mine, theirs = socket.socketpair()
        with theirs:
            self.command([theirs.fileno()], do=do, id=number, next=following)
        return Program(following, mine, self)

    def end(self, program: Program) -> None:
        """End the program; a fork for the next one follows by itself."""
        # First this, then the channel: a program that finds it closed would end before it is ended.
        self.spare, self.free = self.prepare("gone" if program.gone else "end", program.number), True
        program.channel.close()


class RunnerClient:
    """Starts programs on runners that take turns: while a program runs on one, another clears up after the
    program before and forks for the next, or runs it already. No more run at a time than there are runners.
    """

    def __init__(self, descriptors: Sequence[int]) -> None:
        self.slots = deque(map(Slot, descriptors))

    def start(self, code: str, prelude: str, program: bool, entry_point: str = "") -> Program:
        """A program that is being loaded; its first reply says whether it could be, entry point included."""
        slot = next(slot for slot in self.slots if slot.free)  # the caller sees to it that there is one
        self.slots.remove(slot)
        self.slots.append(slot)
        slot.free = False
        slot.command(do="begin", id=slot.spare.number)
        with suppress(ProgramGone):  # then the first `receive` says so
            task = {"code": code, "prelude": prelude, "program": program, "entry_point": entry_point}
            slot.spare.send(task)
        return slot.spare


_client: RunnerClient | None = None
_numbers = count()


def connect(descriptors: Sequence[int]) -> None:
    """Called by the worker in each fork that may judge programs."""
    global _client
    _client = RunnerClient(descriptors)


def client() -> RunnerClient:
    if _client is None:
        raise RuntimeError("model-written programs are run by a VerificationPool's worker only")
    return _client
