"""Claims about the logic domain: Reasoning Gym's tasks, one bad habit per task, graded scores."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import pytest

from prorl_study.domains import Problem, logic
from prorl_study.domains.templates import DEPTHS

SEED = 11
PER_SPLIT = {"demonstrations": 72, "train": 90, "validation": 45, "test": 90, "hard": 50, "ood": 40}


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    return [logic.generate(SEED, split, i) for split, n in PER_SPLIT.items() for i in range(n)]


def of_task(problems: list[Problem], task: str) -> Problem:
    return next(problem for problem in problems if problem.task == task)


def in_answer(text: str) -> str:
    return f"<think>so</think><answer>{text}</answer>"


def test_an_item_depends_on_seed_split_and_index_alone(problems: list[Problem]) -> None:
    for problem in reversed(problems[::7]):
        index = int(problem.id.rpartition("-")[2])
        assert logic.generate(SEED, problem.split, index) == problem
    assert logic.generate(SEED + 1, "train", 0) != logic.generate(SEED, "train", 0)


def test_trained_tasks_are_eight_or_more_of_four_or_more_categories() -> None:
    categories = {logic._dataset(task, 2).category for task in logic.TRAIN_TASKS}
    assert len(logic.TRAIN_TASKS) >= 8 and len(categories) >= 4


def test_held_out_tasks_occur_in_ood_alone(problems: list[Problem]) -> None:
    inside = {p.task for p in problems if p.split == "ood"}
    outside = {p.task for p in problems if p.split != "ood"}
    assert inside == set(logic.HELD_OUT_TASKS)
    assert outside == set(logic.TRAIN_TASKS)


def test_hard_problems_are_larger_than_any_demonstration(problems: list[Problem]) -> None:
    hard = [p.difficulty for p in problems if p.split == "hard"]
    shown = [p.difficulty for p in problems if p.split == "demonstrations"]
    assert min(hard) > max(shown)
    assert max(hard) > max(DEPTHS["train"])


def test_right_solutions_score_one_also_after_a_round_trip_through_a_row(problems: list[Problem]) -> None:
    for problem in problems:
        verdict = logic.verify(Problem.from_row(problem.row()), logic.solve(problem))
        assert (verdict.score, verdict.solved, verdict.status) == (1.0, True, "correct"), problem


def test_habits_are_well_formed_and_never_right(problems: list[Problem]) -> None:
    for problem in problems:
        text = logic.habit(problem, Random(0))
        assert logic.extract(text, lenient=False)
        assert not logic.verify(problem, text).solved, problem


def test_habit_and_solution_begin_alike(problems: list[Problem]) -> None:
    for problem in problems:
        right, wrong = logic.solve(problem), logic.habit(problem, Random(0))
        common = next(i for i, (a, b) in enumerate(zip(right, wrong, strict=False)) if a != b)
        assert common > len("<think>"), problem


def test_garbage_is_never_right_and_guesses_seldom(problems: list[Problem]) -> None:
    rng = Random(3)
    assert not any(logic.verify(p, logic.garbage(p, rng)).solved for p in problems)
    open_ended = [p for p in problems if p.open_ended]
    lucky = sum(logic.verify(p, logic.guess(p, rng)).solved for p in open_ended)
    assert lucky < 0.1 * len(open_ended)


def test_a_slip_fails_strict_extraction_and_passes_the_lenient_one(problems: list[Problem]) -> None:
    for problem in problems:
        slipped = logic.slip(logic.solve(problem), Random(0))
        assert logic.verify(problem, slipped).status == "unparseable"
        assert logic.verify(problem, slipped, lenient=True).solved


def test_prompts_and_completions_are_short(problems: list[Problem]) -> None:
    assert max(len(p.prompt[0]["content"]) for p in problems) <= 240
    assert max(len(logic.solve(p)) for p in problems) <= 150


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        ("<think>1</think><answer> 7 </answer>", "7", "7"),
        ("<answer>1</answer> no, <answer>2</answer>", "2", "2"),
        ("<think><answer>1</answer></think>", None, "1"),
        ("<think>1</think><answer>7", None, "7"),
        ("<think>1</think>\\boxed{7}", None, "7"),
        ("<think>1</think>The answer is 7", None, "7"),
        ("<think>1</think>hm\n7\n", None, "7"),
        ("<think>1</think>", None, None),
    ],
)
def test_extraction(text: str, strict: str | None, lenient: str | None) -> None:
    assert logic.extract(text, lenient=False) == strict
    assert logic.extract(text, lenient=True) == lenient


@pytest.mark.parametrize("task", [*logic.TRAIN_TASKS, *logic.HELD_OUT_TASKS])
@pytest.mark.parametrize(
    "answer",
    [
        "",
        " ",
        "nan",
        "nan + nani",
        "inf",
        "-",
        "i",
        "()",
        "[",
        "9**9**9",
        "__import__('os')",
        "x" * 201,
        "\0",
    ],
)
def test_no_odd_answer_raises_or_is_right(problems: list[Problem], task: str, answer: str) -> None:
    verdict = logic.verify(of_task(problems, task), in_answer(answer))
    assert not verdict.solved
    assert (verdict.status == "refused") == (len(answer) > logic.LONGEST_ANSWER)


def test_letters_after_the_right_word_cost_the_same_at_every_length(problems: list[Problem]) -> None:
    word = of_task(problems, "spell_backward")
    for length in range(3, 9):
        answer = "abcdefgh"[:length]
        verdict = logic.verify(replace(word, answer=answer), in_answer(answer + "x"))
        assert not verdict.solved and verdict.score == pytest.approx(0.8)


def test_partial_credit_is_graded(problems: list[Problem]) -> None:
    word = of_task(problems, "spell_backward")
    first_letter_wrong = ("z" + word.answer[1:]) if word.answer[0] != "z" else word.answer
    verdict = logic.verify(word, in_answer(first_letter_wrong))
    assert verdict.status == "partial" and 0.5 < verdict.score < 1


def test_checks_are_plain_json(problems: list[Problem]) -> None:
    for problem in problems:
        assert json.loads(json.dumps(problem.checks)) == problem.checks


def test_a_verdict_carries_the_extracted_answer(problems: list[Problem]) -> None:
    for text in ("7", "x" * 2000):
        assert logic.verify(problems[0], in_answer(f" {text} ")).answer == text
    assert logic.verify(problems[0], "no answer").answer is None
