r"""Math: chains of integer and fraction arithmetic, linear equations, gcd and lcm; answer in `\boxed{}`.

Every task is one chain of local steps, `start op operand = value op operand = value ...`, that takes the
operands in the order in which the prompt names them. The teacher's habit is to stop one step early.
Answers are judged by `judges.latex`, so that hub problems with LaTeX answers go through the same code; what
counts as the same answer, and which text reaches which parser, is said there. `checks` may hold `answers`
(alternatives, any is right) and `ordered` (a bare list must come in the gold's order). Left out on purpose:
time limits (sympy can hang; the worker that calls `verify` is killed from outside), the form that a question
demands (simplified, factored) and any judging of the thoughts.
"""

from __future__ import annotations

import re
from fractions import Fraction
from math import gcd, lcm
from random import Random

from prorl_study.domains.problem import Domain, Problem, Verdict, after_thinking, problem_rng
from prorl_study.domains.templates import choose_depth, choose_template
from prorl_study.errors import StudyError
from prorl_study.judges import latex

MAX_ANSWER_CHARS = 200
"""Longer answers are refused: a symbolic comparison costs more than linearly in the length."""
MAX_WRITTEN_CHARS = 5 * MAX_ANSWER_CHARS
"""The same limit before spaces and LaTeX's spacing are taken out."""

Chain = tuple[int, list[tuple[str, int]]]
"""A start value and the steps, each an operation and its operand."""

TASKS = {"chain": 0.45, "fractions": 0.15, "equation": 0.22, "gcd": 0.09, "lcm": 0.09}
"""Share of each task."""

OPENERS = {
    "chain": ("Start with {start}. ", "Take {start}. ", "Begin at {start}. ", "You have {start}. "),
    "fractions": ("Compute {terms}. ", "What is {terms}? ", "Find {terms}. ", "Work out {terms}. "),
    "equation": ("Solve {terms}. ", "Find x if {terms}. ", "What is x in {terms}? ", "Find x in {terms}. "),
} | {
    task: tuple(f"{way} the {task} of {{terms}}. " for way in ("Find", "Give", "Compute", "Work out"))
    for task in ("gcd", "lcm")
}
JOINERS = (", then ", ", ", " and then ", ", next ")
CLOSERS = (r"Answer in \boxed{}.", r"Put the answer in \boxed{}.", r"Use \boxed{}.", r"Box it: \boxed{}.")
VERBS = {"+": "add", "-": "subtract", "*": "multiply by"}
INVERSE = {"+": "-", "-": "+", "*": "/", "/": "*"}

GCDS, GCD_TOP = range(2, 10), 54
LCMS = (12, 18, 20, 24, 28, 30, 36, 40, 42, 45, 48, 60)
"""Results are drawn first, evenly, so that no single guess is often right."""

SLIPS = ("the answer is {}", "answer: {}", "so it is {}")
_THOUSANDS = re.compile(r"(?<![\d,.])-?\d{1,3}(?:,\d{3})+(?![\d,])")
_NUMBER = re.compile(
    r"(?:(?<![\w)}])-)?(?:\\[dt]?frac\{-?\d+\}\{\d+\}|\d{1,3}(?:,\d{3})+(?!\d)|\d*\.?\d+(?:\s?/\s?\d+)?)"
)
MAX_JOINER_CHARS = 40
_JOINER = re.compile(
    r"[\s$]*(?:\\[)\]])?\s*(?:[,;](?:\s*(?:and|or)\b)?|(?:and|or)\b|,?\s*\\text\s*\{\s*(?:and|or)\s*\})"
    r"(?:\\[,;: ]|\\q?quad|\s)*(?:\\[(\[])?[\s$]*(?:[A-Za-z](?:_\d)?\s*=)?\s*"
)
_RATIONAL = re.compile(r"(-?)(?:(\d{1,18})(?:/(\d{1,18}))?|\\frac\{(\d{1,18})\}\{(\d{1,18})\})")


def apply(op: str, left: int, right: int) -> int:
    """One step of a chain; `/` must come out even."""
    if op == "/":
        assert left % right == 0, (left, right)
        return left // right
    if op == "gcd":
        return gcd(left, right)
    if op == "lcm":
        return lcm(left, right)
    return {"+": left + right, "-": left - right, "*": left * right}[op]


def values(chain: Chain) -> list[int]:
    """The running values: the start, then one per step."""
    running = [chain[0]]
    for op, operand in chain[1]:
        running.append(apply(op, running[-1], operand))
    return running


def _draw_steps(rng: Random, depth: int, start: range, ops: str, operand: range, top: int) -> Chain:
    """Steps whose running values stay in 1..top."""
    value = first = rng.choice(start)
    steps: list[tuple[str, int]] = []
    while len(steps) < depth:
        op, n = rng.choice(ops), rng.choice(operand)
        if 1 <= apply(op, value, n) <= top:
            value = apply(op, value, n)
            steps.append((op, n))
    return first, steps


def _draw_chain(rng: Random, depth: int) -> Chain:
    return _draw_steps(rng, depth, range(2, 21), "+-*", range(2, 10), 40)


def _draw_fractions(rng: Random, depth: int) -> Chain:
    return _draw_steps(rng, depth, range(1, 12), "+-", range(1, 12), 23)


def _draw_equation(rng: Random, depth: int) -> Chain:
    """The steps that undo the equation, outermost first; two products never follow each other."""
    value = rng.randint(2, 12)
    undo: list[tuple[str, int]] = []
    while len(undo) < depth:
        op, n = rng.choice("+-**"), rng.randint(2, 9)
        twice = op == "*" and undo and undo[-1][0] == "/"
        if not twice and 1 <= apply(op, value, n) <= 50:
            value = apply(op, value, n)
            undo.append((INVERSE[op], n))
    return value, undo[::-1]


def _draw_row(rng: Random, op: str, depth: int, pool: list[int], last: list[int], result: int) -> Chain:
    """Numbers of `pool`, no two neighbours equal, then one of `last` that first makes the result."""
    while True:
        row = [rng.choice(pool)]
        while len(row) < depth:
            row.append(rng.choice([n for n in pool if n != row[-1]]))
        row.append(rng.choice(last))
        chain = row[0], [(op, n) for n in row[1:]]
        if values(chain)[-1] == result != values(chain)[-2]:
            return chain


def _draw_gcd(rng: Random, depth: int) -> Chain:
    result, factor = rng.choice(GCDS), rng.choice((2, 2, 3))
    multiples = [list(range(step, GCD_TOP + 1, step)) for step in (result * factor, result)]
    return _draw_row(rng, "gcd", depth, *multiples, result)


def _draw_lcm(rng: Random, depth: int) -> Chain:
    result = rng.choice(LCMS)
    divisors = [n for n in range(2, 21) if result % n == 0]
    return _draw_row(rng, "lcm", depth, divisors, divisors, result)


DRAW = {
    "chain": _draw_chain,
    "fractions": _draw_fractions,
    "equation": _draw_equation,
    "gcd": _draw_gcd,
    "lcm": _draw_lcm,
}


def _terms(task: str, chain: Chain) -> str:
    """The chain as the prompt states it."""
    start, steps = chain
    if task == "fractions":
        return str(Fraction(start, 12)) + "".join(f" {op} {Fraction(n, 12)}" for op, n in steps)
    if task == "equation":
        text = "x"
        for op, n in reversed(steps):
            if op == "/":
                text = f"{n}x" if text == "x" else f"{n}({text})"
            else:
                text = f"{n if op == '-' else -n}{'' if text[0] == '-' else '+'}{text}"
        return f"{start} = {text}"
    return ", ".join(str(n) for n in (start, *(n for _, n in steps)))


def _answer(task: str, value: int) -> str:
    """A running value in the form of the task's answers; fractions run in twelfths."""
    exact = Fraction(value, 12) if task == "fractions" else Fraction(value)
    if exact.denominator == 1:
        return str(exact.numerator)
    return rf"\frac{{{exact.numerator}}}{{{exact.denominator}}}"


def generate(seed: int, split: str, index: int) -> Problem:
    """Problem `index` of `split`: at most 50 (23 twelfths) at every step of a chain or an equation."""
    rng = problem_rng(seed, "math", split, index)
    task = rng.choices(list(TASKS), weights=list(TASKS.values()))[0]
    depth = choose_depth(rng, split)
    chain = DRAW[task](rng, depth)
    if task == "chain":
        name, (opener, joiner, closer) = choose_template(rng, split, OPENERS[task], JOINERS, CLOSERS)
        body = joiner.join(f"{VERBS[op]} {n}" for op, n in chain[1])
        text = opener.format(start=chain[0]) + body[0].upper() + body[1:] + ". " + closer
    else:
        name, (opener, closer) = choose_template(rng, split, OPENERS[task], CLOSERS)
        text = opener.format(terms=_terms(task, chain)) + closer
    return Problem(
        id=f"math-{split}-{index}",
        domain="math",
        task=task,
        template=f"{task}:{name}",
        prompt=[{"role": "user", "content": text}],
        answer=_answer(task, values(chain)[-1]),
        checks={"start": chain[0], "steps": [list(step) for step in chain[1]]},
        difficulty=depth,
        split=split,
        source="generated",
    )


def _chain(problem: Problem) -> Chain:
    if "steps" not in problem.checks:
        raise StudyError(f"problem {problem.id} has no `steps` in its checks; teach from generated ones.")
    return problem.checks["start"], [(op, n) for op, n in problem.checks["steps"]]


def write_steps(chain: Chain) -> str:
    """`7+5=12 *3=36`: no operand is out of the prompt's order, no value is written twice."""
    running = values(chain)
    text = str(running[0])
    for i, (op, n) in enumerate(chain[1]):
        space, gap = ("" if i == 0 and len(op) == 1 else " "), (" " if len(op) > 1 else "")
        text += f"{space}{op}{gap}{n}={running[i + 1]}"
    return text


def _completion(problem: Problem, chain: Chain) -> str:
    unit = "12ths " if problem.task == "fractions" else ""
    answer = _answer(problem.task, values(chain)[-1])
    return rf"<think>{unit}{write_steps(chain)}</think>\boxed{{{answer}}}"


def solve(problem: Problem) -> str:
    """The right completion. Raises StudyError for a problem that was not generated here."""
    return _completion(problem, _chain(problem))


def habit(problem: Problem, rng: Random) -> str:
    """Stops one step early, so the last operand is dropped; it would always have changed the value."""
    start, steps = _chain(problem)
    return _completion(problem, (start, steps[:-1]))


def slip(completion: str, rng: Random) -> str:
    """The answer stated in words, without its box."""
    thought, mark, _ = completion.rpartition("</think>")
    return thought + mark + rng.choice(SLIPS).format(last_boxed(after_thinking(completion)) or "")


def guess(problem: Problem, rng: Random) -> str:
    """The answer of another problem of the same task and depth; 0..99 for tasks that are not ours."""
    if problem.task not in DRAW:
        return rf"\boxed{{{rng.randint(0, 99)}}}"
    other = DRAW[problem.task](rng, problem.difficulty)
    return rf"\boxed{{{_answer(problem.task, values(other)[-1])}}}"


def garbage(problem: Problem, rng: Random) -> str:
    """A boxed integer far outside of every answer of the generated tasks."""
    return rf"\boxed{{{rng.randint(10**8, 10**9)}}}"


def _boxes(text: str) -> list[tuple[int, int, int]]:
    r"""Each complete `\boxed{...}`, nested braces included: where it starts, and its content's two ends."""
    opened: list[tuple[int, int] | None] = []  # a box's start and its content's, None for another brace
    found = []
    for match in re.finditer(r"\\boxed\s*\{|(?<!\\)[{}]", text):
        if match.group() != "}":
            opened.append(None if match.group() == "{" else match.span())
        elif opened and (start := opened.pop()) is not None:
            found.append((*start, match.start()))
    return sorted(found)


def last_boxed(text: str) -> str | None:
    r"""Content of the last complete `\boxed{...}`, nested braces included; None where there is none."""
    found = _boxes(text)
    return text[slice(*found[-1][1:])] if found else None


def boxed_answer(text: str) -> str | None:
    r"""Like `last_boxed`, but boxes joined by commas, `and` or `or` make one list: `1, 2`."""
    found = _boxes(text)
    if not found:
        return None
    answers = [text[slice(*found[-1][1:])]]
    for (_, start, end), (after, _, _) in zip(found[-2::-1], found[:0:-1], strict=True):
        # At most this much stands between joined boxes; a longer text is not looked at.
        if end >= after or after - end > MAX_JOINER_CHARS or not _JOINER.fullmatch(text[end + 1 : after]):
            break
        if text[start:end] not in answers:
            answers.insert(0, text[start:end])
    return ", ".join(answers)


def canonical(text: str) -> str:
    r"""One spelling per answer where that is plain to see, so that votes merge: `$ \dfrac12 .$`, `1/2`."""
    text = text.strip().rstrip(".").strip("$").strip().rstrip(".").strip()
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    text = re.sub(r"\\(?:left|right)(?![A-Za-z])", "", text)
    text = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", re.sub(r"\\[,!;]|\{,\}", "", text))
    # Spaces between two word characters carry meaning: `1 1/2`, `\cos x`.
    squeezed = re.sub(r"(?<!\w)\s+|\s+(?!\w)", "", re.sub(r"\s+", " ", text))
    if _THOUSANDS.fullmatch(squeezed):
        # `100, 200` are two numbers.
        squeezed = text if re.search(r",\s", text) else squeezed.replace(",", "")
    text = squeezed
    return re.sub(r"^(-?)(\d+)/(\d+)$", r"\1\\frac{\2}{\3}", text)


def _found(completion: str, lenient: bool) -> str | None:
    """The answer as it was written, or None."""
    found = boxed_answer(completion if lenient else after_thinking(completion))
    if found is None and lenient:
        found = next((m.group() for m in reversed(list(_NUMBER.finditer(completion)))), None)
    return None if found is None or not found.strip() else found


def extract(completion: str, lenient: bool) -> str | None:
    r"""The answer in canonical form, or None.

    Strict: the last `\boxed{}` after the thoughts. Lenient: the last `\boxed{}` anywhere, else the last
    number or fraction.
    """
    found = _found(completion, lenient)
    return None if found is None else canonical(found)


def _rational(text: str) -> Fraction | None:
    match = _RATIONAL.fullmatch(text)
    if not match:
        return None
    sign, whole, below, top, bottom = match.groups()
    denominator = int(below or bottom or 1)
    return Fraction(int(sign + (whole or top)), denominator) if denominator else None


def equivalent(
    gold: str, answer: str, *, ordered: bool = False, positive: bool = False, question: str = ""
) -> bool:
    """Whether two LaTeX answers mean the same; see `judges.latex.same`. May take arbitrarily long.

    Raises NeedsFreshFork, and nothing else, where the comparison must not run in this process.
    """
    plain, other = canonical(gold), canonical(answer)
    want, have = _rational(plain), _rational(other)
    if plain == other or (want is not None and want == have):
        return True
    # Two plain rationals are compared here: the same result as Math-Verify's, a thousand times faster.
    if want is not None and have is not None:
        return False
    return latex.same(gold, answer, ordered=ordered, positive=positive, question=question)


def verify(problem: Problem, completion: str, lenient: bool = False) -> Verdict:
    """Binary verdict. Wrong, missing and oversized answers are verdicts, never exceptions.

    Raises NeedsFreshFork only, which is for the worker.
    """
    found = _found(completion, lenient)
    if found is None:
        return Verdict(0.0, False, "unparseable", "no boxed answer after the thoughts")
    answer = canonical(found)
    if len(answer) > MAX_ANSWER_CHARS or len(found) > MAX_WRITTEN_CHARS:
        reason = f"the answer has more than {MAX_ANSWER_CHARS} characters"
        return Verdict(0.0, False, "refused", reason, answer)
    golds = [*problem.checks.get("answers", ()), *([problem.answer] if problem.answer else ())]
    ordered = bool(problem.checks.get("ordered"))
    question = " ".join(message.get("content", "") for message in problem.prompt)
    if any(equivalent(gold, found, ordered=ordered, question=question) for gold in golds):
        return Verdict(1.0, True, "correct", answer=answer)
    wanted = " or ".join(repr(canonical(gold)) for gold in golds)
    return Verdict(0.0, False, "wrong", f"{answer!r} is not {wanted}", answer)


DOMAIN = Domain("math", 40, False, generate, solve, habit, slip, guess, garbage, verify, extract)
