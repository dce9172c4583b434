"""Claims about the STEM domain: its problems, its teacher, and what its verifier accepts."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from samples import needs_samples, rows

from prorl_study.domains import SPLITS
from prorl_study.domains.problem import Problem, Verdict
from prorl_study.domains.stem import CHOICE_SHARE, DOMAIN, FORMULAS, LETTERS, MAX_VALUE, TASKS, UNITS
from prorl_study.domains.templates import DEPTHS, HELD_OUT_SPLITS
from prorl_study.errors import StudyError

PER_SPLIT = 250
PROBLEMS = [DOMAIN.generate(7, split, i) for split in SPLITS for i in range(PER_SPLIT)]
CHOICES = [p for p in PROBLEMS if p.task == "choice"]
TRAIN = [DOMAIN.generate(7, "train", i) for i in range(2000)]


def test_a_problem_depends_on_seed_split_and_index_alone() -> None:
    assert [DOMAIN.generate(7, split, i) for split in SPLITS for i in range(PER_SPLIT)] == PROBLEMS
    assert DOMAIN.generate(8, "train", 0) != DOMAIN.generate(7, "train", 0) != DOMAIN.generate(7, "train", 1)


def test_every_task_occurs_in_every_split() -> None:
    wanted = {(split, task) for split in SPLITS for task in [*TASKS, "choice"]}
    assert {(p.split, p.task) for p in PROBLEMS} == wanted


def test_the_right_completion_scores_one_strictly_and_leniently() -> None:
    for problem in PROBLEMS:
        for lenient in (False, True):
            verdict = DOMAIN.verify(problem, DOMAIN.solve(problem), lenient)
            assert (verdict.score, verdict.solved, verdict.status) == (1.0, True, "correct"), problem


def test_habit_and_garbage_are_well_formed_and_always_wrong() -> None:
    for i, problem in enumerate(PROBLEMS):
        for completion in (DOMAIN.habit(problem, Random(i)), DOMAIN.garbage(problem, Random(i))):
            for lenient in (False, True):
                verdict = DOMAIN.verify(problem, completion, lenient)
                assert (verdict.score, verdict.status) == (0.0, "wrong"), (problem, completion)


def test_habit_and_solution_differ_first_in_the_last_operation() -> None:
    for problem in PROBLEMS:
        right, wrong = DOMAIN.solve(problem), DOMAIN.habit(problem, Random(0))
        shared = os.path.commonprefix([right, wrong])
        assert {right[len(shared)], wrong[len(shared)]} in ({"*", "/"}, {"+", "-"})
        assert right[len(shared) :].partition("</think>")[0].count("=") == 1


def test_a_slip_costs_the_strict_score_only() -> None:
    statuses = Counter()
    for i, problem in enumerate(PROBLEMS):
        slipped = DOMAIN.slip(DOMAIN.solve(problem), Random(i))
        verdict = DOMAIN.verify(problem, slipped, False)
        statuses[verdict.status] += 1
        assert not verdict.solved
        assert DOMAIN.verify(problem, slipped, True).solved, slipped
    assert statuses["unparseable"] > statuses["wrong"] > 0  # no box; a box without the unit


@pytest.mark.parametrize("task", [*TASKS, "choice"])
def test_guesses_are_well_formed_and_right_no_oftener_than_chance(task: str) -> None:
    problems = [p for p in TRAIN if p.task == task]
    verdicts = [DOMAIN.verify(p, DOMAIN.guess(p, Random(i)), False) for i, p in enumerate(problems)]
    assert {v.status for v in verdicts} <= {"correct", "wrong"}
    assert sum(v.score for v in verdicts) / len(verdicts) < (0.31 if task == "choice" else 0.2)


def test_multiple_choice_holds_the_right_value_and_the_habits_once_each() -> None:
    for problem in CHOICES:
        options = problem.checks["options"]
        assert list(options) == list(LETTERS) and len(set(options.values())) == 4
        assert all(
            f"{letter}) {option}" in problem.prompt[0]["content"] for letter, option in options.items()
        )
        picked = DOMAIN.extract(DOMAIN.habit(problem, Random(0)), False)
        assert picked in options and picked != problem.answer


def test_multiple_choice_has_its_share_and_no_favourite_letter() -> None:
    assert abs(len(CHOICES) / len(PROBLEMS) - CHOICE_SHARE) < 0.04
    assert all(p.open_ended == (p.task != "choice") for p in PROBLEMS)
    counts = Counter(p.answer for p in CHOICES)
    assert set(counts) == set(LETTERS) and max(counts.values()) < 0.4 * len(CHOICES)


def test_wordings_of_the_held_out_splits_do_not_occur_elsewhere() -> None:
    held_out = {p.template for p in PROBLEMS if p.split in HELD_OUT_SPLITS}
    assert held_out and held_out.isdisjoint(p.template for p in PROBLEMS if p.split not in HELD_OUT_SPLITS)


def test_depths_are_those_of_the_split() -> None:
    for split in SPLITS:
        assert {p.difficulty for p in PROBLEMS if p.split == split} == set(DEPTHS[split])
    assert all(len(p.checks["steps"]) == p.difficulty for p in PROBLEMS)


def test_texts_and_values_are_small_enough_for_the_small_model() -> None:
    for problem in PROBLEMS:
        assert len(problem.prompt[0]["content"]) <= 220
        for completion in (DOMAIN.solve(problem), DOMAIN.habit(problem, Random(0))):
            assert len(completion) <= 150
            steps = completion.removeprefix("<think>").partition("</think>")[0].split()
            assert all(0 < int(step.partition("=")[2]) <= MAX_VALUE for step in steps)


def test_the_table_knows_the_unit_of_every_formula_and_no_spelling_twice() -> None:
    assert {formula.unit for formula in FORMULAS} <= set(UNITS)
    spellings = [word for unit, words in UNITS.items() for word in (unit, *words.split())]
    assert len(spellings) == len(set(spellings))


@pytest.mark.parametrize(
    ("completion", "strict", "lenient"),
    [
        (r"<think>2*6=12</think>\boxed{12 N}", "12 N", "12 N"),
        (r"\boxed{12\,\text{N}} is what we get.", "12 N", "12 N"),
        (r"\boxed{12newtons}", "12 N", "12 N"),
        (r"\boxed{F = \frac{24}{2} \mathrm{N}}", "12 N", "12 N"),
        (r"\boxed{1.20 \times 10^{1} N}", "12 N", "12 N"),
        (r"\boxed{(b)}", "B", "B"),
        (r"\boxed{B) 12 N}", "B", "B"),
        (r"<think>\boxed{12 N}</think>done", None, "12 N"),
        ("<think>2*6=12</think>the answer is 12 N.", None, "12 N"),
        ("<think>2*6=12</think>the answer is 12 and no more", None, "12"),
        ("<think>2*6=12</think>so it is 3 m/s^2", None, "3 m/s^2"),
        ("<think>2*6=12</think>so it is C", None, "C"),
        ("<think>2*6=12</think>answer: B) 12 N", None, "B"),
        ("<think>2*6=12", None, "12"),
        ("of H2O", None, None),
        (r"\boxed{}", None, None),
        ("", None, None),
    ],
)
def test_extraction(completion: str, strict: str | None, lenient: str | None) -> None:
    assert (DOMAIN.extract(completion, False), DOMAIN.extract(completion, True)) == (strict, lenient)


@pytest.mark.parametrize(
    ("gold", "answer", "strict", "lenient"),
    [
        ("12 N", "12 N", "correct", "correct"),
        ("12 N", "12 newtons", "correct", "correct"),
        ("12 N", "12.1 N", "correct", "correct"),
        ("12 N", "12.2 N", "wrong", "wrong"),
        ("0.5 m/s", "1/2 meters per second", "correct", "correct"),
        ("12 N", "12", "wrong", "correct"),
        ("12 N", "12 J", "wrong", "wrong"),
        ("12 N", "12 apples", "wrong", "wrong"),
        ("12 N", "-12 N", "wrong", "wrong"),
        ("12 N", "12 N 13 N", "wrong", "wrong"),
        ("1200 J", "1,200 J", "correct", "correct"),
        ("3 m/s^2", r"3 \text{ m/s}^2", "correct", "correct"),
        ("3 kg m/s", r"3 kg \cdot m/s", "correct", "correct"),
        ("20 °C", r"20^\circ C", "correct", "correct"),
        ("20 °C", "20 K", "wrong", "wrong"),
        ("5 ohm", r"5 \Omega", "correct", "correct"),
        ("B", "B", "correct", "correct"),
        ("B", "(b)", "correct", "correct"),
        ("B", "A", "wrong", "wrong"),
        ("B", "12 N", "wrong", "wrong"),
        ("12 N", "B", "wrong", "wrong"),
        ("12 N", "12/0 N", "wrong", "wrong"),
        ("12 N", "1e999 N", "wrong", "wrong"),
        ("12 N", "\x00\ud800{}", "wrong", "wrong"),
        ("12 N", "9" * 201, "refused", "refused"),
        ("12 N", " ", "unparseable", "unparseable"),
    ],
)
def test_verdict(gold: str, answer: str, strict: str, lenient: str) -> None:
    problem = replace(PROBLEMS[0], answer=gold)
    for leniency, status in ((False, strict), (True, lenient)):
        verdict = DOMAIN.verify(problem, rf"<think></think>\boxed{{{answer}}}", leniency)
        assert (verdict.status, verdict.score) == (status, float(status == "correct")), verdict


BOXED = r"Put the answer in \boxed{}."
OPTIONS = {"A": "12 N", "B": "24 N", "C": r"\frac{1}{2} m", "D": "C. elegans", "E": "None of these."}


def judge(
    gold: str,
    completion: str,
    checks: dict[str, object] | None = None,
    asked: str = BOXED,
    lenient: bool = False,
) -> Verdict:
    prompt = [{"role": "user", "content": asked}]
    problem = Problem(domain="stem", answer=gold, checks=checks or {}, prompt=prompt)
    return DOMAIN.verify(problem, f"<think>so</think>{completion}", lenient)


@pytest.mark.parametrize(
    ("boxed", "letter"),
    [
        ("A", "A"),
        ("(b)", "B"),
        (r"\text{B}", "B"),
        (r"\text{(B)}", "B"),
        ("**B**", "B"),
        (r"\text{12 N}", "A"),
        (r"12\,\mathrm{N}", "A"),
        ("12 newtons", "A"),
        ("B) 24 N", "B"),
        (r"\dfrac{1}{2} m", "C"),
        ("C. elegans", "D"),
        ("C. Elegans", "D"),
        ("C.", "C"),
        ("none of these", "E"),
        ("F", None),
        ("13 N", None),
        ("12", None),
        ("A or B", None),
        ("A, B", None),
        ("(A) and (B)", None),
        ("A. 12 N or B. 24 N", None),
        ("elegans", None),
    ],
)
def test_a_boxed_letter_or_text_names_one_option(boxed: str, letter: str | None) -> None:
    for gold in OPTIONS:
        verdict = judge(gold, rf"\boxed{{{boxed}}}", {"options": OPTIONS})
        assert (verdict.score, verdict.status) == ((1.0, "correct") if gold == letter else (0.0, "wrong"))
        assert letter is None or verdict.answer == letter


@pytest.mark.parametrize(
    ("completion", "letter"),
    [
        ("Answer: B", "B"),
        ("The answer is (B).", "B"),
        ("The answer is **B**", "B"),
        ("**Answer:** B", "B"),
        ("The final answer is $B$.", "B"),
        ("The correct option is B, as shown.", None),
        ("So the correct choice is B) 24 N", "B"),
        ("Some thoughts.\n**B**", "B"),
        ("Some thoughts.\nB.\n", "B"),
        ("Some thoughts.\n24 N", "B"),
        ("Some thoughts.\nB. 24 N", "B"),
        ("The answer is 24 N.", "B"),
        ("The answer is A. No, the answer is B.", "B"),
        ("Option A is wrong.\nThe answer is B.", "B"),
        ("The answer is A or B.", None),
        ("The answer is (A) and (B)", None),
        ("The answer is A force.", None),
        ("B. is wrong", None),
        ("I think that it is B somehow", None),
        ("I cannot answer this.", None),
        ("", None),
    ],
)
def test_a_final_statement_counts_strictly_where_no_box_is_asked_for(
    completion: str, letter: str | None
) -> None:
    for gold in OPTIONS:
        verdict = judge(gold, completion, {"options": OPTIONS}, "Choose.")
        assert verdict.score == float(gold == letter), verdict
        boxed = judge(gold, completion, {"options": OPTIONS}, BOXED)
        assert (boxed.score, boxed.status) == (0.0, "unparseable")


def test_ten_options_and_texts_that_two_options_share() -> None:
    ten = dict(zip("ABCDEFGHIJ", "zero one two three four five six seven eight nine".split(), strict=True))
    assert (
        judge("J", r"\boxed{J}", {"options": ten}).solved
        and judge("J", r"\boxed{nine}", {"options": ten}).solved
    )
    shared = {"A": "0.16 N", "B": "0.16 N", "C": "1 N"}
    assert judge("A", r"\boxed{A}", {"options": shared}).solved
    assert not judge("A", r"\boxed{0.16 N}", {"options": shared}).solved
    cases = {"A": "NN", "B": "Nn"}
    assert judge("B", r"\boxed{Nn}", {"options": cases}).solved
    assert not judge("B", r"\boxed{NN}", {"options": cases}).solved


def test_generated_choices_take_the_letter_alone() -> None:
    problem = CHOICES[0]
    text = problem.checks["options"][problem.answer]
    assert not DOMAIN.verify(problem, rf"\boxed{{{text}}}", False).solved
    assert DOMAIN.verify(
        replace(problem, checks={"options": problem.checks["options"]}), rf"\boxed{{{text}}}"
    ).solved


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("3.0e8 m/s", r"3 \times 10^{8}\ \text{m/s}", True),
        ("3.0e8 m/s", r"2.99 \cdot 10^8 m s^{-1}", True),
        ("3.0e8 m/s", "3×10⁸ m/s", True),
        ("3.0e8 m/s", r"3 \times 10^{7} m/s", False),
        ("1e5 Pa", r"10^5 Pa", True),
        ("6.63e-34 J s", r"6.63 \times 10^{-34} \text{ J s}", True),
        ("6.63e-34 J s", r"6.63 \times 10^{-33} \text{ J s}", False),
        ("5 kJ/mol", r"5\ \text{kJ mol}^{-1}", True),
        ("5 kJ/mol", "5 J/mol", False),
        ("5 kJ/mol", "5 kJ", False),
        ("4.18 J/(g K)", r"4.18 \text{ J g}^{-1} \text{K}^{-1}", True),
        ("500 nm", "500 nanometers", True),
        ("500 nm", "500 J", False),
        ("5 J", "5 N m", True),
        ("9.8 m/s^2", r"9.8\ \frac{\text{m}}{\text{s}^2}", True),
        ("9.8 m/s^2", r"9.8\ \text{m/s}", False),
        ("9.8 m/s^2", "9.8", False),
        ("9.8", "9.8 m/s^2", False),
        ("-9.8 m/s^2", "9.8 m/s^2", False),
        ("12 N", r"\sqrt{144}\ \text{N}", True),
        (r"\boxed{g\sin\theta}", r"\sin(\theta) g", True),
        (r"\boxed{g\sin\theta}", r"g\cos\theta", False),
        (r"nRT\ln(V_2/V_1)", r"n R T (\ln V_2 - \ln V_1)", True),
        (r"nRT\ln(V_2/V_1)", r"n R T \ln(V_1/V_2)", False),
        (r"1/\sqrt{1-v^2/c^2}", r"\frac{1}{\sqrt{1-(v/c)^2}}", True),
        (r"1/\sqrt{1-v^2/c^2}", r"\sqrt{1-v^2/c^2}", False),
        (r"2\pi r", r"2 r \pi", True),
        ("v", "V", False),
        ("mitochondria", "Mitochondria.", True),
        ("mitochondria", "ribosome", False),
    ],
)
def test_quantities_formulas_and_words_of_other_sources(gold: str, answer: str, right: bool) -> None:
    verdict = judge(gold, rf"\boxed{{{answer}}}")
    assert (verdict.score, verdict.status) == ((1.0, "correct") if right else (0.0, "wrong")), verdict
    assert judge(gold, f"So the answer is {answer}", asked="Tell me.").solved == right


def test_the_tolerance_is_the_problems_own() -> None:
    assert judge("100 N", r"\boxed{101 N}").solved and not judge("100 N", r"\boxed{101.1 N}").solved
    assert judge("100 N", r"\boxed{104 N}", {"tolerance": 0.05}).solved
    assert not judge("100 N", r"\boxed{106 N}", {"tolerance": 0.05}).solved
    assert not judge("100 N", r"\boxed{100.1 N}", {"tolerance": 0}).solved
    assert judge("100 N", r"\boxed{100 N}", {"tolerance": 0}).solved


def test_every_verdict_names_its_answer() -> None:
    assert judge("12 N", r"\boxed{12 newtons}").answer == judge("13 N", r"\boxed{12 N}").answer == "12 N"
    assert judge("12 N", "no idea").answer is None
    assert judge("12 N", r"\boxed{" + "9" * 201 + "}").answer == "9" * 201


def test_hostile_answers_are_verdicts(tmp_path: Path) -> None:
    target = tmp_path / "touched"
    hostile = [
        f"__import__('os').system('touch {target}')",
        "(" * 150,
        r"\frac{" * 30,
        r"\text{" * 30,
        "\x00",
        "\ud800",
    ]
    hostile += [
        "1e9999 N",
        "1/0 N",
        "10^" * 60,
        "5 " + "m/" * 90,
        "=" * 190,
        "5 m^{99}",
        "A" * 190,
        "*" * 190,
    ]
    for answer in hostile:
        for gold, checks in (("12 N", {}), ("B", {"options": OPTIONS}), (r"2\pi r", {}), ("word", {})):
            for text in (rf"\boxed{{{answer}}}", f"The answer is {answer}", answer):
                for lenient in (False, True):
                    verdict = judge(gold, text, checks, "Choose.", lenient)
                    assert verdict.score == 0.0 and verdict.status in ("wrong", "unparseable", "refused"), (
                        text
                    )
    assert not target.exists()


def test_the_teacher_refuses_problems_without_steps() -> None:
    with pytest.raises(StudyError, match="steps"):
        DOMAIN.solve(replace(PROBLEMS[0], checks={}))


@needs_samples
def test_letters_of_public_multiple_choice_are_told_apart() -> None:
    golds = [LETTERS[int(row["answer"])] for row in rows("mmlu_stem")[:60]]
    assert len(golds) == 60
    for i, gold in enumerate(golds):
        problem = replace(PROBLEMS[0], answer=gold, checks={}, task="hub", open_ended=False)
        assert DOMAIN.verify(problem, rf"<think>so</think>\boxed{{({gold})}}", False).solved
        assert not DOMAIN.verify(problem, DOMAIN.garbage(problem, Random(i)), False).solved
