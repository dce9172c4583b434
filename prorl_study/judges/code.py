"""Judging model-written Python by its behaviour: calls, assertions, or standard input and output.

The program runs in another process (`programs`), which gets arguments and inputs and never an expected
output; here its plain replies are compared. Three kinds of tests, by the keys of a problem's `checks`:

- calls: `entry_point` and `tests`, `[[args, expected], ...]`; types must agree exactly.
- pairs: `inputs` and `outputs`, as in APPS, TACO, CodeContests and Eurus-2. With `fn_name` they are
  arguments and results (compared as JSON would: a tuple is a list, 2 is 2.0); without, what a whole program
  reads and prints.
- assertions: `asserts`, a list of statements as in MBPP, or `test`, a text that defines `check(candidate)`
  as in HumanEval, with `entry_point`. `helpers` is code that the assertions need; it runs on this side only.
  Every other name that they use is called in the program. Each assertion counts by itself.

`prelude` is code that runs before the program in its process (imports, a given signature). Output is
compared line by line without trailing blanks, else word by word with a tolerance for decimals, as contest
judges do. Left out: problems with several right outputs that need a checker of their own.
"""

from __future__ import annotations

import ast
import builtins
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from types import CodeType
from typing import Any

from prorl_study.judges.fresh import require_fresh_fork
from prorl_study.judges.programs import Program, ProgramGone, Report, client
from prorl_study.verification.plain import NotPlain, Opaque, decode, encode

ENDS = (StopIteration, StopAsyncIteration, GeneratorExit)
TOLERANCE = 1e-6
"""Absolute, and relative for numbers above 1."""
_DECIMAL = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_REACHES_OUT = re.compile(r"\b(?:eval|exec|compile|__import__|globals|setattr|os|sys|subprocess|builtins)\b")
"""Assertions with such a word are run in a fork of their own."""


class BadTests(ValueError):
    """The problem's own tests cannot be used."""


@dataclass(frozen=True)
class Outcome:
    """Tests passed of all, what went wrong first, and how the program ended."""

    passed: int
    total: int
    reason: str
    report: Report
    loaded: bool = True


def run_tests(checks: dict[str, Any], code: str) -> Outcome:
    """Run all tests of `checks` on `code`. Raises BadTests where they are malformed or missing."""
    prelude = checks.get("prelude", "")
    entry_point = checks.get("entry_point") or checks.get("fn_name") or ""
    if "asserts" in checks or "test" in checks:
        return _run_assertions(checks, code, prelude)
    if "tests" in checks:
        pairs, compare = _calls(checks["entry_point"], checks["tests"]), same
    elif checks.get("fn_name"):
        pairs, compare = _function_pairs(checks), same_as_json
    elif "inputs" in checks and "outputs" in checks:
        pairs, compare = _standard_streams(checks), same_output
    else:
        raise BadTests("no tests; give `tests`, `inputs` and `outputs`, `asserts` or `test`")
    if not pairs:
        raise BadTests("an empty list of tests")
    program = client().start(code, prelude, compare is same_output, entry_point)
    passed, reason, loaded = 0, "", False
    try:
        if failure := _failure(program.receive()):
            reason = failure
        else:
            loaded = True
            replies = program.each([request for request, _ in pairs])
            for (_, expected), reply in zip(pairs, replies, strict=True):
                good, failure = _judge_reply(reply, expected, compare)
                passed, reason = passed + good, reason or failure
    except ProgramGone:
        pass
    return Outcome(passed, len(pairs), reason, client().end(program), loaded)


def _failure(reply: dict[str, Any]) -> str:
    if "raised" not in reply:
        return ""
    return f"{str(reply['raised'])[:60]}: {str(reply.get('text', ''))[:200]}".removesuffix(": ")


def _judge_reply(reply: dict[str, Any], expected: Any, compare: Any) -> tuple[bool, str]:
    """Whether the reply is the expected one; else, where it is an error, what it says."""
    if compare is same_output:
        error = str(reply.get("error", ""))
        return not error and same_output(expected, str(reply.get("out", ""))), error[:260]
    if failure := _failure(reply):
        return False, failure
    try:
        return compare(expected, decode(reply.get("value"))), ""
    except (NotPlain, RecursionError) as error:
        return False, str(error)


def _no_object(value: Any) -> int:
    raise BadTests(f"an argument that is not plain: {value!r:.60}")


def _request(name: str, args: Any, kwargs: Any = ()) -> list[Any]:
    return [name, encode(list(args), _no_object), encode(dict(kwargs), _no_object)]


def _calls(name: str, tests: list[Any]) -> list[tuple[Any, Any]]:
    try:
        return [(_request(name, args), expected) for args, expected in tests]
    except (TypeError, ValueError) as error:
        raise BadTests(f"`tests` must be [[args, expected], ...]: {error}") from error


def _aligned(checks: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    inputs, outputs = checks["inputs"], checks["outputs"]
    if len(inputs) != len(outputs):
        raise BadTests(f"{len(inputs)} inputs and {len(outputs)} outputs")
    return zip(inputs, outputs, strict=True)


def _function_pairs(checks: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Arguments may also be given as text, one JSON value a line."""

    def value(text: Any) -> Any:
        return json.loads(text) if isinstance(text, str) else text

    try:
        return [
            (
                _request(
                    checks["fn_name"],
                    [json.loads(line) for line in given.splitlines()] if isinstance(given, str) else given,
                ),
                value(expected),
            )
            for given, expected in _aligned(checks)
        ]
    except (TypeError, ValueError) as error:
        raise BadTests(f"`inputs` must be lists of arguments, or JSON lines: {error}") from error


def _standard_streams(checks: dict[str, Any]) -> list[tuple[str, str]]:
    def text(lines: Any) -> str:
        return lines if isinstance(lines, str) else "\n".join(map(str, lines))

    return [(text(given), text(expected)) for given, expected in _aligned(checks)]


# -- comparing ----------------------------------------------------------------------------------------------


def close(expected: float, got: float) -> bool:
    if expected == got or not isfinite(expected):
        return expected == got
    try:
        return abs(expected - got) <= TOLERANCE * max(1.0, abs(expected))
    except OverflowError:  # an integer beyond all floats
        return False


def same(expected: Any, got: Any) -> bool:
    """Equality of plain values with exact types (True is not 1, a tuple is not a list); floats are close."""
    if type(expected) is not type(got):
        return False
    if isinstance(expected, float):
        return close(expected, got)
    if isinstance(expected, list | tuple):
        return len(expected) == len(got) and all(map(same, expected, got))
    if isinstance(expected, dict):
        return len(expected) == len(got) and all(
            key in got and same(value, got[key]) for key, value in expected.items()
        )
    return expected == got


def same_as_json(expected: Any, got: Any) -> bool:
    """Equality where the expected value came as JSON; APPS also wraps a result in a list of one."""
    if _alike(expected, got):
        return True
    return isinstance(expected, list) and len(expected) == 1 and _alike(expected[0], got)


def _alike(expected: Any, got: Any) -> bool:
    if isinstance(expected, list | tuple):
        return isinstance(got, list | tuple) and len(expected) == len(got) and all(map(_alike, expected, got))
    if isinstance(expected, dict):
        return (
            isinstance(got, dict)
            and len(expected) == len(got)
            and all(key in got and _alike(value, got[key]) for key, value in expected.items())
        )
    if isinstance(expected, float) or isinstance(got, float):
        return isinstance(expected, int | float) and isinstance(got, int | float) and close(expected, got)
    return type(got) in (type(expected), bool, int) and expected == got


def same_output(expected: str, got: str) -> bool:
    """What a program printed, as a contest judge compares it."""
    want, have = ([line.rstrip() for line in text.strip().splitlines()] for text in (expected, got))
    if want == have:
        return True
    words, others = expected.split(), got.split()
    return len(words) == len(others) and all(map(_same_word, words, others))


def _same_word(expected: str, got: str) -> bool:
    if expected == got:
        return True
    if not (_DECIMAL.fullmatch(expected) and _NUMBER.fullmatch(got)) or max(len(expected), len(got)) > 400:
        return False
    return close(float(expected), float(got))


# -- assertions ---------------------------------------------------------------------------------------------


def _refuse(self: Opaque, *_: object) -> bool:
    raise NotPlain("a value that is no plain data")


class Remote(Opaque):
    """What the program returned and keeps. It can be passed on to it, and is equal to nothing."""

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]


class Function:
    """A function of the program, called by message."""

    def __init__(self, program: Program, name: str) -> None:
        self.program, self.name = program, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        (reply,) = self.program.each([_request(self.name, args, kwargs)])
        if "raised" in reply:
            kind = getattr(builtins, str(reply["raised"]), None)
            # An end of iteration would cut short a loop of the test, and the rest would count as passed.
            if not (isinstance(kind, type) and issubclass(kind, Exception)) or issubclass(kind, ENDS):
                kind = RuntimeError
            try:
                raise kind(str(reply.get("text", ""))[:200])
            except TypeError:  # a class with arguments of its own, as UnicodeDecodeError
                raise RuntimeError(str(reply["raised"])[:60]) from None
        return decode(reply.get("value"), Remote)


def _count_asserts(tree: ast.Module) -> int:
    """Turn each `assert x` into a call that records x, or the error of it, and goes on; returns how many."""
    count = 0
    for node in list(ast.walk(tree)):
        for name in ("body", "orelse", "finalbody"):
            statements = getattr(node, name, None)
            for place, statement in enumerate(statements if isinstance(statements, list) else ()):
                if not isinstance(statement, ast.Assert):
                    continue
                # HumanEval has some that assert a constant; they test nothing.
                constant = isinstance(statement.test, ast.Constant)
                statements[place] = ast.Pass() if constant else _recorded(statement.test)
                count += not constant
    ast.fix_missing_locations(tree)
    return count


def _recorded(test: ast.expr) -> ast.stmt:
    def record(*arguments: ast.expr) -> list[ast.stmt]:
        return [ast.Expr(ast.Call(ast.Name("_record", ast.Load()), list(arguments), []))]

    failed = record(ast.Constant(False), ast.Name("_error", ast.Load()))
    handler = ast.ExceptHandler(ast.Name("Exception", ast.Load()), "_error", failed)
    return ast.Try(record(test), [handler], [], [])


@lru_cache(maxsize=256)
def _compile(texts: tuple[str, ...], helpers: str) -> tuple[list[CodeType], CodeType, int, frozenset[str]]:
    """Code of each text, of the helpers, the number of assertions, and every name that the texts use."""
    try:
        trees = [ast.parse(text) for text in texts]
        count = sum(map(_count_asserts, trees))
        parts = [compile(tree, "<tests>", "exec") for tree in trees]
        return parts, compile(helpers, "<helpers>", "exec"), count, frozenset(_names(parts))
    except (SyntaxError, ValueError, RecursionError) as error:
        raise BadTests(f"the assertions do not compile: {error}") from error


def _names(parts: list[Any]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, CodeType):
            yield from part.co_names
            yield from _names(list(part.co_consts))


def _run_assertions(checks: dict[str, Any], code: str, prelude: str) -> Outcome:
    texts = (checks["test"],) if "test" in checks else tuple(checks["asserts"])
    helpers = checks.get("helpers", "")
    if _REACHES_OUT.search("\n".join([helpers, *texts])):
        require_fresh_fork()
    program = client().start(
        code, prelude, False, checks.get("entry_point", "")
    )  # loads while the assertions are compiled
    results, reason = [], ""

    def record(truth: Any, error: Exception | None = None) -> None:
        nonlocal reason
        results.append(bool(truth))
        if error is not None:
            reason = reason or f"{type(error).__name__}: {error}"[:260].removesuffix(": ")

    def attempt(action: Any) -> None:
        try:
            action()
        except Exception as error:  # a line of the tests that is no assertion
            record(False, error)

    loaded, count = False, 0
    try:
        parts, prepare, count, names = _compile(texts, helpers)
        if count == 0:
            raise BadTests("no assertion in the tests")
        if failure := _failure(program.receive()):
            reason = failure
        else:
            loaded = True
            namespace: dict[str, Any] = {"__name__": "tests", "_record": record}
            exec(prepare, namespace)
            for name in names:
                # The helpers may hold a stub of what was asked for.
                if name == checks.get("entry_point") or not (name in namespace or hasattr(builtins, name)):
                    namespace[name] = Function(program, name)
            for part in parts:
                attempt(lambda part=part: exec(part, namespace))
            if "test" in checks:
                attempt(lambda: namespace["check"](Function(program, checks["entry_point"])))
    except ProgramGone:
        results.append(False)
    finally:
        report = client().end(program)
    return Outcome(sum(results), max(count, len(results)), reason, report, loaded)
