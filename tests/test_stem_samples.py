"""Claims about the STEM judge on rows of public sets: right options and formulas score, all others do not."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

from samples import needs_samples, rows

from prorl_study.domains.problem import Problem, Verdict
from prorl_study.domains.stem import DOMAIN

pytestmark = needs_samples
FREE, BOXED = "Choose an option.", r"Give the letter in \boxed{}."
TEXT_NOT_JUDGED = {
    "mmlu_stem/39": "the text of option D is `C`, which names option C",
    "mmlu_stem/217": "options A and B have the same text",
    "mmlu_stem/227": "the text of option D is `B`, which names option B",
}
"""Rows whose options cannot all be named by their text alone; by letter all can."""


def choices() -> dict[str, tuple[str, dict[str, str]]]:
    """`set/index` to gold letter and options."""
    found = {}
    for i, row in enumerate(rows("mmlu_stem")):
        found[f"mmlu_stem/{i}"] = "ABCD"[row["answer"]], dict(zip("ABCD", row["choices"], strict=True))
    for i, row in enumerate(rows("nemo_gym_mcqa")):
        options = {letter: text for option in row["options"] for letter, text in option.items()}
        found[f"nemo_gym_mcqa/{i}"] = row["expected_answer"], options
    return found


def judge(gold: str, options: dict[str, str], completion: str, asked: str) -> Verdict:
    prompt = [{"role": "user", "content": asked}]
    problem = Problem(domain="stem", answer=gold, checks={"options": options}, prompt=prompt)
    return DOMAIN.verify(problem, f"<think>so</think>{completion}", False)


def test_each_option_scores_by_letter_and_by_text_exactly_where_it_is_the_gold() -> None:
    found = choices()
    assert len(found) == 305
    ambiguous = set()
    for row, (gold, options) in found.items():
        for letter, text in options.items():
            by_letter = [
                (rf"\boxed{{{letter}}}", BOXED),
                (rf"\boxed{{\text{{({letter})}}}}", BOXED),
                (rf"\boxed{{{letter}. {text}}}", BOXED),
                (f"The answer is {letter}.", FREE),
                (f"Answer: ({letter})", FREE),
                (f"Thus\n**{letter}**", FREE),
                (f"Thus\n{letter}) {text}", FREE),
            ]
            by_text = [
                (rf"\boxed{{{text}}}", BOXED),
                (rf"\boxed{{\text{{{text}}}}}", BOXED),
                (f"Thus\n{text}", FREE),
                (f"The answer is {text}", FREE),
            ]
            for completion, asked in by_letter:
                score = judge(gold, options, completion, asked).score
                assert score == float(letter == gold), (row, letter, completion)
            for completion, asked in by_text:
                if judge(gold, options, completion, asked).score != float(letter == gold):
                    ambiguous.add(row)
    # Row 217 asks for another option than the two that share their text.
    assert ambiguous <= set(TEXT_NOT_JUDGED), ambiguous


def test_a_statement_without_a_box_is_no_answer_where_a_box_is_asked_for() -> None:
    for gold, options in choices().values():
        for completion in (f"The answer is {gold}.", options[gold], gold):
            assert judge(gold, options, completion, BOXED).status == "unparseable"


def test_physics_golds_score_one_and_changed_ones_nothing() -> None:
    changed = Counter[str]()
    for row in rows("nemo_gym_physics"):
        gold = row["expected_answer"]
        problem = Problem(domain="stem", answer=gold, prompt=row["responses_create_params"]["input"])
        assert DOMAIN.verify(problem, f"<think>so</think>It is {gold}.", False).score == 1.0
        inner = gold.removeprefix(r"\boxed{").removesuffix("}")
        assert DOMAIN.verify(problem, rf"\boxed{{ $ {inner} $ }}", False).score == 1.0
        mutants = {
            "sign": f"-{inner}",
            "factor": rf"2 \cdot {inner}",
            "inverted": rf"\frac{{1}}{{{inner}}}",
            "function": re.sub(r"\\sin", r"\\cos", re.sub(r"\\ln", r"\\exp", inner)),
            "symbol": re.sub(r"V_1|(?<![a-z\\])[bhv](?![a-z])", "k", inner),
            "case": re.sub(r"(?<![A-Za-z\\])([gqhvc])(?![a-z])", lambda m: m[1].upper(), inner),
        }
        for kind, text in mutants.items():
            if text != inner:
                changed[kind] += 1
                assert DOMAIN.verify(problem, rf"\boxed{{{text}}}", False).score == 0.0, (inner, text)
    assert sum(changed.values()) > 20 and all(changed.values())


def test_changed_numbers_and_units_score_nothing() -> None:
    """On generated quantities, taken as problems of another source, so that the wider rules hold."""
    rng, tried = Random(0), 0
    for index in range(400):
        made = DOMAIN.generate(7, "test", index)
        if made.task == "choice":
            continue
        number, _, unit = made.answer.partition(" ")
        problem = Problem(domain="stem", answer=made.answer)
        other = rng.choice([u for u in ("kg", "m/s", "V", "mol", "Pa", "km", "s^2") if u != unit])
        assert DOMAIN.verify(problem, rf"\boxed{{{number}\ \text{{{unit}}}}}", False).solved
        for wrong in (
            f"-{number} {unit}",
            f"{number}0 {unit}",
            f"{number}e1 {unit}",
            rf"{number} \times 10^{{2}} {unit}",
            f"{int(number) * 1.02 + 0.02} {unit}",
            f"1/{number} {unit}" if int(number) > 1 else f"2 {unit}",
            f"{number} {other}",
            f"{number} k{unit}",
            f"{number}",
        ):
            tried += 1
            assert not DOMAIN.verify(problem, rf"\boxed{{{wrong}}}", False).solved, (made.answer, wrong)
    assert tried > 2000
