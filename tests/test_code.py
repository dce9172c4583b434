"""What the code domain promises: problems whose tests tell functions apart, and verdicts that hold."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from random import Random

import pytest
from samples import needs_samples, rows

from prorl_study.domains import code
from prorl_study.domains.problem import Problem
from prorl_study.judges.code import same
from prorl_study.verification import Limits, VerificationPool

SPLITS = ("demonstrations", "train", "validation", "test", "hard")
PROBLEMS = [code.generate(7, split, index) for split in SPLITS for index in range(120)]


@pytest.fixture(scope="module")
def verify():
    """`verify(problem, text, lenient)`, by workers behind walls."""
    with VerificationPool(workers=2, limits=Limits(cpu_seconds=2.0)) as pool:
        yield lambda problem, text, lenient=False: pool.verify([(problem, text)], lenient)[0]


@pytest.fixture(scope="module")
def judged(verify):
    """Status and score."""

    def judge(problem: Problem, text: str, lenient: bool = False) -> tuple[str, float]:
        verdict = verify(problem, text, lenient)
        return verdict.status, verdict.score

    return judge


def with_tests(*tests: list) -> Problem:
    return replace(PROBLEMS[0], checks={"entry_point": "f", "tests": list(tests)})


def fenced(source: str) -> str:
    return f"```python\n{source}\n```"


DOUBLE = with_tests([[1], 2], [[2], 4], [[0], 0], [[-3], -6])


def test_an_item_depends_on_seed_split_and_index_alone():
    alone = code.generate(7, "train", 5)
    assert alone == PROBLEMS[120 + 5]
    assert alone != code.generate(8, "train", 5)
    assert Problem.from_row(json.loads(json.dumps(alone.row()))) == alone


def test_every_gold_answer_scores_one_and_stays_short(judged):
    for problem in PROBLEMS:
        assert judged(problem, code.solve(problem)) == ("correct", 1.0), problem
        assert len(code.solve(problem)) <= 170 and len(problem.prompt[0]["content"]) <= 220, problem


def test_the_habit_is_never_right_and_differs_in_the_last_operation_only(verify):
    for problem in PROBLEMS:
        text = code.habit(problem, Random(0))
        assert not verify(problem, text, lenient=True).solved, problem
        shared = os.path.commonprefix([text, code.solve(problem)])
        assert shared.count("\n    ") >= problem.difficulty, (text, problem)


def test_leaving_out_any_one_operation_fails_a_test(verify):
    for problem in PROBLEMS:
        assert len(problem.checks["tests"]) >= 6
        lines = problem.answer.splitlines()
        for i in range(1, len(lines) - 1):
            text = code.fence("\n".join(lines[:i] + lines[i + 1 :]))
            assert not verify(problem, text, lenient=False).solved, (text, problem)


def test_a_slip_is_found_by_lenient_extraction_only(judged):
    for problem in PROBLEMS[::5]:
        slipped = code.slip(code.solve(problem), Random(0))
        assert judged(problem, slipped) == ("unparseable", 0.0)
        assert judged(problem, slipped, lenient=True) == ("correct", 1.0)


def test_the_floor_is_low_and_garbage_earns_nothing(verify, judged):
    rng = Random(0)
    guesses = [verify(problem, code.guess(problem, rng), False) for problem in PROBLEMS]
    assert sum(verdict.score for verdict in guesses) / len(guesses) < 0.06
    assert all(verdict.status in ("correct", "partial", "wrong") for verdict in guesses)
    assert {judged(problem, code.garbage(problem, rng)) for problem in PROBLEMS} == {("wrong", 0.0)}


def test_held_out_templates_and_prompts_do_not_occur_in_training():
    seen = [p for p in PROBLEMS if p.split in ("demonstrations", "train", "validation")]
    held = [p for p in PROBLEMS if p.split in ("test", "hard")]
    assert not {p.template for p in seen} & {p.template for p in held}
    assert not {p.prompt[0]["content"] for p in seen} & {p.prompt[0]["content"] for p in held}


def test_hard_problems_are_longer_than_any_demonstration():
    longest = max(p.difficulty for p in PROBLEMS if p.split == "demonstrations")
    assert all(p.difficulty > longest for p in PROBLEMS if p.split == "hard")


RIGHT = "def f(x):\n    return x * 2"


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        (fenced(RIGHT), ("correct", 1.0), ("correct", 1.0)),
        (f"<think>{fenced('def f(x): pass')}</think>{fenced(RIGHT)}", ("correct", 1.0), ("correct", 1.0)),
        (f"{fenced('def f(x): pass')} no: {fenced(RIGHT)}", ("correct", 1.0), ("correct", 1.0)),
        (f"<think>{fenced(RIGHT)}</think>done", ("unparseable", 0.0), ("correct", 1.0)),
        (f"Here it is:\n{RIGHT}", ("unparseable", 0.0), ("correct", 1.0)),
        (f"```python\n{RIGHT}", ("unparseable", 0.0), ("correct", 1.0)),
        ("", ("unparseable", 0.0), ("unparseable", 0.0)),
        ("I cannot do that.", ("unparseable", 0.0), ("unparseable", 0.0)),
        (fenced(""), ("unparseable", 0.0), ("unparseable", 0.0)),
        (fenced("def f(x): return x"), ("partial", 0.25), ("partial", 0.25)),
        (fenced("def f(x): return 'no'"), ("wrong", 0.0), ("wrong", 0.0)),
        (fenced("def f(x: return x"), ("crashed", 0.0), ("crashed", 0.0)),
        (fenced("def f(x):\n  return '\0'"), ("crashed", 0.0), ("crashed", 0.0)),
        (fenced("import no_such_module"), ("crashed", 0.0), ("crashed", 0.0)),
        (fenced("def g(x): return x * 2"), ("crashed", 0.0), ("crashed", 0.0)),
        (fenced("f = 3"), ("crashed", 0.0), ("crashed", 0.0)),
        (fenced("import sys\nsys.exit(0)"), ("crashed", 0.0), ("crashed", 0.0)),
        (fenced("import sys\ndef f(x): sys.exit(0)"), ("wrong", 0.0), ("wrong", 0.0)),
        (fenced("class E(BaseException): 0\ndef f(x): raise E"), ("wrong", 0.0), ("wrong", 0.0)),
        (fenced("def f(x): return f(x)"), ("wrong", 0.0), ("wrong", 0.0)),
        (fenced("def f(x): return 4 // x"), ("partial", 0.25), ("partial", 0.25)),
        (fenced("def f(x): return int(input())"), ("wrong", 0.0), ("wrong", 0.0)),
        (fenced("def f(x): return float(x * 2)"), ("wrong", 0.0), ("wrong", 0.0)),
        (fenced(RIGHT + "\n#" + "x" * 20_000), ("refused", 0.0), ("refused", 0.0)),
    ],
)
def test_verdicts(judged, text, strict, lenient):
    problem = with_tests([[1], 2], [[2], 4], [[0], 0], [[-3], -6])
    if "//" in text:
        problem = with_tests([[1], 4], [[0], 0], [[0], 1], [[0], 2])
    assert judged(problem, text) == strict
    assert judged(problem, text, lenient=True) == lenient


@pytest.mark.parametrize(
    ("expected", "got", "equal"),
    [
        (1, True, False),
        (True, 1, False),
        (1, 1.0, False),
        (0.3, 0.1 + 0.2, True),
        (0.3, 0.31, False),
        ([1, 2], (1, 2), False),
        ([1, [2, "a"]], [1, [2, "a"]], True),
        ([1, 2], [1, 2, 3], False),
        ({"a": [1]}, {"a": [1]}, True),
        ({"a": 1}, {"a": True}, False),
        (None, None, True),
        ("a", "b", False),
    ],
)
def test_equality_is_of_exact_plain_types(expected, got, equal):
    assert same(expected, got) is equal


def test_an_object_that_equals_everything_passes_nothing(judged):
    source = "class A(int):\n    def __eq__(self, other): return True\ndef f(x): return A(7)"
    assert judged(DOUBLE, fenced(source)) == ("wrong", 0.0)
    source = source.replace("A(int)", "A").replace("A(7)", "A()")
    assert judged(DOUBLE, fenced(source)) == ("wrong", 0.0)


def test_code_that_changes_its_input_changes_neither_problem_nor_later_tests(judged):
    shared = [3, 1]
    problem = with_tests([[shared], [3, 1, 0]], [[shared], [3, 1, 0]])
    before = json.dumps(problem.checks)
    assert judged(problem, fenced("def f(x):\n    x.append(0)\n    return x")) == ("correct", 1.0)
    assert json.dumps(problem.checks) == before


def test_neither_layout_nor_a_docstring_splits_votes():
    described = fenced('def f(x):\n    """Double it."""\n    return x * 2')
    assert code.extract(described, False) == RIGHT
    assert code.extract(fenced('def f(x):\n    """Nothing."""'), False) == "def f(x):\n    pass"
    wide = fenced("def f( x ):\n        # twice\n        return (x*2)")
    assert code.extract(wide, False) == code.extract(fenced(RIGHT), False) == RIGHT
    assert code.extract(fenced("def f(x: 1"), False) == "def f(x: 1"
    assert code.extract(RIGHT, False) is None and code.extract(RIGHT, True) == RIGHT


@needs_samples
def test_humaneval_solutions_survive_extraction():
    table = rows("humaneval")
    assert table
    for row in table:
        source = row["prompt"] + row["canonical_solution"]
        for text, lenient in ((fenced(source), False), (f"<think>hm</think>{fenced(source)}", False)):
            extracted = code.extract(text, lenient)
            assert extracted is not None and f"def {row['entry_point']}(" in extracted, row["task_id"]
            compile(extracted, row["task_id"], "exec")
