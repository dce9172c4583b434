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
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from types import CodeType
from typing import Any, TypeVar

from prorl_study.judges.fresh import require_fresh_fork
from prorl_study.judges.programs import Program, ProgramGone, Report, Wait, client
from prorl_study.verification.plain import NotPlain, Opaque, decode, encode

Result = TypeVar("Result")
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


Steps = Generator[Wait, None, Result]
"""A judgement that yields what it waits for, so that others can go on meanwhile."""


def at_once(steps: Steps[Result]) -> Result:
    """What the generator returns, with nothing else in between."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def run_tests(checks: dict[str, Any], code: str) -> Steps[Outcome]:
    """Run all tests of `checks` on `code`. Waits for the program, then for the report of its end; a runner
    must be free when it begins.

    Raises BadTests where they are malformed or missing.
    """
    prelude = checks.get("prelude", "")
    entry_point = checks.get("entry_point") or checks.get("fn_name") or ""
    if "asserts" in checks or "test" in checks:
        return (yield from _run_assertions(checks, code, prelude))
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
    passed, reason, loaded = 0, "", False
    with client().start(code, prelude, compare is same_output, entry_point) as program:
        program.ask([request for request, _ in pairs])
        yield Wait(program)
        if failure := _failure(program.receive()):
            reason = failure
        else:
            loaded = True
            for _, expected in pairs:
                good, failure = _judge_reply(program.receive(), expected, compare)
                passed, reason = passed + good, reason or failure
    yield Wait(program, ended=True)
    return Outcome(passed, len(pairs), reason, program.report(), loaded)


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


class Calls:
    """The way of an assertion's calls into the program. Those that the assertions will surely make may be
    sent ahead, all at once, which saves a wait for each."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.ahead: deque[Any] = deque()

    def send_ahead(self, requests: Sequence[Any]) -> None:
        self.program.ask(requests)
        self.ahead.extend(requests)

    def reply(self, request: Any) -> dict[str, Any]:
        while self.ahead:  # replies come in the order of requests; one that nobody wants any more is dropped
            reply, wanted = self.program.receive(), self.ahead.popleft() == request
            if wanted:
                return reply
        self.program.ask([request])
        return self.program.receive()


class Function:
    """A function of the program, called by message."""

    def __init__(self, calls: Calls, name: str) -> None:
        self.calls, self.name = calls, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        reply = self.calls.reply(_request(self.name, args, kwargs))
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


_STRAIGHT = (
    ast.Module, ast.FunctionDef, ast.arguments, ast.arg, ast.Assert, ast.Assign, ast.Expr, ast.Pass, ast.Call,
    ast.Name, ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.Compare, ast.BinOp, ast.UnaryOp,
    ast.Attribute, ast.Subscript, ast.Slice, ast.expr_context, ast.operator, ast.unaryop, ast.cmpop,
)  # fmt: skip
"""Parts of a text that is executed once, from the first to the last, whatever comes back."""


def _plan(trees: list[ast.Module]) -> tuple[tuple[str, Any], ...] | None:
    """The calls of plain names in the order in which they will be made, `(name, request)`, where that is
    sure; the request is None where its arguments are not literal, or where the name is used otherwise."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    if not all(isinstance(node, _STRAIGHT) for node in nodes):
        return None
    found: list[tuple[str, Any]] = []
    for tree in trees:
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
        called = {id(node.func) for node in calls}
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and id(node) not in called:
                found.append((node.id, None))
        for node in sorted(calls, key=lambda n: (n.lineno, n.col_offset)):
            try:
                arguments = [ast.literal_eval(argument) for argument in node.args]
                named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
                request = None if "None" in named else _request("", arguments, named)
            except (ValueError, TypeError, RecursionError):
                request = None
            found.append((node.func.id, request))
    return tuple(found)


@dataclass(frozen=True)
class _Assertions:
    """Compiled assertions."""

    parts: list[CodeType]
    helpers: CodeType
    count: int
    names: frozenset[str]
    """Every name that they use, and more."""
    plan: tuple[tuple[str, Any], ...] | None
    candidate: str
    """Name of the argument of `check`, where it is defined."""


@lru_cache(maxsize=256)
def _compile(texts: tuple[str, ...], helpers: str) -> _Assertions:
    try:
        trees = [ast.parse(text) for text in texts]
        top = [node for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)]
        checks = [node for node in top if node.name == "check"]
        candidate = checks[0].args.args[0].arg if len(checks) == 1 and checks[0].args.args else ""
        functions = sum(isinstance(n, ast.FunctionDef) for tree in trees for n in ast.walk(tree))
        plan = _plan(trees) if functions == len(checks) else None
        count = sum(map(_count_asserts, trees))
        parts = [compile(tree, "<tests>", "exec") for tree in trees]
        prepared = compile(helpers, "<helpers>", "exec")
        return _Assertions(parts, prepared, count, frozenset(_names(parts)), plan, candidate)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise BadTests(f"the assertions do not compile: {error}") from error


def _names(parts: list[Any]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, CodeType):
            yield from part.co_names
            yield from _names(list(part.co_consts))


def _run_assertions(checks: dict[str, Any], code: str, prelude: str) -> Steps[Outcome]:
    texts = (checks["test"],) if "test" in checks else tuple(checks["asserts"])
    helpers = checks.get("helpers", "")
    if _REACHES_OUT.search("\n".join([helpers, *texts])):
        require_fresh_fork()
    entry_point = checks.get("entry_point", "")
    tests = _compile(texts, helpers)
    if tests.count == 0:
        raise BadTests("no assertion in the tests")
    results, reason, loaded = [], "", False

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

    namespace: dict[str, Any] = {"__name__": "tests", "_record": record}
    try:
        exec(tests.helpers, namespace)
    except Exception as error:
        raise BadTests(f"the helpers of the assertions fail: {error!r:.200}") from error
    with client().start(code, prelude, False, entry_point) as program:
        calls = Calls(program)
        remote = {}
        for name in tests.names:
            # The helpers may hold a stub of what was asked for.
            if name == entry_point or not (name in namespace or hasattr(builtins, name)):
                namespace[name], remote[name] = Function(calls, name), name
        if "test" in checks:
            remote[tests.candidate] = entry_point
        planned = [(remote[name], request) for name, request in tests.plan or () if name in remote]
        try:
            if all(request is not None for _, request in planned):
                calls.send_ahead([[name, *request[1:]] for name, request in planned])
            yield Wait(program)
            if failure := _failure(program.receive()):
                reason = failure
            else:
                loaded = True
                for part in tests.parts:
                    attempt(lambda part=part: exec(part, namespace))
                if "test" in checks:
                    attempt(lambda: namespace["check"](Function(calls, entry_point)))
        except ProgramGone:
            results.append(False)
    yield Wait(program, ended=True)
    return Outcome(sum(results), max(tests.count, len(results)), reason, program.report(), loaded)
