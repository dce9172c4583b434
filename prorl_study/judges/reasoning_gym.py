"""Judging Reasoning Gym 0.1.25: every task that has an oracle answer, from the library's own entries.

The score is the library's, clipped to [0, 1]; `NOTES` lists each task where that score is wrong, can be had
for nothing or comes from executing the answer, and what is done about it. An answer that the library gives
full marks only because it contains a right one falls back to the library's base rule: the oracle's share of
the answer's length. No scorer here evaluates an answer as code: arithmetic, polynomials and lists have small
parsers, and antiderivatives are built from a syntax tree of permitted names. The metadata is data too, so
scorers that evaluate it (`bitwise_arithmetic`, the integrals) are replaced as well.

Left out: tasks without an oracle answer (their judge could not be tried on a right answer), answers that are
right but that the library cannot know (it compares most tasks with the one oracle), and tolerances of other
than default configurations, which touch partial credit alone.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import math
import os.path
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation, localcontext
from fractions import Fraction
from functools import cache
from importlib import resources
from typing import Any

from prorl_study.domains.problem import Problem
from prorl_study.errors import StudyError
from prorl_study.judges.fresh import require_fresh_fork

Meta = Mapping[str, Any]
Scorer = Callable[[str, str, Meta], float]

INSTRUCTION = "Put the answer in <answer></answer>."
FAIR_CHANCE = 0.1
"""Share of right guesses (`floors`) from which on a task is not open-ended."""


@dataclass(frozen=True)
class Note:
    """What was seen in one task's scorer, and what is done about it."""

    action: str
    """`excluded`: not judged. `corrected`: another scorer, or a condition on full marks. `guarded`: judged in
    a fork that ends after the item. `kept`: wrong answers earn much, but never full marks; see `floors`."""
    evidence: str


NOTES: dict[str, Note] = {
    "boxnet": Note("excluded", "no oracle; `[1]` raises AttributeError"),
    "graph_color": Note("excluded", "no oracle; any text that is JSON earns 0.01"),
    "propositional_logic": Note("excluded", "no oracle; a compound premise said again earns 1.0"),
    "rubiks_cube": Note("excluded", "no oracle; any text earns 0.01"),
    "rush_hour": Note("excluded", "no oracle; any text earns 0.01, and a move of 9999999999 steps hangs"),
    "composite": Note("excluded", "a mixture: `from_entry` takes its entries under their own task's name"),
    "simple_integration": Note(
        "guarded", "parse_expr runs `__import__('os').system(...)`; `Integral(integrand, x)` earns 1.0"
    ),
    "intermediate_integration": Note(
        "guarded", "parse_expr runs `__import__('os').system(...)`; `Integral(integrand, x)` earns 1.0"
    ),
    "polynomial_multiplication": Note(
        "corrected", "parse_expr runs code, `9**9**9` hangs; `expand(question)` earns 1.0"
    ),
    "countdown": Note("corrected", "parse_expr runs `__import__('os').system(...)`; `9**9**9` hangs"),
    "puzzle24": Note("corrected", "parse_expr runs code; `6*4*1*1` earns 1.0 for any numbers, so does 24.5"),
    "string_insertion": Note("corrected", "eval runs `__import__('os').system(...)`"),
    "spiral_matrix": Note("corrected", "eval runs `__import__('os').system(...)`"),
    "binary_matrix": Note("corrected", "eval runs `__import__('os').system(...)`"),
    "n_queens": Note("corrected", "eval runs `__import__('os').system(...)`"),
    "bitwise_arithmetic": Note("corrected", "evaluates the expression in the metadata as code"),
    "complex_arithmetic": Note("corrected", "`nan` earns 1.0: min(1.0, nan) is 1.0"),
    "coin_flip": Note("corrected", "`0` earns 1.0 for 0.109375 (common prefix); `1e99999999` never ends"),
    "game_of_life_halting": Note("corrected", "any text earns 1.0: both sides are only tested for truth"),
    "game_of_life": Note("corrected", "extra rows after the right grid earn 1.0; another item's grid 0.92"),
    "calendar_arithmetic": Note(
        "corrected", "an oracle of -1 (no such day, by hand only) pays 1.0 or more for any number"
    ),
    "number_sorting": Note("corrected", "every number may be off by 1.0: a list shifted by 0.9 earns 1.0"),
    "pool_matrix": Note("corrected", "1% relative error passes: 9.07 for 9.0 earns 1.0, also before a `#`"),
    "decimal_arithmetic": Note("corrected", "12 digits are asked for, an error of 0.001 earns 1.0"),
    "letter_jumble": Note("corrected", "the right words and then others earn 1.0"),
    "word_sorting": Note("corrected", "the right words and then others earn 1.0"),
    "figlet_font": Note("corrected", "ten right letters earn 1.0 in a longer word, and before any others"),
    "spell_backward": Note("corrected", "letters after a right word of 6 or 9 letters: earns 0.9999 or more"),
    "fraction_simplification": Note("corrected", "anything may follow `\\frac{a}{b}`: earns 1.0"),
    "gsm_symbolic": Note("corrected", "the first number counts, its sign does not: -279 earns 1.0 for 279"),
    "time_intervals": Note("corrected", "text after the duration is ignored: `3 days or 4 days` earns 1.0"),
    "advanced_geometry": Note("corrected", "an orthocenter followed by a comma and any text earns 1.0"),
    "kakurasu": Note("corrected", "characters other than 0 and 1 are skipped: prose between cells earns 1.0"),
    "survo": Note("corrected", "words are skipped: prose between cells earns 1.0"),
    "sokoban": Note("corrected", "letters other than UDLR are skipped: prose with a solution earns 1.0"),
    "quantum_lock": Note("corrected", "letters A to C of any text are presses: prose around them earns 1.0"),
    "polynomial_equations": Note("corrected", "list members that are no numbers are skipped: junk earns 1.0"),
    "cryptarithm": Note("corrected", "a letter may have several digits, the last counts: earns 1.0"),
    "tower_of_hanoi": Note("corrected", "text glued to a move is skipped: `-Move disk ...` earns 1.0"),
    "knights_knaves": Note("corrected", "`it is false that ` before the right sentence earns 1.0"),
    "codeio": Note("corrected", '`{"x": "5"}` and `{"x": 5}`, `true` and 1 count as equal: earn 1.0'),
    "prime_factorization": Note("kept", "the number itself, not factored, earns 0.5"),
    "rectangle_count": Note("kept", "a count that is one off earns 0.64"),
    "syllogism": Note("kept", "`None` earns 0.5 where `No` is right: it contains the oracle"),
    "arc_agi": Note("corrected", "the output in the metadata is a tuple, which JSON makes a list: no match"),
    "rearc": Note("corrected", "the output in the metadata is a tuple, which JSON makes a list: no match"),
}

# -- entries ----------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """`value` in types that JSON keeps: tuples and sets as lists, keys as text, numpy and dates as values."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return plain(value.tolist())
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if value is None or isinstance(value, str | int | float):
        return value
    return plain(getattr(value, "value", str(value)))  # members of an enumeration


def from_entry(entry: Mapping[str, Any], task: str = "") -> Problem:
    """The problem of one Reasoning Gym entry, also one that has been through JSON, or of a composite's.

    `task` is needed only where the metadata does not name its `source_dataset`. Raises StudyError for a task
    that is not judged and for an entry without an answer that could be judged.
    """
    meta = plain(entry.get("metadata") or {})
    name = task or str(meta.get("source_dataset", ""))
    if reason := refusal(name):
        raise StudyError(f"Reasoning Gym entry refused: {reason}. Choose another task.")
    if not isinstance(entry.get("answer"), str) or not (oracle := entry["answer"].strip()):
        raise StudyError(f"Reasoning Gym's {name} entry has no answer text. Leave it out of the data.")
    if name == "codeio" and oracle in ("{}", "null"):
        raise StudyError(
            "Reasoning Gym's codeio entry is empty: its program failed. Leave it out of the data."
        )
    if name.endswith("_integration") and _antiderivative(oracle, meta["variable"]) is None:
        raise StudyError(f"The answer of {name} is no closed form: {oracle[:80]}. Leave it out of the data.")
    index = meta.get("source_index", meta.get("source_idx", ""))
    return Problem(
        id=f"logic-{name}-{index}",
        domain="logic",
        task=name,
        template=f"{name}.library",
        prompt=[{"role": "user", "content": f"{entry.get('question', '').strip()}\n{INSTRUCTION}"}],
        answer=oracle,
        checks={"task": name, "metadata": meta},
        source="reasoning-gym",
        open_ended=floors().get(name, {}).get("guess_solved", 0.0) < FAIR_CHANCE,
    )


def refusal(task: str) -> str:
    """Why `task` is not judged, or an empty text."""
    note = NOTES.get(task)
    if note and note.action == "excluded":
        return f"{task}: {note.evidence}"
    if note is None and task not in _registered():
        return f"Reasoning Gym has no task {task!r}"
    return ""


@cache
def floors() -> dict[str, dict[str, float]]:
    """Per task what is earned without solving: mean score and share solved of another item's oracle
    (`guess_score`, `guess_solved`) and of random characters (`garbage_score`, `garbage_solved`).

    Written by `benchmarks/reasoning_gym_floors.py`.
    """
    file = resources.files("prorl_study.judges") / "reasoning_gym_tasks.json"
    return json.loads(file.read_text(encoding="utf-8"))


# -- scores -----------------------------------------------------------------------------------------------


def score(task: str, answer: str, oracle: str, metadata: Meta) -> float:
    """Score of `answer` in [0, 1]; 1.0 means solved and nothing less does.

    Raises NeedsFreshFork for guarded tasks, and whatever a scorer raises on an answer that it cannot read.
    """
    scorer = SCORERS.get(task)
    library = _library(task) if scorer is None else None
    if answer == oracle:
        return 1.0
    value = scorer(answer, oracle, metadata) if scorer else library(answer, oracle, metadata)
    if not value > 0:  # not a number, too
        return 0.0
    if value >= 1.0 and task in CONDITIONS and not CONDITIONS[task](answer, oracle, metadata):
        return _contained(answer, oracle)
    return min(float(value), 1.0)


def _contained(answer: str, oracle: str) -> float:
    """The library's base rule for an answer that is not the oracle."""
    return len(oracle) / len(answer) if oracle in answer and len(answer) > len(oracle) else 0.0


@cache
def _registered() -> frozenset[str]:
    import reasoning_gym  # noqa: F401  registers the tasks
    from reasoning_gym.factory import DATASETS

    return frozenset(DATASETS)


@cache
def _library(task: str) -> Scorer:
    """The library's scorer under its default configuration; some print what they dislike."""
    import reasoning_gym

    scorer = reasoning_gym.get_score_answer_fn(task)

    def scored(answer: str, oracle: str, metadata: Meta) -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            # a copy, since knight_swap writes into the metadata
            return float(scorer(answer, {"answer": oracle, "metadata": dict(metadata)}))

    return scored


def _spelling(answer: str, oracle: str, metadata: Meta) -> float:
    value = _library("spell_backward")(answer, oracle, metadata)
    # The library takes 0.2 off for letters after the right word, but its test for a sum of exactly 1.0
    # misses words of six or nine letters, whose shares add up to a little less or more.
    return min(value, 1.0) - 0.2 if value >= 0.999 and answer.lower() != oracle.lower() else value


def _complex(answer: str, oracle: str, metadata: Meta) -> float:
    if "nan" in answer.lower():
        return 0.0
    value = _library("complex_arithmetic")(answer, oracle, metadata)
    # Near misses are docked as the study's recorded results were.
    return value - 0.2 if 0.999 <= value < 1.0 else value


# -- lists and grids --------------------------------------------------------------------------------------


def _listed(answer: str) -> Any:
    """The list that a Python or JSON spelling of it means. Raises ValueError where it is none."""
    found = json.loads(answer.replace("'", '"'))
    if not isinstance(found, list):
        raise ValueError("not a list")
    return found


def _rows(matrix: Any) -> str:
    return "\n".join(" ".join(str(cell) for cell in row) for row in matrix)


def _as_list(read: Callable[[Any], str], credit: float) -> Scorer:
    """Part marks for the oracle written as a list, which the library reads with `eval`."""

    def scored(answer: str, oracle: str, metadata: Meta) -> float:
        return credit if read(_listed(answer)) == oracle.strip() else 0.0

    return scored


def _queens(answer: str, oracle: str, metadata: Meta) -> float:
    if answer in metadata["valid_answers"]:
        return 1.0
    return 0.5 if _rows(_listed(answer)) in metadata["valid_answers"] else 0.0


def _sorted_numbers(answer: str, oracle: str, metadata: Meta) -> float:
    return float([float(n) for n in _listed(answer)] == [float(n) for n in _listed(oracle)])


def _pooled(answer: str, oracle: str, metadata: Meta) -> float:
    """Two decimals are asked for: half a unit of the second one is allowed; the shape earns part marks."""
    given, right = (
        [[float(n) for n in row.split()] for row in text.splitlines()] for text in (answer, oracle)
    )
    if [len(row) for row in given] != [len(row) for row in right]:
        return 0.0
    pairs = [pair for rows in zip(given, right, strict=True) for pair in zip(*rows, strict=True)]
    return 1.0 if all(abs(a - b) <= 0.00501 for a, b in pairs) else 0.1


def _board(task: str) -> Scorer:
    """The library compares with a tuple of tuples."""

    def scored(answer: str, oracle: str, metadata: Meta) -> float:
        output = tuple(tuple(row) for row in metadata["output"])
        return _library(task)(answer, oracle, {**metadata, "output": output})

    return scored


# -- numbers ----------------------------------------------------------------------------------------------


def _bitwise(answer: str, oracle: str, metadata: Meta) -> float:
    return float(int(answer, 0) == int(oracle, 0))


def _calendar(answer: str, oracle: str, metadata: Meta) -> float:
    """The library's decay, taken from the size of the oracle and not from its sign."""
    if not oracle.startswith("-"):
        return _library("calendar_arithmetic")(answer, oracle, metadata)
    given, right = int(answer), int(oracle)
    return math.exp(-5 * abs(given - right) / abs(right))


def _probability(text: str) -> Fraction | None:
    if len(text) <= 60 and re.fullmatch(
        r"\d+/\d+|(\d+(\.\d*)?|\.\d+)(e[+-]?\d{1,3})?", text, re.ASCII | re.I
    ):
        with contextlib.suppress(ZeroDivisionError):
            return Fraction(text)
    return None


def _coin(answer: str, oracle: str, metadata: Meta) -> float:
    """Within the library's 0.0001 and a thousandth of the oracle; else the share of digits that agree."""
    given, right = _probability(answer.strip()), _probability(oracle)
    if given is None or right is None:
        return 0.0
    if abs(given - right) <= min(Fraction(1, 10_000), right / 1000):
        return 1.0
    one, other = f"{float(given):.10g}", f"{float(right):.10g}"
    return len(os.path.commonprefix([one, other])) / (1 + max(len(one), len(other)))


def _decimal(answer: str, oracle: str, metadata: Meta) -> float:
    """Twelve significant digits are asked for: one unit of the twelfth is allowed."""
    with localcontext() as context:
        context.prec = 40
        try:
            given, right = Decimal(answer), Decimal(oracle)
            unit = Decimal(1).scaleb(right.adjusted() - 11) if right else Decimal(0)
            return float(given.is_finite() and abs(given - right) <= unit)
        except InvalidOperation:
            return 0.0


# -- expressions ------------------------------------------------------------------------------------------


def _arithmetic(answer: str) -> tuple[Fraction, list[int]] | None:
    """Value and numbers of an expression of integers, `+ - * /` and brackets; None where it is not one."""
    if not re.fullmatch(r"[0-9+\-*/()\s]+", answer, re.ASCII) or "**" in answer or "//" in answer:
        return None
    if max(map(len, re.findall(r"\d+", answer)), default=0) > 12:
        return None
    numbers: list[int] = []

    def value(node: ast.expr) -> Fraction:
        match node:
            case ast.Constant(value=int(number)):
                numbers.append(number)
                return Fraction(number)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                return -value(operand) if isinstance(node.op, ast.USub) else value(operand)
            case ast.BinOp(left=left, op=operator, right=right):
                a, b = value(left), value(right)
                if isinstance(operator, ast.Add):
                    return a + b
                if isinstance(operator, ast.Sub):
                    return a - b
                return a * b if isinstance(operator, ast.Mult) else a / b
        raise ValueError("not arithmetic")

    try:
        return value(ast.parse(" ".join(answer.split()), mode="eval").body), numbers
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _countdown(answer: str, oracle: str, metadata: Meta) -> float:
    if (read := _arithmetic(answer)) is None:
        return 0.01
    value, numbers = read
    right = sorted(numbers) == sorted(metadata["numbers"]) and value == metadata["target"]
    return 1.0 if right else 0.05


def _puzzle24(answer: str, oracle: str, metadata: Meta) -> float:
    read = _arithmetic(answer)
    right = read is not None and read[0] == 24 and sorted(read[1]) == sorted(metadata["numbers"])
    return 1.0 if right else 0.01


def _polynomial(text: str) -> dict[tuple[tuple[str, int], ...], int] | None:
    """Coefficients by monomial of a sum of products of integers and powers; None where it is not one.

    A monomial that occurs twice makes it none: the task is to multiply out and to collect.
    """
    text = re.sub(r"\s+", "", text)
    factor = r"(?:\d+|[A-Za-z](?:\*\*\d+)?)"
    term = rf"[+-]{factor}(?:\*{factor})*"
    signed = text if text[:1] in ("+", "-") else f"+{text}"
    if not re.fullmatch(rf"(?:{term})+", signed, re.ASCII):
        return None
    found: dict[tuple[tuple[str, int], ...], int] = {}
    for part in re.findall(term, signed, re.ASCII):
        coefficient, powers = (-1 if part[0] == "-" else 1), dict[str, int]()
        for number, name, power in re.findall(r"(\d+)|([A-Za-z])(?:\*\*(\d+))?", part):
            if number:
                coefficient *= int(number)
            else:
                powers[name] = powers.get(name, 0) + int(power or 1)
        monomial = tuple(sorted((name, power) for name, power in powers.items() if power))
        if monomial in found:
            return None
        found[monomial] = coefficient
    return {monomial: coefficient for monomial, coefficient in found.items() if coefficient}


def _multiplied_out(answer: str, oracle: str, metadata: Meta) -> float:
    given = _polynomial(answer)
    return float(given is not None and given == _polynomial(oracle))


LARGEST_POWER = 40
LONGEST_NUMBER = 40
FUNCTIONS = (
    *("exp", "log", "ln", "sqrt", "sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan"),
    *("sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "Abs"),
)
"""Of sympy, and all of one argument: none can hide an integral that was not done."""


def _antiderivative(text: str, variable: str) -> Any:
    """sympy's expression for `text`, built node by node; None where something else than elementary functions
    of `variable`, numbers, a constant, `E` and `pi` occurs, or a number or power is too large to be meant."""
    import sympy

    names = {name: sympy.Symbol(name) for name in ("C", "c", "K", "k", variable)}
    names |= {"E": sympy.E, "pi": sympy.pi}

    def meant(value: Any) -> Any:
        """`value`, unless it is a number that a power or function could make endless."""
        if value.is_number and value not in (sympy.E, sympy.pi):
            if not (value.is_Rational and abs(value) <= 1000):
                raise ValueError("a large number")
        return value

    def build(node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=int(number)) if not isinstance(number, bool):
                return sympy.Integer(number)
            case ast.Constant(value=float(number)) if math.isfinite(number):
                return sympy.Rational(str(number))
            case ast.Name(id=name) if name in names:
                return names[name]
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in FUNCTIONS:
                return getattr(sympy, name)(meant(build(argument)))
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                return -build(operand) if isinstance(node.op, ast.USub) else build(operand)
            case ast.BinOp(left=left, op=ast.Pow(), right=right):
                base, power = build(left), build(right)
                if power.is_number and not (power.is_Rational and abs(power) <= LARGEST_POWER):
                    raise ValueError("a power that is not small")
                return (meant(base) if power.is_number else base) ** power
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div(), right=right):
                a, b = build(left), build(right)
                if isinstance(node.op, ast.Add):
                    return a + b
                if isinstance(node.op, ast.Sub):
                    return a - b
                return a * b if isinstance(node.op, ast.Mult) else a / b
        raise ValueError("not elementary")

    if max(map(len, re.findall(r"\d+", text)), default=0) > LONGEST_NUMBER:
        return None
    try:
        found = build(ast.parse(" ".join(text.split()), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, AttributeError, RecursionError, MemoryError):
        return None
    return None if found.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo) else found


def _integral(answer: str, oracle: str, metadata: Meta) -> float:
    """Full marks where the answer's derivative is the integrand."""
    # Nothing is evaluated as code, but sympy may take long and much memory over a hostile expression.
    require_fresh_fork()
    import sympy

    variable = metadata["variable"]
    given, integrand = (_antiderivative(text, variable) for text in (answer, metadata["integrand"]))
    if given is None or integrand is None:
        return 0.0
    return float(sympy.simplify(sympy.diff(given, sympy.Symbol(variable)) - integrand) == 0)


SCORERS: dict[str, Scorer] = {
    "arc_agi": _board("arc_agi"),
    "binary_matrix": _as_list(_rows, 0.1),
    "bitwise_arithmetic": _bitwise,
    "calendar_arithmetic": _calendar,
    "coin_flip": _coin,
    "complex_arithmetic": _complex,
    "countdown": _countdown,
    "decimal_arithmetic": _decimal,
    "game_of_life_halting": lambda answer, oracle, _: float(answer.lower() == oracle.lower()),
    "intermediate_integration": _integral,
    "n_queens": _queens,
    "number_sorting": _sorted_numbers,
    "polynomial_multiplication": _multiplied_out,
    "pool_matrix": _pooled,
    "puzzle24": _puzzle24,
    "rearc": _board("rearc"),
    "simple_integration": _integral,
    "spell_backward": _spelling,
    "spiral_matrix": _as_list(lambda row: " ".join(map(str, row)), 0.1),
    "string_insertion": _as_list("".join, 0.1),
}
"""Tasks that the library does not score here, or not alone."""


# -- conditions on full marks -----------------------------------------------------------------------------


def _same_json(one: Any, other: Any) -> bool:
    """Equal in types too, where a number is a number; floats up to their printing."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other or math.isclose(one, other, rel_tol=1e-9)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same_json(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same_json, one, other))
    return type(one) is type(other) and one == other


def _same_shape(answer: str, oracle: str, _: Meta) -> bool:
    given, right = json.loads(answer), json.loads(oracle)
    return [len(row) for row in given] == [len(row) for row in right]


def _one_number(answer: str, oracle: str, _: Meta) -> bool:
    found = re.fullmatch(r"\$?\s*(-?\d+(?:\.\d+)?)\s*%?\.?", answer, re.ASCII)
    return found is not None and float(found[1]) == float(oracle)


def _names_and_roles(answer: str, oracle: str, _: Meta) -> bool:
    words = re.sub(r"[.,()]", " ", answer.lower()).split()
    return len([w for w in words if w not in ("is", "a", "an", "and")]) == 2 * len(
        re.findall(r"\bis\b", oracle)
    )


def _each_letter_once(answer: str, *_: Any) -> bool:
    letters = [pair.split("=")[0].strip() for pair in answer.split(",")]
    return len(letters) == len(set(letters))


def _spelled(pattern: str) -> Callable[[str, str, Meta], bool]:
    compiled = re.compile(pattern, re.ASCII)
    return lambda answer, *_: compiled.fullmatch(answer) is not None


NUMBER = r"-?\d+(?:\.\d*)?"

CONDITIONS: dict[str, Callable[[str, str, Meta], bool]] = {
    "advanced_geometry": _spelled(rf"{NUMBER}\s*°?|\(?\s*{NUMBER}\s*,\s*{NUMBER}\s*\)?"),
    "codeio": lambda answer, oracle, _: _same_json(json.loads(answer), json.loads(oracle)),
    "cryptarithm": _each_letter_once,
    "figlet_font": lambda answer, oracle, _: answer.replace(" ", "").lower() == oracle.lower(),
    "fraction_simplification": _spelled(
        r"\$?\s*(\\d?frac\s*\{\s*\d+\s*\}\s*\{\s*\d+\s*\}|\d+\s*/\s*\d+)\s*\$?"
    ),
    "game_of_life": _same_shape,
    "gsm_symbolic": _one_number,
    "kakurasu": _spelled(r"[01\s]+"),
    "knights_knaves": _names_and_roles,
    "letter_jumble": lambda answer, oracle, _: answer.lower().split() == oracle.lower().split(),
    "polynomial_equations": _spelled(rf"{NUMBER}(\s*,\s*{NUMBER})*"),
    "quantum_lock": _spelled(r"[A-Ca-c]([\s,→>-]*[A-Ca-c])*"),
    "sokoban": _spelled(r"[UDLR\s]+"),
    "survo": _spelled(r"[\d\s-]+"),
    "time_intervals": _spelled(r"\d+( days?)?|(\d+ days, ?)?\d+:\d\d(:\d\d(\.\d+)?)?"),
    "tower_of_hanoi": _spelled(r"(Move disk \d+ from Peg \d+ to Peg \d+\s*)+"),
    "word_sorting": lambda answer, oracle, _: len(answer.split(",")) == len(oracle.split(",")),
}
"""What an answer must also satisfy where the library gives it full marks."""
