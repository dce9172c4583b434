"""Messages between the pool, its workers and their forks: JSON, each preceded by its length.

Bytes in, bytes out; who waits for whom, and for how long, is the business of the two ends.
"""

from __future__ import annotations

import json
import os
import select
from collections import deque
from struct import Struct
from typing import Any

LENGTH = Struct(">I")
LARGEST = 1 << 26
"""Bytes; a longer length is not a message but somebody else's output."""
READ_SIZE = 1 << 16
_encode = json.JSONEncoder(separators=(",", ":")).encode


def pack(message: dict[str, Any]) -> bytes:
    """The message as one frame. ASCII JSON, so that lone surrogates in model output survive."""
    body = _encode(message).encode("ascii")
    return LENGTH.pack(len(body)) + body


class Frames:
    """Cuts a stream of bytes into messages, none of them longer than `largest` bytes."""

    def __init__(self, largest: int = LARGEST) -> None:
        self.buffer, self.largest = bytearray(), largest

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The messages that are complete after `data`. Raises ValueError where it is no message."""
        self.buffer += data
        messages = []
        while len(self.buffer) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self.buffer)
            if length > self.largest:
                raise ValueError(f"a message of {length} bytes")
            if len(self.buffer) < LENGTH.size + length:
                break
            message = json.loads(self.buffer[LENGTH.size : LENGTH.size + length].decode("ascii"))
            if not isinstance(message, dict):
                raise ValueError("a message that is no JSON object")
            messages.append(message)
            del self.buffer[: LENGTH.size + length]
        return messages


class Inbox:
    """The messages that come over a descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.frames = descriptor, Frames()
        self.messages: deque[dict[str, Any]] = deque()
        self.closed = False

    def collect(self, wait: bool) -> bool:
        """Read what has come; with `wait`, at least something. False where the other end has closed."""
        while wait or select.select([self.descriptor], [], [], 0)[0]:
            data = os.read(self.descriptor, READ_SIZE)
            if not data:
                self.closed = True
                return False
            self.messages.extend(self.frames.feed(data))
            wait = wait and not self.messages
        return True

    def next(self, wait: bool = True) -> dict[str, Any] | None:
        """The next message; None at the end, or, without `wait`, where none has come yet."""
        if not self.messages:
            self.collect(wait)
        return self.messages.popleft() if self.messages else None


def write_all(descriptor: int, data: bytes) -> None:
    """Blocking write of all of `data`. Raises BrokenPipeError where nobody reads any more."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
