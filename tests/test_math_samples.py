"""Claims about the math judge on rows of public sets: golds are right, changed golds are not.

That a changed gold differs is shown by `reference`, which reads LaTeX by text replacement and Python's own
arithmetic and shares nothing with the judge. What it cannot read is not used as a mutant.
"""

from __future__ import annotations

import cmath
import math
import re
from collections import Counter
from random import Random

import pytest
from samples import needs_samples, rows

from prorl_study.domains.math import DOMAIN
from prorl_study.domains.problem import Problem, Verdict

pytestmark = needs_samples
SETS = {
    "gsm8k_train": "answer",
    "math_train": "answer",
    "deepscaler": "answer",
    "nemo_gym_math": "expected_answer",
}
NOT_JUDGED: dict[str, str] = {}
"""`set/index` of a row whose gold is not accepted, and why. There is none."""
ESCAPED: dict[str, str] = {}
"""Mutants that are accepted though they differ, and why. There is none."""
POINTS = ((0.7312, 1.377, 2.113), (1.9371, -0.613, 0.4471))


def golds() -> dict[str, str]:
    """`set/index` to gold; GSM8K's gold is what follows `####`."""
    found = {}
    for name, column in SETS.items():
        for i, row in enumerate(rows(name)):
            found[f"{name}/{i}"] = row[column].rpartition("####")[2].strip()
    return found


def judge(gold: str, answer: str) -> Verdict:
    return DOMAIN.verify(
        Problem(domain="math", answer=gold), rf"<think>so</think>It is \boxed{{{answer}}}.", False
    )


def respell(gold: str) -> str:
    r"""The same answer as another hand would type it: `\dfrac`, spaces, `\left`, `$`."""
    text = re.sub(r"\\frac(?=\s*\{)", r"\\dfrac", re.sub(r"(?<![\\\w,])\(", r"\\left( ", gold))
    return (
        f" $ {re.sub(r'(?<![,!])[)](?!_)', lambda m: chr(92) + 'right)', text) if text != gold else gold}$ "
    )


def python(text: str) -> str:
    """LaTeX of one value as a Python expression, by replacement; a ValueError where something is left."""
    text = (
        re.sub(r"\\[,!;]|\\left|\\right|\$|\\\$", "", text).replace(r"\dfrac", r"\frac").strip().rstrip(".")
    )
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    text = re.sub(r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\sqrt\s*(\d)", r"\\sqrt{\1}", text)
    text = re.sub(r"^(-?)(\d+)\s*\\frac\{(\d+)\}\{(\d+)\}$", r"\1(\2+(\3)/(\4))", text)
    while (
        new := re.sub(
            r"\\sqrt\{([^{}]*)\}",
            r"sqrt(\1)",
            re.sub(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"((\1)/(\2))", text),
        )
    ) != text:
        text = new
    text = re.sub(r"\^\s*\{([^{}]*)\}", r"**(\1)", text).replace("^", "**").replace(r"\pi", " pi ")
    text = re.sub(r"(?<=[\d)])\s*(?=[a-z(])|(?<=[a-z])\s+(?=[a-z(\d])", "*", text)
    text = re.sub(r"sqrt\*\(", "sqrt(", text)
    text = re.sub(r"(?<=pi)\s*(?=[\d(])|(?<=\b[a-z])(?=[\d(])", "*", text)
    if re.search(r"[\\{}_]", text):
        raise ValueError(text)
    return text.strip()


def value(text: str) -> tuple[complex, ...]:
    """The expression's values where its letters take the values of `POINTS`."""
    code = compile(python(text), "gold", "eval")
    names = sorted(set(code.co_names) - {"sqrt", "pi", "i", "e"})
    if len(names) > len(POINTS[0]) or any(len(name) > 1 for name in names):
        raise ValueError(text)
    known = {"sqrt": cmath.sqrt, "pi": math.pi, "i": 1j, "e": math.e}
    return tuple(
        complex(eval(code, {"__builtins__": {}}, known | dict(zip(names, at, strict=False)))) for at in POINTS
    )


def pieces(text: str) -> list[str]:
    """Cut at commas outside of brackets."""
    parts, depth = [""], 0
    for i, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if char == "," and not depth and not re.match(r",(?:\\!)?\s?\d{3}(?!\d)", text[i:]):
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]


Reading = tuple[str, tuple[tuple[complex, ...], ...]]


def reference(text: str) -> Reading:
    """What the text is: its brackets (empty for a bare list or a value) and its values, lists sorted."""
    text = re.sub(r"\\left|\\right|\\,", "", text).strip()
    unit = re.search(r"(?:\^\{?\\circ\}?|\\%|\\text\{[^{}]*\})$", text)
    text = text[: unit.start()] if unit else text
    bare = pieces(text)
    if len(bare) == 1 and text[:1] in ("(", "[") and text[-1:] in (")", "]") and len(pieces(text[1:-1])) > 1:
        ends = [part.replace(r"\infty", "10**9") for part in pieces(text[1:-1])]
        return text[0] + text[-1], tuple(value(part) for part in ends)
    found = [value(part) for part in bare]
    return "", tuple(sorted(found, key=lambda v: [(c.real, c.imag) for c in v]))


def differ(one: Reading, other: Reading) -> bool:
    if one[0] != other[0] or len(one[1]) != len(other[1]):
        return True
    return any(
        abs(a - b) > 1e-9 * max(abs(a), abs(b), 1e-6)
        for left, right in zip(one[1], other[1], strict=True)
        for a, b in zip(left, right, strict=True)
    )


def mutants(gold: str, rng: Random) -> dict[str, str]:
    """Kind of change to the changed gold."""
    made = {"sign": gold[1:] if gold.startswith("-") else f"-{gold}", "one more": f"{gold}+1"}
    digits = [m.start() for m in re.finditer(r"\d", gold)]
    if digits:
        at = rng.choice(digits)
        made["digit"] = gold[:at] + rng.choice("123456789".replace(gold[at], "")) + gold[at + 1 :]
        made["zero"] = gold[: digits[-1] + 1] + "0" + gold[digits[-1] + 1 :]
    made["inverted"] = re.sub(r"frac\s*(\{[^{}]*\})\s*(\{[^{}]*\})", r"frac\2\1", gold)
    made["exponent"] = re.sub(r"\^\{?(\d)\}?", lambda m: f"^{{{int(m[1]) + 1}}}", gold)
    made["no root"] = re.sub(r"\\sqrt\{([^{}]*)\}", r"\1", gold)
    made["operator"] = re.sub(r"(?<=[\w})\s])([+-])", lambda m: "+" if m[1] == "-" else "-", gold)
    inner = re.fullmatch(r"\s*((?:\\left)?[(\[])(.*?)((?:\\right)?[)\]])\s*", gold)
    parts = pieces(inner[2]) if inner else pieces(gold)
    if inner and len(pieces(gold)) == 1 and len(parts) > 1:
        made["order"] = inner[1] + ",".join(parts[::-1]) + inner[3]
        made["bracket"] = inner[1].replace("(", "[") + inner[2] + inner[3].replace(")", "]")
        made["dropped"] = inner[1] + ",".join(parts[1:]) + inner[3]
    elif len(parts) > 1:
        made["dropped"] = ", ".join(parts[1:])
        made["added"] = ", ".join([*parts, "12345"])
    return {kind: text for kind, text in made.items() if text != gold}


def test_golds_score_one_as_written_and_as_another_hand_would_type_them() -> None:
    rows = golds()
    assert len(rows) == 905
    for row, gold in rows.items():
        for answer in (gold, respell(gold)):
            verdict = judge(gold, answer)
            assert (verdict.score == 1.0) == (row not in NOT_JUDGED), (row, gold, answer, verdict)


def test_changed_golds_score_less(capsys: pytest.CaptureFixture[str]) -> None:
    rng = Random(0)
    made, escaped = Counter[str](), []
    for row, gold in golds().items():
        try:
            true = reference(gold)
        except (ValueError, SyntaxError, TypeError, NameError, ZeroDivisionError):
            continue
        for kind, text in mutants(gold, rng).items():
            try:
                if not differ(true, reference(text)):
                    continue
            except (ValueError, SyntaxError, TypeError, NameError, ZeroDivisionError, OverflowError):
                continue
            made[kind] += 1
            if judge(gold, text).score == 1.0:
                escaped.append((row, kind, gold, text))
    total = sum(made.values())
    with capsys.disabled():
        print(f"\n{total - len(escaped)} of {total} mutants score less than 1: {dict(made)}")
    assert total > 2000 and min(made[kind] for kind in ("order", "bracket", "dropped", "exponent")) > 0
    assert {f"{row} {kind}" for row, kind, *_ in escaped} == set(ESCAPED), escaped


def test_answers_of_other_rows_score_nothing_where_they_differ() -> None:
    rows = list(golds().values())
    for gold, other in zip(rows, rows[7:] + rows[:7], strict=True):
        try:
            if differ(reference(gold), reference(other)):
                assert judge(gold, other).score == 0.0, (gold, other)
        except (ValueError, SyntaxError, TypeError, NameError):
            continue


def test_no_answer_is_found_where_there_is_none() -> None:
    for gold in list(golds().values())[::9]:
        problem = Problem(domain="math", answer=gold)
        for completion in (
            "",
            "<think>" + gold,
            rf"<think>\boxed{{{gold}}}</think>",
            rf"<think>a</think>so \boxed{{{gold}",
            r"<think>a</think>Put the answer in \boxed{}.",
            "<think>a</think>I cannot answer this question.",
        ):
            verdict = DOMAIN.verify(problem, completion, False)
            assert (verdict.score, verdict.status, verdict.answer) == (0.0, "unparseable", None), completion
