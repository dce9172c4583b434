"""What the instruction domain promises: gold texts follow everything, the habit misses the last one."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from prorl_study.domains import instruction
from prorl_study.domains.problem import Problem

SPLITS = ("demonstrations", "train", "validation", "test", "hard")
PROBLEMS = [instruction.generate(7, split, index) for split in SPLITS for index in range(120)]


def judged(problem: Problem, text: str, lenient: bool = False) -> tuple[str, float]:
    verdict = instruction.verify(problem, text, lenient)
    return verdict.status, verdict.score


def asking(**instructions: dict) -> Problem:
    """A problem with these instructions; `punctuation__no_comma` stands for `punctuation:no_comma`."""
    ids = [name.replace("__", ":") for name in instructions]
    checks = {"instruction_id_list": ids, "kwargs": list(instructions.values()), "subject": "river"}
    return replace(PROBLEMS[0], checks=checks)


def test_an_item_depends_on_seed_split_and_index_alone():
    alone = instruction.generate(7, "train", 5)
    assert alone == PROBLEMS[120 + 5]
    assert alone != instruction.generate(8, "train", 5)
    assert Problem.from_row(json.loads(json.dumps(alone.row()))) == alone


def test_every_gold_answer_follows_all_and_stays_short():
    for problem in PROBLEMS:
        assert judged(problem, instruction.solve(problem)) == ("correct", 1.0), problem
        assert len(instruction.solve(problem)) <= 150 and len(problem.prompt[0]["content"]) <= 220, problem


def test_the_habit_misses_the_last_instruction_and_hardly_another():
    others = 0
    for problem in PROBLEMS:
        verdict = instruction.verify(problem, instruction.habit(problem, Random(0)), lenient=False)
        missed = verdict.reason.removeprefix("missed ").split(", ")
        assert missed[-1] == problem.checks["instruction_id_list"][-1], (problem, verdict)
        others += len(missed) > 1  # leaving out a piece can leave too few words
    assert others / len(PROBLEMS) < 0.03


def test_lenient_judging_never_forgives_the_habit():
    for problem in PROBLEMS:
        assert not instruction.verify(problem, instruction.habit(problem, Random(0)), lenient=True).solved


def test_a_slip_is_found_by_lenient_extraction_only():
    for problem in PROBLEMS[::4]:
        slipped = instruction.slip(instruction.solve(problem), Random(0))
        assert judged(problem, slipped) == ("unparseable", 0.0)
        assert judged(problem, slipped, lenient=True) == ("correct", 1.0)


def test_garbage_follows_nothing_and_a_guess_little():
    rng = Random(0)
    assert {judged(problem, instruction.garbage(problem, rng)) for problem in PROBLEMS} == {("wrong", 0.0)}
    guesses = [instruction.verify(problem, instruction.guess(problem, rng), False) for problem in PROBLEMS]
    assert sum(verdict.score for verdict in guesses) / len(guesses) < 0.25
    assert sum(verdict.solved for verdict in guesses) / len(guesses) < 0.08


def test_a_text_that_piles_up_instructions_unread_solves_less_than_half():
    pile = (
        '"<<the river>>\nthe *river* is *nice* and we see it. see the moon and bread. moon moon moon. '
        "it is a good day to go there. [name] [place] [time] p.p.s p.s. come soon.\n- good\n- safe\n"
        'that is all."'
    )
    verdicts = [instruction.verify(problem, pile, False) for problem in PROBLEMS if problem.split == "test"]
    assert sum(verdict.solved for verdict in verdicts) / len(verdicts) < 0.5
    assert sum(verdict.score for verdict in verdicts) / len(verdicts) < 0.65


def test_at_least_ten_instruction_types_occur_each_also_as_the_last():
    lasts = Counter(problem.checks["instruction_id_list"][-1] for problem in PROBLEMS)
    assert len(lasts) >= 10 and min(lasts.values()) >= 5
    assert set(lasts) == set(instruction.TYPES)


def test_incompatible_instructions_never_meet():
    for problem in PROBLEMS:
        ids = problem.checks["instruction_id_list"]
        assert len(ids) == len(set(ids)) == problem.difficulty
        assert not any(pair <= set(ids) for pair in instruction.EXCLUSIVE)


def test_held_out_templates_and_prompts_do_not_occur_in_training():
    seen = [p for p in PROBLEMS if p.split in ("demonstrations", "train", "validation")]
    held = [p for p in PROBLEMS if p.split in ("test", "hard")]
    assert not {p.template for p in seen} & {p.template for p in held}
    assert not {p.prompt[0]["content"] for p in seen} & {p.prompt[0]["content"] for p in held}


def test_no_two_wordings_of_an_instruction_are_equal():
    for row in instruction.WORDINGS.values():
        assert len(set(row)) == 4


def test_hard_problems_have_more_instructions_than_any_other_split():
    most = max(p.difficulty for p in PROBLEMS if p.split != "hard")
    assert all(p.difficulty > most for p in PROBLEMS if p.split == "hard")


NO_COMMA_IN_QUOTES = asking(punctuation__no_comma={}, startend__quotation={})


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        ('"The river is calm."', ("correct", 1.0), ("correct", 1.0)),
        ('<think>first, a plan</think>"The river is calm."', ("correct", 1.0), ("correct", 1.0)),
        ("The river is calm.", ("partial", 0.5), ("partial", 0.5)),
        ("The river, calm.", ("wrong", 0.0), ("wrong", 0.0)),
        ("", ("unparseable", 0.0), ("unparseable", 0.0)),
        ("<think></think>  \n", ("unparseable", 0.0), ("unparseable", 0.0)),
        ('<think>"The river is calm."</think>', ("unparseable", 0.0), ("correct", 1.0)),
        ('<think>"The river is calm."', ("unparseable", 0.0), ("correct", 1.0)),
        ('```\n"The river is calm."\n```', ("partial", 0.5), ("correct", 1.0)),
        ('"Calm' + "." * instruction.MAX_ANSWER + '"', ("refused", 0.0), ("refused", 0.0)),
    ],
)
def test_verdicts(text, strict, lenient):
    assert judged(NO_COMMA_IN_QUOTES, text) == strict
    assert judged(NO_COMMA_IN_QUOTES, text, lenient=True) == lenient


@pytest.mark.parametrize(
    ("name", "kwargs", "reason"),
    [
        ("no__such_type", {}, "no checker"),
        ("ratio__stop_words", {"percentage": 50}, "stop words"),
        ("words__start_verb", {}, "tagger"),
        ("length_constraints__number_words", {}, "random"),
        (
            "keywords__letter_frequency",
            {"letter": "!", "let_frequency": 2, "let_relation": "at least"},
            "random",
        ),
        ("keywords__existence", {"keywords": ["calm", "sad :("]}, "arguments"),
        ("combination__repeat_prompt", {}, "arguments"),
        ("punctuation__no_comma", {"colour": "red"}, "arguments"),
    ],
)
def test_an_instruction_without_sure_meaning_is_refused_and_named(name, kwargs, reason):
    verdict = instruction.verify(asking(startend__quotation={}, **{name: kwargs}), '"Calm"', False)
    assert (verdict.status, verdict.score, verdict.answer) == ("refused", 0.0, '"Calm"')
    assert name.replace("__", ":") in verdict.reason and reason in verdict.reason


def test_checks_that_do_not_fit_together_are_refused():
    for ids, kwargs in (([], []), (["punctuation:no_comma"], []), (None, None)):
        problem = Problem(domain="instruction", checks={"instruction_id_list": ids, "kwargs": kwargs})
        assert judged(problem, "Calm.") == ("refused", 0.0)


def test_a_verdict_carries_the_answer_that_extract_finds():
    for text in ("Calm.", " <think>a plan</think> Calm, \n", "<think>Calm", "", "```\nCalm\n```"):
        for lenient in (False, True):
            verdict = instruction.verify(NO_COMMA_IN_QUOTES, text, lenient)
            assert verdict.answer == instruction.extract(text, lenient)


def test_language_detection_does_not_wander():
    problem = asking(change_case__english_lowercase={})
    texts = [instruction.garbage(p, Random(0)).lower() for p in PROBLEMS[:20]]
    first = [judged(problem, text) for text in texts]
    assert all([judged(problem, text) for text in texts] == first for _ in range(3))
