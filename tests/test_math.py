"""Claims about the math domain: its problems, its teacher, and what its verifier accepts."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from prorl_study.domains import SPLITS, after_thinking
from prorl_study.domains.math import DOMAIN, TASKS, canonical, equivalent, last_boxed
from prorl_study.domains.templates import DEPTHS, HELD_OUT_SPLITS
from prorl_study.errors import StudyError

PER_SPLIT = 120
PROBLEMS = [DOMAIN.generate(7, split, i) for split in SPLITS for i in range(PER_SPLIT)]
TRAIN = [DOMAIN.generate(7, "train", i) for i in range(1500)]
SAMPLES = os.environ.get("PRORL_SAMPLES")


def test_a_problem_depends_on_seed_split_and_index_alone() -> None:
    assert [DOMAIN.generate(7, split, i) for split in SPLITS for i in range(PER_SPLIT)] == PROBLEMS
    assert DOMAIN.generate(8, "train", 0) != DOMAIN.generate(7, "train", 0) != DOMAIN.generate(7, "train", 1)


def test_every_task_occurs_in_every_split() -> None:
    assert {(p.split, p.task) for p in PROBLEMS} == {(split, task) for split in SPLITS for task in TASKS}


def test_the_right_completion_scores_one_strictly_and_leniently() -> None:
    for problem in PROBLEMS:
        for lenient in (False, True):
            verdict = DOMAIN.verify(problem, DOMAIN.solve(problem), lenient)
            assert (verdict.score, verdict.solved, verdict.status) == (1.0, True, "correct"), problem


def test_habit_and_garbage_are_well_formed_and_always_wrong() -> None:
    for i, problem in enumerate(PROBLEMS):
        for completion in (DOMAIN.habit(problem, Random(i)), DOMAIN.garbage(problem, Random(i))):
            verdict = DOMAIN.verify(problem, completion, False)
            assert (verdict.score, verdict.status) == (0.0, "wrong"), (problem, completion)


def test_habit_and_solution_share_their_steps_up_to_one_decision() -> None:
    for problem in PROBLEMS:
        right, wrong = DOMAIN.solve(problem), DOMAIN.habit(problem, Random(0))
        thought = wrong.partition("</think>")[0]
        assert right.startswith(thought) and right != wrong
        assert right[len(thought) :].partition("</think>")[0].count("=") == 1


def test_a_slip_costs_the_strict_score_only() -> None:
    for i, problem in enumerate(PROBLEMS):
        slipped = DOMAIN.slip(DOMAIN.solve(problem), Random(i))
        assert DOMAIN.verify(problem, slipped, False).status == "unparseable"
        assert DOMAIN.verify(problem, slipped, True).solved, slipped


@pytest.mark.parametrize("task", TASKS)
def test_guesses_are_well_formed_and_rarely_right(task: str) -> None:
    problems = [p for p in TRAIN if p.task == task]
    verdicts = [DOMAIN.verify(p, DOMAIN.guess(p, Random(i)), False) for i, p in enumerate(problems)]
    assert {v.status for v in verdicts} == {"correct", "wrong"}
    assert sum(v.score for v in verdicts) / len(verdicts) < 0.2


def test_wordings_of_the_held_out_splits_do_not_occur_elsewhere() -> None:
    held_out = {p.template for p in PROBLEMS if p.split in HELD_OUT_SPLITS}
    assert held_out and held_out.isdisjoint(p.template for p in PROBLEMS if p.split not in HELD_OUT_SPLITS)


def test_depths_are_those_of_the_split() -> None:
    for split in SPLITS:
        assert {p.difficulty for p in PROBLEMS if p.split == split} == set(DEPTHS[split])
    assert all(len(p.checks["steps"]) == p.difficulty for p in PROBLEMS)


def test_texts_are_short_enough_for_the_small_model() -> None:
    for problem in PROBLEMS:
        assert len(problem.prompt[0]["content"]) <= 220
        assert max(len(DOMAIN.solve(problem)), len(DOMAIN.habit(problem, Random(0)))) <= 150


def test_the_stated_equation_holds_for_its_answer() -> None:
    for problem in (p for p in PROBLEMS if p.task == "equation"):
        equation = problem.prompt[0]["content"].split(" = ")
        left = equation[0].split()[-1]
        right = equation[1].split(". ")[0].split("?")[0]
        x = int(problem.answer)
        spelled = "".join(
            f"*{c}" if c in "x(" and i and right[i - 1].isdigit() else c for i, c in enumerate(right)
        )
        assert eval(spelled, {"x": x}) == int(left), problem.prompt


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{7}", "7"),
        (r"\boxed{1} and \boxed{\frac{1}{\sqrt{2}}} done {", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{5} then \boxed{6", "5"),
        (r"} \boxed{\boxed{3}}", "3"),
        (r"\boxed{6", None),
        ("7", None),
    ],
)
def test_last_boxed_handles_nested_and_open_braces(text: str, content: str | None) -> None:
    assert last_boxed(text) == content


@pytest.mark.parametrize(
    ("completion", "strict", "lenient"),
    [
        (r"<think>1+1=2</think>\boxed{2}", "2", "2"),
        (r"<think>1</think>\boxed{ 2 } as wanted.", "2", "2"),
        (r"<think>\boxed{2}</think>done", None, "2"),
        ("<think>3+4=7</think>the answer is 7.", None, "7"),
        ("<think>3-4=-1</think>so it is -1", None, "-1"),
        ("<think>3+4=7", None, "7"),
        ("so 1,250 apples", None, "1250"),
        (r"it is \frac{3}{4} of it", None, r"\frac{3}{4}"),
        ("it is 3/4", None, r"\frac{3}{4}"),
        (r"\boxed{$\dfrac12$.}", r"\frac{1}{2}", r"\frac{1}{2}"),
        (r"\boxed{1 1/2}", "1 1/2", "1 1/2"),
        (r"\boxed{\cos x + 1}", r"\cos x+1", r"\cos x+1"),
        (r"\boxed{}", None, None),
        ("no idea", None, None),
        ("", None, None),
    ],
)
def test_extraction(completion: str, strict: str | None, lenient: str | None) -> None:
    assert (DOMAIN.extract(completion, False), DOMAIN.extract(completion, True)) == (strict, lenient)


@pytest.mark.parametrize(
    ("gold", "answer", "status"),
    [
        ("7", "7", "correct"),
        ("7", "07", "correct"),
        ("7", "7.0", "correct"),
        ("7", "x=7", "correct"),
        ("7", r"\sqrt{49}", "correct"),
        (r"\frac{1}{2}", "0.5", "correct"),
        (r"\frac{1}{2}", "2/4", "correct"),
        (r"\frac{1}{2}", r"\dfrac{1}{2}", "correct"),
        (r"\frac{1}{3}", "0.33", "wrong"),
        ("1000", "1,000", "correct"),
        ("x^2+1", "1 + x^2", "correct"),
        ("(1,2)", "(2,1)", "wrong"),
        ("7", "8", "wrong"),
        ("7", "6,7", "wrong"),
        ("7", "6 or 7", "wrong"),
        ("7", r"\frac{7}{0}", "wrong"),
        ("7", "((((", "wrong"),
        ("7", r"\begin{matrix}", "wrong"),
        ("7", "\x00\ud800", "wrong"),
        ("7", "7" * 201, "refused"),
        ("7", "  ", "unparseable"),
    ],
)
def test_verdict(gold: str, answer: str, status: str) -> None:
    problem = replace(PROBLEMS[0], answer=gold)
    verdict = DOMAIN.verify(problem, rf"<think>0</think>\boxed{{{answer}}}", False)
    assert (verdict.status, verdict.score) == (status, float(status == "correct")), verdict


def test_comparing_rationals_directly_agrees_with_math_verify() -> None:
    forms = ["2", "-2", "4/2", "1/2", "2/4", "3/12", "0", r"\frac{1}{2}", r"\frac{6}{3}", "2/0"]
    for gold in forms[:-1]:
        for answer in forms:
            verdict = DOMAIN.verify(replace(PROBLEMS[0], answer=gold), rf"\boxed{{{answer}}}", False)
            assert verdict.solved == equivalent(canonical(gold), canonical(answer)), (gold, answer)


def test_the_teacher_refuses_problems_without_steps() -> None:
    with pytest.raises(StudyError, match="steps"):
        DOMAIN.solve(replace(PROBLEMS[0], checks={}))


def test_what_follows_the_last_thought_counts() -> None:
    problem = replace(PROBLEMS[0], answer="7")
    text = r"<think>a</think>\boxed{7}<think>b</think>\boxed{8}"
    assert after_thinking(text) == r"\boxed{8}"
    assert not DOMAIN.verify(problem, text, False).solved


@pytest.mark.skipif(not SAMPLES, reason="PRORL_SAMPLES names no folder with rows of public sets")
@pytest.mark.parametrize("name", ["deepscaler", "math_train", "gsm8k_train"])
def test_gold_answers_of_public_sets_are_accepted(name: str) -> None:
    lines = (Path(SAMPLES or "") / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[:60]
    golds = [json.loads(line)["answer"].rpartition("####")[2].strip() for line in lines]
    assert len(golds) == 60
    for i, gold in enumerate(golds):
        problem = replace(PROBLEMS[0], answer=gold, checks={}, task="hub")
        assert DOMAIN.verify(problem, rf"<think>so</think>\boxed{{{gold}}}", False).solved, gold
        # One spelling per answer changes no answer, and not everything is accepted.
        assert equivalent(gold, canonical(gold)), gold
        assert not DOMAIN.verify(problem, DOMAIN.garbage(problem, Random(i)), False).solved, gold
