r"""STEM from the hub: SCP-116K for training, GPQA-Diamond as the benchmark.

SCP-116K holds free-text solutions. The paper kept pairs where GPT-4o found a model's answer to agree with
the reference; no such judge runs here. The rule in its place: the final answer of the reference must be one
that can be compared (a box, or what follows "the answer is" and its like; short), no row may say that a
model's solution disagrees, and the boxed answer of every model's solution that a row holds must agree with
the reference under the study's own verifier (`gold`). Left out: proofs, explanations, several-part questions.
"""

from __future__ import annotations

import hashlib
import re
from random import Random

from prorl_study.domains import Problem
from prorl_study.domains.math import last_boxed
from prorl_study.hub.math import SUFFIX
from prorl_study.hub.sources import Drop, Item, Row, Source, boxed, text_of, user

LETTER_SUFFIX = "\nLet's think step by step and output the letter of the right option within \\boxed{}."
LONGEST_ANSWER = 60
"""Characters; longer ones are sentences, which cannot be compared."""
_STATED = re.compile(
    r"(?:final answer|the answer|answer)\s*(?:is|:|=)\s*(?P<answer>[^\n]+?)\s*\.?\s*$", re.I | re.M
)
_SEVERAL_PARTS = re.compile(r"(?m)^\s*\(?(?:b|ii|2)[).]\s")
SOLUTIONS = ("matched_solution", "solution", "extracted_solution")
"""Columns that hold the reference, in the versions of the set."""
OTHERS = ("r1_solution", "o1_solution", "qwq_solution")
"""Columns that hold a model's solution."""


def final_answer(solution: str) -> str:
    """The answer that a free-text solution ends in. Raises Drop where there is none that can be compared."""
    found = last_boxed(solution)
    if not found:
        stated = list(_STATED.finditer(solution))
        found = stated[-1]["answer"].strip().strip("*$ ") if stated else ""
    if not found:
        raise Drop("no final answer in the solution")
    if len(found) > LONGEST_ANSWER:
        raise Drop("final answer too long to compare")
    return found


def scp(row: Row) -> Item:
    question = text_of(row, "problem")
    solution = next((str(row[name]) for name in SOLUTIONS if row.get(name)), "")
    if not solution:
        raise Drop("no solution")
    if _SEVERAL_PARTS.search(question):
        raise Drop("question of several parts")
    answer = final_answer(solution)
    problem = Problem(domain="stem", task="hub", prompt=user(question + SUFFIX), answer=answer)
    if any(row.get(f"is_{name}_same_with_matched_solution") is False for name in OTHERS):
        raise Drop("a model's solution disagrees")
    boxes = [box for name in OTHERS if row.get(name) and (box := last_boxed(str(row[name])))]
    return Item(problem, boxed(answer), tuple(boxed(box) for box in boxes))


def gpqa(row: Row) -> Item:
    """Four options in an order that the question's own hash decides, so that it is the same everywhere."""
    question, right = text_of(row, "Question"), text_of(row, "Correct Answer")
    texts = [right] + [text_of(row, f"Incorrect Answer {number}") for number in (1, 2, 3)]
    Random(hashlib.sha256(question.encode()).hexdigest()).shuffle(texts)
    options = dict(zip("ABCD", texts, strict=True))
    listed = "\n".join(f"{letter}) {text}" for letter, text in options.items())
    letter = next(letter for letter, text in options.items() if text == right)
    problem = Problem(
        domain="stem",
        task="choice",
        prompt=user(f"{question}\n{listed}{LETTER_SUFFIX}"),
        answer=letter,
        checks={"options": options},
        open_ended=False,
    )
    return Item(problem, boxed(letter))


TRAINING = (
    Source(
        name="scp116k",
        domain="stem",
        licence="CC BY-NC-SA 4.0: not for commercial use",
        repo="EricLu/SCP-116K",
        files=("**/*.parquet",),
        columns=("problem",),
        map=scp,
        expected=25_000,
    ),
)

BENCHMARKS = (
    Source(
        name="gpqa_diamond",
        domain="stem",
        licence="CC BY 4.0; not to be posted in plain text",
        repo="Idavidrein/gpqa",
        revision="83022cefff930aea54f654c0b282e74b9eeda5c6",
        files=("gpqa_diamond.csv",),
        columns=("Question", "Correct Answer", "Incorrect Answer 1"),
        map=gpqa,
        expected=198,
        gated=True,
    ),
)
