"""Plain Python values as JSON and back: all that a judged program and its judge ever exchange.

`encode` runs beside the judged program, so nothing that it says is believed; `decode` runs in the judge and
builds only values of Python's own types, at most `DEEPEST` levels deep. What is not plain travels as an
opaque handle with its truth value, and stands for an object in the program's process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

DEEPEST = 100
LONGEST_ITERATION = 100_000
"""Items taken from an iterator that a function returned."""
ITERATORS = (type(iter([])), map, filter, zip, enumerate, reversed, type(i for i in ()), deque)
VIEWS = (type({}.keys()), type({}.values()), type({}.items()))


class Opaque:
    """An object that stayed in the judged program's process, and whether it counts as true there."""

    def __init__(self, number: int, truth: bool) -> None:
        self.number, self.truth = number, truth

    def __bool__(self) -> bool:
        return self.truth


class NotPlain(ValueError):
    """A value that cannot travel, or a message that stands for none."""


def encode(value: Any, keep: Callable[[Any], int], depth: int = DEEPEST) -> Any:
    """`value` as JSON data; `keep` numbers an object that is not plain.

    Subclasses count as what they inherit from. Raises NotPlain where it is nested too deeply.
    """
    if depth == 0:
        raise NotPlain(f"nested over {DEEPEST} levels deep")
    kind = type(value)
    if value is None or kind in (bool, float):
        return value
    if isinstance(value, int):  # as text in base 16: no limit on digits, no time quadratic in them
        return value if kind is int and -(2**53) < value < 2**53 else {"i": hex(int(value))}
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float(value)

    def each(items: Iterable[Any]) -> list[Any]:
        return [encode(item, keep, depth - 1) for item in items]

    if isinstance(value, list):
        return each(list.__iter__(value))
    for name, base in (("t", tuple), ("s", set), ("z", frozenset)):
        if isinstance(value, base):
            return {name: each(base.__iter__(value))}
    if isinstance(value, dict):
        return {"d": [each(pair) for pair in dict.items(value)]}
    if isinstance(value, bytes | bytearray):
        return {"b": bytes(value).decode("latin1")}
    if isinstance(value, complex):
        return {"c": [value.real, value.imag]}
    if kind is range:
        return {"r": each((value.start, value.stop, value.step))}
    if isinstance(value, ITERATORS):
        return {"g": each(islice(value, LONGEST_ITERATION))}
    if isinstance(value, VIEWS):
        return {"g": each(value)}
    if kind.__module__ == "numpy" and hasattr(value, "tolist"):
        return encode(value.tolist(), keep, depth - 1)
    if isinstance(value, Opaque):
        return {"o": [value.number, value.truth]}
    return {"o": [keep(value), bool(value)]}


def decode(data: Any, fetch: Callable[[int, bool], Any] = Opaque, depth: int = DEEPEST) -> Any:
    """Inverse of `encode`; `fetch` gives the object of a handle. Raises NotPlain for all else."""
    if depth == 0:
        raise NotPlain(f"nested over {DEEPEST} levels deep")
    if data is None or isinstance(data, bool | int | float | str):
        return data

    def each(items: Any) -> list[Any]:
        if not isinstance(items, list):
            raise NotPlain("no list")
        return [decode(item, fetch, depth - 1) for item in items]

    if isinstance(data, list):
        return each(data)
    if not isinstance(data, dict) or len(data) != 1:
        raise NotPlain("neither a value nor a tagged one")
    (tag, body), *_ = data.items()
    try:
        match tag:
            case "i":
                return int(body, 16)
            case "t":
                return tuple(each(body))
            case "s":
                return set(each(body))
            case "z":
                return frozenset(each(body))
            case "d":
                return {key: value for key, value in map(each, body)}
            case "b":
                return body.encode("latin1")
            case "c":
                return complex(*map(float, body))
            case "r":
                return range(*each(body))
            case "g":
                return iter(each(body))
            case "o":
                number, truth = body
                return fetch(int(number), bool(truth))
    except (TypeError, ValueError, AttributeError, OverflowError, IndexError) as error:
        raise NotPlain(f"a malformed {tag!r}") from error
    raise NotPlain(f"an unknown tag {tag!r}")
