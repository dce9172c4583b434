"""Code: "write a Python function that ..." over short compositions of operations, judged by hidden tests.

A problem is a composition of one to six operations on an integer, a string or a list of integers. The
score is the fraction of hidden tests passed; solved means all of them. The teacher's habit is to return
one operation too early.

`verify` never executes model-written code in its own process: it has the worker's runner do that, compares
what comes back (`prorl_study.judges.code`), and also judges problems of public sets, with assertions or
standard input and output. Left out of the generated problems: standard-input programs, several entry points,
and operations whose line would be too long for the embedded model.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from prorl_study.domains.problem import Domain, Problem, Verdict, after_thinking, problem_rng
from prorl_study.domains.templates import choose_depth, choose_template
from prorl_study.judges.code import BadTests, Steps, at_once, run_tests
from prorl_study.judges.programs import Wait

TESTS = 8
"""Hidden tests per problem."""
ENDINGS = {
    "exit": "ended its process, or its channel, before the verdict",
    "signal": "killed by a signal",
    "processes": "over the limit of processes",
    "memory": "over the limit of memory",
}
"""How the runner says that a program ended, as a verdict's reason."""

Value = int | str | list[int]


@dataclass(frozen=True)
class Operation:
    """One step: how the prompt says it, the line that does it, and what it does (stated twice on
    purpose: gold answers are built from `line`, expected outputs from `apply`)."""

    phrase: str
    line: str
    apply: Callable[[Any, Any], Value]
    operands: tuple[int | str, ...] = (0,)
    long: bool = False
    """At most one long line per function, so that six operations stay at some 60 tokens."""


DIGITS, LETTERS = tuple(range(1, 10)), tuple("abcdefgh")

OPERATIONS: dict[str, tuple[Operation, ...]] = {
    "integers": (
        Operation("add {k}", "x += {k}", lambda x, k: x + k, DIGITS),
        Operation("subtract {k}", "x -= {k}", lambda x, k: x - k, DIGITS),
        Operation("multiply by {k}", "x *= {k}", lambda x, k: x * k, tuple(range(2, 10))),
        Operation("take it modulo {k}", "x %= {k}", lambda x, k: x % k, tuple(range(3, 10))),
        Operation("square it", "x *= x", lambda x, k: x**2),
        Operation("negate it", "x = -x", lambda x, k: 0 - x),
    ),
    "strings": (
        Operation("reverse it", "x = x[::-1]", lambda x, k: "".join(reversed(x))),
        Operation("make it upper case", "x = x.upper()", lambda x, k: x.upper()),
        Operation("repeat it twice", "x += x", lambda x, k: x * 2),
        Operation("append {k}", 'x += "{k}"', lambda x, k: x + k, LETTERS),
        Operation("put {k} in front", 'x = "{k}" + x', lambda x, k: k + x, LETTERS),
        Operation("drop the first letter", "x = x[1:]", lambda x, k: "".join(list(x)[1:])),
        Operation("drop the last letter", "x = x[:-1]", lambda x, k: x[: max(len(x) - 1, 0)]),
    ),
    "lists": (
        Operation("sort it", "x = sorted(x)", lambda x, k: sorted(x)),
        Operation("reverse it", "x = x[::-1]", lambda x, k: list(reversed(x))),
        Operation("repeat it twice", "x = x + x", lambda x, k: x * 2),
        Operation("append {k}", "x = x + [{k}]", lambda x, k: [*x, k], DIGITS),
        Operation("drop the first item", "x = x[1:]", lambda x, k: [*x][1:]),
        Operation("drop the last item", "x = x[:-1]", lambda x, k: x[: max(len(x) - 1, 0)]),
        Operation("double each item", "x = [i * 2 for i in x]", lambda x, k: [i + i for i in x], long=True),
        Operation("keep every second item", "x = x[::2]", lambda x, k: [x[i] for i in range(0, len(x), 2)]),
    ),
}
ONCE = {"square it", "repeat it twice"}
"""Values would grow out of hand with two of these."""

OPENERS = (
    "Write a Python function f(x) that takes {kind}.",
    "Write Python code: a function f(x) of {kind}.",
    "Define f(x) in Python, where x is {kind}.",
    "I need a Python function f(x) for {kind}.",
)
BODIES = ("Steps: {steps}.", "It should {steps}.", "In order: {steps}.", "Please {steps}.")
JOINERS = (", then ", "; ", " and ", ", next ")
KINDS = {"integers": "an integer", "strings": "a string", "lists": "a list of integers"}

Step = tuple[Operation, int | str]


def run_steps(steps: list[Step], x: Value) -> Value:
    """What the composition returns for `x`."""
    for operation, operand in steps:
        x = operation.apply(x, operand)
    return x


def write(steps: list[Step]) -> str:
    """The function's text, one line per operation."""
    lines = [f"    {operation.line.format(k=operand)}" for operation, operand in steps]
    return "\n".join(["def f(x):", *lines, "    return x"])


def fence(code: str) -> str:
    return f"```python\n{code}\n```"


def _draw_steps(rng: Random, task: str, depth: int) -> list[Step]:
    steps: list[Step] = []
    while len(steps) < depth:
        operation = rng.choice(OPERATIONS[task])
        used = [step[0] for step in steps]
        crowded = operation.long and any(other.long for other in used)
        if crowded or used[-1:] == [operation] or (operation.phrase in ONCE and operation in used):
            continue
        steps.append((operation, rng.choice(operation.operands)))
    return steps


def _draw_input(rng: Random, task: str) -> Value:
    if task == "integers":
        return rng.randint(-9, 20)
    if task == "strings":
        return "".join(rng.choice("abcdefghRSTUV") for _ in range(rng.randint(3, 7)))
    return [rng.randint(0, 9) for _ in range(rng.randint(4, 7))]


def _tell_apart(steps: list[Step], inputs: list[Value]) -> bool:
    """True if no function that leaves out one operation passes, and the habit fails at least half."""
    right = [run_steps(steps, x) for x in inputs]
    for i in range(len(steps)):
        others = [run_steps(steps[:i] + steps[i + 1 :], x) for x in inputs]
        failed = sum(a != b for a, b in zip(right, others, strict=True))
        if failed < (len(inputs) // 2 if i == len(steps) - 1 else 1):
            return False
    return len({str(value) for value in right}) > 1


def generate(seed: int, split: str, index: int) -> Problem:
    """Item `index` of `split`. Each operation matters: leaving one out fails at least one test."""
    rng = problem_rng(seed, "code", split, index)
    task = rng.choice(list(OPERATIONS))
    depth = choose_depth(rng, split)
    template, (opener, body, joiner) = choose_template(rng, split, OPENERS, BODIES, JOINERS)
    while True:  # ends: about one draw in three passes
        steps = _draw_steps(rng, task, depth)
        inputs: list[Value] = []
        while len(inputs) < TESTS:
            x = _draw_input(rng, task)
            if x not in inputs:
                inputs.append(x)
        if _tell_apart(steps, inputs):
            break
    phrases = joiner.join(operation.phrase.format(k=operand) for operation, operand in steps)
    text = f"{opener.format(kind=KINDS[task])} {body.format(steps=phrases)}"
    return Problem(
        id=f"code-{split}-{index}",
        domain="code",
        task=task,
        template=template,
        prompt=[{"role": "user", "content": text}],
        answer=write(steps),
        checks={"entry_point": "f", "tests": [[[x], run_steps(steps, x)] for x in inputs]},
        difficulty=depth,
        split=split,
        source="generated",
    )


def solve(problem: Problem) -> str:
    return fence(problem.answer)


def habit(problem: Problem, rng: Random) -> str:
    """Returns one operation too early: the same text up to the last operation's line."""
    lines = problem.answer.splitlines()
    return fence("\n".join([*lines[:-2], lines[-1]]))


def slip(text: str, rng: Random) -> str:
    """The code without its fence."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("```"))


def guess(problem: Problem, rng: Random) -> str:
    """A random function of the same kind and length."""
    return fence(write(_draw_steps(rng, problem.task, problem.difficulty)))


def garbage(problem: Problem, rng: Random) -> str:
    """A function that returns a constant of another type than every expected output."""
    wrong = "0" if problem.task == "strings" else '"none"'
    return fence(f"def f(x):\n    return {wrong}")


SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
FENCED = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)


def _code(text: str, lenient: bool) -> str | None:
    """Strict: the last fenced block after the think part. Lenient: the last one anywhere, else all from
    the first `def ` on (after the think part if there is one), up to a stray fence."""
    answer = after_thinking(text)
    blocks = FENCED.findall(answer) or (FENCED.findall(text) if lenient else [])
    if blocks:
        return blocks[-1] if blocks[-1].strip() else None
    if lenient:
        for part in (answer, text):
            if found := re.search(r"^\s*def ", part, re.MULTILINE):
                return part[found.start() :].partition("```")[0].strip()
    return None


def normal_form(code: str) -> str:
    """The code without layout, comments and docstrings, so that these do not split a majority vote."""
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(code)
        scopes: list[Any] = [tree]
        for scope in scopes:  # grows while it is walked
            scopes += [node for node in scope.body if isinstance(node, SCOPES)]
            if ast.get_docstring(scope, clean=False) is not None:
                scope.body[:1] = [] if len(scope.body) > 1 else [ast.Pass()]
        return ast.unparse(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return code.strip()


def extract(text: str, lenient: bool) -> str | None:
    """The code in normal form, or None where there is none."""
    code = _code(text, lenient)
    return None if code is None else normal_form(code)


def verify(problem: Problem, text: str, lenient: bool) -> Verdict:
    """`steps` from the first to the last."""
    return at_once(steps(problem, text, lenient))


def steps(problem: Problem, text: str, lenient: bool) -> Steps[Verdict]:
    """Run the answer's code on the problem's tests; score is the fraction passed.

    Needs a verification worker, which has a runner for the code; see `judges.code` for the kinds of tests.
    The verdict carries no answer: `extract` parses the code, which takes as long as to judge a cheap one.
    `timeout` and `crashed` (does not load, ends its process, over a limit) keep what was passed before.
    """
    code = _code(text, lenient)
    if code is None:
        return Verdict(0.0, False, "unparseable", "no code")
    try:
        outcome = yield from run_tests(problem.checks, code)
        if outcome.report.why == "signal":  # perhaps a stray one: once more
            yield Wait()
            outcome = yield from run_tests(problem.checks, code)
    except BadTests as error:
        return Verdict(0.0, False, "refused", f"tests of the problem: {error}")
    why, passed = outcome.report.why, outcome.passed
    reason = outcome.reason
    if passed == outcome.total:
        status, reason = "correct", ""
    elif why in ("cpu", "wall"):
        status, reason = "timeout", f"over the limit of {'CPU time' if why == 'cpu' else 'wall time'}"
    elif why in ENDINGS:
        status, reason = "crashed", ENDINGS[why]
    elif not outcome.loaded:
        status = "crashed"
    else:
        status = "partial" if passed else "wrong"
    return Verdict(
        passed / outcome.total,
        status == "correct",
        status,
        reason,
        cpu_seconds=outcome.report.cpu,
        backstop=status == "timeout" and why == "wall",
    )


DOMAIN = Domain(
    name="code",
    weight=24,
    graded=False,
    generate=generate,
    solve=solve,
    habit=habit,
    slip=slip,
    guess=guess,
    garbage=garbage,
    verify=verify,
    extract=extract,
    steps=steps,
)
